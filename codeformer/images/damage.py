"""Damaged and cut off files: what can still be read of them, and how much that is.

A file is mended in memory, so that an ordinary decoder reads as far as the data go. Nothing here guesses pixels: rows
that are not there become grey.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from codeformer.arrays import Rgb
from codeformer.images import jpeg, partial
from codeformer.images.png import SIGNATURE, chunk, chunks_of, unpacked
from codeformer.images.tiff import mend_tiff

#: What every note about damage begins with.
NOTES = ("is damaged", "is cut off")
#: With less of its rows than this a file is refused.
LEAST = 0.25

_CHECKED_ANYWAY = 80_000  # bytes of compressed JPEG data that are checked without a reason: 0.01 to 0.03 s
_JUMP = 10  # levels between the rows above and below a seam, for half of the columns


@dataclass(frozen=True)
class MendedFile:
    """A file that a decoder reads to its end.

    Attributes:
        data: the file.
        rows: how many of ``height`` rows are there; None where only the pixels will tell.
        height: the picture's rows. Those that ``data`` does not hold are to be added below.
        width: the picture's columns, where some of them may be missing; else 0.
        sound: ``data`` holds the whole picture, but only these pixels, (top, bottom) and (left, right), are right; None
            for all that it holds.
        notes: further lines for the user.
    """

    data: bytes
    rows: int | None
    height: int
    width: int = 0
    sound: tuple[tuple[int, int], tuple[int, int]] | None = None
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """How much of the picture is there."""
        there, whole, _ = self._extent
        return 1.0 if there is None else min(1.0, there / max(1, whole))

    @property
    def note(self) -> str:
        """What the user is told."""
        there, whole, what = self._extent
        if there is None or there >= whole:
            return f"is damaged or cut off, but all its {what} are there"
        missing = whole - there
        return f"is damaged or cut off: of its {whole} {what}, {missing} ({missing / whole:.0%}) are missing"

    @property
    def _extent(self) -> tuple[int | None, int, str]:
        """How many of how many rows, or columns, are there."""
        if self.sound is not None and self.sound[1] != (0, self.width):
            return self.sound[1][1] - self.sound[1][0], self.width, "columns"
        return self.rows, self.height, "rows"


def mend(kind: str, data: bytes, max_pixels: int) -> MendedFile | None:
    """Return the file ``data`` of format ``kind`` as far as it goes; None if nothing can be made of it.

    Nothing is unpacked for a picture of more than ``max_pixels`` pixels.
    """
    try:
        if kind == "JPEG":
            return _mend_jpeg(data)
        if kind == "PNG":
            return _mend_png(data, max_pixels)
        if kind == "BMP":
            return _mend_bmp(data)
        if kind == "TIFF" and (found := mend_tiff(data, max_pixels)) is not None:
            return MendedFile(*found)
        if kind in partial.KINDS and (part := partial.completed(kind, data, max_pixels)) is not None:
            sound = part.rows, part.columns
            return MendedFile(part.data, part.rows[1] - part.rows[0], *part.size, sound, part.notes)
    except (struct.error, zlib.error, ValueError, IndexError, KeyError, ArithmeticError):
        return None
    return None


def in_grey(pixels: Rgb, alpha: np.ndarray | None, mended: MendedFile) -> tuple[Rgb, np.ndarray | None]:
    """Return the picture of a mended file (H, W, 3) and its alpha, with grey and opaque pixels for what is missing.

    Args:
        pixels: (rows, W, 3), as the decoder gave them.
        alpha: (rows, W).
        mended: the file.
    """
    top = int(np.iinfo(pixels.dtype).max)
    if mended.sound is not None:
        part = tuple(slice(*ends) for ends in mended.sound)
        grey = np.full_like(pixels, (top + 1) // 2)
        grey[part] = pixels[part]
        if alpha is not None:
            opaque = np.full_like(alpha, top)
            opaque[part] = alpha[part]
            alpha = opaque
        return grey, alpha
    more = mended.height - pixels.shape[0]
    if more <= 0:
        return pixels, alpha
    below = np.full((more, *pixels.shape[1:]), (top + 1) // 2, pixels.dtype)
    if alpha is not None:
        alpha = np.concatenate([alpha, np.full((more, alpha.shape[1]), top, alpha.dtype)])
    return np.concatenate([pixels, below]), alpha


# --- JPEG ----------------------------------------------------------------------------------------------------------


def _mend_jpeg(data: bytes) -> MendedFile | None:
    """Return the file with an end: of what is missing the decoder makes grey blocks, or leaves out detail."""
    layout = jpeg.layout_of(data)
    if layout.frame is None or not layout.scans or layout.end is not None:
        return None
    height = struct.unpack_from(">H", layout.frame.body, 1)[0]
    start = layout.scans[-1][0]
    filled = len(data) - len(data.rstrip(b"\0"))  # a download that was given its room before its content
    whole = data[: max(start, len(data) - filled)] if filled > 64 else data
    return MendedFile(whole.removesuffix(b"\xff") + b"\xff\xd9", None, height)


def jpeg_notes(rgb: Rgb, data: bytes, cut_off: bool) -> tuple[list[str], float]:
    """Return what to say of a decoded JPEG's damage, and how much of the picture is there.

    Args:
        rgb: (H, W, 3) uint8, as the decoder gave it, not turned.
        data: the file as it is.
        cut_off: whether it had to be mended.
    """
    height = rgb.shape[0]
    layout = jpeg.layout_of(data)
    if cut_off:
        first = height - _grey_rows(rgb)
        if first == height and (fault := jpeg.fault_in(data, layout)) is not None:
            first = fault.row
        if first < height:
            return [f"is cut off: {_rows(first, height)} missing or incomplete"], first / height
        if layout.progressive:
            return ["is cut off: its last scans are missing, so that it has less detail"], 1.0
        return ["is cut off: the end of the file is missing, but all its rows are there"], 1.0
    size = sum(end - start for start, end in layout.scans)
    seam = _seam(rgb)
    if seam is None and size > _CHECKED_ANYWAY:
        return [], 1.0
    if layout.progressive:
        return [], 1.0
    fault = jpeg.fault_in(data, layout)
    if fault is None:
        return [], 1.0
    first = fault.row if seam is None else min(fault.row, seam)
    return [f"is damaged: {_rows(first, height)} wrong, for the file's data make no sense there"], first / height


def _rows(first: int, height: int) -> str:
    return f"of its {height} rows, {height - first} ({(height - first) / height:.0%}, from row {first} on) are"


def _grey_rows(rgb: Rgb) -> int:
    """How many rows from the bottom up belong to bands of 8 that end in the grey that stands for missing blocks."""
    height = rgb.shape[0]
    blank = (rgb[:, -8:] == 128).all(axis=(1, 2))
    first = height
    for top in range((height - 1) // 8 * 8, -1, -8):
        # Where colours are stored at half the size, a band's outer rows are mixed with its neighbours
        if not blank[min(top + 1, height - 1) : min(top + 7, height)].all():
            break
        first = top
    return height - first


def _seam(rgb: Rgb) -> int | None:
    """Return the first row, of those at which blocks begin, where most columns jump as no edge in a photograph does."""
    height = rgb.shape[0]
    starts = np.arange(8, height - 1, 8)
    if starts.size == 0:
        return None
    green = rgb[:, :: max(1, rgb.shape[1] // 512), 1]
    jumps = [np.median(np.abs(green[starts + k].astype(np.int16) - green[starts + k - 1]), axis=1) for k in (-1, 0, 1)]
    steep = (jumps[1] >= _JUMP) & (jumps[1] >= 3 * np.maximum(jumps[0], jumps[2]))
    return int(starts[np.argmax(steep)]) if steep.any() else None


# --- PNG -----------------------------------------------------------------------------------------------------------

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _mend_png(data: bytes, max_pixels: int) -> MendedFile | None:
    """Return the rows that can be unpacked, in a file of their own; of interlaced ones whole passes."""
    head: list[tuple[bytes, bytes]] = []
    packed = []
    for kind, body in chunks_of(data, damaged=True):
        if kind == b"IDAT":
            packed.append(body)
        elif kind != b"IEND":
            head.append((kind, body))
    if not head or head[0][0] != b"IHDR" or not packed:
        return None
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head[0][1])
    if interlaced or not 0 < width * height <= max_pixels:
        return None
    stride = 1 + (width * bits * _CHANNELS[colour] + 7) // 8
    raw = unpacked(b"".join(packed), stride * height)
    rows = len(raw) // stride
    if rows == 0:
        return None
    head[0] = (b"IHDR", struct.pack(">I", width) + struct.pack(">I", rows) + head[0][1][8:])
    parts = [SIGNATURE, *(chunk(kind, body) for kind, body in head)]
    parts += [chunk(b"IDAT", zlib.compress(raw[: rows * stride], 1)), chunk(b"IEND", b"")]
    return MendedFile(b"".join(parts), rows, height)


# --- BMP -----------------------------------------------------------------------------------------------------------


def _mend_bmp(data: bytes) -> MendedFile | None:
    """Return the file with grey in place of what is missing; most of them begin with the lowest row."""
    offset, size, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    if size < 40 or packing not in (0, 3):
        return None
    stride = (width * bits + 31) // 32 * 4
    rows = (len(data) - offset) // stride
    if rows <= 0:
        return None
    fill = b"\x80" if bits > 8 else b"\0"
    return MendedFile(data + fill * (offset + stride * abs(height) - len(data)), rows, abs(height))
