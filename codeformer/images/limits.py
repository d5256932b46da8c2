"""How large a picture may be: by the memory of this machine, and by what its file can possibly hold."""

from __future__ import annotations

from typing import Any

from codeformer.environment import memory

# What `codeformer restore` takes for a picture without a face, in bytes for a pixel of the input: 16 for the input and
# 8 for each pixel of the output. Measured for 12500x8000 pixels in RGB, less the 0.45 GB that any run takes: 2.3 GB at
# --upscale 1 and 4.5 GB at --upscale 2.
_INPUT, _OUTPUT = 16, 8
_SHARE = 2 / 3  # of the memory: the rest is for the networks and for other programs
_MOST = 500_000_000  # pixels; no camera takes larger pictures

# No decoder makes more than so many bytes of one byte in the file. Deflate: its format's own bound. LZW: the table's
# longest strings. PackBits: 128 bytes of a run's two. Group 4: one bit stands for a whole row.
_DEFLATE, _LZW, _PACKBITS = 1032, 2000, 64
_TIFF_RATIO = {1: 1, 5: _LZW, 8: _DEFLATE, 32946: _DEFLATE, 32773: _PACKBITS}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def most_pixels(upscale: float = 1.0) -> int:
    """Return how many pixels a picture may have so that it and its result fit into the memory of this machine.

    Args:
        upscale: how much larger the result's sides are.
    """
    return min(_MOST, int(_SHARE * memory() / (_INPUT + _OUTPUT * max(1.0, upscale) ** 2)))


def least_bytes(kind: str, head: bytes, image: Any) -> int:
    """Return how many bytes a file must have at least so that it can hold the pixels that it announces.

    Args:
        kind: Pillow's name of the format; for others than PNG, TIFF and BMP nothing is known, and the answer is 0.
        head: the file's first bytes, 26 or more.
        image: the file, opened by Pillow and not decoded yet.
    """
    width, height = image.size
    if kind == "PNG" and len(head) >= 26:
        row = (width * head[24] * _PNG_CHANNELS.get(head[25], 1) + 7) // 8
        return int(height * row // _DEFLATE)
    if kind == "TIFF":
        tags = image.tag_v2
        compression = tags.get(259, 1)
        if compression == 4:
            return int(height // 8)
        bits = tags.get(258, (1,))
        row = (width * (sum(bits) if len(bits) > 1 else bits[0] * tags.get(277, 1)) + 7) // 8
        return int(height * row // _TIFF_RATIO[compression]) if compression in _TIFF_RATIO else 0
    if kind == "BMP" and image.info.get("compression") == 0 and head[14] >= 40:  # not OS/2's old header
        bits = int.from_bytes(head[28:30], "little")
        return int(height * (width * bits // 8))
    return 0
