"""Between Pillow's images and our pictures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from codeformer.errors import InputError
from codeformer.images import exif as exif_blocks
from codeformer.images.metadata import Said, said_by
from codeformer.images.profile import space_of
from codeformer.images.value import Picture, as_srgb, to_uint8
from codeformer.images.writing import described

if TYPE_CHECKING:
    from PIL import Image


def from_pil(image: Image.Image) -> Picture:
    """Return an image of Pillow's as a picture, upright, with its transparency and what Pillow knows of its file.

    That is the colour profile, EXIF, XMP, IPTC, texts and the resolution.

    Raises:
        InputError: its mode holds neither grey nor RGB of 8 or 16 bits.
    """
    from PIL import ImageOps

    turned = image.getexif().get(exif_blocks.ORIENTATION, 1) in (5, 6, 7, 8)
    upright = ImageOps.exif_transpose(image)
    exif, said = _said(image)
    dpi = said.dpi[::-1] if said.dpi and turned else said.dpi
    if upright.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        grey = np.asarray(upright).astype(np.uint16)
        picture = Picture(np.repeat(grey[..., None], 3, axis=2), grey=True)
    elif upright.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise InputError(
            f"a Pillow image of mode {upright.mode} is not grey or RGB: convert it first, with convert('RGB')"
        )
    else:
        is_grey = upright.mode in ("1", "L", "LA")
        if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
            pixels = np.asarray(upright.convert("RGBA"))
            picture = Picture(np.ascontiguousarray(pixels[..., :3]), pixels[..., 3].copy(), grey=is_grey)
        else:
            picture = Picture(np.array(upright.convert("RGB")), grey=is_grey)
    return replace(
        picture,
        icc=upright.info.get("icc_profile"),
        exif=exif,
        xmp=said.xmp,
        iptc=said.iptc,
        text=said.text,
        dpi=dpi,
        warnings=said.notes,
    )


def to_pil(picture: Picture) -> Image.Image:
    """Return a picture as an image of Pillow's: RGB, or RGBA with transparency; 8 bits, because Pillow has no more.

    Its ``info`` holds the colour profile, which Pillow writes by itself, and ``exif``, ``xmp`` and ``dpi``, which its
    ``save`` takes as options. HDR and the colours of a grey profile become sRGB.
    """
    from PIL import Image

    if picture.cicp or (picture.icc and space_of(picture.icc) != "RGB "):
        picture = as_srgb(picture)
    pixels = to_uint8(picture.rgb)
    if picture.alpha is not None:
        pixels = np.dstack([pixels, to_uint8(picture.alpha)])
    image = Image.fromarray(pixels)
    exif, xmp = described(picture)
    if exif is not None:
        exif = exif_blocks.with_prefix(exif)  # as Pillow's own images of JPEG files have it; it suits every format
    said = {"icc_profile": picture.icc, "exif": exif, "xmp": xmp, "dpi": picture.dpi}
    image.info |= {name: value for name, value in said.items() if value}
    return image


def _said(image: Image.Image) -> tuple[bytes | None, Said]:
    """Return the EXIF, upright, and the rest of what Pillow knows of the file that an image came from."""
    exif: bytes | None = None
    if image.format == "TIFF":
        with suppress(Exception):  # a damaged block
            exif = exif_blocks.from_tiff(image)
    elif isinstance(block := image.info.get("exif"), bytes) and block:
        exif = exif_blocks.upright(block)
    return exif, said_by(image, image.format or "", None, exif)
