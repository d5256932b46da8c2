"""Writing a picture, atomically, in the format of the file's suffix."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codeformer.errors import OutOfMemoryError, OutputError
from codeformer.files.atomic import reason, shown, write_atomic
from codeformer.images import exif as exif_blocks
from codeformer.images import formats
from codeformer.images.blend import mix
from codeformer.images.png import encode_png
from codeformer.images.profile import space_of
from codeformer.images.tiff import encode_tiff
from codeformer.images.value import Picture, to_uint8

_log = logging.getLogger("codeformer")


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
    if icc and space_of(icc) == "GRAY" and not one_channel:
        _log.warning("a grey picture got colours; its grey ICC profile is left out")
        icc = None
    if icc and space_of(icc) == "RGB ":
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
        return encode_tiff(pixels, icc, picture.exif)
    if pixels.dtype == np.uint16:
        return encode_png(pixels, icc, picture.exif)
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
    return np.rint(mix(top, rgb, cover)).astype(rgb.dtype)


def _check_size(kind: str, height: int, width: int) -> None:
    limit = {"JPEG": 65535, "WEBP": 16383}.get(kind)
    if limit and max(height, width) > limit:
        raise ValueError(f"{width}x{height} is more than the {limit} pixels a side that {kind} holds")
