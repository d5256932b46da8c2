"""From a file that Pillow opened to its pixels, by Pillow, or by OpenCV where Pillow would lose bits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from codeformer.arrays import Rgb
from codeformer.errors import InputError
from codeformer.images import exif as exif_blocks
from codeformer.images import foreign
from codeformer.images.convert import from_cmyk_or_lab
from codeformer.images.png import png_is_deep, read_png
from codeformer.images.tiff import read_odd_tiff, read_tiff

_pillow_limit_lock = threading.Lock()
_HUGE = 80_000_000  # pixels; below Pillow's own limit
LARGEST_TEXT = 1 << 26  # bytes of a colour profile or a text inside a PNG file
_STRIP_PIXELS = 1 << 22  # converted at a time: bounds the memory beside the picture


@contextmanager
def unlimited_pillow() -> Iterator[None]:
    """Pillow's own limits are settings of the whole process; ours take their place.

    ``max_pixels`` stands for its check of bombs. Its limit for texts, which also holds for PNG's colour profile, is
    1 MB, and large profiles have more.
    """
    with _pillow_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        text, PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_CHUNK, LARGEST_TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limit, text


#: RGB, alpha, whether it is grey, and the orientation that is still to be applied.
Decoded = tuple[Rgb, "Rgb | None", bool, int]


def decoded_pixels(file: BinaryIO, image: Image.Image, kind: str, head: bytes, name: str, notes: list[str]) -> Decoded:
    """Return the pixels of a file that Pillow opened.

    Args:
        file: the file, open.
        image: the same, opened by Pillow and not decoded yet.
        kind: Pillow's name of its format.
        head: its first bytes.
        name: its name, for messages.
        notes: gets lines for the user.

    Raises:
        InputError: pixels of a kind that is not read. Decoders raise others.
    """
    if kind == "PNG" and png_is_deep(head):
        orientation = _orientation(image)  # decodes it all, as the block may come last
        file.seek(0)
        return *read_png(file.read()), orientation
    if kind == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        orientation = tags.get(exif_blocks.ORIENTATION, 1)
        if set(tags.get(339, (1,))) - {1, 4} or image.mode in ("I", "F"):
            file.seek(0)
            rgb, alpha, grey, more = read_odd_tiff(file.read())
            notes += more
            return rgb, alpha, grey, orientation
        if set(tags.get(258, (1,))) == {16} and image.mode != "CMYK":
            file.seek(0)
            return *read_tiff(file.read(), image), orientation
    if (kind == "PPM" and foreign.is_deep_ppm(head)) or kind == "JPEG2000":
        file.seek(0)
        data = file.read()
        if kind == "PPM":
            return *foreign.read_deep_ppm(data)[:3], 1
        if foreign.depth_of_jpeg2000(data) > 8:
            return *foreign.read_deep_jpeg2000(data)[:3], _orientation(image)
    # Some formats check again here. The lock would make threads decode one after the other: only where needed.
    with unlimited_pillow() if image.width * image.height > _HUGE else nullcontext():
        image.load()
    orientation = _orientation(image)  # after load: Pillow itself turns some formats
    mode = image.mode
    if mode in ("CMYK", "LAB"):
        notes.append(f"its {mode} colours are converted to sRGB")
        return np.array(from_cmyk_or_lab(image, name)), None, False, orientation
    if mode in ("I;16", "I;16B", "I") and kind in ("PPM", "PNG", "JPEG2000"):
        return np.repeat(np.asarray(image).astype(np.uint16)[..., None], 3, axis=2), None, True, orientation
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"):
        raise InputError(f"{name}: pixels of mode {mode} are not read; convert it to RGB first")
    if image.info.get("bit_depth", 8) > 8:
        notes.append(f"its {image.info['bit_depth']} bits a channel are read as 8")
    transparent = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    rgb, alpha = _in_strips(image, transparent)
    return rgb, alpha, mode in ("1", "L", "LA", "La"), orientation


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # a damaged block, which Pillow takes for a TIFF file
        return int(image.getexif().get(exif_blocks.ORIENTATION, 1))
    return 1


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
