"""Pictures as values: reading any common file into an array, and writing one atomically.

What a file carries besides its colours (alpha, ICC profile, EXIF, XMP, IPTC, texts, resolution, 16 bits a channel)
travels in `Picture` and is written again wherever the output's format can hold it; ``docs/pictures.md`` has the table.
What a format cannot hold is one warning of `write_picture`, or returned by the functions that end in ``_noting``, for
reports. The same picture gives the same bytes, always.
"""

from __future__ import annotations

from codeformer.files.atomic import write_atomic
from codeformer.images.formats import SUFFIXES, WRITABLE_SUFFIXES
from codeformer.images.reading import read_opened, read_picture
from codeformer.images.value import Picture, as_srgb, described_as, replace_rgb, to_uint8, to_uint16
from codeformer.images.writing import encode_picture, file_noting, warn_of, write_noting, write_picture

__all__ = [
    "SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Picture",
    "as_srgb",
    "described_as",
    "encode_picture",
    "file_noting",
    "read_opened",
    "read_picture",
    "replace_rgb",
    "to_uint8",
    "to_uint16",
    "warn_of",
    "write_atomic",
    "write_noting",
    "write_picture",
]
