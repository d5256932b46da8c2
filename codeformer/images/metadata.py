"""What a file says of its picture besides EXIF and colours: XMP, IPTC, texts, resolution, further pictures.

Here it is taken out of a file that Pillow opened, made to fit the result, and put into the form each format wants.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from codeformer.images import exif as exif_blocks
from codeformer.images import jpeg
from codeformer.images.exif import Dpi
from codeformer.images.jpeg2000 import blocks_of, boxes_in
from codeformer.images.png import chunk
from codeformer.images.tiff import TagTable, table_of

Text = tuple[str, str]

_XMP_SIGNATURE = b"http://ns.adobe.com/xap/1.0/\0"
_LONG_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_XMP_KEYWORD = "XML:com.adobe.xmp"
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_RESOURCE, _XMP_RESOURCE, _RESOLUTION_RESOURCE = 0x0404, 0x0424, 0x03ED
_RAW = "Raw profile type "  # as ImageMagick and ExifTool keep blocks in PNG for which it has no place
_LONGEST_SEGMENT = 65533  # bytes of a JPEG segment's body
_APP1, _APP13, _COMMENT = 0xE1, 0xED, 0xFE
#: The texts of PNG that have a tag in EXIF.
_TAG_OF_KEYWORD = {
    "Description": exif_blocks.DESCRIPTION,
    "Title": exif_blocks.DESCRIPTION,
    "Comment": exif_blocks.DESCRIPTION,
    "Author": exif_blocks.ARTIST,
    "Copyright": exif_blocks.COPYRIGHT,
    "Software": exif_blocks.SOFTWARE,
}


@dataclass(frozen=True)
class Said:
    """What a file says of its picture. ``text`` holds pairs of keyword and text, ``dpi`` pixels per inch, x and y."""

    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[Text, ...] = ()
    dpi: Dpi | None = None
    notes: tuple[str, ...] = ()


def said_by(image: Image.Image, kind: str, file: BinaryIO | None, exif: bytes | None) -> Said:
    """Return what a file says that Pillow opened and decoded.

    Args:
        image: the file.
        kind: Pillow's name of the format.
        file: the same file again, open; None where the image is all there is.
        exif: its EXIF block.
    """
    info = image.info
    text: list[Text] = []
    iptc: bytes | None = None
    xmp = info.get("xmp") or info.get(_XMP_KEYWORD)
    notes: list[str] = []
    if kind == "JPEG" and file is not None:
        file.seek(0)
        xmp, iptc, text, notes = _in_jpeg(file.read())
    elif kind == "JPEG":
        iptc = info.get("photoshop", {}).get(_IPTC_RESOURCE)
    elif kind == "JPEG2000" and file is not None:
        file.seek(0)
        boxes = blocks_of(file.read())
        xmp, iptc = boxes.xmp, boxes.iptc
    elif kind == "JXL" and file is not None:
        file.seek(0)
        xmp = next((body for name, body in boxes_in(file.read()) if name == b"xml "), None)
    elif kind == "PSD":
        resources = photoshop_of(image)
        xmp, iptc = resources.get(_XMP_RESOURCE), resources.get(_IPTC_RESOURCE)
    elif kind == "PNG":
        for keyword, value in getattr(image, "text", {}).items():
            if keyword == _RAW + "iptc":
                iptc = _iptc_in(_from_raw(str(value)))
            elif keyword != _XMP_KEYWORD and not keyword.startswith(_RAW):
                text.append((str(keyword), str(value)))
    elif kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        xmp = xmp or tags.get(700)
        # From the file itself: some programs declare these bytes to be numbers
        if file is not None and (33723 in tags or 34377 in tags):
            file.seek(0)
            blocks = table_of(file.read()).tags
            iptc = _iptc_of_tiff(blocks)
        notes += _tags_left_out(tags)
    if (kind == "GIF" or (kind == "JPEG" and file is None)) and info.get("comment"):
        text.append(("Comment", _decoded(bytes(info["comment"]))))
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if kind == "HEIF" and (info.get("depth_images") or any("hdrgainmap" in str(one) for one in info.get("aux") or ())):
        notes.append("its depth or HDR gain map is left out: the result is the picture as it is seen without")
    if xmp is not None and (b"hdrgm:" in xmp or b"HDRGainMap" in xmp):
        notes.append("its HDR gain map is left out: the result is the picture as it is seen without HDR")
    return Said(bytes(xmp) if xmp else None, iptc, tuple(text), _dpi(image, kind, exif), tuple(notes))


def said_by_table(table: TagTable) -> Said:
    """Return what a TIFF file says that Pillow does not open, by its first table."""
    xmp = table.tags.get(700, (0, b""))[1]
    dpi: Any = None
    with suppress(struct.error, KeyError, ZeroDivisionError):
        scale = {2: 1.0, 3: 2.54}[table.numbers(296, (2,))[0]]
        pairs = [struct.unpack(f"{table.order}II", table.tags[tag][1]) for tag in (282, 283)]
        dpi = tuple(scale * above / below for above, below in pairs)
    notes = tuple(_tags_left_out(table.tags))
    return Said(xmp or None, _iptc_of_tiff(table.tags), (), dpi if _sound(dpi) else None, notes)


def _iptc_of_tiff(tags: Mapping[int, tuple[int, bytes]]) -> bytes | None:
    return _iptc_in(tags.get(33723, (0, b""))[1]) or _iptc_in(tags.get(34377, (0, b""))[1])


def _tags_left_out(tags: Iterable[int]) -> list[str]:
    names = exif_blocks.left_out(tags)
    return [f"its TIFF tags {names} are left out"] if names else []


def photoshop_of(image: Image.Image) -> dict[int, bytes]:
    """Return Photoshop's resources of a PSD file by their numbers."""
    return {number: data for number, _, data in image.resources}  # type: ignore[attr-defined]


def _in_jpeg(data: bytes) -> tuple[bytes | None, bytes | None, list[Text], list[str]]:
    xmp = iptc = None
    text: list[Text] = []
    notes: list[str] = []
    for one in jpeg.layout_of(data).segments:
        if one.marker == _APP1 and one.body.startswith(_XMP_SIGNATURE):
            xmp = xmp or one.body.removeprefix(_XMP_SIGNATURE)
        elif one.marker == _APP1 and one.body.startswith(_LONG_XMP) and not notes:
            notes.append("the part of its XMP that did not fit into one JPEG segment is left out")
        elif one.marker == _APP13 and one.body.startswith(_PHOTOSHOP):
            iptc = iptc or _iptc_in(one.body.removeprefix(_PHOTOSHOP))
        elif one.marker == _COMMENT and one.body.strip(b"\0 "):
            text.append(("Comment", _decoded(one.body.rstrip(b"\0"))))
    return xmp, iptc, text, notes


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _iptc_in(resources: bytes) -> bytes | None:
    """Return the IPTC record among Photoshop's resources; or the bytes themselves, where they are one."""
    if resources[:1] == b"\x1c":
        return resources
    place = 0
    while resources[place : place + 4] == b"8BIM" and place + 12 <= len(resources):
        (name,) = struct.unpack_from(">H", resources, place + 4)
        start = place + 6 + (resources[place + 6] + 2) // 2 * 2
        if start + 4 > len(resources):
            return None
        (size,) = struct.unpack_from(">I", resources, start)
        if name == _IPTC_RESOURCE:
            return resources[start + 4 : start + 4 + size] or None
        place = start + 4 + size + size % 2
    return None


def _as_resource(iptc: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def _from_raw(value: str) -> bytes:
    """Return a block that PNG holds as a name, a length and hexadecimal digits."""
    parts = value.split()
    try:
        return bytes.fromhex("".join(parts[2:]))
    except ValueError:
        return b""


def _dpi(image: Image.Image, kind: str, exif: bytes | None) -> Dpi | None:
    """Return the resolution that the file itself tells, else EXIF's. What Pillow adds by itself is not taken."""
    info = image.info
    found: Any = None
    if kind == "JPEG":
        density, unit = info.get("jfif_density"), info.get("jfif_unit")
        if density and unit in (1, 2):
            found = tuple(value * (2.54 if unit == 2 else 1.0) for value in density)
    elif kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        found = info.get("dpi") if 282 in tags and tags.get(296, 2) in (2, 3) else None
    elif kind == "PSD":
        block = photoshop_of(image).get(_RESOLUTION_RESOURCE, b"")
        if len(block) >= 16:
            x, _, _, y = struct.unpack_from(">IHHI", block)
            found = x / 65536, y / 65536
    elif kind in ("PNG", "BMP", "JPEG2000"):
        found = info.get("dpi")
    if not _sound(found) and exif is not None:
        found = exif_blocks.resolution(exif)
    return (float(found[0]), float(found[1])) if _sound(found) else None


def _sound(dpi: Any) -> bool:
    return dpi is not None and len(dpi) == 2 and all(math.isfinite(float(v)) and 1 <= float(v) <= 100_000 for v in dpi)


# --- making it fit -------------------------------------------------------------------------------------------------

_XMP_NUMBERS = (
    (rb"tiff:Orientation", "orientation"),
    (rb"(?:tiff:ImageWidth|exif:PixelXDimension)", "width"),
    (rb"(?:tiff:ImageLength|exif:PixelYDimension)", "height"),
)


def fitted_xmp(xmp: bytes, width: int, height: int, dpi: Dpi | None) -> bytes:
    """Return XMP that tells the picture's size, orientation and resolution as they are, where it tells them."""
    values = {"orientation": b"1", "width": str(width).encode(), "height": str(height).encode()}
    for name, what in _XMP_NUMBERS:
        xmp = re.sub(rb"(" + name + rb"\s*=\s*[\"']|<" + name + rb">\s*)\d+", rb"\g<1>" + values[what], xmp)
    if dpi is not None:
        for axis, value in zip((b"X", b"Y"), dpi, strict=True):
            name = b"tiff:" + axis + b"Resolution"
            said = str(round(value * 1000)).encode() + b"/1000"
            xmp = re.sub(rb"(" + name + rb"\s*=\s*[\"']|<" + name + rb">\s*)\d+(?:/\d+)?", rb"\g<1>" + said, xmp)
        unit = rb"(tiff:ResolutionUnit\s*=\s*[\"']|<tiff:ResolutionUnit>\s*)\d+"
        xmp = re.sub(unit, rb"\g<1>2", xmp)
    return xmp


def texts_as_tags(exif: bytes | None, text: Iterable[Text]) -> tuple[bytes | None, list[str]]:
    """Return EXIF with the texts for which it has a tag that says nothing yet, and the keywords of the others."""
    tags: dict[int, str] = {}
    left = []
    for keyword, value in text:
        tag = _TAG_OF_KEYWORD.get(keyword)
        if tag is None or tag in tags or exif_blocks.has_tag(exif, tag):
            left.append(keyword)
        else:
            tags[tag] = value
    return (exif_blocks.with_tags(exif, tags) if tags else exif), left


# --- putting it into files -----------------------------------------------------------------------------------------


def into_jpeg(data: bytes, said: Said) -> tuple[bytes, list[str]]:
    """Return a JPEG file that says this too, and what it cannot hold."""
    segments: list[tuple[int, bytes]] = []
    lost = []
    if said.xmp:
        segments.append((_APP1, _XMP_SIGNATURE + said.xmp))
    if said.iptc:
        segments.append((_APP13, _PHOTOSHOP + _as_resource(said.iptc)))
    for keyword, value in said.text:
        segments.append((_COMMENT, (value if keyword == "Comment" else f"{keyword}: {value}").encode()))
    for marker, body in list(segments):
        if len(body) > _LONGEST_SEGMENT:
            segments.remove((marker, body))
            lost.append({_APP1: "its XMP", _APP13: "its IPTC"}.get(marker, "a comment") + " of more than 64 kB")
    return (jpeg.with_segments(data, segments) if segments else data), lost


def into_png(data: bytes, said: Said, cicp: bytes | None = None) -> bytes:
    """Return a PNG file that says this too; ``cicp`` are code points of H.273 for its colours."""
    chunks = [chunk(b"cICP", cicp)] if cicp else []
    if said.dpi:
        x, y = (max(1, round(value / 0.0254)) for value in said.dpi)
        chunks.append(chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if said.xmp:
        chunks.append(chunk(b"iTXt", _XMP_KEYWORD.encode() + b"\0\0\0\0\0" + said.xmp))
    if said.iptc:
        digits = _as_resource(said.iptc).hex()
        lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
        value = f"\niptc\n{len(digits) // 2:8d}\n{lines}\n"
        chunks.append(chunk(b"zTXt", (_RAW + "iptc").encode() + b"\0\0" + zlib.compress(value.encode())))
    for keyword, value in said.text:
        name = " ".join(keyword.encode("latin-1", "replace").decode("latin-1").split())[:79] or "Comment"
        try:
            chunks.append(chunk(b"tEXt", name.encode("latin-1") + b"\0" + value.encode("latin-1")))
        except UnicodeEncodeError:
            chunks.append(chunk(b"iTXt", name.encode("latin-1") + b"\0\0\0\0\0" + value.encode()))
    return data[:33] + b"".join(chunks) + data[33:]  # behind the header


def tiff_extras(said: Said) -> dict[int, tuple[int, Any]]:
    """Return the TIFF tags, with their types, that say this."""
    extras: dict[int, tuple[int, Any]] = {}
    if said.dpi:
        extras |= {tag: (3 if tag == 296 else 5, value) for tag, value in exif_blocks.resolution_tags(said.dpi).items()}
    if said.xmp:
        extras[700] = (1, said.xmp)
    if said.iptc:
        extras[33723] = (7, said.iptc)
    return extras
