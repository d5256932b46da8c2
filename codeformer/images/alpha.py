"""Pictures with transparency: enlarging them, and what a network sees of them.

Under a transparent pixel any colour may lie, mostly black. Nothing of it may be mixed into the pixels beside it, or a
cut-out gets a dark rim.
"""

from __future__ import annotations

import cv2
import numpy as np

from codeformer.arrays import Pixels, Rgb, Samples
from codeformer.images.value import Picture, replace_rgb


def enlarged(picture: Picture, width: int, height: int) -> Picture:
    """Return the picture at another size by Lanczos; the same one where nothing changes.

    Colours count as much as they are to be seen. Where nothing is to be seen, the hidden colours are enlarged.
    """
    if picture.rgb.shape[:2] == (height, width):
        return picture
    rgb = _lanczos(picture.rgb, width, height)
    if picture.alpha is None:
        return replace_rgb(picture, rgb)
    alpha = _lanczos(picture.alpha, width, height)
    if is_opaque(picture):
        return replace_rgb(picture, rgb, alpha)
    top = np.float32(np.iinfo(rgb.dtype).max)
    opacity = picture.alpha.astype(np.float32) / top
    total = _lanczos(opacity, width, height)
    shown = (alpha > 0) & (total > 0)
    share = 1 / total[shown]
    for c in range(3):  # one channel at a time, for the memory
        sums = _lanczos(picture.rgb[..., c].astype(np.float32) * opacity, width, height)
        rgb[..., c][shown] = np.rint(np.clip(sums[shown] * share, 0, top)).astype(rgb.dtype)
    return replace_rgb(picture, rgb, alpha)


def is_opaque(picture: Picture) -> bool:
    """Whether nothing of the picture is transparent."""
    return picture.alpha is None or bool((picture.alpha == np.iinfo(picture.alpha.dtype).max).all())


def visible(picture: Picture) -> Rgb:
    """Return the picture's colours with those that are not to be seen made up from the ones around them.

    The same array, bit for bit, where the picture is opaque.
    """
    if picture.alpha is None or is_opaque(picture):
        return picture.rgb
    top = np.float32(np.iinfo(picture.rgb.dtype).max)
    opacity = picture.alpha.astype(np.float32)[..., None] / top
    filled = _filled(picture.rgb.astype(np.float32) * opacity, opacity)
    rgb = picture.rgb.copy()
    hidden = picture.alpha < np.iinfo(picture.alpha.dtype).max
    rgb[hidden] = np.rint(np.clip(filled[hidden], 0, top)).astype(rgb.dtype)
    return rgb


def _filled(sums: Samples, weight: Samples) -> Samples:
    """Weighted colours (H, W, 3) completed, as far as their weight (H, W, 1) lacks, from a picture of half the size."""
    height, width = weight.shape[:2]
    if min(height, width) <= 1:
        mean = sums.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
        return np.asarray(sums + (1 - weight) * mean, np.float32)
    half = ((width + 1) // 2, (height + 1) // 2)
    small, less = (
        cv2.resize(one, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], -1) for one in (sums, weight)
    )
    gain = 1 / np.maximum(less, 0.1)  # a little weight counts for much, so that colours reach far
    coarse = _filled(
        np.asarray(small * np.minimum(gain, 1 / np.maximum(less, 1e-6)), np.float32), np.minimum(less * gain, 1)
    )
    around = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(sums + (1 - weight) * around, np.float32)


def _lanczos(pixels: Pixels, width: int, height: int) -> Pixels:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LANCZOS4)
