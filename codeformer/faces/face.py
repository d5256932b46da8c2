"""A face in a picture, and what is done to faces without looking at pixels: moving, scaling, suppressing duplicates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Floats, Landmarks
from codeformer.faces.align import TEMPLATE_512


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the picture (the centre of the first pixel is (0, 0))."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    score: float  # 0..1
    landmarks: Landmarks

    @property
    def width(self) -> float:
        """The box's width in pixels."""
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        """The box's height in pixels."""
        return self.box[3] - self.box[1]

    @property
    def centre(self) -> tuple[float, float]:
        """The box's middle (x, y)."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def roll(self) -> float:
        """By how many degrees, in (-180, 180], the face is turned clockwise from upright."""
        return roll_of(self.landmarks)

    @property
    def misfit(self) -> float:
        """How far the landmarks lie from where an aligned face has them, in pixels of a crop of 512 (RMS)."""
        return misfit_of(self.landmarks)


def misfit_of(landmarks: Landmarks) -> float:
    """Return how far (5, 2) landmarks, moved, turned and scaled to fit best, lie from the template's (RMS, pixels)."""
    points, target = (places[:, 0] + 1j * places[:, 1] for places in (landmarks.astype(np.float64), TEMPLATE_512))
    points, target = points - points.mean(), target - target.mean()
    energy = float(np.vdot(points, points).real)
    fitted = points * (np.vdot(points, target) / energy) if energy > 0 else points
    return float(np.sqrt((np.abs(fitted - target) ** 2).mean()))


def roll_of(landmarks: Landmarks) -> float:
    """Return by how many degrees, in (-180, 180], the line of the eyes of (5, 2) landmarks is turned clockwise."""
    x, y = (float(v) for v in landmarks[1] - landmarks[0])
    return math.degrees(math.atan2(y, x))


def turned(face: Face, quarters: int, size: tuple[int, int]) -> Face:
    """Return a face of ``np.rot90(picture, quarters)`` in the picture's own coordinates.

    Args:
        face: in pixels of the turned picture.
        quarters: how many quarters the picture was turned counterclockwise.
        size: (width, height) of the picture itself.
    """
    width, height = size

    def back(x: float, y: float) -> tuple[float, float]:
        return ((x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x))[quarters % 4]

    (xa, ya), (xb, yb) = back(*face.box[:2]), back(*face.box[2:])
    landmarks = np.array([back(float(x), float(y)) for x, y in face.landmarks], np.float32)
    return Face((min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)), face.score, landmarks)


def moved(face: Face, dx: float, dy: float) -> Face:
    """Return the face ``dx`` pixels further right and ``dy`` further down."""
    return _mapped(face, (1.0, 1.0), (dx, dy))


def scaled(face: Face, factor: tuple[float, float]) -> Face:
    """Return the face in the same picture enlarged by ``factor`` (x, y)."""
    return _mapped(face, factor, (0.5 * factor[0] - 0.5, 0.5 * factor[1] - 0.5))


def _mapped(face: Face, factor: tuple[float, float], shift: tuple[float, float]) -> Face:
    (fx, fy), (dx, dy), (x0, y0, x1, y1) = factor, shift, face.box
    points = (face.landmarks * np.array(factor) + np.array(shift)).astype(np.float32)
    return Face((x0 * fx + dx, y0 * fy + dy, x1 * fx + dx, y1 * fy + dy), face.score, points)


def merged(faces: list[Face]) -> list[Face]:
    """Return the faces without those that a better one of them stands for, best first."""
    if not faces:
        return []
    boxes = np.array([f.box for f in faces], dtype=np.float32)
    scores = np.array([f.score for f in faces], dtype=np.float32)
    return [faces[group[0]] for group in groups(boxes, scores)]


def groups(boxes: Floats, scores: Floats, overlap: float = 0.4) -> list[NDArray[np.int64]]:
    """Return for each face that stays its candidates, best first: greedy suppression.

    A candidate belongs to a better one when the intersection is more than ``overlap`` of the union, or when most of
    the smaller box lies in the larger one while their middles agree: one face, seen at two scales.

    Args:
        boxes: (N, 4) corners x0, y0, x1, y1.
        scores: (N,).
        overlap: intersection over union from which two boxes are one face.

    Returns:
        For each face the indices of its candidates.
    """
    order = np.argsort(-scores, kind="stable")
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = np.sqrt(np.maximum(area, 1e-6))
    found: list[NDArray[np.int64]] = []
    while order.size:
        best = order[0]
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.prod(np.maximum(sides, 0.0), axis=1)
        same = shared > overlap * np.maximum(area[best] + area[order] - shared, 1e-6)
        near = np.abs(middle[order] - middle[best]).max(axis=1) < 0.2 * np.minimum(reach[best], reach[order])
        same |= near & (shared > 0.8 * np.minimum(area[best], area[order]))
        same[0] = True
        found.append(order[same])
        order = order[~same]
    return found
