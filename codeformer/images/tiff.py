"""TIFF files with 16 bits a channel, which Pillow reads and writes in grey only.

Reading is OpenCV's, after the orientation is taken out of the file. Writing is done here, so that the ICC profile and
the EXIF block travel along.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from codeformer.images import exif as exif_blocks
from codeformer.images.png import decode, decode_deep, split_deep, unpacked


def read_tiff(data: bytes, image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """As `read_png`, for a TIFF file that Pillow opened as ``image``. The orientation is not applied."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    pixels = _planes(data, cv2.IMREAD_UNCHANGED)
    rgb, alpha, grey = split_deep(decode_deep(_upright(data)) if pixels is None else pixels)
    if grey and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # 0 is white
        rgb = 65535 - rgb
    if alpha is not None and tags.get(TiffImagePlugin.EXTRASAMPLES, (0,))[0] == 1:  # colours were multiplied by alpha
        scale = 65535.0 / np.maximum(alpha, 1).astype(np.float64)
        rgb = np.clip(np.rint(rgb * scale[..., None]), 0, 65535).astype(np.uint16)
    return rgb, alpha, grey


def _planes(data: bytes, flags: int) -> np.ndarray | None:
    """Return the pixels as OpenCV orders them, of a file that keeps each channel by itself; None for any other file.

    OpenCV would read another picture; so each channel is read as a grey picture of its own.
    """
    table = table_of(data)
    (samples,) = table.numbers(_SAMPLES, (1,))[:1]
    if samples < 2 or table.numbers(_PLANAR, (1,))[0] != 2:
        return None
    names = (_OFFSETS, _COUNTS) if _OFFSETS in table.tags else (324, 325)  # strips or tiles
    offsets, counts = table.numbers(names[0]), table.numbers(names[1])
    each = len(offsets) // samples
    planes = []
    for plane in range(min(samples, 4)):
        part = slice(plane * each, (plane + 1) * each)
        changes = {names[0]: offsets[part], names[1]: counts[part], _SAMPLES: (1,), _PHOTOMETRIC: (1,), _PLANAR: (1,)}
        changes |= {tag: table.numbers(tag)[:1] for tag in (_BITS, 339) if tag in table.tags}
        kept = {tag: value for tag, value in table.tags.items() if tag not in (338, exif_blocks.ORIENTATION)}
        planes.append(decode(with_table(data, replace(table, tags=kept).with_numbers(changes)), flags))
    order = [0] if samples < 3 else [2, 1, 0, 3][: len(planes)]
    return np.stack([planes[i] for i in order], axis=-1)


def read_odd_tiff(data: bytes) -> tuple[np.ndarray, np.ndarray | None, bool, list[str]]:
    """As `read_tiff`, for floating point and 32 bits a channel, with lines for the user. The result has 16 bits.

    Raises:
        ValueError: it cannot be decoded.
    """
    pixels = _planes(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        pixels = decode(_upright(data), cv2.IMREAD_UNCHANGED)
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    most = float(values.max())
    if np.issubdtype(pixels.dtype, np.floating):
        top = next((one for one in (1.0, 255.0, 65535.0) if most <= one * 1.001), most)
        note = f"its floating point values are taken as brightness from 0 to {top:g}, coded as its profile says"
    else:
        top = 65535.0 if most <= 65535 else 2.0**32 - 1
        note = f"its 32-bit values are taken as brightness from 0 to {top:.0f}"
    deep = np.rint(np.clip(values / top, 0, 1) * 65535).astype(np.uint16)
    rgb, alpha, grey = split_deep(deep)
    if grey and table_of(data).numbers(_PHOTOMETRIC, (1,)) == (0,):  # 0 is white
        rgb = 65535 - rgb
    return rgb, alpha, grey, [note]


# --- the table of a TIFF file ------------------------------------------------------------------------------------

_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # of the types that hold whole numbers
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 277, 278, 279, 284


@dataclass(frozen=True)
class TagTable:
    """A file's first table of tags: each with its type and its values as bytes."""

    order: str  # "<" or ">"
    big: bool
    tags: dict[int, tuple[int, bytes]]

    def numbers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag."""
        if tag not in self.tags:
            return default
        kind, raw = self.tags[tag]
        return struct.unpack(f"{self.order}{len(raw) // _SIZES[kind]}{_FORMATS[kind]}", raw)

    def with_numbers(self, changes: dict[int, tuple[int, ...]]) -> TagTable:
        """Return the table with other values, stored as 64 or 32 bits."""
        kind, code = (16, "Q") if self.big else (4, "I")
        new = {tag: (kind, struct.pack(f"{self.order}{len(values)}{code}", *values)) for tag, values in changes.items()}
        return replace(self, tags={**self.tags, **new})


def table_of(data: bytes) -> TagTable:
    """Return the first table of a TIFF file. Raises ValueError if it is not all there."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        count_format, number, room = ("Q", "Q", 8) if big else ("H", "I", 4)
        (start,) = struct.unpack_from(order + number, data, 8 if big else 4)
        (count,) = struct.unpack_from(order + count_format, data, start)
        place = start + struct.calcsize(order + count_format)
        tags = {}
        for _ in range(count):
            tag, kind = struct.unpack_from(order + "HH", data, place)
            (values,) = struct.unpack_from(order + number, data, place + 4)
            size = _SIZES.get(kind, 1) * values
            at = place + 4 + room
            if size > room:
                (at,) = struct.unpack_from(order + number, data, at)
            if at + size > len(data):
                raise ValueError("the file is cut off")
            tags[tag] = (kind, data[at : at + size])
            place += 4 + 2 * room
    except struct.error as error:
        raise ValueError("the file is cut off") from error
    return TagTable(order, big, tags)


def with_table(data: bytes, table: TagTable) -> bytes:
    """Return the file with another first table, behind everything that it has. It is the only one then."""
    order, number, room = table.order, *(("Q", 8) if table.big else ("I", 4))
    data += b"\0" * (-len(data) % 8)
    start = len(data)
    entries, values = [], b""
    after = start + (8 if table.big else 2) + len(table.tags) * (4 + 2 * room) + room
    after += -after % 8
    for tag, (kind, raw) in sorted(table.tags.items()):
        head = struct.pack(order + "HH" + number, tag, kind, len(raw) // _SIZES.get(kind, 1))
        if len(raw) > room:
            entries.append(head + struct.pack(order + number, after + len(values)))
            values += raw + b"\0" * (-len(raw) % 8)
        else:
            entries.append(head + raw.ljust(room, b"\0"))
    body = struct.pack(order + ("Q" if table.big else "H"), len(entries)) + b"".join(entries) + bytes(room)
    first = struct.pack(order + number, start)
    place = 8 if table.big else 4
    return data[:place] + first + data[place + room : start] + body.ljust(after - start, b"\0") + values


def _upright(data: bytes) -> bytes:
    """Return the file with orientation 1 in its first table: OpenCV applies it in some versions and layouts only."""
    table = table_of(data)
    if table.numbers(exif_blocks.ORIENTATION, (1,)) == (1,):
        return data
    return with_table(data, table.with_numbers({exif_blocks.ORIENTATION: (1,)}))


def mend_tiff(data: bytes, max_pixels: int) -> tuple[bytes, int, int] | None:
    """Return a file of the rows that can be read, their number, and how many there were.

    None where that is none, or the picture has more than ``max_pixels`` pixels.

    Strips are taken as far as they are all there; of a deflated one, the rows that can be unpacked.
    """
    table = table_of(data)
    offsets, counts = table.numbers(_OFFSETS), table.numbers(_COUNTS)
    (height,), (width,) = table.numbers(_HEIGHT), table.numbers(_WIDTH)
    samples, bits = table.numbers(_SAMPLES, (1,))[0], table.numbers(_BITS, (1,))[0]
    if not 0 < width * height <= max_pixels:
        return None
    if not offsets or len(offsets) != len(counts) or (table.numbers(_PLANAR, (1,)) == (2,) and samples > 1):
        return None
    each = min(table.numbers(_ROWS, (height,))[0], height)
    deflated = table.numbers(_COMPRESSION, (1,))[0] in (8, 32946)
    plain = table.numbers(_COMPRESSION, (1,))[0] == 1
    stride = (width * samples * bits + 7) // 8
    rows, kept, extra = 0, 0, b""
    for offset, count in zip(offsets, counts, strict=True):
        wanted = min(each, height - rows)
        strip = data[offset : offset + count]
        if deflated:
            good = min(len(unpacked(strip, wanted * stride)) // stride, wanted)
        elif plain:
            good = min(len(strip) // stride, wanted)
        else:
            good = wanted if len(strip) == count else 0
        rows += good
        if good < wanted:
            if good and deflated:
                extra = zlib.compress(unpacked(strip, good * stride), 1)
            elif good:
                extra = strip[: good * stride]
            break
        kept += 1
    if rows == 0:
        return None
    end = len(data) + len(data) % 2
    places = offsets[:kept] + ((end,) if extra else ())
    sizes = counts[:kept] + ((len(extra),) if extra else ())
    changed = table.with_numbers({_HEIGHT: (rows,), _ROWS: (each,), _OFFSETS: places, _COUNTS: sizes})
    return with_table(data.ljust(end, b"\0") + extra, changed), rows, height


# --- writing -----------------------------------------------------------------------------------------------------


def encode_tiff(
    pixels: np.ndarray, icc: bytes | None, exif: bytes | None, extras: Mapping[int, tuple[int, Any]] | None = None
) -> bytes:
    """Return a TIFF file, deflated with differences.

    Args:
        pixels: (H, W, 1 to 4) uint8 or uint16: grey, grey and alpha, RGB, or RGBA.
        icc: an ICC profile.
        exif: an EXIF block, whose descriptive tags are taken over.
        extras: further tags, with their types and values.
    """
    height, width, channels = pixels.shape
    wide = pixels.astype(pixels.dtype.newbyteorder("<"))
    wide[:, 1:] -= wide[:, :-1].copy()
    strip = zlib.compress(wide.tobytes(), 4)
    table = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        for tag, value in exif_blocks.tiff_tags(exif).items():
            table[tag] = value
    for tag, (kind, value) in (extras or {}).items():
        table.tagtype[tag] = kind
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
