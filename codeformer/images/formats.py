"""Which file formats there are, by suffix and by their first bytes. Cheap to import."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

# By suffix, Pillow's name of the format. `write_picture` takes these.
FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}
WRITABLE_SUFFIXES: frozenset[str] = frozenset(FORMAT_OF_SUFFIX)
# What a folder scan takes as pictures: lower case, with the dot.
SUFFIXES: frozenset[str] = WRITABLE_SUFFIXES | {".gif", ".mpo"}
# These are TIFF files inside, whose first page is a thumbnail: read as TIFF they would give the wrong picture.
RAW_SUFFIXES = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf"})
KNOWN = "JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC or AVIF"

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # the two of BigTIFF
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def suffix_says(suffix: str, kind: str) -> bool:
    """Whether a file of format ``kind`` may be called that; an unknown suffix says nothing wrong."""
    expected = "GIF" if suffix.lower() == ".gif" else FORMAT_OF_SUFFIX.get(suffix.lower(), kind)
    return expected == kind or {expected, kind} == {"AVIF", "HEIF"}  # the two share a container and its suffixes


def sniff(head: bytes) -> str | None:
    """Pillow's name of the format that a file's first bytes (a few dozen or more) announce, or None."""
    if head[4:8] == b"ftyp":
        end = max(16, int.from_bytes(head[:4], "big"))
        brands = {head[i : i + 4] for i in range(8, min(end, len(head)), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def what_else(head: bytes) -> str:
    """For a file that is no picture by its first bytes (up to 4096): what it looks like, and the way out."""
    if not head:
        return "the file is empty; copy or download it again"
    if not head.strip(b"\0"):
        return "the file holds nothing but zeros; copy or download it again"
    start = head.lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a picture; download the picture itself"
    if start.startswith((b"<svg", b"<?xml")):
        return "is a drawing or XML, not a photograph; export it as PNG first"
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"RIFF"):
        return "is a film or sound, not a picture; for a film use: codeformer video"
    if head.startswith((b"%PDF", b"%!PS")):
        return "is a document, not a picture; export the page as PNG first"
    if _is_text(head):
        return f"is text, not a picture; give a {KNOWN} file"
    return f"is not a picture of a known format; convert it to PNG or JPEG first (read are {KNOWN})"


def _is_text(head: bytes) -> bool:
    for cut in range(4) if len(head) > 4000 else [0]:  # the last letter may be cut in two
        with suppress(UnicodeDecodeError):
            return "".join(head[: len(head) - cut].decode("utf-8-sig").split()).isprintable()
    return False


def available(kind: str) -> bool:
    """Whether this installation opens ``kind``: HEIC, and AVIF before Pillow 11.3, need the package pillow-heif."""
    from PIL import Image

    Image.init()
    if kind in Image.OPEN:
        return True
    try:
        import pillow_heif
    except ImportError:
        return False
    opener: Any = pillow_heif
    with suppress(AttributeError):  # newer versions leave AVIF to Pillow
        (opener.register_heif_opener if kind == "HEIF" else opener.register_avif_opener)()
    return kind in Image.OPEN
