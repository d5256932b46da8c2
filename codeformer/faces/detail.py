"""The fine detail of faces that are larger than the network's crop: the picture's own, where it is sharp and clean.

A face of 900 pixels is reduced to 512 for the network, and what comes back has nothing finer. Where the crop shows that
the picture is sharp and clean, and that the restored face is the same one, the picture's own high frequencies are put
back over it. Blur, noise, JPEG's blocks, and places where the network drew something else are left as restored. A face
that is a little softer than the restored one keeps that one's structure, and gets the picture's grain alone: what is
finer than the crop can hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from codeformer.arrays import Crop, Mask, Matrix, Pixels, Plane, Rgb, Where
from codeformer.faces.align import inverse, mean_scale, transform_points, warp
from codeformer.images.colour import luma

# All thresholds are for 512 x 512 crops and 255 levels, from 15 faces in 18 states (docs/pictures.md tells the result):
# sharp faces, and with noise of sigma 2 to 20, blur of sigma 0.7 to 4, JPEG of quality 90 to 25, and mixtures.
_FINE = 3.0  # pixels of the crop: sigma of the blur that parts fine detail from the rest
_SCALE = (1.0, 0.9)  # of the crop to the picture: from none to all detail
# The two finest octaves without their noise against the restored face's: sharp 0.8 to 1.5, blur of sigma 1: 0.64 to
# 0.79, sigma 1.5: 0.54
_SHARP = (0.7, 0.85)
_NOISE_IN_CROP = (3.5, 2.0)  # levels; sharp up to 0.9, sigma 2: 1.4, 4: 2.5, 6: 3.7
# Levels; at 4 detail still brings a face nearer to the sharp one (by 1.1 to 4 dB), at 6 it brings it away (by 1.3 to 3)
_NOISE_IN_PICTURE = (5.5, 4.0)
_GRAIN = 0.7  # pixels of the crop: sigma of the blur that parts grain, which the crop cannot hold, from the rest
_GRAIN_SCALE = (0.7, 0.5)
_GRAIN_SHARP = (0.6, 0.75)
_GRAIN_IN_PICTURE = (4.0, 3.0)
_BLOCKS = (0.95, 0.7)  # steps at every 8th pixel; sharp up to 0.06, JPEG 90: 0.17, 75: 0.34, 50: 0.57, 25: 1.0
_SAME = (0.6, 0.8)  # correlation of the second octave; sharp 0.88 to 0.94
_LOCALLY_SAME = (0.2, 0.6)
_LOCAL = 8.0  # pixels of the crop: sigma of the window that judges a place
_STILL = 6.0  # variance up to which a place has nothing that could differ


@dataclass(frozen=True, eq=False)
class Detail:
    """How much of a picture's own fine detail belongs on a restored face.

    Attributes:
        weight: (S, S) in [0, 1], in the crop; None for nothing.
        grain: (S, S) in [0, 1], how much of the picture's grain alone comes on top of that; None for nothing.
        lost: why detail that the picture has is left out; empty where it is kept or there is none.
    """

    weight: Mask | None = None
    grain: Mask | None = None
    lost: str = ""


def detail_of(before: Crop, after: Crop, where: Mask, picture: Rgb, matrix: Matrix) -> Detail:
    """Judge one face.

    Args:
        before: the crop as it was, (S, S, 3), sRGB.
        after: the restored one.
        where: (S, S), the face in the crop.
        picture: (H, W, 3), the input.
        matrix: the picture to the crop.
    """
    (scale,) = mean_scale([matrix])  # below 1 for a face that is larger than its crop
    share = _ramp(scale, _SCALE)
    side = before.shape[0]
    inside = np.asarray(cv2.resize(where, (side, side), interpolation=cv2.INTER_AREA)) > 0.7
    if share == 0 or not inside.any():
        return Detail()
    size = side / 512
    old, new = luma(before) * 255, luma(after) * 255
    noise = _noise(old, inside)
    one, two = (_octaves(face, size) for face in (old, new))
    sharpness = _sharpness(one, two, noise, inside, size)
    sharp, grainy = _ramp(sharpness, _SHARP), _ramp(sharpness, _GRAIN_SHARP) * _ramp(scale, _GRAIN_SCALE)
    if max(sharp, grainy) == 0:
        return Detail()  # blurred: the picture has no finer detail
    region = _luma_around(picture, matrix, side)
    in_picture = _noise(region)
    noisy = min(_ramp(noise, _NOISE_IN_CROP), _ramp(in_picture, _NOISE_IN_PICTURE))
    blocky = _ramp(_blocks(region), _BLOCKS)
    same = _ramp(_correlation(one[1][inside], two[1][inside]), _SAME)
    reasons = {"noise": noisy, "JPEG's blocks": blocky, "not the restored face's": same}
    weight = share * sharp * noisy * blocky * same
    grain = grainy * _ramp(in_picture, _GRAIN_IN_PICTURE) * blocky * same
    lost = next((name for name, value in reasons.items() if value < 0.5), "")  # noise hides what comes behind it
    if max(weight, grain) < 0.02:
        return Detail(lost=lost)
    agreement = _agreement(old, new, size)
    more = np.float32(grain - weight)  # the weight's share has it already
    return Detail(np.float32(weight) * agreement, more * agreement if more > 0.02 else None, lost)


def with_detail(
    pasted: Pixels, before: Pixels, weight: Mask, where: Mask, matrix: Matrix, grain: Mask | None = None
) -> None:
    """Put the fine detail of ``before`` over a pasted face, in place.

    Args:
        pasted: (H, W, 3), with the restored face.
        before: (H, W, 3), the same picture without it, at the same size.
        weight: (S, S), from :func:`detail_of`.
        where: (S, S), the mask that the face was pasted with.
        matrix: the picture to the crop.
        grain: (S, S), from :func:`detail_of`.
    """
    side = weight.shape[0]
    back = inverse(matrix)
    corners = transform_points([[0, 0], [side - 1, 0], [0, side - 1], [side - 1, side - 1]], back)
    height, width = pasted.shape[:2]
    unit = side / 512 * float(np.sqrt(abs(np.linalg.det(back[:, :2]))))  # pixels of the picture
    sigma = _FINE * unit
    (x0, y0), (x1, y1) = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(width, x1), min(height, y1)
    if x0 >= x1 or y0 >= y1:
        return
    mask = where
    if where.shape[0] != side:
        mask = np.asarray(cv2.resize(where, (side, side), interpolation=cv2.INTER_AREA))
    moved = back.copy()
    moved[:, 2] -= (x0, y0)
    share = warp(weight * mask, moved, (x1 - x0, y1 - y0), cubic=False)
    top = np.iinfo(pasted.dtype).max
    margin = int(np.ceil(3 * sigma)) + 1
    rows = slice(max(0, y0 - margin), min(height, y1 + margin))
    columns = slice(max(0, x0 - margin), min(width, x1 + margin))
    inner = slice(y0 - rows.start, y1 - rows.start), slice(x0 - columns.start, x1 - columns.start)
    touched = share > 1e-3
    fine: Plane | None = None
    if grain is not None:
        rest = warp(grain * mask, moved, (x1 - x0, y1 - y0), cubic=False)
        grey = luma(before[rows, columns].astype(np.float32))
        fine = (grey - _blur(grey, _GRAIN * unit))[inner] * rest
        touched |= rest > 1e-3
    for c in range(3):  # one channel at a time, for the memory
        change = before[rows, columns, c].astype(np.float32) - pasted[rows, columns, c]
        change -= cv2.GaussianBlur(change, (0, 0), sigma)
        face = pasted[y0:y1, x0:x1, c]
        added = change[inner] * share
        if fine is not None:
            added += fine
        value = np.rint(np.clip(face + added, 0, top)).astype(pasted.dtype)
        face[touched] = value[touched]


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 at the first end, 1 at the second, straight between them."""
    return min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0])))


def _blur(plane: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), np.float32)


def _octaves(plane: Plane, size: float) -> tuple[Plane, Plane]:
    """Return the two finest octaves of a crop."""
    first, second = _blur(plane, size), _blur(plane, 2 * size)
    return plane - first, first - second


def _sharpness(one: tuple[Plane, Plane], two: tuple[Plane, Plane], noise: float, inside: Where, size: float) -> float:
    """Return the energy of a crop's two finest octaves, without its noise, as a share of the restored one's."""
    impulse = np.zeros((33, 33), np.float32)
    impulse[16, 16] = 1
    product = 1.0
    for old, new, response in zip(one, two, _octaves(impulse, size), strict=True):
        energy = float(old[inside].var()) - noise**2 * float((response**2).sum())
        product *= np.sqrt(max(0.0, energy)) / max(float(new[inside].std()), 1e-3)
    return float(np.sqrt(product))


def _correlation(one: Plane, other: Plane) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(1e-6, np.sqrt((one**2).sum() * (other**2).sum())))


def _noise(plane: Plane, inside: Where | None = None) -> float:
    """Return the standard deviation of the noise, by its smoothest places (after Immerkaer, 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    response = cv2.blur(np.abs(cv2.filter2D(plane, -1, kernel)), (16, 16))[8::16, 8::16]
    if inside is not None:
        response = response[inside[8::16, 8::16]]
    return float(np.sqrt(np.pi / 2) * np.percentile(response, 10)) if response.size else 0.0


def _blocks(plane: Plane) -> float:
    """Return by how much steps between pixels are larger at every 8th of them, as a share of the mean step."""
    result = []
    for axis in (0, 1):
        steps = np.abs(np.diff(plane, axis=axis)).mean(axis=1 - axis)
        if len(steps) < 32:
            return 0.0
        peaks = steps[1:-1] - 0.5 * (steps[:-2] + steps[2:])
        phases = sorted(float(peaks[phase::8].mean()) for phase in range(8))
        result.append((phases[-1] - phases[-2]) / max(float(steps.mean()), 1e-3))
    return float(np.mean(result))


def _luma_around(picture: Rgb, matrix: Matrix, size: int) -> Plane:
    """Return the brightness of the middle of a face in the picture, in 255 levels."""
    part = [[0.25 * size, 0.3 * size], [0.75 * size, 0.3 * size], [0.25 * size, 0.8 * size], [0.75 * size, 0.8 * size]]
    corners = transform_points(part, inverse(matrix))
    height, width = picture.shape[:2]
    (x0, y0), (x1, y1) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int) + 1
    region = picture[max(0, y0) : min(height, y1), max(0, x0) : min(width, x1)]
    return luma(region.astype(np.float32)) * np.float32(255 / np.iinfo(picture.dtype).max)


def _agreement(old: Plane, new: Plane, size: float) -> Mask:
    """Return where the restored face has the input's structure, (S, S) in [0, 1]; also where neither has any."""
    one, two = (_blur(face, size) - _blur(face, 4 * size) for face in (old, new))
    window = _LOCAL * size
    product, first, second = (_blur(a, window) for a in (one * two, one * one, two * two))
    same = (product + _STILL) / (np.sqrt(first * second) + _STILL)
    low, high = _LOCALLY_SAME
    return np.clip((same - low) / (high - low), 0, 1).astype(np.float32)
