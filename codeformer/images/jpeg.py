"""JPEG files as a sequence of segments, and whether a baseline file's compressed data are whole."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from codeformer.images.huffman import Block, sound_units

_EOI, _SOS, _DHT, _DQT, _DRI = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD
_BASELINE = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# In compressed data 0xFF stands for itself before 0x00, and before 0xD0 to 0xD7 for a restart
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
_REACH = 1024 * 1.25  # of a block's first number, dequantized: black and white are at 1024, and encoders overshoot
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


@dataclass(frozen=True)
class Segment:
    """One marker with its body; ``start`` is where the marker lies in the file."""

    marker: int
    start: int
    body: bytes


@dataclass(frozen=True)
class JpegLayout:
    """What a JPEG file consists of: its segments, its scans' compressed data as (start, end), and where it ends.

    ``end`` is the place after the end marker, or None where the file has none. What follows is another picture.
    """

    segments: tuple[Segment, ...]
    scans: tuple[tuple[int, int], ...]
    end: int | None

    @property
    def frame(self) -> Segment | None:
        """The segment that says how large the picture is and how it is coded."""
        return next((one for one in self.segments if one.marker in _FRAMES), None)

    @property
    def progressive(self) -> bool:
        """Whether the picture comes in several scans of growing detail."""
        return self.frame is not None and self.frame.marker == _PROGRESSIVE


def layout_of(data: bytes) -> JpegLayout:
    """Return the layout of a JPEG file, as far as it goes."""
    segments: list[Segment] = []
    scans: list[tuple[int, int]] = []
    position = 2
    while position + 4 <= len(data) + 2:
        if data[position : position + 1] != b"\xff":
            break
        marker = data[position + 1] if position + 1 < len(data) else 0
        if marker == 0xFF:  # filling
            position += 1
            continue
        if marker == _EOI:
            return JpegLayout(tuple(segments), tuple(scans), position + 2)
        if position + 4 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        after = position + 2 + length
        if length < 2 or after > len(data):
            break
        segments.append(Segment(marker, position, data[position + 4 : after]))
        position = after
        if marker == _SOS:
            found = _MARKER.search(data, position)
            scans.append((position, found.start() if found else len(data)))
            if found is None:
                break
            position = found.end() - 2
    return JpegLayout(tuple(segments), tuple(scans), None)


def with_segments(data: bytes, more: list[tuple[int, bytes]]) -> bytes:
    """Return the file with further segments (marker, body) behind those it begins with (JFIF and EXIF)."""
    place = 2
    for one in layout_of(data[:200_000]).segments:
        if one.marker not in (0xE0, 0xE1):
            break
        place = one.start + 4 + len(one.body)
    new = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in more)
    return data[:place] + new + data[place:]


# --- compressed data -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Where baseline data stop making sense: the first row of the unit in which that shows, or of the last unit."""

    row: int
    height: int


def fault_in(data: bytes, layout: JpegLayout) -> Fault | None:
    """Return where the Huffman codes of a baseline JPEG break; None if they are whole, or the file is of another kind.

    A wrong bit gives other codes from there on, which sooner or later are impossible: a code that no table has, a
    block of more than 64 numbers, a block whose mean is far blacker than black or whiter than white, or data that end
    before or after the last block. It takes 0.1 to 0.3 s for a megabyte, so ask only where the picture gives reason.
    """
    frame = layout.frame
    if frame is None or frame.marker not in _BASELINE or len(layout.scans) != 1:
        return None
    try:
        return _walk(data, layout, frame.body)
    except (struct.error, ValueError, IndexError, KeyError, ZeroDivisionError):  # headers that say what cannot be
        return None


def _walk(data: bytes, layout: JpegLayout, frame: bytes) -> Fault | None:
    _, height, width, count = struct.unpack_from(">BHHB", frame)
    sampling = {frame[6 + 3 * i]: divmod(frame[7 + 3 * i], 16) for i in range(count)}
    scan = next(one.body for one in layout.segments if one.marker == _SOS)
    restart = next((struct.unpack(">H", s.body[:2])[0] for s in layout.segments if s.marker == _DRI), 0)
    tables = _tables(layout)
    limits = _limits(layout)
    blocks: list[Block] = []
    for i in range(scan[0]):
        name = scan[1 + 2 * i]
        across, down = sampling[name] if scan[0] > 1 else (1, 1)
        first, others = divmod(scan[2 + 2 * i], 16)
        limit = limits[frame[6 + 3 * [frame[6 + 3 * c] for c in range(count)].index(name) + 2]]
        blocks += [Block(i, tables[first], tables[16 + others], limit)] * (across * down)
    most = [max(one[k] for one in sampling.values()) for k in (0, 1)] if scan[0] > 1 else [1, 1]
    columns, rows = -(-width // (8 * most[0])), -(-height // (8 * most[1]))
    total = columns * rows
    if not blocks or not total:
        return None
    start, end = layout.scans[0]
    parts = [part.replace(b"\xff\0", b"\xff") for part in _RESTART.split(data[start:end])]
    good, whole = sound_units(parts, blocks, restart, total)
    if whole and good == total:
        return None
    return Fault((good - 1 if whole else min(good, total - 1)) // columns * 8 * most[1], height)


def _limits(layout: JpegLayout) -> dict[int, int]:
    """By the quantization table's number, the largest first number of a block that a picture can have."""
    limits: dict[int, int] = {}
    for one in layout.segments:
        position = 0
        while one.marker == _DQT and position < len(one.body):
            wide, name = divmod(one.body[position], 16)
            step = struct.unpack_from(">H" if wide else ">B", one.body, position + 1)[0]
            limits[name] = int(_REACH / step) + 2
            position += 1 + 64 * (1 + wide)
    return limits


def _tables(layout: JpegLayout) -> dict[int, bytes]:
    """By class and number, the Huffman tables as they stand in the file: 16 bytes of counts, then the symbols."""
    tables: dict[int, bytes] = {}
    for one in layout.segments:
        position = 0
        while one.marker == _DHT and position + 17 <= len(one.body):
            after = position + 17 + sum(one.body[position + 1 : position + 17])
            tables[one.body[position]] = one.body[position + 1 : after]
            position = after
    return tables
