"""Landmarks <-> aligned crop: the similarity to the FFHQ template, and the sampling in both directions.

Everything here is a pure function. Coordinates are OpenCV's: the centre of the first pixel is (0, 0), so a
picture that is resized by ``s`` sends x to (x + 0.5) * s - 0.5.

A 2x3 matrix always maps *picture* to *crop*; ``paste`` inverts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from codeformer.arrays import Crop, Landmarks, Mask, Matrix, Pixels, Points, Rgb, Samples, Where
from codeformer.errors import InputError
from codeformer.images.blend import reflected

# Where FFHQ's alignment puts the eyes, the nose and the mouth's corners in a 512x512 crop (published with
# facexlib and CodeFormer, whose networks were trained on crops made with it).
TEMPLATE_512: Landmarks = np.array(
    [
        [192.98138, 239.94708],  # eye at the viewer's left
        [318.90277, 240.1936],  # eye at the viewer's right
        [256.63416, 314.01935],  # nose
        [201.26117, 371.41043],  # mouth corner, left
        [313.08905, 371.15118],  # mouth corner, right
    ],
    dtype=np.float64,
)
TEMPLATE_512.setflags(write=False)

_MARGIN = 8  # source pixels around what is sampled: the cubic and the Gaussian look that far
_STRIP_PIXELS = 4_000_000  # pixels that are held as float at a time while a large region is reduced
_REGION_PIXELS = 2_000_000_000  # a region larger than this comes from landmarks that are not a face


def face_transform(landmarks: npt.ArrayLike, size: int = 512) -> Matrix:
    """Return the (2, 3) similarity (rotation, uniform scale, shift) that takes ``landmarks`` to the template.

    ``landmarks``: (5, 2) picture pixels in the template's order. Least median of squares, as published: one
    landmark that is badly off does not tilt the face. Where that fails the least squares solution is taken.
    Raises InputError for landmarks that are not five finite, distinct points.
    """
    source = np.asarray(landmarks, dtype=np.float64)
    if source.shape != TEMPLATE_512.shape:
        raise InputError(f"a face needs five (x, y) landmarks, got an array of shape {source.shape}")
    if not np.isfinite(source).all():
        raise InputError("the face's landmarks are not finite numbers")
    centre = source.mean(axis=0)
    spread = math.sqrt(float(((source - centre) ** 2).sum(axis=1).mean()))
    if spread <= 1e-3 or spread <= 1e-9 * float(np.abs(centre).max()):
        raise InputError("the face's landmarks fall on one point")

    # OpenCV stores the points as float32 and judges inliers in absolute units: with the points brought to the
    # origin and to the template's size, a face's place and size in a large picture cost no precision.
    target = TEMPLATE_512
    normal = (source - centre) * (100.0 / spread)
    matrix, _ = cv2.estimateAffinePartial2D(normal, target, method=cv2.LMEDS)
    if matrix is None or not np.isfinite(matrix).all() or not 0.25 < _scale(matrix) < 4.0:
        matrix = _least_squares(normal, target)
    result = np.asarray(matrix, dtype=np.float64).copy()
    result[:, :2] *= 100.0 / spread
    result[:, 2] -= result[:, :2] @ centre
    return result if size == 512 else crop_scaled(result, size / 512)


def _least_squares(source: Points, target: Points) -> Matrix:
    """Return the closed-form least squares similarity without reflection (Umeyama 1991), here with complex numbers."""
    z, t = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    zc, tc = z - z.mean(), t - t.mean()
    a = np.vdot(zc, tc) / np.vdot(zc, zc).real
    if abs(a) < 1e-9:
        raise InputError("the face's landmarks have the shape of no face")
    b = t.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def transform_points(points: npt.ArrayLike, matrix: npt.ArrayLike) -> Points:
    """(N, 2) points through a (2, 3) matrix."""
    m = np.asarray(matrix, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ m[:, :2].T + m[:, 2]


def inverse(matrix: npt.ArrayLike) -> Matrix:
    """Return the (2, 3) matrix of the way back (crop -> picture)."""
    m = np.asarray(matrix, dtype=np.float64)
    linear = np.linalg.inv(m[:, :2])
    return np.concatenate([linear, -(linear @ m[:, 2:])], axis=1)


def scaled(matrix: npt.ArrayLike, scale: float | tuple[float, float]) -> Matrix:
    """Return the transform for the same picture enlarged by ``scale`` (or by (x, y): a rounded size has two scales)."""
    m = np.asarray(matrix, dtype=np.float64)
    factor = np.broadcast_to(np.asarray(scale, dtype=np.float64), 2)
    # picture' -> picture: x = (x' + 0.5) / s - 0.5
    linear = m[:, :2] / factor
    return np.concatenate([linear, (m[:, :2] @ (0.5 / factor - 0.5) + m[:, 2])[:, None]], axis=1)


def crop_scaled(matrix: npt.ArrayLike, scale: float) -> Matrix:
    """Return the transform to a crop that is ``scale`` times as large (512 -> 1024 after a face upsampler: 2)."""
    m = np.asarray(matrix, dtype=np.float64) * scale
    m[:, 2] += 0.5 * scale - 0.5
    return m


def crop_face(rgb: Rgb, matrix: npt.ArrayLike, size: int = 512) -> Crop:
    """Return the aligned crop, (size, size, 3) float32 in [0, 1], out of an (H, W, 3) uint8 or uint16 picture.

    What lies outside the frame is the picture's reflection. A large face is low-pass filtered before it is
    sampled, a small one interpolated by cubics. Only the region of interest is converted.
    """
    return warp(rgb, matrix, (size, size))


def crop_mask(mask: Mask | Where, matrix: npt.ArrayLike, size: int = 512) -> Mask:
    """Return the (H, W) mask (bool, or float in [0, 1]) in the crop: (size, size), 0 outside of the picture."""
    return warp(mask, matrix, (size, size), reflect=False, cubic=False)


def warp(
    source: Pixels | Samples | Where,
    matrix: npt.ArrayLike,
    size: tuple[int, int],
    *,
    reflect: bool = True,
    cubic: bool = True,
) -> Samples:
    """``source`` through ``matrix`` (source -> result) onto ``size`` (width, height), as float32 in [0, 1].

    ``source``: (H, W) or (H, W, C), bool, uint8, uint16 or float in [0, 1]. Beyond its edge there is its
    reflection, or 0 without ``reflect``. Anti-aliased: where the result is smaller the source is averaged over
    whole blocks of pixels, then smoothed by the rest of the factor, then sampled. ``cubic`` overshoots at edges
    (and is cut to [0, 1]); without it the interpolation is linear.
    """
    m = np.asarray(matrix, dtype=np.float64)
    width, height = size
    if not (np.isfinite(m).all() and _scale(m) > 0):
        raise InputError("the face's transform cannot be inverted")
    scale = _scale(m)
    back = inverse(m)
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [-0.5, height - 0.5], [width - 0.5, height - 0.5]])
    found = transform_points(corners, back)
    low, high = found.min(axis=0), found.max(axis=0)

    # Whole blocks down to twice what is sampled or a little more: the Gaussian then passes less of what would alias
    # than blocks alone do
    block = max(1, math.floor(0.5 / scale + 1e-6))
    margin = _MARGIN * block
    if float(np.prod(high - low + 2 * margin)) > _REGION_PIXELS or float(np.abs(found).max()) > 1e8:
        raise InputError("the face is far outside the picture or far larger than it")
    x0, y0 = (int(v) for v in np.floor(low) - margin)
    columns, rows = (math.ceil((v + margin - o + 1) / block) for v, o in zip(high, (x0, y0), strict=True))
    region: Samples = _region(source, (x0, y0), (columns, rows), block, reflect)

    to_region = scaled(m @ _with_row(np.array([[1.0, 0.0, x0], [0.0, 1.0, y0]])), 1.0 / block)
    rest = scale * block
    if rest < 1.0 - 1e-6:
        sigma = 0.5 * math.sqrt(1.0 / rest**2 - 1.0)  # at most 2: within the margin
        smooth = cv2.GaussianBlur(region, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        region = np.asarray(smooth, np.float32)
    elif rest > 1.0 + 1e-6:
        # OpenCV's warp knows 32 positions between two pixels, and its cubic turns a ramp into waves. On a picture that
        # has been enlarged by Pillow's (Catmull-Rom) neither is seen.
        zoom = min(math.ceil(1.25 * rest), 16)
        region = _enlarged(region, zoom, cubic)
        to_region = scaled(to_region, zoom)
    out = cv2.warpAffine(region, to_region, (width, height), flags=_flag(cubic), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(out.reshape(height, width, *source.shape[2:]), 0.0, 1.0)


def _region(
    source: Pixels | Samples | Where, origin: tuple[int, int], size: tuple[int, int], block: int, reflect: bool
) -> Samples:
    """``size`` (columns, rows) blocks of the source from ``origin``, each averaged: float32 in [0, 1]."""
    (x0, y0), (columns, rows) = origin, size
    unit = _unit(source.dtype)
    out = np.empty((rows, columns, *source.shape[2:]), dtype=np.float32)
    step = max(1, _STRIP_PIXELS // max(1, columns * block * block))
    for top in range(0, rows, step):
        count = min(rows - top, step)
        strip = _rectangle(source, (x0, y0 + top * block), (columns * block, count * block), reflect)
        if block > 1:
            strip = cv2.resize(strip.astype(np.float32), (columns, count), interpolation=cv2.INTER_AREA)
            strip = strip.reshape(count, columns, *source.shape[2:])
        np.multiply(strip, unit, out=out[top : top + count], dtype=np.float32, casting="same_kind")
    return out


def _rectangle(
    source: Pixels | Samples | Where, origin: tuple[int, int], size: tuple[int, int], reflect: bool
) -> Pixels | Samples | Where:
    """Return ``size`` (columns, rows) pixels of the source from ``origin``: a view where all of them lie inside.

    What sticks out is the source's reflection, or 0 without ``reflect``.
    """
    (x, y), (columns, rows), (height, width) = origin, size, source.shape[:2]
    out = (max(0, -y), max(0, y + rows - height), max(0, -x), max(0, x + columns - width))  # top, bottom, left, right
    inside = source[max(0, y) : max(0, y + rows), max(0, x) : max(0, x + columns)]
    if not any(out):
        return inside
    if reflect and not (max(out[:2]) < inside.shape[0] and max(out[2:]) < inside.shape[1]):  # more than one reflection
        across, down = (reflected(np.arange(a, a + n), most) for a, n, most in ((x, columns, width), (y, rows, height)))
        return source[down[:, None], across]
    if not inside.size:
        return np.zeros((rows, columns, *source.shape[2:]), source.dtype)
    plain: Any = inside.view(np.uint8) if inside.dtype == np.bool_ else inside
    found = cv2.copyMakeBorder(plain, *out, cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT, value=0)
    return np.asarray(found).reshape(rows, columns, *source.shape[2:])


def _enlarged(region: Samples, zoom: int, cubic: bool) -> Samples:
    size = (region.shape[1] * zoom, region.shape[0] * zoom)
    if not cubic:
        return cv2.resize(region, size, interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
    planes = region.reshape(*region.shape[:2], -1)
    large = [Image.fromarray(planes[..., k]).resize(size, Image.Resampling.BICUBIC) for k in range(planes.shape[2])]
    merged = cv2.merge([np.asarray(plane) for plane in large])
    return np.asarray(merged, np.float32).reshape(size[1], size[0], *region.shape[2:])


def _unit(dtype: np.dtype[Any]) -> np.float32:
    return np.float32(1.0 / np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1.0)


def _scale(matrix: npt.ArrayLike) -> float:
    """How many result pixels a source pixel becomes, along a side."""
    return math.sqrt(abs(float(np.linalg.det(np.asarray(matrix, dtype=np.float64)[:, :2]))))


def _with_row(matrix: Matrix) -> npt.NDArray[np.float64]:
    return np.concatenate([matrix, [[0.0, 0.0, 1.0]]])


def _flag(cubic: bool) -> int:
    return cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR


def mean_scale(matrices: Sequence[npt.ArrayLike]) -> list[float]:
    """Crop pixels per picture pixel, for each matrix: above 1 the face is smaller than its crop."""
    return [_scale(m) for m in matrices]
