"""Paint in a picture: which pixels somebody painted over with one colour. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from codeformer.arrays import Bits, Mask, Plane, Rgb, Where
from codeformer.tasks.inpainting.masks import bounds

# The smallest thing that counts is a disc of this diameter, and this share of the picture's pixels.
_BRUSH = 3
_LEAST_SHARE = 1e-4
_LEAST_PIXELS = 40
# How far the fringe of a soft brush may reach beyond the paint, as a share of the picture's longer side.
_REACH = 0.08
# The same in half widths of the stroke's core: a fine pen has no wide fringe, and beside it shading is the picture's.
_REACH_OF_BRUSH = 3.0
_LEAST_REACH = 2
# The fringe goes on while the colour runs away from the paint by at least this much (of 255) a pixel, and by this
# share of the steepest slope within its reach: after a hard edge shading is not a fringe, however steep.
_SLOPE = 1.5
_SLOPE_SHARE = 0.15
# Fine strokes, of which JPEG or a soft brush leave little of the colour: what is within this many tolerances, is longer
# than wide by this factor, and stands out from around it by this many tolerances.
_FINE = 2.0
_ELONGATED = 3.0
_STANDS_OUT = 2.5
# Colours less saturated than this occur in nature, white and black above all. What is natural of them is uneven by more
# than this many tolerances farther inside than JPEG's rings, or no more than so many pixels across to both sides, and
# around it the colour is still this near.
_COLOURFUL = 0.5
_EVEN = 1 / 6
_JPEG_RINGS = 4.0
_SMALL = 6.0
_FADES = 1.6


def from_paint(rgb: Rgb, colour: tuple[int, int, int], tolerance: float = 24.0) -> Mask:
    """Where a picture is painted over with one colour: 1 on the paint and its fringe, else 0.

    `rgb` is (H, W, 3) uint8 or uint16; `colour` and `tolerance` are of 0-255 (the largest difference of a channel).
    Two steps, as in hysteresis thresholding. The core is what has the colour within the tolerance, holds a small
    disc and is not tiny: teeth, the whites of eyes and highlights are not. From there the region grows over the
    fringe that antialiasing, a soft brush or JPEG leave, as long as going outwards leads away from the paint's
    colour, so it ends where the picture itself begins. All zero if there is no paint.
    """
    distance = _distance(rgb, colour)
    saturation = (max(colour) - min(colour)) / 255
    core = _core(distance, tolerance)
    if saturation < _COLOURFUL:
        core = _without_natural(core, distance, tolerance)
    core |= _fine_strokes(distance, tolerance, saturation)
    if not core.any():
        return np.zeros(distance.shape, np.float32)
    farthest = max(6, round(_REACH * max(distance.shape)))
    result = np.zeros(distance.shape, np.float32)
    for box, stroke in _parts(core, farthest + 4):
        reach = min(farthest, round(_LEAST_REACH + _REACH_OF_BRUSH * _half_width(stroke)))
        near = bounds(stroke, reach + 4)
        grown = result[box][near]
        np.maximum(grown, _with_fringe(stroke[near], distance[box][near], reach), out=grown)
    return result


def _distance(rgb: Rgb, colour: tuple[int, int, int]) -> Plane:
    """(H, W) float32: the largest difference of a channel to the colour, of 255."""
    unit = np.float32(255 / np.iinfo(rgb.dtype).max)
    result = np.zeros(rgb.shape[:2], np.float32)
    for channel, value in enumerate(colour):  # channel by channel: a large picture is not held three times in float
        np.maximum(result, np.abs(rgb[..., channel].astype(np.float32) * unit - value), out=result)
    return result


def _core(distance: Plane, tolerance: float) -> Bits:
    """Return what is surely paint, (H, W) 0 or 1.

    Regions within the tolerance count as a whole if most of them is nearly exact (JPEG spoils the rest of a thin
    stroke); of others, say a white shirt behind a white stroke, only the nearly exact part.
    """
    exact = _solid(distance <= tolerance / 3)
    near = _solid(distance <= tolerance) | exact
    count, labels = cv2.connectedComponents(near, connectivity=8)
    sizes = np.bincount(labels.ravel(), minlength=count)
    exact_sizes = np.bincount(labels[distance <= tolerance / 3], minlength=count)
    mostly_exact = exact_sizes >= 0.5 * sizes
    mostly_exact[0] = False
    return np.where(mostly_exact[labels], near, exact)


def _fine_strokes(distance: Plane, tolerance: float, saturation: float) -> Bits:
    """Strokes too fine for JPEG to keep their colour, (H, W) 0 or 1.

    A fifth of such a stroke still has about the colour; of white and black, which pictures have by nature, more nearly
    than of the colours of a paint box (`saturation` 1).
    """
    wide = _solid(distance <= _FINE * tolerance)
    result = np.zeros_like(wide)
    for box, part in _parts(wide, 8):
        here, half_width = distance[box], _half_width(part)
        if (
            half_width <= _SMALL * (1 + saturation)
            and part.sum() >= _ELONGATED * (2 * half_width) ** 2
            and np.percentile(here[part > 0], 20) <= tolerance * (0.4 + 0.6 * saturation)
            and _around(part, here, 50) >= _STANDS_OUT * tolerance
        ):
            result[box] |= part
    return result


def _without_natural(core: Bits, distance: Plane, tolerance: float) -> Bits:
    """Return the core (H, W) without what a photograph has of white or black itself.

    That is uneven, or small and fading into its surroundings. Paint is even, and its edges are steep for its size.
    """
    result = core.copy()
    for box, part in _parts(core, 8):
        here = distance[box]
        inner = here[cv2.distanceTransform(part, cv2.DIST_L2, 5) > _JPEG_RINGS]
        uneven = inner.size >= _LEAST_PIXELS and np.median(inner) > tolerance * _EVEN
        fades = _half_width(part) <= _SMALL and _around(part, here, 25) < _FADES * tolerance
        if uneven or (fades and np.median(here[part > 0]) > tolerance / 12):
            result[box][part > 0] = 0
    return result


def _parts(region: Bits, margin: int) -> Iterator[tuple[tuple[slice, slice], Bits]]:
    """Yield the connected parts of a region (H, W): the box around each, with a margin, and the part in it, 0 or 1."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
    for label in range(1, count):
        x, y, width, height = (int(v) for v in stats[label, :4])
        box = (slice(max(y - margin, 0), y + height + margin), slice(max(x - margin, 0), x + width + margin))
        yield box, (labels[box] == label).astype(np.uint8)


def _half_width(part: Bits) -> float:
    """Half of the width where a part is widest, pixels; the frame of the picture bounds nothing."""
    return float(cv2.distanceTransform(part, cv2.DIST_L2, 5).max())


def _around(part: Bits, distance: Plane, percentile: float) -> float:
    """Return the percentile of the distances a few pixels outside of a part; 0 where the picture ends there."""
    away = cv2.distanceTransform(1 - part, cv2.DIST_L2, 5)
    around = distance[(away > 3) & (away < 8)]
    return float(np.percentile(around, percentile)) if around.size else 0.0


def _solid(region: Where) -> Bits:
    """Return the parts that hold a small disc and are not tiny."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_BRUSH, _BRUSH))
    # Beyond the frame lies paint as far as the opening knows: a stroke may run out of the picture.
    opened = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_OPEN, disc, borderType=cv2.BORDER_REPLICATE)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= max(_LEAST_PIXELS, _LEAST_SHARE * region.size)
    large[0] = False
    return np.asarray(large[labels], np.uint8)


def _with_fringe(core: Bits, distance: Plane, reach: int) -> Mask:
    """Return the core (H, W) grown outwards, pixel ring by pixel ring, while the colour runs away from the paint."""
    smooth = cv2.GaussianBlur(distance, (0, 0), 1.2)  # JPEG's ringing is not a slope
    away = cv2.distanceTransform(1 - core, cv2.DIST_L2, 5)
    slope = np.zeros_like(smooth)
    for axis in (0, 1):
        slope += np.gradient(smooth, axis=axis) * np.gradient(away, axis=axis)
    box = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    least = np.maximum(_SLOPE, _SLOPE_SHARE * np.asarray(cv2.dilate(slope, box), np.float32))
    passable = ((slope >= least) | (away <= 2.0)).astype(np.uint8)
    ring = np.ones((3, 3), np.uint8)
    grown = core
    for step in range(1, reach + 1):
        near = (away <= step + 0.5).astype(np.uint8)
        wider = np.asarray(cv2.dilate(grown, ring), np.uint8) & passable & near | grown
        if (wider == grown).all() and step > 2:
            break
        grown = wider
    closed = cv2.morphologyEx(grown, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    return np.asarray(closed, np.float32)
