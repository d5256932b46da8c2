"""The part of a cut off file whose decoder wants all of it: WebP, AVIF, HEIC, GIF, PPM, TGA, PFM, DPX.

What is missing is filled with bytes that mean nothing, several times with other ones. The pixels that come out the
same each time depend on what is there, and are the picture; the others are not. So nothing has to be known of how a
format codes its pixels, and no decoder has to tell how far it came.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from codeformer.arrays import Where
from codeformer.images import foreign
from codeformer.images.decoding import unlimited_pillow

# Bytes that mean nothing. Some of them are impossible at some places, and a decoder that sees that gives up.
_FILLINGS = (
    b"\x00",
    b"\x80",
    b"\x55",
    b"\xaa",
    b"\xff",
    b"\x01",
    b"\x13\x9c\xe5\x62\x0b",
    b"\x6d\xb2\x38\xc7\x91\x04\xfe",
)
_ENOUGH = 3  # pictures to compare: two may agree by chance
_BACK = (0.0, 0.01, 0.04, 0.08, 0.15)  # of the file is left out too, where no decoder goes on with fillings
_NEAR = 8  # pixels beside the last sure one: what smooths the edges of blocks may have changed them a little
_LOSSY = ("WEBP", "AVIF", "HEIF")
_MOST = 16  # times as many bytes as are there: with less of it no picture is left, and a header may announce anything


class Part(NamedTuple):
    """A file of the whole size, and which of its pixels are those of the picture: (top, bottom), (left, right)."""

    data: bytes
    rows: tuple[int, int]
    columns: tuple[int, int]
    size: tuple[int, int]  # height, width
    notes: tuple[str, ...] = ()


def completed(kind: str, data: bytes, max_pixels: int) -> Part | None:
    """Return a cut off file as a whole one; None if no decoder makes anything of it.

    Args:
        kind: Pillow's name of the format, or ours.
        data: the file.
        max_pixels: a picture of more pixels is not decoded.
    """
    notes: tuple[str, ...] = ()
    if kind == "GIF":
        return _completed_gif(data, max_pixels)
    if kind == "WEBP" and (first := _first_of_animation(data)) is not None:
        data, notes = first, ("is an animation; only its first frame is used",)
    size = _announced(kind, data)
    if size > _MOST * len(data):
        return None
    for start in (data, _without_alpha(data)) if kind in ("AVIF", "HEIF") else (data,):
        more = (*notes, *(() if start is data else ("its transparency is missing",)))
        for back in _BACK if kind in _LOSSY else (0.0,):
            part = _agreed(kind, start[: int(len(data) * (1 - back))], size, max_pixels)
            if part is not None:
                return part._replace(notes=more)
    return None


def _agreed(kind: str, data: bytes, size: int, max_pixels: int) -> Part | None:
    """Return the part on which several fillings agree; None if there are no two that can be decoded."""
    missing = size - len(data)
    decoded = list(_some(_decoded(kind, data, missing, max_pixels), _ENOUGH if missing > 0 else 1))
    if len(decoded) < min(2, _ENOUGH if missing > 0 else 1):
        return None
    whole, first = decoded[0]
    same = np.ones(first.shape[:2], bool)
    for _, other in decoded[1:]:
        if other.shape != first.shape:
            return None
        same &= (other == first).all(axis=2)
    rows, columns = _largest(same, _NEAR if kind in _LOSSY else 0)
    return Part(whole, rows, columns, first.shape[:2])


def _decoded(kind: str, data: bytes, missing: int, max_pixels: int) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the file with each filling that a decoder takes, and its pixels."""
    for filling in _FILLINGS if missing > 0 else _FILLINGS[:1]:
        whole = data + (filling * (missing // len(filling) + 1))[: max(0, missing)]
        try:
            yield whole, _pixels(kind, whole, max_pixels)
        except MemoryError:
            raise
        except Exception:  # decoders raise anything at all on damaged files
            continue


def _some(found: Iterator[tuple[bytes, np.ndarray]], most: int) -> Iterator[tuple[bytes, np.ndarray]]:
    for _, one in zip(range(most), found, strict=False):
        yield one


def _pixels(kind: str, data: bytes, max_pixels: int) -> np.ndarray:
    """Return a file's pixels, (H, W, channels), of any dtype."""
    if kind == "PFM":
        return foreign.read_pfm(data).rgb
    if kind == "DPX":
        foreign.check_size(*(foreign.size_of(kind, data) or (0, 0)), max_pixels)
        return foreign.read_by_ffmpeg(kind, data).rgb
    with unlimited_pillow():
        image = Image.open(io.BytesIO(data), formats=[kind])
    foreign.check_size(*image.size, max_pixels)
    image.load()
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _largest(same: Where, margin: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of the largest sound part that reaches over the whole picture in one direction.

    A picture that its file turns by 90 degrees loses columns, and one whose lowest row comes first its upper rows.
    """
    height, width = same.shape
    rows, columns = np.asarray(same.all(axis=1)), np.asarray(same.all(axis=0))
    above, below = _run(rows, margin), _run(rows[::-1], margin)
    left, right = _run(columns, margin), _run(columns[::-1], margin)
    parts = [
        ((0, above), (0, width)),
        ((height - below, height), (0, width)),
        ((0, height), (0, left)),
        ((0, height), (width - right, width)),
    ]
    return max(parts, key=lambda part: (part[0][1] - part[0][0]) * (part[1][1] - part[1][0]))


def _run(sound: Where, margin: int) -> int:
    """Return how many are sound from the start, less those near the first that is not."""
    return len(sound) if sound.all() else max(0, int(np.argmin(sound)) - margin)


# --- how long a file is meant to be --------------------------------------------------------------------------------


def _announced(kind: str, data: bytes) -> int:
    """Return how many bytes a file announces. Raises struct.error, ValueError."""
    return _LENGTHS[kind](data)


def _of_riff(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 4)[0]) + 8


def _of_boxes(data: bytes) -> int:
    place = 0
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, place + 8)
        if size < 8 or size > 1 << 40:  # to the end of the file, or nonsense
            return len(data)
        place += size
    return place


def _of_tga(data: bytes) -> int:
    colours, bits = struct.unpack_from("<H", data, 5)[0], data[7]
    width, height, depth = struct.unpack_from("<HHB", data, 12)
    packed = 1 if data[2] >= 9 else 0  # at worst a byte more for each pixel
    return int(
        18 + data[0] + (colours * ((bits + 7) // 8) if data[1] else 0) + width * height * (packed + (depth + 7) // 8)
    )


def _of_dpx(data: bytes) -> int:
    return int(struct.unpack_from(">I" if data[:4] == b"SDPX" else "<I", data, 16)[0])


_LENGTHS: dict[str, Callable[[bytes], int]] = {
    "WEBP": _of_riff,
    "AVIF": _of_boxes,
    "HEIF": _of_boxes,
    "PPM": foreign.length_of_portable,
    "PFM": foreign.length_of_portable,
    "TGA": _of_tga,
    "DPX": _of_dpx,
}

#: The formats of which a cut off file is completed.
KINDS = frozenset({*_LENGTHS, "GIF"})


# --- AVIF, HEIC, WebP ----------------------------------------------------------------------------------------------


def _without_alpha(data: bytes) -> bytes:
    """Return the file with the name of the link changed that ties transparency to the picture, if it has one."""
    return data.replace(b"auxl", b"skip", 1)


def _first_of_animation(data: bytes) -> bytes | None:
    """Return a file of the first frame of an animated WebP; None if it is none, or that frame is not the whole."""
    if data[12:16] != b"VP8X" or len(data) < 31 or not data[20] & 2:
        return None
    colours, place = b"", 30
    while place + 8 <= len(data):
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        if name == b"ICCP":
            colours = data[place : place + 8 + size + size % 2]
        elif name == b"ANMF":
            body = data[place + 8 : place + 8 + size]
            if any(body[:6]) or body[6:12] != data[24:30]:  # its corner, its size
                return None
            head = b"WEBPVP8X" + data[16:20] + bytes([data[20] & ~2]) + data[21:30]
            meant = len(head) + len(colours) + size - 16
            return b"RIFF" + struct.pack("<I", meant) + head + colours + body[16:]
        place += 8 + size + size % 2
    return None


# --- GIF -----------------------------------------------------------------------------------------------------------


def _completed_gif(data: bytes, max_pixels: int) -> Part | None:
    """Return the first frame with pixels of the first colour in place of what is missing."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    while data[place] == 0x21:  # extensions
        place += 2
        while data[place]:
            place += data[place] + 1
        place += 1
    left, top, across, down, flags = struct.unpack_from("<HHHHB", data, place + 1)
    if data[place] != 0x2C or (left, top, across, down) != (0, 0, width, height) or width * height > max_pixels:
        return None
    if flags & 64:  # interlaced: the rows that are missing lie between the others
        return None
    place += 10 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    bits, start = data[place], place + 1
    packed, place = b"", start
    while place < len(data) and data[place]:
        packed += data[place + 1 : place + 1 + data[place]]
        place += data[place] + 1
    count = _pixels_in(packed, bits, width * height)
    rows = min(height, count // width)
    packed += bytes(3 * (width * height - count) // 2 + 8)  # zeros: each code is a pixel, of 12 bits at most
    blocks = [packed[i : i + 255] for i in range(0, len(packed), 255)]
    whole = data[:start] + b"".join(bytes([len(one)]) + one for one in blocks) + b"\0;"
    return Part(whole, (0, rows), (0, width), (height, width))


def _pixels_in(packed: bytes, bits: int, most: int) -> int:
    """Return how many pixels the codes of a GIF's frame stand for: LZW, least bit first."""
    clear = 1 << bits
    lengths = [1] * clear + [0, 0]
    waiting = waiting_bits = total = 0
    width, before = bits + 1, -1
    for byte in packed:
        waiting |= byte << waiting_bits
        waiting_bits += 8
        while waiting_bits >= width:
            code = waiting & (1 << width) - 1
            waiting >>= width
            waiting_bits -= width
            if code == clear:
                del lengths[clear + 2 :]
                width, before = bits + 1, -1
                continue
            if code == clear + 1 or total >= most or code > len(lengths) - (before < 0):
                return min(total, most)
            length = lengths[code] if code < len(lengths) else lengths[before] + 1
            if before >= 0 and len(lengths) < 4096:
                lengths.append(lengths[before] + 1)
                width += len(lengths) == 1 << width and width < 12
            total += length
            before = code
    return min(total, most)
