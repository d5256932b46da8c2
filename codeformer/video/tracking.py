"""Faces over time: which face of one frame is which of the next. Pure functions and values.

A track is one face from where it appears to where it is lost or the film cuts. Positions count distinct frames:
doubled ones do not exist here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from codeformer.arrays import Floats, Landmarks, Points, Rgb, Samples
from codeformer.faces.face import Face

_THUMBNAIL = (32, 18)
_NEW_SCENE = 0.10  # mean difference of thumbnails in [0, 1] from which a frame may begin another scene
_NEW_SCENE_RATIO = 3.0  # ... if it also is this many times the usual difference
_LEAST_OVERLAP = 0.1  # of boxes, for two faces to be one
_FARTHEST = 0.9  # mean distance of landmarks, in face sizes


@dataclass(frozen=True, eq=False)
class Tracked:
    """One face in one frame.

    Attributes:
        track: the same number for the same face.
        face: where it lies.
        found: its place in the frame's detections; None where a gap was bridged.
    """

    track: int
    face: Face
    found: int | None


@dataclass(frozen=True, eq=False)
class Scene:
    """What the next frame is compared with: the last frame's thumbnail and the usual change between frames."""

    thumbnail: Samples
    usual: float


@dataclass(frozen=True, eq=False)
class Trail:
    """A track that may go on: where it was last seen, how it moved from frame to frame, and when."""

    track: int
    face: Face
    velocity: Points  # (2,) pixels per frame
    position: int


def thumbnail(rgb: Rgb) -> Samples:
    """Return a tiny version of a frame, (18, 32, 3) float32 in [0, 1]."""
    small = cv2.resize(rgb, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)


def next_scene(before: Scene | None, rgb: Rgb) -> tuple[Scene, bool]:
    """Return the scene after this frame, and whether the film cut before it."""
    now = thumbnail(rgb)
    if before is None:
        return Scene(now, 0.02), True
    change = float(np.abs(now - before.thumbnail).mean())
    if change > _NEW_SCENE and change > _NEW_SCENE_RATIO * before.usual:
        return Scene(now, 0.02), True
    return Scene(now, 0.8 * before.usual + 0.2 * max(change, 0.005)), False


def associate(trails: Sequence[Trail], faces: Sequence[Face], position: int) -> dict[int, int]:
    """Which of ``faces`` continues which trail: face index -> trail index, the closest pairs first."""
    pairs = []
    for i, trail in enumerate(trails):
        steps = position - trail.position
        moved = _shifted(trail.face, trail.velocity * steps)
        for j, face in enumerate(faces):
            overlap = max(_overlap(moved.box, face.box), _overlap(trail.face.box, face.box))
            size = math.sqrt(max(1.0, moved.width * moved.height))
            distance = float(np.linalg.norm(moved.landmarks - face.landmarks, axis=1).mean()) / size
            alike = min(size, (s := math.sqrt(max(1.0, face.width * face.height)))) / max(size, s)
            if overlap >= _LEAST_OVERLAP and distance <= _FARTHEST and alike >= 0.5:
                pairs.append((distance - overlap, i, j))
    taken: dict[int, int] = {}
    used: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in used and j not in taken:
            taken[j] = i
            used.add(i)
    return taken


def follow(trail: Trail | None, track: int, face: Face, position: int) -> Trail:
    """Return the trail with the face where it is now."""
    velocity = np.zeros(2)
    if trail is not None:
        step = (np.mean(face.landmarks, axis=0) - np.mean(trail.face.landmarks, axis=0)) / (position - trail.position)
        velocity = 0.5 * trail.velocity + 0.5 * step.astype(np.float64)
    return Trail(track, face, velocity, position)


def between(before: Face, after: Face, share: float) -> Face:
    """Return a face that was not detected, ``share`` in (0, 1) of the way from ``before`` to ``after``."""
    box = tuple((1 - share) * a + share * b for a, b in zip(before.box, after.box, strict=True))
    landmarks = (1 - share) * before.landmarks + share * after.landmarks
    return Face((box[0], box[1], box[2], box[3]), min(before.score, after.score), landmarks.astype(np.float32))


def smooth_landmarks(points: Points, positions: Floats, at: float, radius: float) -> Landmarks:
    """(5, 2) landmarks at position ``at`` from those of its neighbours, (N, 5, 2) at ``positions`` (N,).

    A local polynomial (quadratic if there are enough neighbours) over both sides, so steady motion and acceleration
    pass without lag; weights fall with the distance in time, and a detection that does not fit its neighbours counts
    little.
    """
    offsets = (np.asarray(positions, dtype=np.float64) - at) / (radius + 1)
    flat = np.asarray(points, dtype=np.float64).reshape(len(offsets), -1)
    weights = np.clip(1 - np.abs(offsets) ** 3, 0, None) ** 3
    inside = weights > 0
    offsets, flat, weights = offsets[inside], flat[inside], weights[inside]
    order = 0 if len(offsets) < 3 else 1 if len(offsets) < 6 else 2
    powers = np.stack([offsets**k for k in range(order + 1)], axis=1)
    robust = np.ones_like(weights)
    result = flat.mean(axis=0)
    for _ in range(2):
        root = np.sqrt(weights * robust)[:, None]
        coefficients, *_ = np.linalg.lstsq(powers * root, flat * root, rcond=None)
        result = coefficients[0]
        off = np.linalg.norm(flat - powers @ coefficients, axis=1)
        scale = 3 * float(np.median(off)) + 1e-6
        robust = 1 / (1 + (off / scale) ** 2)
    return result.reshape(5, 2)


def moved(face: Face, landmarks: Landmarks) -> Face:
    """Return the face with other landmarks, its box moved along."""
    shift = landmarks.mean(axis=0) - face.landmarks.mean(axis=0)
    return replace(_shifted(face, shift), landmarks=landmarks.astype(np.float32))


def _shifted(face: Face, shift: Points) -> Face:
    x0, y0, x1, y1 = face.box
    dx, dy = float(shift[0]), float(shift[1])
    return replace(face, box=(x0 + dx, y0 + dy, x1 + dx, y1 + dy), landmarks=face.landmarks + np.asarray(shift))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
