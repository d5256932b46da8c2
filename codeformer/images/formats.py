"""Which file formats there are, by suffix and by their first bytes. Cheap to import."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.util import find_spec
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
# Further ones that are read; the names of those that Pillow does not open are ours.
_READ_ONLY = {
    ".gif": "GIF",
    ".mpo": "JPEG",
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    ".pfm": "PFM",
    **dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA"),
    ".psd": "PSD",
    ".dpx": "DPX",
    ".exr": "EXR",
}
# Camera raw files are known by their names: most are TIFF files inside, whose first page is a thumbnail.
RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".pef", ".srw", ".raf"}
    | {".3fr", ".iiq", ".x3f", ".erf", ".mrw", ".rwl"}
)
# The extra of this package, and the module that it installs, by the formats that need one.
# kind: the package to install, the module that it brings
_EXTRAS = {
    "HEIF": ("pillow-heif", "pillow_heif"),
    "AVIF": ("pillow-heif", "pillow_heif"),
    "JXL": ("pillow-jxl-plugin", "pillow_jxl"),
    "RAW": ("rawpy", "rawpy"),
}


def _installed(kind: str) -> bool:
    return find_spec(_EXTRAS[kind][1]) is not None


# What a folder scan takes as pictures: lower case, with the dot. What needs an extra that is not here is named instead.
SUFFIXES: frozenset[str] = (
    WRITABLE_SUFFIXES
    | frozenset(_READ_ONLY)
    | (RAW_SUFFIXES if _installed("RAW") else frozenset())
    | (frozenset({".jxl"}) if _installed("JXL") else frozenset())
)
KNOWN = "JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC, AVIF, JPEG 2000, PPM, TGA, PSD, DPX or EXR"
#: Formats that `codeformer.images.foreign` reads, as Pillow does not.
FOREIGN = frozenset({"RAW", "DPX", "EXR", "PFM"})

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # the two of BigTIFF
    (b"MM\0+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),
    (b"8BPS", "PSD"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"v/1\x01", "EXR"),
)
_PORTABLE = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s")
_PORTABLE_FLOAT = re.compile(rb"P[Ff]\s+\d+\s")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def suffix_says(suffix: str, kind: str) -> bool:
    """Whether a file of format ``kind`` may be called that; an unknown suffix says nothing wrong."""
    expected = {**FORMAT_OF_SUFFIX, **_READ_ONLY, ".jxl": "JXL"}.get(suffix.lower(), kind)
    return expected == kind or {expected, kind} == {"AVIF", "HEIF"}  # the two share a container and its suffixes


def sniff(head: bytes, suffix: str = "") -> str | None:
    """Return Pillow's name, or ours, of the format that a file's first bytes (a few dozen or more) announce, or None.

    ``suffix``: the file's ending, which alone tells camera raw and TGA.
    """
    if suffix.lower() in RAW_SUFFIXES and head:
        return "RAW"
    if head[4:8] == b"ftyp":
        end = max(16, int.from_bytes(head[:4], "big"))
        brands = {head[i : i + 4] for i in range(8, min(end, len(head)), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if _PORTABLE.match(head):
        return "PPM"
    if _PORTABLE_FLOAT.match(head):
        return "PFM"
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if found is None and _READ_ONLY.get(suffix.lower()) == "TGA" and len(head) > 18:
        plausible = head[1] in (0, 1) and head[2] in (1, 2, 3, 9, 10, 11) and head[16] in (8, 15, 16, 24, 32)
        return "TGA" if plausible else None
    return found


def what_else(head: bytes) -> str:
    """For a file that is not a picture by its first bytes (up to 4096): what it looks like, and the way out."""
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


def extra_for(suffix: str) -> str | None:
    """Return the command that installs what a file of this ending needs; None where nothing is missing."""
    kind = "RAW" if suffix.lower() in RAW_SUFFIXES else {".jxl": "JXL"}.get(suffix.lower())
    return None if kind is None or _installed(kind) else install_command(kind)


def install_command(kind: str) -> str:
    """Return the command that installs what ``kind`` needs."""
    return f"pip install {_EXTRAS[kind][0]}"


def available(kind: str) -> bool:
    """Whether this installation opens ``kind``: HEIC, JPEG XL, camera raw and, before Pillow 11.3, AVIF need extras."""
    from PIL import Image

    Image.init()
    if kind in Image.OPEN or kind in ("DPX", "EXR", "PFM"):
        return True
    try:
        module: Any = __import__(_EXTRAS[kind][1])
    except (ImportError, KeyError):
        return False
    if kind == "RAW":
        return True
    with suppress(AttributeError):  # newer versions of pillow-heif leave AVIF to Pillow; pillow-jxl has neither
        (module.register_heif_opener if kind == "HEIF" else module.register_avif_opener)()
    return kind in Image.OPEN
