"""Restored crops back into the picture: soft masks, the inverse warp, blending. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from codeformer.arrays import Crop, Mask, Matrix, Pixels, Points
from codeformer.faces.align import face_transform, inverse, mean_scale, transform_points, warp

_TILE = 2048  # output pixels along a side that are blended in float at a time
_BAND = 256  # rows that are blended in float at a time
_NOTHING = 1.0 / 1024  # a weight that cannot move an 8-bit value by half a step counts as 0


def paste_faces(
    rgb: Pixels,
    crops: Sequence[Crop],
    matrices: Sequence[npt.ArrayLike],
    masks: Sequence[Mask],
    *,
    whole: bool = False,
) -> Pixels:
    """Return a new picture of ``rgb``'s dtype with the crops blended in; ``rgb`` itself is left as it is.

    ``rgb``: (H, W, 3) uint8 or uint16, already of the output's size. ``crops``: (S, S, 3) float RGB in [0, 1], any
    S. ``matrices``: (2, 3), picture -> crop of that S. ``masks``: (S', S') float in [0, 1], of any size, stretched
    over their crop. Where every mask is 0 the result equals ``rgb`` bit for bit. Overlapping faces: the smaller
    face in the picture is pasted first, so the larger one (mostly the nearer) lies on top; of two equal ones the
    later in the list. ``whole``: the crop is the whole picture, and its mask goes on beyond the outermost pixels.
    """
    if not len(crops) == len(matrices) == len(masks):
        raise ValueError("paste_faces needs as many matrices and masks as crops")
    out = rgb.copy()
    # Crop pixels per picture pixel over the crop's side: falls as the face grows
    sizes = [crop.shape[0] / scale for crop, scale in zip(crops, mean_scale(matrices), strict=True)]
    for i in sorted(range(len(crops)), key=lambda i: (sizes[i], i)):
        _paste_one(out, crops[i], np.asarray(matrices[i], dtype=np.float64), masks[i], whole)
    return out


def blended(before: Pixels, after: Pixels, strength: float) -> Pixels:
    """Return the mean of a picture without and with its faces, weighted by ``strength`` for the second.

    Where both are equal the result equals them bit for bit; a strength of 1 gives ``after`` itself.

    Args:
        before: (H, W, 3) uint8 or uint16.
        after: the same shape and dtype.
        strength: in [0, 1].
    """
    if strength == 1:
        return after
    out = np.empty_like(after)
    for y in range(0, len(after), _BAND):
        rows = slice(y, y + _BAND)
        old = before[rows].astype(np.float32)
        out[rows] = np.rint(old + (after[rows].astype(np.float32) - old) * np.float32(strength))
    return out


def coverage(
    size: tuple[int, int],
    crops: Sequence[Crop],
    matrices: Sequence[Matrix],
    masks: Sequence[Mask],
    *,
    whole: bool = False,
) -> Mask:
    """Return how far :func:`paste_faces` pastes crops over each pixel of a picture of ``size`` (width, height)."""
    white = [np.ones((*crop.shape[:2], 1), dtype=np.float32) for crop in crops]
    nothing = np.zeros((size[1], size[0], 1), dtype=np.uint8)
    covered = paste_faces(nothing, white, matrices, masks, whole=whole)[..., 0]
    return np.divide(covered, np.float32(255), dtype=np.float32)


def _paste_one(out: Pixels, crop: Crop, matrix: Matrix, mask: Mask, whole: bool) -> None:
    """Blends one crop into ``out`` in place, tile by tile, over the mask's support only."""
    rows, columns = (np.flatnonzero(np.any(mask > 0, axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return
    # The mask may be smaller than the crop (a 512 mask for a 1024 crop): its matrix is the crop's, rescaled
    ratio = mask.shape[0] / crop.shape[0]
    mask_matrix = matrix * ratio
    mask_matrix[:, 2] += 0.5 * ratio - 0.5
    back, mask_back = inverse(matrix), inverse(mask_matrix)
    left, right, top, bottom = columns[0] - 1, columns[-1] + 1, rows[0] - 1, rows[-1] + 1
    corners = transform_points([[left, top], [right, top], [left, bottom], [right, bottom]], mask_back)
    height, width = out.shape[:2]
    x0, y0 = (max(0, math.floor(v) - 2) for v in corners.min(axis=0))
    x1, y1 = (min(n, math.ceil(v) + 3) for n, v in zip((width, height), corners.max(axis=0), strict=True))
    top_value = np.iinfo(out.dtype).max
    for y in range(y0, y1, _TILE):
        for x in range(x0, x1, _TILE):
            tile = out[y : min(y1, y + _TILE), x : min(x1, x + _TILE)]  # a view
            size = (tile.shape[1], tile.shape[0])
            weight = warp(mask, _shifted(mask_back, x, y), size, reflect=whole, cubic=False)
            weight[weight < _NOTHING] = 0.0
            if not weight.any():
                continue
            face = warp(crop, _shifted(back, x, y), size)
            below = tile.astype(np.float32)
            face *= np.float32(top_value)
            face -= below
            face *= cv2.merge([weight] * face.shape[2]).reshape(face.shape)  # quicker than by broadcasting
            face += below  # exactly what is there already where the weight is 0
            np.rint(face, out=face)
            np.copyto(tile, np.clip(face, 0, top_value, out=face), casting="unsafe")


def _shifted(matrix: Matrix, x: int, y: int) -> Matrix:
    """Return the matrix to coordinates whose origin is at (x, y)."""
    moved = matrix.copy()
    moved[:, 2] -= (x, y)
    return moved


def geometric_mask(landmarks_in_crop: npt.ArrayLike, size: int) -> Mask:
    """Return a soft egg over the face and the beginning of its hair: (size, size) float32, 1 inside, 0 on the border.

    ``landmarks_in_crop``: (5, 2) crop pixels. The egg is drawn around the template's face, moved to where these
    landmarks say that the face is. It has no parts with a straight edge: the weight falls from 1 to 0 along two
    fifths of the radius with continuous first and second derivatives, so that the eye finds no contour.
    """
    return _egg(np.asarray(landmarks_in_crop, dtype=np.float64), size)


def seen_in_both(restored: Mask, original: Mask) -> Mask | None:
    """Return where a face is seen both in the restored crop and in the crop before, the smaller of the two weights.

    Where only the restored crop shows the face, the network has drawn skin over something that was before it.

    Args:
        restored: (S, S) float32 in [0, 1], how far each pixel of the restored crop is the face.
        original: the same of the crop before.

    Returns:
        The mask; None where the crop before shows so little of the face that it is not to be trusted.
    """
    both = np.minimum(restored, original)
    return both if float(both.sum()) >= _TRUSTED * float(restored.sum()) else None


_TRUSTED = 0.4  # share of the restored face that must be seen in the input, too
_EGG_CENTRE = (256.0, 280.0)  # between the eyes and the nose's tip


def _egg(landmarks: Points, size: int) -> Mask:
    m = face_transform(landmarks, 512)  # crop -> template: undoes what LMEDS left of tilt and scale
    # Half axes in template pixels: the forehead and the hair's beginning, the cheeks to the ears, the whole chin
    m[:, 2] -= _EGG_CENTRE
    m[0] /= 214.0
    m[1] /= 250.0
    place = np.arange(size)
    dx, dy = (  # (size, size) each, made of a row and a column
        (a * place).astype(np.float32) + (b * place + shift).astype(np.float32)[:, None] for a, b, shift in m
    )
    dy *= np.where(dy < 0, np.float32(1), np.float32(250.0 / 238.0))
    chin = np.clip(dy, 0, 1)
    dx *= 1 + np.float32(0.6) * chin * chin  # narrower towards the chin
    weight = smooth_step((1 - cv2.magnitude(dx, dy)) * np.float32(1 / 0.42))
    return weight * border_ramp(size)


def border_ramp(size: int) -> Mask:
    """(size, size): 0 on the border, 1 from a sixteenth of the side on."""
    place = np.arange(size)
    edge = smooth_step(np.minimum(place, size - 1 - place) / (size / 16))
    return (edge[:, None] * edge).astype(np.float32)


def smooth_step(t: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """0 below 0, 1 above 1, between them a polynomial with vanishing first and second derivatives at both ends."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
