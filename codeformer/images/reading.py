"""Reading a picture of any common format, recognised by its content."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from codeformer.arrays import Rgb
from codeformer.errors import InputError, OutOfMemoryError
from codeformer.files.atomic import reason, shown
from codeformer.files.opening import open_regular
from codeformer.images import damage, formats
from codeformer.images import exif as exif_blocks
from codeformer.images.convert import from_cmyk_or_lab, from_tables
from codeformer.images.limits import least_bytes, most_pixels
from codeformer.images.metadata import said_by
from codeformer.images.png import png_is_deep, read_png
from codeformer.images.profile import described_by, space_of
from codeformer.images.space import colours_of_png
from codeformer.images.tiff import read_tiff
from codeformer.images.value import Picture

_pillow_limit_lock = threading.Lock()
_HUGE = 80_000_000  # pixels; below Pillow's own limit
_LARGEST_TEXT = 1 << 26  # bytes of a colour profile or a text inside a PNG file
_STRIP_PIXELS = 1 << 22  # converted at a time: bounds the memory beside the picture


def read_picture(path: Path | str, *, max_pixels: int | None = None) -> Picture:
    """Read a picture of any common format (recognised by its content); of an animation, the first frame.

    A damaged or cut off file is read as far as it goes, and the picture's warnings say how much is missing; missing
    rows are grey.

    Args:
        path: the file.
        max_pixels: the most pixels that it may have; None for what the memory of this machine holds.

    Raises:
        InputError: the file cannot be read: missing, a folder, unreadable, empty, not a picture, too many pixels,
            without the extra it needs, or so damaged that less than a quarter of it is left. The one line names the
            file and the way out.
        OutOfMemoryError: there is not enough memory for it.
    """
    path = Path(path)
    name = shown(path)
    try:
        with _open(path, name) as file:
            return _read(file, path, name, most_pixels() if max_pixels is None else max_pixels)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name}: not enough memory for a picture of this size; shrink it first") from error


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return open_regular(path)
    except IsADirectoryError as error:
        if not os.access(path, os.R_OK | os.X_OK):
            raise InputError(f"{name}: is a folder that may not be listed; check its permissions") from error
        raise InputError(f"{name}: is a folder, not a picture") from error
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except PermissionError as error:
        raise InputError(f"{name}: may not be read; check its permissions") from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.EINVAL:
            raise InputError(f"{name}: {reason(error)}; save the picture into a file first") from error
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
    try:
        return _decoded(file, path, name, kind, max_pixels)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything at all on damaged files
        file.seek(0)
        mended = damage.mend(kind, file.read(), max_pixels)
        if mended is None:
            raise _refusal(name, kind, error) from error
    _require_enough(mended.share, name, kind)
    try:
        return _decoded(io.BytesIO(mended.data), path, name, kind, max_pixels, mended)
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise _refusal(name, kind, error) from error


def _refusal(name: str, kind: str, error: Exception) -> InputError:
    if kind == "PNG" and "Decompressed data too large" in str(error):
        return InputError(
            f"{name}: holds a colour profile or a text of more than {_LARGEST_TEXT >> 20} MB; save it without"
        )
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{name}: a damaged {kind} file or a rare kind of it; convert it to PNG first")
    return InputError(f"{name}: the {kind} file is damaged or cut off ({reason(error)}); copy or download it again")


def _require_enough(share: float, name: str, kind: str) -> None:
    if share < damage.LEAST:
        raise InputError(
            f"{name}: the {kind} file is damaged or cut off, and only {share:.0%} of the picture can be read; "
            "copy or download it again"
        )


def _decoded(
    file: BinaryIO, path: Path, name: str, kind: str, max_pixels: int, mended: damage.Mended | None = None
) -> Picture:
    notes: list[str] = []
    if not formats.suffix_says(path.suffix, kind):
        notes.append(f"is really a {kind} file in spite of its name")
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    with _unlimited_pillow():
        image = Image.open(file, formats=[kind])
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; shrink it first, or raise "
            "--max_pixels if the memory suffices"
        )
    least = least_bytes(kind, head, image)
    if mended is None and os.fstat(file.fileno()).st_size < damage.LEAST * least:
        raise InputError(
            f"{name}: the {kind} file is cut off ({width}x{height} pixels need {least} bytes or more); copy or "
            "download it again"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        what = "pictures, as of a stereo camera or with a preview" if kind == "JPEG" else "frames or pages"
        notes.append(f"has {frames} {what}; only the first is used")
    rgb, alpha, grey, orientation = _pixels(file, image, kind, head, name, notes)
    if kind == "JPEG":
        file.seek(0)
        more, share = damage.jpeg_notes(rgb, file.read(), mended is not None)
        _require_enough(share, name, kind)
        notes += more
    elif mended is not None:
        rgb, alpha = damage.in_grey(rgb, alpha, mended.height)
        notes.append(mended.note)
    exif = _exif(image, kind)
    colours = _colours(image, file, kind, rgb, grey, notes)
    said = said_by(image, kind, file, exif)
    dpi = said.dpi[::-1] if said.dpi and orientation in (5, 6, 7, 8) else said.dpi
    return Picture(
        rgb=_oriented(colours.rgb, orientation),
        alpha=None if alpha is None else _oriented(alpha, orientation),
        icc=colours.icc,
        cicp=colours.cicp,
        exif=exif,
        format=kind,
        grey=grey,
        path=path,
        warnings=(*notes, *said.notes),
        xmp=said.xmp,
        iptc=said.iptc,
        text=said.text,
        dpi=dpi,
    )


@contextmanager
def _unlimited_pillow() -> Iterator[None]:
    """Pillow's own limits are settings of the whole process; ours take their place.

    ``max_pixels`` stands for its check of bombs. Its limit for texts, which also holds for PNG's colour profile, is
    1 MB, and large profiles have more.
    """
    with _pillow_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        text, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, _LARGEST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limit, text


_Pixels = tuple[np.ndarray, "np.ndarray | None", bool, int]


def _pixels(file: BinaryIO, image: Image.Image, kind: str, head: bytes, name: str, notes: list[str]) -> _Pixels:
    """RGB, alpha, grey, and the orientation that is still to be applied."""
    if kind == "PNG" and png_is_deep(head):
        orientation = image.getexif().get(exif_blocks.ORIENTATION, 1)  # decodes it all, as the block may come last
        file.seek(0)
        return *read_png(file.read()), orientation
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
            return *read_tiff(file.read(), image), tags.get(exif_blocks.ORIENTATION, 1)
    # Some formats check again here. The lock would make threads decode one after the other: only where needed.
    with _unlimited_pillow() if image.width * image.height > _HUGE else nullcontext():
        image.load()
    orientation = image.getexif().get(exif_blocks.ORIENTATION, 1)  # after load: Pillow itself turns some formats
    mode = image.mode
    if mode in ("CMYK", "LAB"):
        notes.append(f"its {mode} colours are converted to sRGB")
        return np.array(from_cmyk_or_lab(image, name)), None, False, orientation
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise InputError(f"{name}: pixels of mode {mode} are not read; convert it to RGB first")
    if image.info.get("bit_depth", 8) > 8:
        notes.append(f"its {image.info['bit_depth']} bits a channel are read as 8")
    transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    rgb, alpha = _in_strips(image, transparent)
    return rgb, alpha, mode in ("1", "L", "LA", "La"), orientation


def _in_strips(image: Image.Image, transparent: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB and, if it is ``transparent``, alpha: converted strip by strip, so that no second copy is ever whole."""
    width, height = image.size
    rgb = np.empty((height, width, 3), np.uint8)
    alpha = np.empty((height, width), np.uint8) if transparent else None
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        strip = np.asarray(image.crop((0, top, width, bottom)).convert("RGBA" if transparent else "RGB"))
        rgb[top:bottom] = strip[..., :3]
        if alpha is not None:
            alpha[top:bottom] = strip[..., 3]
    return rgb, alpha


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


class _Colours(NamedTuple):
    """A picture's pixels with what they mean: an ICC profile, or code points of H.273, or neither for sRGB."""

    rgb: Rgb
    icc: bytes | None = None
    cicp: bytes | None = None


def _colours(image: Image.Image, file: BinaryIO, kind: str, rgb: Rgb, grey: bool, notes: list[str]) -> _Colours:
    """What the file says of its colours; those of a profile with tables are converted to sRGB."""
    icc = image.info.get("icc_profile")
    if image.mode in ("CMYK", "LAB"):
        return _Colours(rgb)
    if kind == "PNG":
        file.seek(0)
        own, cicp = colours_of_png(file, grey=grey)
        if cicp is not None:
            notes.append("is an HDR picture; faces are seen and restored as bright as white at most")
            return _Colours(rgb, cicp=cicp)
        icc = own or icc
    if not icc:
        return _Colours(rgb)
    space = space_of(icc)
    if space == "GRAY" and grey:
        return _Colours(rgb, bytes(icc))
    if space == "RGB ":
        if described_by(icc) is not None:
            return _Colours(rgb, bytes(icc))
        converted = from_tables(rgb, icc)
        if converted is not None:
            notes.append("its colours, of an ICC profile with tables, are converted to sRGB")
            return _Colours(converted)
    notes.append("its ICC profile is damaged or for other colours; it is left out")
    return _Colours(rgb)
