"""EXIF metadata as bytes: reset the orientation in place, carry what describes the picture from and into TIFF.

EXIF is a small TIFF file of its own (a header and linked tables of tags). It is patched in place instead of being
parsed and written anew, because maker notes hold offsets that only survive where nothing moves.
"""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image

ORIENTATION = 0x0112
_PREFIX = b"Exif\0\0"
_SUB_TABLES = (0x8769, 0x8825)  # the Exif and the GPS table
# What a TIFF says about the photograph, as opposed to how its own pixels are stored.
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


def without_prefix(exif: bytes) -> bytes:
    """The TIFF structure inside: JPEG's EXIF block begins with ``Exif\\0\\0``, the other formats' does not."""
    return exif.removeprefix(_PREFIX)


def with_prefix(exif: bytes) -> bytes:
    """The form that JPEG wants."""
    return _PREFIX + without_prefix(exif)


def upright(exif: bytes) -> bytes | None:
    """The same EXIF with orientation 1 and without its thumbnail; None if it is damaged.

    The thumbnail shows the picture as it was before restoration and before rotation; unlinking it is enough to make
    every reader draw a new one.
    """
    data = bytearray(without_prefix(exif))
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", data, entry)
            if tag == ORIENTATION:
                struct.pack_into(order + ("I" if kind == 4 else "H"), data, entry + 8, 1)
        end = start + 2 + 12 * count
        if end + 4 <= len(data):
            struct.pack_into(order + "I", data, end, 0)
    except struct.error:
        return None
    return bytes(data)


def from_tiff(image: Image.Image) -> bytes | None:
    """EXIF made of a TIFF file's descriptive tags and its Exif and GPS tables; None if it has none of them."""
    source = image.getexif()
    target = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in source:
            target[tag] = source[tag]
    for tag in _SUB_TABLES:
        table = source.get_ifd(tag)
        if table:
            target[tag] = dict(table)
    return without_prefix(target.tobytes()) if len(target) else None


def tiff_tags(exif: bytes) -> dict[int, Any]:
    """The tags to put into a TIFF file so that it says what ``exif`` says; sub-tables are dicts."""
    source = Image.Exif()
    source.load(exif)
    tags: dict[int, Any] = {tag: source[tag] for tag in _DESCRIPTIVE if tag in source}
    for tag in _SUB_TABLES:
        table = source.get_ifd(tag)
        if table:
            tags[tag] = dict(table)
    return tags
