"""Pictures as values: reading any common file into an array, and writing one atomically.

What a file carries besides its colours (alpha, ICC profile, EXIF, 16 bits a channel) travels in `Picture` and is
written again wherever the output's format can hold it:

=====================  =====  ===========  ====  =======================================================
written as             alpha  16 bits      EXIF  note
=====================  =====  ===========  ====  =======================================================
PNG, TIFF              yes    yes          yes   lossless
WebP                   yes    no, rounded  yes   lossless at quality 100, at most 16383 pixels a side
AVIF, HEIC             yes    no, rounded  yes   HEIC needs the extra ``codeformer[heif]``
JPEG                   no     no, rounded  yes   4:4:4 from quality 90, at most 65535 pixels a side
BMP                    no     no, rounded  no    no ICC profile either
=====================  =====  ===========  ====  =======================================================

Alpha that a format cannot hold is flattened onto white. The same picture gives the same bytes, always.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from codeformer import deep
from codeformer import exif as exif_blocks
from codeformer.errors import InputError, OutOfMemoryError, OutputError

_log = logging.getLogger("codeformer")
_pillow_limit_lock = threading.Lock()

_READ_ONLY_SUFFIXES = frozenset({".gif"})
_FORMAT_OF_SUFFIX = {
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
# What `write_picture` takes, and what a folder scan takes as pictures (lower case, with the dot).
WRITABLE_SUFFIXES: frozenset[str] = frozenset(_FORMAT_OF_SUFFIX)
SUFFIXES: frozenset[str] = WRITABLE_SUFFIXES | _READ_ONLY_SUFFIXES
_RAW_SUFFIXES = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf"})
_KNOWN = "JPEG, PNG, WebP, BMP, TIFF, GIF, HEIC or AVIF"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what its file carries besides the colours.

    ``rgb`` is (H, W, 3) uint8 or uint16 in display order (EXIF orientation applied), in the colour space of ``icc``
    (sRGB where that is None). ``alpha`` is (H, W) of the same dtype, not premultiplied. ``exif`` begins with the TIFF
    header and says orientation 1. ``grey`` tells that the file had one colour channel. ``format`` is Pillow's name of
    the format the file really has. Raises ValueError for arrays of another shape or dtype.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    grey: bool = False
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"rgb must be (H, W, 3) uint8 or uint16, not {self.rgb.shape} {self.rgb.dtype}")
        if 0 in self.rgb.shape:
            raise ValueError("a picture has at least one pixel")
        if self.alpha is not None and (self.alpha.shape != self.rgb.shape[:2] or self.alpha.dtype != self.rgb.dtype):
            raise ValueError("alpha must have the height, width and dtype of rgb")


def replace_rgb(picture: Picture, rgb: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    """The picture with other colours, of any size and depth. Its own alpha is resized to fit if none is given."""
    if alpha is None and picture.alpha is not None:
        alpha = picture.alpha
        if alpha.shape != rgb.shape[:2]:
            shrinks = alpha.shape[0] > rgb.shape[0]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            alpha = cv2.resize(alpha, (rgb.shape[1], rgb.shape[0]), interpolation=method)
    if alpha is not None and alpha.dtype != rgb.dtype:
        alpha = to_uint16(alpha) if rgb.dtype == np.uint16 else to_uint8(alpha)
    return replace(picture, rgb=rgb, alpha=alpha)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 to uint8, rounded to nearest."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_uint16(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 to uint16; 255 becomes 65535."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


# --- reading -----------------------------------------------------------------------------------------------------


def read_picture(path: Path | str, *, max_pixels: int = 500_000_000) -> Picture:
    """Read a picture of any common format (recognised by its content); of an animation, the first frame.

    Raises InputError, whose one line names the file and the way out, for whatever cannot be read: missing, a folder,
    unreadable, empty, cut off, damaged, not a picture, more than ``max_pixels`` pixels, or without the extra it needs.
    """
    path = Path(path)
    name = _shown(path)
    try:
        with _open(path, name) as file:
            return _read(file, path, name, max_pixels)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name}: not enough memory for a picture of this size; shrink it first") from error


def _open(path: Path, name: str) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise InputError(f"{name}: is not a regular file; save the picture into a file first")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read; check its permissions") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be opened ({_reason(error)})") from error


def _read(file: BinaryIO, path: Path, name: str, max_pixels: int) -> Picture:
    head = file.read(4096)
    kind = _sniff(head)
    if kind is None:
        raise InputError(f"{name}: {_what_else(head)}")
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise InputError(f"{name}: camera raw files are not read; export it as TIFF or JPEG first")
    _need_opener(kind, name)
    notes: list[str] = []
    expected = "GIF" if path.suffix.lower() == ".gif" else _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if expected not in (None, kind) and {expected, kind} != {"AVIF", "HEIF"}:
        notes.append(f"{name}: is really a {kind} file; read as such")
    try:
        file.seek(0)
        with _unlimited_pillow():
            image = Image.open(file, formats=[kind])
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; shrink it first"
            )
        if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:  # a JPEG's further frames are previews, depth, gain
            notes.append(f"{name}: has {image.n_frames} frames or pages; only the first is used")  # type: ignore[attr-defined]
        rgb, alpha, grey, orientation = _pixels(file, image, kind, head, name, notes)
        exif = _exif(image, kind)
        icc = _icc(image, grey, name, notes)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: a damaged {kind} file or a rare kind of it; convert it to PNG first") from error
    except Exception as error:  # decoders raise anything at all on damaged files
        raise InputError(
            f"{name}: the {kind} file is damaged or cut off ({_reason(error)}); copy or download it again"
        ) from error
    return Picture(
        rgb=_oriented(rgb, orientation),
        alpha=None if alpha is None else _oriented(alpha, orientation),
        icc=icc,
        exif=exif,
        format=kind,
        grey=grey,
        path=path,
        warnings=tuple(notes),
    )


def _sniff(head: bytes) -> str | None:
    """Pillow's name of the format by the file's first bytes, or None."""
    if head[4:8] == b"ftyp":
        brands = head[8 : max(16, min(int.from_bytes(head[:4], "big"), len(head)))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIF" if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")) else None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for magic, kind in (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"GIF8", "GIF"),
    ):
        if head.startswith(magic):
            return kind
    return None


def _what_else(head: bytes) -> str:
    if not head:
        return "the file is empty; copy or download it again"
    if not head.strip(b"\0"):
        return "the file holds nothing but zeros; copy or download it again"
    start = head.lstrip()[:200].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a picture; download the picture itself"
    if start.startswith((b"<svg", b"<?xml")):
        return "is a drawing or XML, not a photograph; export it as PNG first"
    if head[4:8] == b"ftyp":
        return "is a film, not a picture; use: codeformer video"
    with suppress(UnicodeDecodeError):
        if head[:4000].decode("utf-8", "strict" if len(head) < 4000 else "ignore").replace("\n", "").isprintable():
            return f"is text, not a picture; give a {_KNOWN} file"
    return f"is not a picture of a known format; convert it to PNG or JPEG first (read are {_KNOWN})"


def _need_opener(kind: str, name: str) -> None:
    """Make Pillow able to open ``kind``; InputError naming the extra if that is missing."""
    Image.init()
    if kind in Image.OPEN:
        return
    try:
        import pillow_heif

        if kind == "HEIF":
            pillow_heif.register_heif_opener()
        else:
            opener: Any = pillow_heif  # only its older versions have this, and only older Pillows need it
            opener.register_avif_opener()
    except (ImportError, AttributeError) as error:
        raise InputError(f"{name}: {kind} needs an extra; install it with: pip install 'codeformer[heif]'") from error


@contextmanager
def _unlimited_pillow() -> Iterator[None]:
    """Pillow's own bomb check is a setting of the whole process; ours comes right after, by ``max_pixels``."""
    with _pillow_limit_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


_Pixels = tuple[np.ndarray, "np.ndarray | None", bool, int]


def _pixels(file: BinaryIO, image: Image.Image, kind: str, head: bytes, name: str, notes: list[str]) -> _Pixels:
    """RGB, alpha, grey, and the orientation that is still to be applied."""
    if kind == "PNG" and deep.png_is_deep(head):
        orientation = image.getexif().get(exif_blocks.ORIENTATION, 1)  # decodes it all, as the block may come last
        file.seek(0)
        return *deep.read_png(file.read()), orientation
    if kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if set(tags.get(339, (1,))) - {1, 4} or image.mode in ("I", "F"):
            raise InputError(f"{name}: floating-point and 32-bit TIFF are not read; convert it to 16 or 8 bits first")
        if set(tags.get(258, (1,))) == {16} and image.mode != "CMYK":
            file.seek(0)
            return *deep.read_tiff(file.read(), image), tags.get(exif_blocks.ORIENTATION, 1)
    with _unlimited_pillow():
        image.load()
    orientation = image.getexif().get(exif_blocks.ORIENTATION, 1)  # after load: Pillow itself turns some formats
    mode = image.mode
    if mode in ("CMYK", "LAB"):
        notes.append(f"{name}: {mode} colours are converted to sRGB")
        return np.array(_to_srgb(image, name)), None, False, orientation
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise InputError(f"{name}: pixels of mode {mode} are not read; convert it to RGB first")
    transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    pixels = np.array(image.convert("RGBA" if transparent else "RGB"))
    grey = mode in ("1", "L", "LA", "La")
    if transparent:
        rgb, alpha = np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
        return rgb, alpha, grey, orientation
    return pixels, None, grey, orientation


def _to_srgb(image: Image.Image, name: str) -> Image.Image:
    icc = image.info.get("icc_profile")
    if icc or image.mode == "LAB":
        with suppress(ImageCms.PyCMSError, OSError):
            source: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("LAB")
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    if image.mode == "LAB":
        raise InputError(f"{name}: LAB colours cannot be converted here; convert it to RGB first")
    return image.convert("RGB")


def _oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) as they are to be seen, by EXIF's orientation 1 to 8; anything else counts as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _exif(image: Image.Image, kind: str) -> bytes | None:
    """The EXIF block, upright; a damaged one is dropped, as every reader does."""
    if kind == "TIFF":
        with suppress(Exception):
            return exif_blocks.from_tiff(image)
        return None
    block = image.info.get("exif")
    return exif_blocks.upright(block) if isinstance(block, bytes) and block else None


def _icc(image: Image.Image, grey: bool, name: str, notes: list[str]) -> bytes | None:
    icc = image.info.get("icc_profile")
    if not icc or image.mode in ("CMYK", "LAB"):
        return None
    if _icc_space(icc) != ("GRAY" if grey else "RGB ") and not (grey and _icc_space(icc) == "RGB "):
        notes.append(f"{name}: its ICC profile is damaged or not for these colours; ignored")
        return None
    return bytes(icc)


def _icc_space(icc: bytes) -> str | None:
    """The colour space that a profile says it describes; None if it is no profile."""
    return icc[16:20].decode("latin-1") if len(icc) >= 128 and icc[36:40] == b"acsp" else None


# --- writing -----------------------------------------------------------------------------------------------------


def write_picture(picture: Picture, path: Path, *, quality: int = 95) -> None:
    """Write ``picture`` to ``path`` in the format of its suffix, atomically; folders on the way are made.

    ``quality`` (1 to 100) is for JPEG, WebP (100 is lossless), AVIF and HEIC. A grey picture whose three channels are
    still equal is written with one channel. Raises OutputError naming the path; the file is then as it was before.
    """
    path = Path(path)
    name = _shown(path)
    kind = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{name}: cannot write {path.suffix or 'a file without suffix'}; use .png, .jpg, .webp or .tif"
        )
    try:
        data = encode_picture(picture, kind, quality=quality)
    except (OSError, ValueError, KeyError, OverflowError, RuntimeError, cv2.error) as error:
        raise OutputError(f"{name}: cannot be written as {kind} ({_reason(error)}); try .png") from error
    write_atomic(path, data)


def encode_picture(picture: Picture, kind: str, *, quality: int = 95) -> bytes:
    """The bytes of a file of format ``kind`` (Pillow's name). Raises ValueError and others if that cannot hold it."""
    rgb, alpha = picture.rgb, picture.alpha
    one_channel = picture.grey and bool((rgb[..., :1] == rgb).all())
    icc = picture.icc
    if icc and _icc_space(icc) == "GRAY" and not one_channel:
        _log.warning("a grey picture got colours; its grey ICC profile is left out")
        icc = None
    if icc and _icc_space(icc) == "RGB ":
        one_channel = False  # a profile for three channels needs three
    if kind in ("JPEG", "BMP") and alpha is not None:
        rgb, alpha = _flattened(rgb, alpha), None
    if kind not in ("PNG", "TIFF"):
        rgb, alpha = to_uint8(rgb), None if alpha is None else to_uint8(alpha)
    if kind == "TIFF" and alpha is not None and rgb.dtype == np.uint16:
        one_channel = False  # 16-bit grey with alpha is a TIFF that hardly any program opens
    channels = [rgb[..., :1] if one_channel else rgb] + ([] if alpha is None else [alpha[..., None]])
    pixels = np.concatenate(channels, axis=2)
    if kind == "TIFF":
        return deep.encode_tiff(pixels, icc, picture.exif)
    if pixels.dtype == np.uint16:
        return deep.encode_png(pixels, icc, picture.exif)
    _check_size(kind, *pixels.shape[:2])
    return _encode_with_pillow(pixels, kind, quality, icc, picture.exif)


def _encode_with_pillow(pixels: np.ndarray, kind: str, quality: int, icc: bytes | None, exif: bytes | None) -> bytes:
    if kind in ("HEIF", "AVIF"):
        _need_opener(kind, "writing")
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif and kind == "JPEG" and len(exif) > 65000:
        _log.warning("the EXIF block is too long for a JPEG file; left out")
    elif exif and kind != "BMP":
        options["exif"] = exif_blocks.with_prefix(exif) if kind == "JPEG" else exif
    if kind == "PNG":
        options["compress_level"] = 4
    elif kind == "JPEG":
        options |= {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
    elif kind == "WEBP":
        options |= {"quality": quality, "lossless": quality >= 100, "exact": True}
    elif kind != "BMP":
        options["quality"] = quality
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if kind in ("WEBP", "AVIF", "HEIF") and image.mode in ("L", "LA"):
        image = image.convert("RGBA" if image.mode == "LA" else "RGB")
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _flattened(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The picture as it looks on white paper."""
    top = int(np.iinfo(rgb.dtype).max)
    cover = alpha[..., None].astype(np.float32) / top
    return np.rint(rgb * cover + top * (1 - cover)).astype(rgb.dtype)


def _check_size(kind: str, height: int, width: int) -> None:
    limit = {"JPEG": 65535, "WEBP": 16383}.get(kind)
    if limit and max(height, width) > limit:
        raise ValueError(f"{width}x{height} is more than the {limit} pixels a side that {kind} holds")


# --- files -------------------------------------------------------------------------------------------------------


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, a crash or a kill sees the old file or the new one, never a part.

    Raises OutputError naming the path; the temporary file is then gone. The name of the temporary file depends on
    ``path`` alone, so what a killed process left behind is taken over by the next one that writes the same path.
    """
    path = Path(path)
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _write_and_replace(target, data)
    except (OSError, ValueError) as error:
        raise OutputError(f"{_shown(path)}: cannot be written ({_reason(error)}){_way_out(error)}") from error


def _write_and_replace(target: Path, data: bytes) -> None:
    short = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]  # the name itself may be as long as names can be
    temporary, descriptor = _claim(target.parent, f".{short}")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.truncate()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(OSError, AttributeError):  # makes the new name last; not every system can
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _claim(folder: Path, stem: str) -> tuple[Path, int]:
    """A temporary file that no other writer uses: ``stem`` itself, or a unique one while somebody else holds that."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    unique = folder / f"{stem}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        import fcntl
    except ImportError:  # Windows
        return unique, os.open(unique, flags, 0o666)
    temporary = folder / f"{stem}.tmp"
    descriptor = os.open(temporary, flags, 0o666)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our open and our lock another writer may have renamed this very file into its place.
        if os.path.samestat(os.fstat(descriptor), temporary.stat()):
            return temporary, descriptor
    os.close(descriptor)
    return unique, os.open(unique, flags, 0o666)


def _shown(path: Path) -> str:
    """The path in one printable line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def _way_out(error: BaseException) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "; free some space or choose another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "; choose a folder that you may write to"
    if code == errno.ENAMETOOLONG:
        return "; choose a shorter name"
    return "; choose another path"
