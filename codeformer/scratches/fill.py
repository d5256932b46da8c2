"""What lies under thin damage: filled in from both of its sides."""

from __future__ import annotations

import cv2
import numpy as np

from codeformer.arrays import Pixels, Rgb, Where

_RADIUS = 3  # pixels around a damaged one that say what it was


def fill(rgb: Rgb, damage: Where) -> Rgb:
    """Return the picture with its damaged pixels made up from those around them; all others stay bit for bit.

    By Telea's fast marching: "An Image Inpainting Technique Based on the Fast Marching Method" (2004).

    Args:
        rgb: (H, W, 3) uint8 or uint16.
        damage: (H, W).
    """
    if not damage.any() or damage.all():
        return rgb
    hole = damage.astype(np.uint8)
    filled: Pixels
    if rgb.dtype == np.uint8 and not _is_grey(rgb):
        filled = np.asarray(cv2.inpaint(np.ascontiguousarray(rgb), hole, _RADIUS, cv2.INPAINT_TELEA))
    else:  # OpenCV takes 16 bits in single channels only
        channels = [np.ascontiguousarray(rgb[..., c]) for c in range(1 if _is_grey(rgb) else 3)]
        done = [cv2.inpaint(channel, hole, _RADIUS, cv2.INPAINT_TELEA) for channel in channels]
        filled = np.stack(done * (3 // len(done)), axis=-1).astype(rgb.dtype)
    return np.where(damage[..., None], filled, rgb)


def wide_parts(damage: Where, half_width: float) -> Where:
    """Return the parts of the damage that reach further than ``half_width`` pixels into every direction, (H, W) bool.

    The picture's border counts as damaged on its other side: a torn corner is wide.
    """
    depth = cv2.distanceTransform(damage.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    core = (depth > half_width).astype(np.uint8)
    side = 2 * int(np.ceil(half_width)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray((cv2.dilate(core, disc) > 0) & damage)


def _is_grey(rgb: Rgb) -> bool:
    return bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
