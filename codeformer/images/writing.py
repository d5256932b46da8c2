"""Writing a picture, atomically, in the format of the file's suffix."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codeformer.errors import LossWarning, OutOfMemoryError, OutputError
from codeformer.files.atomic import reason, shown, write_atomic
from codeformer.images import exif as exif_blocks
from codeformer.images import formats, png
from codeformer.images.blend import mix
from codeformer.images.metadata import Said, fitted_xmp, into_jpeg, into_png, texts_as_tags, tiff_extras
from codeformer.images.profile import space_of
from codeformer.images.tiff import encode_tiff
from codeformer.images.value import Picture, as_srgb, to_uint8

_LONGEST_EXIF = 65000  # bytes: JPEG keeps it in one segment


_BITS_KEPT = ("PNG", "TIFF")
_NO_ALPHA = ("JPEG", "BMP")
_NO_GREY = ("WEBP", "AVIF", "HEIF")


def write_picture(
    picture: Picture, path: Path, *, quality: int = 95, png_level: int = 2, below: Path | None = None
) -> None:
    """Write ``picture`` to ``path`` in the format of its suffix, atomically; folders on the way are made.

    A grey picture whose three channels are still equal is written with one channel. What the format cannot hold is one
    warning: a :class:`~codeformer.errors.LossWarning`.

    Args:
        picture: the picture.
        path: the file; it may be there.
        quality: 1 to 100, for JPEG, WebP (100 is lossless), AVIF and HEIC.
        png_level: 0 to 9, for PNG: how hard it is compressed, always without loss.
        below: a folder that ``path`` lies in, and that no link on the way may lead out of; see `write_atomic`.

    Raises:
        OutputError: it cannot be written, naming the path; the file is then as it was before.
        OutOfMemoryError: there is not enough memory.
    """
    warn_of(write_noting(picture, path, quality=quality, png_level=png_level, below=below), Path(path))


def write_noting(
    picture: Picture, path: Path, *, quality: int = 95, png_level: int = 2, below: Path | None = None
) -> str:
    """Write ``picture`` as :func:`write_picture` does, and return what is lost as a line; ``""`` for nothing."""
    data, lost = file_noting(picture, Path(path), quality=quality, png_level=png_level)
    write_atomic(Path(path), data, below=below)
    return lost


def file_noting(picture: Picture, path: Path, *, quality: int = 95, png_level: int = 2) -> tuple[bytes, str]:
    """Return the bytes that :func:`write_picture` would put at ``path``, and what is lost; nothing is written.

    Returns:
        The file, and a line that says what its format cannot hold of the picture; ``""`` where it holds all.

    Raises:
        OutputError, OutOfMemoryError: as :func:`write_picture` does.
    """
    data, lost = _file_of(picture, path, quality, png_level)
    kind = formats.FORMAT_OF_SUFFIX[path.suffix.lower()]
    return data, f"{kind} cannot hold {_listed(lost)}; PNG can" if lost else ""


def _file_of(picture: Picture, path: Path, quality: int, png_level: int) -> tuple[bytes, list[str]]:
    """Return the file, and what it does not hold of the picture."""
    name = shown(path)
    kind = formats.FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"{name}: cannot write {path.suffix or 'a file without suffix'}; use .png, .jpg, .webp or .tif"
        )
    try:
        return _encoded(picture, kind, quality, png_level)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name}: not enough memory to write a picture of this size") from error
    except Exception as error:  # encoders raise anything at all
        raise OutputError(f"{name}: cannot be written as {kind} ({reason(error)}); try .png") from error


def warn_of(lost: str, path: Path) -> None:
    """Warn the caller's caller of what the file at ``path`` lacks; of nothing where ``lost`` is empty."""
    if lost:
        warnings.warn(LossWarning(shown(path), lost), stacklevel=3)


def encode_picture(picture: Picture, kind: str, *, quality: int = 95, png_level: int = 2) -> bytes:
    """Return the bytes of a file of format ``kind`` (Pillow's name).

    Raises:
        ValueError: the format cannot hold the picture; encoders raise others, too.
    """
    return _encoded(picture, kind, quality, png_level)[0]


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _encoded(picture: Picture, kind: str, quality: int, png_level: int) -> tuple[bytes, list[str]]:
    """Return the file, and what it does not hold of the picture."""
    lost: list[str] = []
    one_channel = picture.grey and kind not in _NO_GREY and bool((picture.rgb[..., :1] == picture.rgb).all())
    if kind == "TIFF" and picture.alpha is not None and picture.rgb.dtype == np.uint16:
        one_channel = False  # 16-bit grey with alpha is a TIFF that hardly any program opens
    if picture.cicp and kind != "PNG":
        picture = as_srgb(picture)
        lost.append("HDR colours (sRGB instead)")
    if picture.icc and (kind == "BMP" or (space_of(picture.icc) == "GRAY" and not one_channel)):
        if kind == "BMP" and picture.space is not None:
            lost.append("its ICC profile (converted to sRGB)")
        picture = as_srgb(picture)
    rgb, alpha, icc = picture.rgb, picture.alpha, picture.icc
    if icc and space_of(icc) == "RGB ":
        one_channel = False  # a profile for three channels needs three
    if kind in _NO_ALPHA and alpha is not None:
        if (alpha != np.iinfo(alpha.dtype).max).any():
            lost.append("transparency (white instead)")
        rgb, alpha = _flattened(rgb, alpha), None
    if kind not in _BITS_KEPT:
        if rgb.dtype == np.uint16:
            lost.append("16 bits a channel (8 instead)")
        rgb, alpha = to_uint8(rgb), None if alpha is None else to_uint8(alpha)
    colours = rgb[..., :1] if one_channel else rgb
    pixels = np.ascontiguousarray(colours) if alpha is None else np.concatenate([colours, alpha[..., None]], axis=2)
    exif, said, more = _said(picture, kind)
    lost += more
    if kind == "TIFF":
        return encode_tiff(pixels, icc, exif, tiff_extras(said)), lost
    if kind == "PNG" and (pixels.dtype == np.uint16 or png_level <= png.FAST):
        _check_size(kind, *pixels.shape[:2])
        return into_png(png.encode_png(pixels, icc, exif, png_level), said, picture.cicp), lost
    _check_size(kind, *pixels.shape[:2])
    data = _encode_with_pillow(pixels, kind, png_level if kind == "PNG" else quality, icc, exif, said)
    if kind == "PNG":
        data = into_png(data, said, picture.cicp)
    elif kind == "JPEG":
        data, more = into_jpeg(data, said)
        lost += more
    return data, lost


def _said(picture: Picture, kind: str) -> tuple[bytes | None, Said, list[str]]:
    """EXIF and the rest of what the file is to say, as the format can, and what it cannot."""
    lost: list[str] = []
    exif, dpi, text, iptc = picture.exif, picture.dpi, picture.text, picture.iptc
    if kind == "BMP":
        blocks = {"EXIF": exif, "XMP": picture.xmp, "IPTC": iptc, "texts": text}
        return None, Said(dpi=dpi), [f"its {name}" for name, block in blocks.items() if block]
    if kind not in ("PNG", "JPEG"):
        exif, left = texts_as_tags(exif, text)
        if left:
            lost.append(f"its texts ({', '.join(left)})")
        text = ()
    if kind in _NO_GREY:
        if dpi is not None and exif is None:
            exif = exif_blocks.with_tags(None, {})
        if iptc:
            lost.append("its IPTC")
        iptc = None
    exif, xmp = described(replace(picture, exif=exif))
    if kind == "TIFF" and exif is not None and (names := exif_blocks.left_out(exif_blocks.tags_of(exif))):
        lost.append(f"its EXIF tags {names}")
    if kind == "JPEG" and exif is not None and len(exif) > _LONGEST_EXIF:
        lost.append("its EXIF of more than 64 kB")
        exif = None
    return exif, Said(xmp, iptc, text, dpi), lost


def described(picture: Picture) -> tuple[bytes | None, bytes | None]:
    """Return a picture's EXIF and XMP, which tell its size and resolution as they are."""
    height, width = picture.rgb.shape[:2]
    exif = None if picture.exif is None else exif_blocks.fitted(picture.exif, width, height, picture.dpi)
    return exif, None if picture.xmp is None else fitted_xmp(picture.xmp, width, height, picture.dpi)


def _encode_with_pillow(
    pixels: np.ndarray, kind: str, quality: int, icc: bytes | None, exif: bytes | None, said: Said
) -> bytes:
    """Return the file; ``quality`` is the format's own measure of it, for PNG the level of compression."""
    if not formats.available(kind):
        raise ValueError(f"it needs a package that is not installed: {formats.install_command(kind)}")
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif:
        options["exif"] = exif_blocks.with_prefix(exif) if kind == "JPEG" else exif
    if said.dpi and kind in ("JPEG", "BMP"):
        options["dpi"] = tuple(min(65535, max(1, round(value))) for value in said.dpi)
    if said.xmp and kind in _NO_GREY:
        options["xmp"] = said.xmp
    if kind == "PNG":
        options["compress_level"] = quality
    elif kind == "JPEG":
        options |= {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
    elif kind == "WEBP":
        options |= {"quality": quality, "lossless": quality >= 100, "exact": True}
    elif kind != "BMP":
        options["quality"] = quality
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _flattened(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the picture as it looks on white paper."""
    top = int(np.iinfo(rgb.dtype).max)
    cover = alpha[..., None].astype(np.float32) / top
    return np.rint(mix(top, rgb, cover)).astype(rgb.dtype)


def _check_size(kind: str, height: int, width: int) -> None:
    limit = {"JPEG": 65535, "WEBP": 16383}.get(kind)
    if limit and max(height, width) > limit:
        raise ValueError(f"{width}x{height} is more than the {limit} pixels a side that {kind} holds")
