"""What an AVIF or HEIC file says of its colours and depth in boxes that Pillow leaves out."""

from __future__ import annotations

_COLOURS = b"colrnclx"
_CONFIGURATION = b"av1C"


def code_of(data: bytes) -> bytes | None:
    """Return the four code points of H.273 that the file's first picture names; None where it names none."""
    place = data.find(_COLOURS) + len(_COLOURS)
    body = data[place : place + 7]
    if place < len(_COLOURS) or len(body) < 7:
        return None
    return bytes([body[1], body[3], body[5], body[6] >> 7])  # numbers of 16 bits, all below 256


def bits_of_avif(data: bytes) -> int:
    """Return the bits a channel of an AVIF file's first picture; 8 where it does not say."""
    place = data.find(_CONFIGURATION) + len(_CONFIGURATION)
    if place < len(_CONFIGURATION) or place + 2 >= len(data) or not data[place + 2] & 0x40:
        return 8
    return 12 if data[place + 2] & 0x20 else 10
