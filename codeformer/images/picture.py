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

import io
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from codeformer.errors import InputError, OutOfMemoryError, OutputError
from codeformer.files.atomic import reason, shown, write_atomic
from codeformer.images import formats
from codeformer.images import metadata as exif_blocks
from codeformer.images import sixteen_bit as deep
from codeformer.images.formats import SUFFIXES, WRITABLE_SUFFIXES

_log = logging.getLogger("codeformer")
_pillow_limit_lock = threading.Lock()
_HUGE = 80_000_000  # pixels; below Pillow's own limit

__all__ = [
    "SUFFIXES",
    "WRITABLE_SUFFIXES",
    "Picture",
    "encode_picture",
    "read_picture",
    "replace_rgb",
    "to_uint8",
    "to_uint16",
    "write_atomic",
    "write_picture",
]


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
    name = shown(path)
    try:
        with _open(path, name) as file:
            return _read(file, path, name, max_pixels)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name}: not enough memory for a picture of this size; shrink it first") from error


def _open(path: Path, name: str) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            if not os.access(path, os.R_OK | os.X_OK):
                raise InputError(f"{name}: is a folder that may not be listed; check its permissions")
            raise InputError(f"{name}: is a folder, not a picture")
        if not stat.S_ISREG(mode):
            raise InputError(f"{name}: is not a regular file; save the picture into a file first")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read; check its permissions") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be opened ({reason(error)})") from error


def _read(file: BinaryIO, path: Path, name: str, max_pixels: int) -> Picture:
    head = file.read(4096)
    kind = formats.sniff(head)
    if kind is None:
        raise InputError(f"{name}: {formats.what_else(head)}")
    if path.suffix.lower() in formats.RAW_SUFFIXES:
        raise InputError(f"{name}: camera raw files are not read; export it as TIFF or JPEG first")
    if not formats.available(kind):
        raise InputError(f"{name}: {kind} needs an extra; install it with: pip install 'codeformer[heif]'")
    notes: list[str] = []
    if not formats.suffix_says(path.suffix, kind):
        notes.append(f"is really a {kind} file in spite of its name")
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
            notes.append(f"has {image.n_frames} frames or pages; only the first is used")  # type: ignore[attr-defined]
        rgb, alpha, grey, orientation = _pixels(file, image, kind, head, name, notes)
        exif = _exif(image, kind)
        icc = _icc(image, grey, notes)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: a damaged {kind} file or a rare kind of it; convert it to PNG first") from error
    except Exception as error:  # decoders raise anything at all on damaged files
        raise InputError(
            f"{name}: the {kind} file is damaged or cut off ({reason(error)}); copy or download it again"
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


@contextmanager
def _unlimited_pillow() -> Iterator[None]:
    """Pillow's own bomb check is a setting of the whole process; ours, ``max_pixels``, takes its place."""
    with _pillow_limit_lock:
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
            if tags.get(284, 1) == 2 and tags.get(277, 1) > 1:  # OpenCV would read another picture
                raise InputError(
                    f"{name}: 16-bit TIFF in separate planes is not read; save it with interleaved channels"
                )
            file.seek(0)
            return *deep.read_tiff(file.read(), image), tags.get(exif_blocks.ORIENTATION, 1)
    # Some formats check again here. The lock would make threads decode one after the other: only where needed.
    with _unlimited_pillow() if image.width * image.height > _HUGE else nullcontext():
        image.load()
    orientation = image.getexif().get(exif_blocks.ORIENTATION, 1)  # after load: Pillow itself turns some formats
    mode = image.mode
    if mode in ("CMYK", "LAB"):
        notes.append(f"its {mode} colours are converted to sRGB")
        return np.array(_to_srgb(image, name)), None, False, orientation
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise InputError(f"{name}: pixels of mode {mode} are not read; convert it to RGB first")
    if image.info.get("bit_depth", 8) > 8:
        notes.append(f"its {image.info['bit_depth']} bits a channel are read as 8")
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


def _icc(image: Image.Image, grey: bool, notes: list[str]) -> bytes | None:
    icc = image.info.get("icc_profile")
    if not icc or image.mode in ("CMYK", "LAB"):
        return None
    space = _icc_space(icc)
    if space == "RGB " or (space == "GRAY" and grey):
        return bytes(icc)
    notes.append("its ICC profile is damaged or for other colours; it is left out")
    return None


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
    name = shown(path)
    kind = formats.FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{name}: cannot write {path.suffix or 'a file without suffix'}; use .png, .jpg, .webp or .tif"
        )
    try:
        data = encode_picture(picture, kind, quality=quality)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name}: not enough memory to write a picture of this size") from error
    except Exception as error:  # encoders raise anything at all
        raise OutputError(f"{name}: cannot be written as {kind} ({reason(error)}); try .png") from error
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
    colours = rgb[..., :1] if one_channel else rgb
    pixels = np.ascontiguousarray(colours) if alpha is None else np.concatenate([colours, alpha[..., None]], axis=2)
    if kind == "TIFF":
        return deep.encode_tiff(pixels, icc, picture.exif)
    if pixels.dtype == np.uint16:
        return deep.encode_png(pixels, icc, picture.exif)
    _check_size(kind, *pixels.shape[:2])
    return _encode_with_pillow(pixels, kind, quality, icc, picture.exif)


def _encode_with_pillow(pixels: np.ndarray, kind: str, quality: int, icc: bytes | None, exif: bytes | None) -> bytes:
    if not formats.available(kind):
        raise ValueError("it needs an extra: pip install 'codeformer[heif]'")
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
