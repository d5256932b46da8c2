"""Reading a picture of any common format, recognised by its content."""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from codeformer.arrays import Rgb
from codeformer.errors import InputError, OutOfMemoryError
from codeformer.files.atomic import reason, shown
from codeformer.files.opening import open_regular
from codeformer.images import damage, foreign, formats
from codeformer.images import exif as exif_blocks
from codeformer.images.convert import from_tables
from codeformer.images.decoding import LARGEST_TEXT, decoded_pixels, unlimited_pillow
from codeformer.images.exif import Dpi
from codeformer.images.heif import bits_of_avif, code_of
from codeformer.images.jpeg2000 import blocks_of
from codeformer.images.libtiff import collected_errors
from codeformer.images.limits import least_bytes, most_pixels
from codeformer.images.metadata import photoshop_of, said_by, said_by_table
from codeformer.images.profile import described_by, space_of
from codeformer.images.space import colours_of_png, is_hdr, profile_of_code
from codeformer.images.tiff import read_odd_tiff, table_of
from codeformer.images.value import Picture

# Programs that read the beginning of files that the libraries here refuse
_PARTIAL = {
    "JXL": "djxl --allow_partial_files IN.jxl OUT.png",
    "JPEG2000": "opj_decompress -allow-partial -i IN.jp2 -o OUT.png",
}
_EXIF_RESOURCE = 0x0422  # of Photoshop's
_DAMAGED_EXIF = "its EXIF is damaged; it is left out"
_HDR = "is an HDR picture; faces are seen and restored as bright as white at most"
_LAYERS = "has layers; the flat picture that the file holds of them is used"


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
    with _open(path, shown(path)) as file:
        return read_opened(file, path, max_pixels=max_pixels)


def format_of(path: Path) -> str:
    """Return the format of a picture's file, by its first bytes, such as ``JPEG``. Its pixels are not looked at.

    Raises:
        InputError: as :func:`read_picture`, where the first bytes tell: no such file, no picture, a missing package.
    """
    with _open(path, shown(path)) as file:
        return _format_of(file, path, shown(path))


def read_opened(file: BinaryIO, path: Path, *, max_pixels: int | None = None) -> Picture:
    """Read a picture from a file that is open already, such as what came through a pipe.

    Args:
        file: the file; it can be sought in.
        path: what to call it. Its ending tells camera raw and TGA; nothing is opened there.
        max_pixels: as for :func:`read_picture`.

    Raises:
        InputError, OutOfMemoryError: as :func:`read_picture` does.
    """
    name = shown(path)
    try:
        with collected_errors() as errors:
            picture = _read(file, path, name, most_pixels() if max_pixels is None else max_pixels)
    except MemoryError as error:
        raise OutOfMemoryError(f"{name}: not enough memory for a picture of this size; shrink it first") from error
    told = any(note.startswith(damage.NOTES) for note in picture.warnings)
    if errors and not told:  # where it is told, they are those of the first attempt, before the file was mended
        note = f"may be damaged in places; its decoder says: {errors[0]}"
        picture = replace(picture, warnings=(*picture.warnings, note))
    return picture


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


def _format_of(file: BinaryIO, path: Path, name: str) -> str:
    head = file.read(4096)
    kind = formats.sniff(head, path.suffix)
    if kind is None:
        raise InputError(f"{name}: {formats.what_else(head)}")
    if not formats.available(kind):
        what = "camera raw" if kind == "RAW" else kind
        raise InputError(f"{name}: {what} needs a package that is not installed: {formats.install_command(kind)}")
    return kind


def _read(file: BinaryIO, path: Path, name: str, max_pixels: int) -> Picture:
    kind = _format_of(file, path, name)
    try:
        return _decoded(file, path, name, kind, max_pixels)
    except InputError as error:
        raise _refusal(name, kind, error) from error
    except MemoryError:
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
            f"{name}: holds a colour profile or a text of more than {LARGEST_TEXT >> 20} MB; save it without"
        )
    if isinstance(error, InputError):
        return InputError(str(error) if name in str(error) else f"{name}: {error}")
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{name}: a damaged {kind} file or a rare kind of it; convert it to PNG first")
    if kind in _PARTIAL:
        return InputError(
            f"{name}: the {kind} file is damaged or cut off; copy or download it again, or try what is left of it: "
            f"{_PARTIAL[kind]}"
        )
    return InputError(f"{name}: the {kind} file is damaged or cut off ({reason(error)}); copy or download it again")


def _require_enough(share: float, name: str, kind: str) -> None:
    if share < damage.LEAST:
        raise InputError(
            f"{name}: the {kind} file is damaged or cut off, and only {share:.0%} of the picture can be read; "
            "copy or download it again"
        )


def _decoded(
    file: BinaryIO, path: Path, name: str, kind: str, max_pixels: int, mended: damage.MendedFile | None = None
) -> Picture:
    notes: list[str] = []
    if not formats.suffix_says(path.suffix, kind):
        notes.append(f"is really a {kind} file in spite of its name")
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    if kind in formats.FOREIGN:
        return _foreign(file.read(), path, kind, max_pixels, notes, mended)
    try:
        with unlimited_pillow():
            image = Image.open(file, formats=[kind])
    except UnidentifiedImageError:
        if kind != "TIFF" or mended is not None:
            raise
        file.seek(0)
        return _tiff_in_floats(file.read(), path, max_pixels, notes)
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{name}: {width}x{height} pixels are more than the limit of {max_pixels}; shrink it first, or raise "
            "--max_pixels if the memory suffices"
        )
    least = least_bytes(kind, head, image)
    if mended is None and file.seek(0, os.SEEK_END) < damage.LEAST * least:
        raise InputError(
            f"{name}: the {kind} file is cut off ({width}x{height} pixels need {least} bytes or more); copy or "
            "download it again"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1 and not (mended and mended.notes):
        what = "pictures, as of a stereo camera or with a preview" if kind == "JPEG" else "frames or pages"
        notes.append(_LAYERS if kind == "PSD" else f"has {frames} {what}; only the first is used")
    _complete(image, kind, file)
    rgb, alpha, grey, orientation = decoded_pixels(file, image, kind, head, name, notes)
    if kind == "JPEG":
        file.seek(0)
        more, share = damage.jpeg_notes(rgb, file.read(), mended is not None)
        _require_enough(share, name, kind)
        notes += more
    elif mended is not None:
        rgb, alpha = damage.in_grey(rgb, alpha, mended)
        notes += (mended.note, *mended.notes)
    exif = _exif(image, kind, notes)
    colours = _colours(image, file, kind, rgb, grey, notes)
    said = said_by(image, kind, file, exif)
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
        dpi=_turned(said.dpi, orientation),
    )


def _turned(dpi: Dpi | None, orientation: int) -> Dpi | None:
    """Return the resolution of a picture that is brought upright."""
    return dpi[::-1] if dpi and orientation in (5, 6, 7, 8) else dpi


def _complete(image: Image.Image, kind: str, file: BinaryIO) -> None:
    """Add to Pillow's info what it leaves out."""
    if kind not in ("JPEG2000", "AVIF"):
        return
    file.seek(0)
    data = file.read()
    if kind == "AVIF":
        image.info["bit_depth"] = bits_of_avif(data)
        return
    boxes = blocks_of(data)
    image.info |= {name: block for name, block in (("exif", boxes.exif), ("icc_profile", boxes.icc)) if block}


def _tiff_in_floats(data: bytes, path: Path, max_pixels: int, notes: list[str]) -> Picture:
    """Return a picture of a TIFF file in floating point and colour, which Pillow refuses."""
    table = table_of(data)
    foreign.check_size(table.numbers(256)[0], table.numbers(257)[0], max_pixels)
    if table.numbers(339, (1,))[0] != 3:
        raise UnidentifiedImageError
    rgb, alpha, grey, more = read_odd_tiff(data)
    icc = table.tags.get(34675, (0, b""))[1]
    known = bool(icc) and described_by(icc) is not None
    if icc and not known:
        more.append("its ICC profile is damaged or for other colours; it is left out")
    orientation = table.numbers(exif_blocks.ORIENTATION, (1,))[0]
    said = said_by_table(table)
    try:
        exif = exif_blocks.from_tiff_data(data)
    except Exception:  # Pillow raises anything at all about a damaged table
        exif = None
        more.append(_DAMAGED_EXIF)
    return Picture(
        _oriented(rgb, orientation),
        None if alpha is None else _oriented(alpha, orientation),
        icc=icc if known else None,
        exif=exif,
        format="TIFF",
        grey=grey,
        path=path,
        warnings=(*notes, *more, *said.notes),
        xmp=said.xmp,
        iptc=said.iptc,
        dpi=_turned(said.dpi, orientation),
    )


def _foreign(
    data: bytes, path: Path, kind: str, max_pixels: int, notes: list[str], mended: damage.MendedFile | None
) -> Picture:
    """Return a picture of a format that Pillow does not read."""
    if (size := foreign.size_of(kind, data)) is not None:
        foreign.check_size(*size, max_pixels)
    if kind == "RAW":
        pixels = foreign.read_raw(data, max_pixels)
    elif kind == "PFM":
        pixels = foreign.read_pfm(data)
    else:
        pixels = foreign.read_by_ffmpeg(kind, data)
    if mended is not None:
        rgb, alpha = damage.in_grey(pixels.rgb, pixels.alpha, mended)
        pixels = pixels._replace(rgb=rgb, alpha=alpha, notes=(mended.note, *mended.notes, *pixels.notes))
    exif = None
    if kind == "RAW":
        with suppress(Exception):  # most are TIFF files
            exif = exif_blocks.from_tiff_data(data)
    return Picture(
        pixels.rgb,
        pixels.alpha,
        exif=exif,
        format=kind,
        grey=pixels.grey,
        path=path,
        warnings=(*notes, *pixels.notes),
    )


def _oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) as they are to be seen, by EXIF's orientation 1 to 8; anything else counts as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _exif(image: Image.Image, kind: str, notes: list[str]) -> bytes | None:
    """Return the EXIF block, upright; a damaged one is left out, with a line."""
    if kind == "TIFF":
        try:
            return exif_blocks.from_tiff(image)
        except Exception:  # Pillow raises anything at all about a damaged table
            notes.append(_DAMAGED_EXIF)
            return None
    block = image.info.get("exif")
    if kind == "PSD":
        block = photoshop_of(image).get(_EXIF_RESOURCE)
    if not isinstance(block, bytes) or not block:
        return None
    upright = exif_blocks.upright(block)
    if upright is None:
        notes.append(_DAMAGED_EXIF)
    return upright


class _Colours(NamedTuple):
    """A picture's pixels with what they mean: an ICC profile, or code points of H.273, or neither for sRGB."""

    rgb: Rgb
    icc: bytes | None = None
    cicp: bytes | None = None


def _colours(image: Image.Image, file: BinaryIO, kind: str, rgb: Rgb, grey: bool, notes: list[str]) -> _Colours:
    """Return what the file says of its colours; those of a profile with tables are converted to sRGB."""
    icc = image.info.get("icc_profile")
    if image.mode in ("CMYK", "LAB"):
        return _Colours(rgb)
    if kind == "PNG":
        file.seek(0)
        own, cicp = colours_of_png(file, grey=grey)
        if cicp is not None:
            notes.append(_HDR)
            return _Colours(rgb, cicp=cicp)
        icc = own or icc
    elif kind in ("HEIF", "AVIF") and not icc:
        file.seek(0)
        code = code_of(file.read())
        if code is not None and is_hdr(code):
            notes.append(_HDR)
            return _Colours(rgb, cicp=code[:2] + b"\0\1")  # of what is decoded: RGB of full range
        icc = None if code is None or code[0] == 1 else profile_of_code(code)
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
