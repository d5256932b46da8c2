"""Brightness and colour of faces, apart from each other: pure functions on float pictures.

Everything here takes and returns float32 RGB of shape (H, W, 3) in [0, 1] (sRGB-coded, as in the file)
and works in full-range YCbCr by ITU-R BT.601 in floating point: Y in [0, 1], Cb and Cr in [-0.5, 0.5].
The transform is linear, so brightness can be kept to the last bit that float32 has, and nothing overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from codeformer.arrays import Crop, Plane, Rgb, Samples

if TYPE_CHECKING:
    from codeformer.images.space import Space

Kind = Literal["grey", "toned", "colour"]

#: How much each channel of RGB counts for the brightness (BT.601), (3,) float32.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_TO_YCC = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ],
    np.float64,
)
_FROM_YCC = np.linalg.inv(_TO_YCC)

# Chroma below this mean is what JPEG leaves in a grey picture.
_GREY_CHROMA = 0.004
# Root mean square of the chroma that no function of brightness explains. Of 320 portraits every one as it is counts
# as coloured, and all but one as toned when dyed in sepia (also with 5 % noise, or as JPEG of quality 40).
_TONED_RESIDUAL = 0.010
# Luma ranges narrower than this are a faded picture.
_FADED_RANGE = 0.6
_MAX_GAIN = 3.0


def to_ycc(rgb: Samples) -> Samples:
    """RGB (..., 3) in [0, 1] -> Y in [0, 1], Cb and Cr in [-0.5, 0.5], same shape."""
    return (rgb.astype(np.float64) @ _TO_YCC.T).astype(np.float32)


def luma(rgb: Samples) -> Plane:
    """Brightness Y (H, W) in [0, 1] of RGB (H, W, 3)."""
    return (rgb.astype(np.float64) @ _TO_YCC[0]).astype(np.float32)


def to_grey(rgb: Samples) -> Samples:
    """Return the picture without its colour: three equal channels (H, W, 3), each the luma."""
    return np.repeat(luma(rgb)[..., None], 3, axis=-1)


def with_chroma(y: Plane, chroma: Samples) -> Samples:
    """Join brightness (H, W) with colour (H, W, 2) and return RGB in [0, 1].

    Where the pair lies outside of RGB's cube the colour is weakened, pixel by pixel, just as far as it must be:
    cutting the channels off at 0 and 1 instead would change the brightness and the hue.
    """
    grey = np.clip(y.astype(np.float64), 0.0, 1.0)[..., None]  # (H, W, 1)
    offset = chroma.astype(np.float64) @ _FROM_YCC[:, 1:].T  # (H, W, 3), what the colour adds to each channel
    room = np.where(offset > 0, 1.0 - grey, grey)
    size = np.abs(offset)
    share = np.divide(room, size, out=np.ones_like(room * size), where=size > room)
    rgb = grey + offset * share.min(axis=-1, keepdims=True)
    return np.clip(rgb, 0.0, 1.0).astype(np.float32)  # only rounding is left to cut


def keep_luma(original: Samples, coloured: Samples) -> Samples:
    """Return the brightness of `original` with the colour of `coloured`; both (H, W, 3), so is the result."""
    return with_chroma(luma(original), to_ycc(coloured)[..., 1:])


def keep_luma_of_changes(before: Rgb, after: Rgb, space: Space | None = None) -> Rgb:
    """Where two pictures (H, W, 3), uint8 or uint16, differ, the brightness of the first with the colour of the second.

    Elsewhere bit for bit. Brightness is exact but for the rounding of the channels. ``space`` says what the colours
    mean; None for sRGB.
    """
    rows = np.flatnonzero((before != after).any(axis=(1, 2)))
    if rows.size == 0:
        return after
    result = after.copy()
    top = np.float32(np.iinfo(before.dtype).max)
    for y in rows:  # row by row: the faces of a large picture do not fit into memory as float twice
        changed = (before[y] != after[y]).any(axis=1)
        old, new = (one[y, changed][None].astype(np.float32) / top for one in (before, after))
        if space is None:
            kept = keep_luma(old, new)
        else:
            kept = space.from_srgb(keep_luma(space.to_srgb(old), space.to_srgb(new)))
        result[y, changed] = np.rint(kept[0] * top).astype(before.dtype)
    return result


def mix_chroma(original: Samples, coloured: Samples, strength: float) -> Samples:
    """`coloured` with only a share of its colour; the brightness of `coloured` stays.

    `strength` 1 is all of it, 0 is the colour that `original` had: none for a grey picture, the brown of a sepia one,
    so that a weakly coloured face still belongs to the picture around it.
    """
    if strength == 1.0:
        return coloured
    chroma = strength * to_ycc(coloured)[..., 1:] + (1.0 - strength) * to_ycc(original)[..., 1:]
    return with_chroma(luma(coloured), chroma)


def kind_of(rgb: Rgb | Samples) -> Kind:
    """Return what colour a picture has: "grey", "toned" (one tint that follows the brightness) or "colour".

    `rgb` is (H, W, 3) uint8, uint16, or float in [0, 1]. Decided on a 48-pixel thumbnail, which averages noise and
    JPEG's colour blocks away: a cubic in the brightness is fitted to the colour, and what it does not explain counts.
    """
    unit = np.iinfo(rgb.dtype).max if np.issubdtype(rgb.dtype, np.integer) else 1.0
    thumbnail = np.asarray(cv2.resize(np.ascontiguousarray(rgb), (48, 48), interpolation=cv2.INTER_AREA), np.float32)
    ycc = to_ycc(thumbnail / np.float32(unit)).reshape(-1, 3).astype(np.float64)
    y, chroma = ycc[:, 0], ycc[:, 1:]
    if float(np.linalg.norm(chroma, axis=1).mean()) < _GREY_CHROMA:
        return "grey"
    powers = np.stack([np.ones_like(y), y, y**2, y**3], axis=1)  # (48 * 48, 4)
    fit, *_ = np.linalg.lstsq(powers, chroma, rcond=None)
    residual = chroma - powers @ fit
    return "toned" if float(np.sqrt((residual**2).sum(axis=1).mean())) < _TONED_RESIDUAL else "colour"


def is_grey(rgb: Rgb | Samples) -> bool:
    """Whether a picture has no colour but what JPEG leaves behind."""
    return kind_of(rgb) == "grey"


@dataclass(frozen=True)
class Contrast:
    """The range of brightness that a faded picture still has; `black` < `white`, both in luma."""

    black: float = 0.0
    white: float = 1.0

    def stretch(self, rgb: Samples) -> Samples:
        """Spread the range over [0, 1]; brighter and darker pixels are cut off."""
        return np.clip((rgb - self.black) / (self.white - self.black), 0.0, 1.0).astype(np.float32)

    def fade(self, rgb: Samples) -> Samples:
        """Put a picture of full range back into this one."""
        return (rgb * (self.white - self.black) + self.black).astype(np.float32)


def contrast_of(rgb: Samples) -> Contrast:
    """Return the range of a faded picture (0.5th to 99.5th percentile of the luma); the whole range for any other."""
    black, white = (float(v) for v in np.percentile(luma(rgb), (0.5, 99.5)))
    if white - black >= _FADED_RANGE:
        return Contrast()
    # A nearly flat picture is not blown up into noise: the gain is limited around its middle.
    middle, half = (black + white) / 2, max(white - black, 1.0 / _MAX_GAIN) / 2
    return Contrast(middle - half, middle + half)


def before_colorizing(crop: Crop) -> Crop:
    """Return what the network sees: (S, S, 3) grey over the full range, whatever tint or fading the crop had."""
    return contrast_of(crop).stretch(to_grey(crop))


def after_colorizing(crop: Crop, result: Crop, *, luma_of_crop: bool = False, strength: float = 1.0) -> Crop:
    """Return the network's `result` (S, S, 3) for `crop` in the crop's own tone.

    A faded crop gets a face of as little contrast as the picture around it, and colour that is weakened by the square
    root of that: in full it would be garish there, and weakened as much as the contrast it would hardly be seen.
    `luma_of_crop`: only the colour is taken, the brightness is the crop's. `strength` in [0, 1]: how much of the
    colour, see `mix_chroma`.
    """
    contrast = contrast_of(crop)
    coloured = result
    if contrast != Contrast():
        weaker = to_ycc(result)[..., 1:] * np.sqrt(contrast.white - contrast.black)
        coloured = with_chroma(luma(contrast.fade(result)), weaker)
    if luma_of_crop:
        coloured = keep_luma(crop, coloured)
    return np.clip(mix_chroma(crop, coloured, strength), 0.0, 1.0).astype(np.float32)
