"""The faces of a picture: which detector looks at it, and at which scales.

A detector looks at one picture at the scale that it is given. ``find_faces`` chooses the scales, brings the results
back to full-picture coordinates .
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from codeformer.arrays import Pixels, Rgb
from codeformer.errors import InputError, UsageError
from codeformer.faces.detectors import DlibDetector, MobileNetDetector, ResNetDetector
from codeformer.faces.face import Face, groups, merged, moved, scaled, turned

__all__ = ["DETECTORS", "Detector", "Face", "find_faces", "make_detector"]


class Detector(Protocol):
    """Finds faces of about 12 to 500 pixels in an (H, W, 3) uint8 RGB picture, with a score of at least threshold."""

    name: str

    def __call__(self, rgb: Rgb, threshold: float) -> list[Face]:
        """Return the faces of a picture that score at least `threshold`."""


DETECTORS: dict[str, Callable[[str, Path | None], Detector]] = {
    "retinaface_mobile0.25": MobileNetDetector,
    "retinaface_resnet50": ResNetDetector,
    "dlib": DlibDetector,
}


def make_detector(name: str, *, device: str = "cpu", weights_dir: Path | None = None) -> Detector:
    """Return the detector of that name.

    Raises:
        UsageError: the detector is unknown, or its extra is not installed.
        WeightsError: its file is missing or damaged.
    """
    if name not in DETECTORS:
        raise UsageError(f"there is no detection model {name!r}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name](device, weights_dir)


_LOOK = 1280  # long side of the first look: faces from about 1 % of the picture's width on
_CLOSE_LOOK = 2560  # long side of the second look at a larger picture, in tiles
_TILE = 1280
_HALF = 0.5  # so that faces of 24 pixels are found in a large picture too, as far as its size allows:
_CLOSE_PIXELS = 16_000_000  # no more than this is looked at in the second look
_SMALLEST = 12.0  # pixels of a face that the detectors just find
_OVERLAP = 192  # tiles share this much: a face that the second look is for lies whole in one of them
_SECOND_LOOK_FROM = 2000  # a picture of 1920x1080, and so a film's frame, is looked at once
_SURE = 0.9  # score from which on a face that looks upright is upright
_UPRIGHT = 50.0  # degrees
# A hanging face that was taken for an upright one scores up to 0.996, and its landmarks lie 10 to 75 pixels from the
# template's; upright ones of 24 portraits scored 0.9993 or more, and lay 1 to 14 pixels from it (one of them 25)
_CERTAIN = 0.998
_FITTING = 13.0  # pixels of a crop of 512
_TILTED = 35.0  # degrees
_HANGING = 100.0  # degrees: a face turned further may be one that was taken the wrong way round
_SLOW = ("dlib",)  # seconds per megapixel: one look has to do
_SMALL = 640  # a smaller picture is enlarged to this
_PADDED = 384  # long side of the picture inside its frame of grey, for faces that fill it


def find_faces(
    rgb: Pixels,
    detector: Detector,
    *,
    threshold: float = 0.5,
    min_size: float = 0.0,
    turned_views: bool = True,
) -> list[Face]:
    """Return the faces of a picture, in its pixels, from left to right.

    Args:
        rgb: (H, W, 3) or (H, W), uint8 or uint16.
        detector: what looks at the picture at the scale that it is given.
        threshold: the lowest score.
        min_size: the shortest side of a box, in pixels of the picture.
        turned_views: where no upright face is seen for sure, look at the picture from its other sides too.

    Raises:
        InputError: ``rgb`` is not such an array.
    """
    if (
        rgb.ndim not in (2, 3)
        or (rgb.ndim == 3 and rgb.shape[2] not in (1, 3))
        or rgb.dtype not in (np.uint8, np.uint16)
    ):
        raise InputError(f"faces are searched in 8 or 16-bit RGB or grey pictures, not in {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    if min(height, width) < 2:
        return []
    found = _search_from_all_sides(rgb, detector, threshold) if turned_views else _search(rgb, detector, threshold)
    faces = [replace(f, box=_clipped(f.box, width, height)) for f in found]
    faces = [f for f in faces if min(f.width, f.height) >= max(min_size, 1.0)]
    return sorted(faces, key=lambda f: (f.centre, f.score))


def _search_from_all_sides(rgb: Pixels, detector: Detector, threshold: float) -> list[Face]:
    """Look at the picture, and where it shows no face that is upright for sure, at the picture turned by quarters.

    Beyond about 100 degrees the detectors miss faces or take the mouth for eyes, now and then of a face that then looks
    upright. A picture with an upright face in it is looked at once.
    """
    faces = _search(rgb, detector, threshold)
    if any(map(_surely_upright, faces)) and not any(map(_may_hang, faces)):
        return faces
    seen = [(f, abs(f.roll)) for f in faces]
    size = (rgb.shape[1], rgb.shape[0])
    for quarters in (1, 2, 3):
        view = np.ascontiguousarray(np.rot90(rgb, quarters))
        seen += [(turned(f, quarters, size), abs(f.roll)) for f in _search(view, detector, max(threshold, _SURE))]
    if not seen:
        return []
    boxes = np.array([f.box for f, _ in seen], np.float32)
    # The look that saw a face upright tells its features apart
    ranks = np.array([f.score - f.misfit / 1000 - (roll > _UPRIGHT) for f, roll in seen], np.float32)
    return [seen[group[0]][0] for group in groups(boxes, ranks)]


def _surely_upright(face: Face) -> bool:
    return face.score >= _SURE and abs(face.roll) <= _UPRIGHT


def _may_hang(face: Face) -> bool:
    doubtful = face.misfit > _FITTING or abs(face.roll) > _TILTED
    return abs(face.roll) > _HANGING or (face.score < _CERTAIN and doubtful)


def _search(rgb: Pixels, detector: Detector, threshold: float) -> list[Face]:
    height, width = rgb.shape[:2]
    side = _side(width, height)
    scale = min(1.0, _LOOK / side) if side >= _SMALL else min(8.0, _SMALL / side)
    if max(height, width) * scale <= _LOOK or detector.name in _SLOW:
        faces = _detect_at(rgb, detector, threshold, min(scale, _LOOK / max(height, width)))
    else:  # a panorama: pieces that share so much that every face lies whole in one of them
        faces = _in_pieces(rgb, detector, threshold, scale, round(min(height, width) * scale))
    close = close_scale(width, height)
    if close > scale and side > _SECOND_LOOK_FROM and detector.name not in _SLOW:
        faces = merged(faces + _in_pieces(rgb, detector, threshold, close, _OVERLAP))
    if not faces:
        # Nothing: perhaps because the face is larger than its picture. Seen smaller, within a margin, it is found
        faces = _detect_at(rgb, detector, threshold, _PADDED / max(height, width), margin=_PADDED // 2)
    return [f for f in faces if _usable(f, width, height)]


def _side(width: int, height: int) -> int:
    """Return the long side that decides the scales: of a panorama, twice its short side, for its faces are as large."""
    return min(max(height, width), 2 * min(height, width))


def close_scale(width: int, height: int) -> float:
    """Return the largest scale, up to 1, at which a picture of so many pixels is searched for faces."""
    side = _side(width, height)
    if side <= _SECOND_LOOK_FROM:
        return min(1.0, _LOOK / side)
    return min(1.0, max(_CLOSE_LOOK / side, min(_HALF, math.sqrt(_CLOSE_PIXELS / (width * height)))))


def smallest_face(width: int, height: int) -> float:
    """Return the size in pixels from which on faces are found in a picture of so many pixels (at least 12)."""
    return _SMALLEST / close_scale(width, height)


def _in_pieces(rgb: Pixels, detector: Detector, threshold: float, scale: float, overlap: int) -> list[Face]:
    """Return the faces in overlapping tiles of the picture, each seen at `scale`; `overlap` in pixels at that scale."""
    height, width = rgb.shape[:2]
    overlap = min(overlap, _TILE * 3 // 4)
    tile, step = round(_TILE / scale), round((_TILE - overlap) / scale)
    faces: list[Face] = []
    for y in _starts(height, tile, step):
        for x in _starts(width, tile, step):
            part = rgb[y : y + tile, x : x + tile]
            for face in _detect_at(part, detector, threshold, scale):
                # What a tile's edge cuts is whole in its neighbour, or too large for this look
                if max(face.width, face.height) * scale < overlap and not _crosses_edge(
                    face, part.shape, (x, y), rgb.shape
                ):
                    faces.append(moved(face, x, y))
    return merged(faces)


def _starts(length: int, tile: int, step: int) -> list[int]:
    count = max(1, math.ceil((length - tile) / step) + 1)
    return [0] if count == 1 else [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _crosses_edge(face: Face, part: tuple[int, ...], at: tuple[int, int], whole: tuple[int, ...]) -> bool:
    """Whether the face touches an edge of its tile that is not an edge of the picture."""
    (x, y), (x0, y0, x1, y1) = at, face.box
    return (
        (x0 < 1 and x > 0)
        or (y0 < 1 and y > 0)
        or (x1 > part[1] - 2 and x + part[1] < whole[1])
        or (y1 > part[0] - 2 and y + part[0] < whole[0])
    )


def _detect_at(rgb: Pixels, detector: Detector, threshold: float, scale: float, margin: int = 0) -> list[Face]:
    """Return the detector's faces in ``rgb`` seen at ``scale`` within a margin, in coordinates of ``rgb``."""
    height, width = rgb.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen = rgb
    if size != (width, height):
        seen = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if seen.dtype == np.uint16:
        seen = np.rint(seen / 257.0).astype(np.uint8)
    if seen.ndim == 2 or seen.shape[2] == 1:
        seen = np.repeat(seen.reshape(*seen.shape[:2], 1), 3, axis=2)
    if margin:
        grey = (123, 117, 104)  # the mean that RetinaFace subtracts: nothing to see
        seen = cv2.copyMakeBorder(seen, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=grey)
    factor = (width / size[0], height / size[1])
    return [scaled(moved(f, -margin, -margin), factor) for f in detector(seen, threshold)]


def _usable(face: Face, width: int, height: int) -> bool:
    """Not what a margin or a wild regression made up: the landmarks' middle in the frame, and some extent."""
    if not (np.isfinite(face.landmarks).all() and all(math.isfinite(v) for v in face.box)):
        return False
    x, y = (float(v) for v in face.landmarks.mean(axis=0))
    return -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 and float(np.ptp(face.landmarks, axis=0).max()) >= 1.0


def _clipped(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(width - 1.0, x1), min(height - 1.0, y1)
