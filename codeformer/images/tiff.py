"""TIFF files with 16 bits a channel, which Pillow reads and writes in grey only.

Reading is OpenCV's, after the orientation is taken out of the file. Writing is done here, so that the ICC profile and
the EXIF block travel along.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from codeformer.images import exif as exif_blocks
from codeformer.images.png import decode_deep, split_deep


def read_tiff(data: bytes, image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """As `read_png`, for a TIFF file that Pillow opened as ``image``. The orientation is not applied."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    rgb, alpha, grey = split_deep(decode_deep(_tiff_upright(data)))
    if grey and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # 0 is white
        rgb = 65535 - rgb
    if alpha is not None and tags.get(TiffImagePlugin.EXTRASAMPLES, (0,))[0] == 1:  # colours were multiplied by alpha
        scale = 65535.0 / np.maximum(alpha, 1).astype(np.float64)
        rgb = np.clip(np.rint(rgb * scale[..., None]), 0, 65535).astype(np.uint16)
    return rgb, alpha, grey


def _tiff_upright(data: bytes) -> bytes:
    """The file with its first page's orientation tag set to 1: OpenCV applies it in some versions and layouts only."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count_format, entry_size, value_at = ("Q", 20, 12) if big else ("H", 12, 8)
    patched = bytearray(data)
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + count_format, data, start)
        first = start + struct.calcsize(order + count_format)
        for entry in range(first, first + entry_size * count, entry_size):
            if struct.unpack_from(order + "H", data, entry)[0] == exif_blocks.ORIENTATION:
                struct.pack_into(order + "H", patched, entry + value_at, 1)
    except struct.error as error:
        raise ValueError("the file is cut off") from error
    return bytes(patched)


def encode_tiff(pixels: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """``pixels`` (H, W, 1 to 4) uint8 or uint16: grey, grey and alpha, RGB, or RGBA. Deflate with differences."""
    height, width, channels = pixels.shape
    wide = pixels.astype(pixels.dtype.newbyteorder("<"))
    wide[:, 1:] -= wide[:, :-1].copy()
    strip = zlib.compress(wide.tobytes(), 4)
    table = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        for tag, value in exif_blocks.tiff_tags(exif).items():
            table[tag] = value
    table[TiffImagePlugin.IMAGEWIDTH] = width
    table[TiffImagePlugin.IMAGELENGTH] = height
    table[TiffImagePlugin.BITSPERSAMPLE] = (8 * pixels.dtype.itemsize,) * channels
    table[TiffImagePlugin.COMPRESSION] = 8
    table[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 2 if channels > 2 else 1
    table[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    table[TiffImagePlugin.ROWSPERSTRIP] = height
    table[TiffImagePlugin.STRIPBYTECOUNTS] = len(strip)
    table[TiffImagePlugin.STRIPOFFSETS] = 0  # put right by save(): the strip follows the table
    table[TiffImagePlugin.PLANAR_CONFIGURATION] = 1
    table[TiffImagePlugin.PREDICTOR] = 2
    if channels in (2, 4):
        table[TiffImagePlugin.EXTRASAMPLES] = 2
    if icc:
        table.tagtype[TiffImagePlugin.ICCPROFILE] = 7
        table[TiffImagePlugin.ICCPROFILE] = icc
    out = io.BytesIO()
    table.save(out)
    out.write(strip)
    return out.getvalue()
