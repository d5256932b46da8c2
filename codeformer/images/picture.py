"""Pictures as values: reading any common file into an array, and writing one atomically.

What a file carries besides its colours (alpha, ICC profile, EXIF, 16 bits a channel) travels in `Picture` and is
written again wherever the output's format can hold it:

=====================  =====  ===========  ====  =======================================================
written as             alpha  16 bits      EXIF  note
=====================  =====  ===========  ====  =======================================================
PNG, TIFF              yes    yes          yes   lossless
WebP                   yes    no, rounded  yes   lossless at quality 100, at most 16383 pixels a side
AVIF, HEIC             yes    no, rounded  yes   HEIC needs the extra ``codeformer[heif]``
JPEG                   no     no, rounded  yes   4:4:4 from quality 90, at most 65535 pixels a side
BMP                    no     no, rounded  no    no ICC profile either
=====================  =====  ===========  ====  =======================================================

Alpha that a format cannot hold is flattened onto white. The same picture gives the same bytes, always.
"""

from __future__ import annotations

from codeformer.files.atomic import write_atomic
from codeformer.images.formats import SUFFIXES, WRITABLE_SUFFIXES
from codeformer.images.reading import read_picture
from codeformer.images.value import Picture, replace_rgb, to_uint8, to_uint16
from codeformer.images.writing import encode_picture, write_picture

__all__ = [
    "SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Picture",
    "encode_picture",
    "read_picture",
    "replace_rgb",
    "to_uint8",
    "to_uint16",
    "write_atomic",
    "write_picture",
]
