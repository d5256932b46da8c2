"""Between Pillow's images and our pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codeformer.errors import InputError
from codeformer.images.value import Picture, to_uint8

if TYPE_CHECKING:
    from PIL import Image


def from_pil(image: Image.Image) -> Picture:
    """Return an image of Pillow's as a picture, upright, with its transparency and colour profile.

    Raises:
        InputError: its mode holds neither grey nor RGB of 8 or 16 bits.
    """
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    icc = image.info.get("icc_profile")
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        grey = np.asarray(image).astype(np.uint16)
        return Picture(np.repeat(grey[..., None], 3, axis=2), icc=icc, grey=True)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise InputError(
            f"a Pillow image of mode {image.mode} is not grey or RGB: convert it first, with convert('RGB')"
        )
    is_grey = image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        return Picture(np.ascontiguousarray(pixels[..., :3]), pixels[..., 3].copy(), icc=icc, grey=is_grey)
    return Picture(np.array(image.convert("RGB")), icc=icc, grey=is_grey)


def to_pil(picture: Picture) -> Image.Image:
    """Return a picture as an image of Pillow's: RGB, or RGBA with transparency; 8 bits, because Pillow has no more."""
    from PIL import Image

    pixels = to_uint8(picture.rgb)
    if picture.alpha is not None:
        pixels = np.dstack([pixels, to_uint8(picture.alpha)])
    image = Image.fromarray(pixels)
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    return image
