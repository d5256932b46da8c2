"""What a JPEG 2000 file says besides its pixels: its boxes, of which Pillow reads the size and the resolution alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

_XMP = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
_IPTC = UUID("33c7a4d2-b81d-4723-a0ba-f1a3e097ad38").bytes
_EXIF = (b"JpgTiffExif->JP2", UUID("0537cdab-9d0c-4431-a72a-fa561f2a113e").bytes)  # of ExifTool and of Photoshop
_MOST_BOXES = 10_000
_PROFILES = (b"\2", b"\3")  # ways of telling colours: an ICC profile of few kinds, of any kind


@dataclass(frozen=True)
class Blocks:
    """A file's ICC profile, EXIF, XMP and IPTC, as far as it has them."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None


def blocks_of(data: bytes) -> Blocks:
    """Return what the boxes of a JPEG 2000 file hold, as far as they are all there; a bare codestream has none."""
    icc = exif = xmp = iptc = None
    for kind, body in boxes_in(data):
        if kind == b"jp2h":
            colours = [inner for name, inner in boxes_in(body) if name == b"colr" and inner[:1] in _PROFILES]
            icc = icc or next((inner[3:] for inner in colours), None)
        elif kind == b"uuid":
            name, block = body[:16], body[16:]
            if name == _XMP:
                xmp = xmp or block
            elif name == _IPTC:
                iptc = iptc or block
            elif name in _EXIF:
                exif = exif or block
    return Blocks(icc, exif, xmp, iptc)


def boxes_in(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kinds and contents of the boxes that are all there; JPEG XL's containers have the same."""
    place = 0
    for _ in range(_MOST_BOXES):
        if place + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, place)
        start = place + 8
        if size == 1 and place + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, place + 8)
            start = place + 16
        end = len(data) if size == 0 else place + size
        if end < start or end > len(data):
            return
        yield kind, data[start:end]
        place = end
