"""EXIF metadata as bytes: reset the orientation, tell the size, add tags; carry what describes a picture into TIFF.

EXIF is a small TIFF file of its own (a header and linked tables of tags). It is patched in place instead of being
parsed and written anew, because maker notes hold offsets that only survive where nothing moves. Where a tag is added,
a new first table is put behind everything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

from PIL import ExifTags, Image, TiffTags

Dpi = tuple[float, float]

ORIENTATION = 0x0112
DESCRIPTION, ARTIST, COPYRIGHT, SOFTWARE = 0x010E, 0x013B, 0x8298, 0x0131
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_PREFIX = b"Exif\0\0"
_EXIF_TABLE, _GPS_TABLE = 0x8769, 0x8825
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)  # in the first table, in the Exif table
_ASCII, _SHORT, _LONG, _RATIONAL = 2, 3, 4, 5
# What a TIFF says about the photograph, as opposed to how its own pixels are stored: description, maker, model,
# software, date, artist, copyright, computer, the two ratings, document and page name, hints for printers, and the five
# texts that Windows writes.
_DESCRIPTIVE = (
    *(DESCRIPTION, 0x010F, 0x0110, SOFTWARE, 0x0132, ARTIST, COPYRIGHT, 0x013C, 0x4746, 0x4749, 0x010D, 0x011D, 0xC4A5),
    *range(0x9C9B, 0x9CA0),
)
# How a file's own pixels are stored (TIFF 6.0 and its supplements), and what a result says in its own way: resolution,
# XMP, IPTC, Photoshop's resources, ICC profile, the Exif and the GPS table.
_STORAGE = {
    *(*range(0x00FE, 0x010B), 0x0111, 0x0112, *range(0x0115, 0x011D), *range(0x0120, 0x0126), 0x0128, 0x0129, 0x012D),
    *(0x013D, *range(0x013E, 0x0149), 0x014A, *range(0x014C, 0x014F), *range(0x0150, 0x015C), 0x015F),
    *(*range(0x0200, 0x020A), *range(0x0211, 0x0215), 0x022F, 0x02BC, *range(0x80E3, 0x80E7), 0x83BB, 0x8649, 0x8773),
    *(_EXIF_TABLE, _GPS_TABLE, 0xEA1C, 0xEA1D),  # the last two are Windows's padding
}
_NAMED = 5  # tags that a line names; of more it gives the number


class _Entry(NamedTuple):
    """One tag of a table: where it stands, and what it says."""

    place: int
    tag: int
    kind: int
    raw: bytes  # all twelve bytes


def without_prefix(exif: bytes) -> bytes:
    """Return the TIFF structure inside: JPEG's EXIF block begins with ``Exif`` and two zeros, others' does not."""
    return exif.removeprefix(_PREFIX)


def with_prefix(exif: bytes) -> bytes:
    """Return the form that JPEG wants."""
    return _PREFIX + without_prefix(exif)


def _order(data: bytes | bytearray) -> str:
    return {b"II": "<", b"MM": ">"}[bytes(data[:2])]


def _first_table(data: bytes | bytearray) -> int:
    return int(struct.unpack_from(_order(data) + "I", data, 4)[0])


def _entries(data: bytes | bytearray, start: int) -> Iterator[_Entry]:
    order = _order(data)
    (count,) = struct.unpack_from(order + "H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", data, place)
        yield _Entry(place, tag, kind, bytes(data[place : place + 12]))


def upright(exif: bytes) -> bytes | None:
    """Return the same EXIF with orientation 1 and without its thumbnail; None if it is damaged.

    The thumbnail shows the picture as it was before restoration and before rotation; unlinking it is enough to make
    every reader draw a new one.
    """
    data = bytearray(without_prefix(exif))
    try:
        order, start = _order(data), _first_table(data)
        entries = list(_entries(data, start))
        for one in entries:
            if one.tag == ORIENTATION:
                struct.pack_into(order + ("I" if one.kind == _LONG else "H"), data, one.place + 8, 1)
        end = start + 2 + 12 * len(entries)
        if end + 4 <= len(data):
            struct.pack_into(order + "I", data, end, 0)
    except (struct.error, KeyError):
        return None
    return bytes(data)


def fitted(exif: bytes, width: int, height: int, dpi: Dpi | None) -> bytes:
    """Return EXIF that tells this size in pixels, where it tells any, and this resolution."""
    data = bytearray(exif)
    with suppress(struct.error, KeyError):
        order = _order(data)
        tables = [_first_table(data)]
        tables += [
            struct.unpack(order + "I", one.raw[8:])[0] for one in _entries(data, tables[0]) if one.tag == _EXIF_TABLE
        ]
        for start in tables:
            for one in _entries(data, start):
                if one.tag in (*_WIDTHS, *_HEIGHTS) and one.kind in (_SHORT, _LONG):
                    value = width if one.tag in _WIDTHS else height
                    code = "I" if one.kind == _LONG else "H"
                    struct.pack_into(order + code, data, one.place + 8, value if code == "I" else min(value, 65535))
    told = bytes(data)
    if dpi is None or _same(resolution(told), dpi):
        return told
    return with_tags(told, resolution_tags(dpi))


def resolution(exif: bytes) -> Dpi | None:
    """Return the pixels per inch that EXIF tells, x and y."""
    try:
        order = _order(exif)
        found = {one.tag: one for one in _entries(exif, _first_table(exif))}
        unit = struct.unpack(order + "H", found[RESOLUTION_UNIT].raw[8:10])[0] if RESOLUTION_UNIT in found else 2
        scale = {2: 1.0, 3: 2.54}[unit]
        values = []
        for tag in (X_RESOLUTION, Y_RESOLUTION):
            (place,) = struct.unpack(order + "I", found[tag].raw[8:])
            above, below = struct.unpack_from(order + "II", exif, place)
            values.append(scale * above / below)
    except (struct.error, KeyError, ZeroDivisionError):
        return None
    return values[0], values[1]


def _same(one: Dpi | None, other: Dpi) -> bool:
    return one is not None and all(abs(a - b) < 0.01 for a, b in zip(one, other, strict=True))


def resolution_tags(dpi: Dpi) -> dict[int, Any]:
    """Return the three tags that tell a resolution."""
    x, y = (Fraction(value).limit_denominator(1000) for value in dpi)
    return {X_RESOLUTION: x, Y_RESOLUTION: y, RESOLUTION_UNIT: 2}


def with_tags(exif: bytes | None, tags: Mapping[int, Any]) -> bytes:
    """Return EXIF whose first table has these tags too: texts, whole numbers (16 bits), fractions.

    Nothing that was there moves but the first table. Damaged EXIF is replaced.
    """
    data = exif or b"II*\0\x08\0\0\0\0\0\0\0\0\0"
    try:
        order, start = _order(data), _first_table(data)
        kept = {one.tag: one.raw for one in _entries(data, start) if one.tag not in tags}
    except (struct.error, KeyError):
        return with_tags(None, tags)
    data += b"\0" * (len(data) % 2)
    table = len(data)
    after = table + 2 + 12 * (len(kept) + len(tags)) + 4
    values = b""
    for tag, value in tags.items():
        if isinstance(value, str):
            kind, raw = _ASCII, value.encode() + b"\0"
        elif isinstance(value, Fraction):
            kind, raw = _RATIONAL, struct.pack(order + "II", value.numerator, value.denominator)
        else:
            kind, raw = _SHORT, struct.pack(order + "H", value)
        count = {_ASCII: len(raw)}.get(kind, 1)
        if len(raw) > 4:
            kept[tag] = struct.pack(order + "HHII", tag, kind, count, after + len(values))
            values += raw + b"\0" * (len(raw) % 2)
        else:
            kept[tag] = struct.pack(order + "HHI", tag, kind, count) + raw.ljust(4, b"\0")
    body = struct.pack(order + "H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept)) + bytes(4)
    return data[:4] + struct.pack(order + "I", table) + data[8:] + body + values


def has_tag(exif: bytes | None, tag: int) -> bool:
    """Whether the first table has a tag."""
    return exif is not None and tag in tags_of(exif)


def tags_of(exif: bytes) -> list[int]:
    """Return the tags of the first table; those before the damage where it is damaged."""
    tags: list[int] = []
    with suppress(struct.error, KeyError):
        tags.extend(one.tag for one in _entries(exif, _first_table(exif)))
    return tags


def left_out(tags: Iterable[int]) -> str:
    """Return the names of those tags that are not carried out of, or into, a TIFF file; "" if all are.

    The others say something about the photograph, or how the pixels of one file are stored.
    """
    names = []
    for tag in sorted(set(tags) - _STORAGE - set(_DESCRIPTIVE)):
        known = TiffTags.lookup(tag).name
        names.append(ExifTags.TAGS.get(tag, str(tag)) if known == "unknown" else known)
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def from_tiff(image: Image.Image) -> bytes | None:
    """Return EXIF made of a TIFF file's descriptive tags and its Exif and GPS tables; None if it has none of them."""
    return _descriptive(image.getexif())


def from_tiff_data(data: bytes) -> bytes | None:
    """As `from_tiff`, for the bytes of a file that Pillow does not open as a picture."""
    source = Image.Exif()
    source.load(data)
    return _descriptive(source)


def _descriptive(source: Image.Exif) -> bytes | None:
    target = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in source:
            target[tag] = source[tag]
    for tag in (_EXIF_TABLE, _GPS_TABLE):
        table = source.get_ifd(tag)
        if table:
            target[tag] = dict(table)
    return without_prefix(target.tobytes()) if len(target) else None


def tiff_tags(exif: bytes) -> dict[int, Any]:
    """Return the tags to put into a TIFF file so that it says what ``exif`` says; sub-tables are dicts."""
    source = Image.Exif()
    source.load(exif)
    tags: dict[int, Any] = {tag: source[tag] for tag in _DESCRIPTIVE if tag in source}
    for tag in (_EXIF_TABLE, _GPS_TABLE):
        table = source.get_ifd(tag)
        if table:
            tags[tag] = dict(table)
    return tags
