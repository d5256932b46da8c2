"""Which of a picture's faces the user wants, and a face that the user gives by hand."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from codeformer.arrays import Landmarks
from codeformer.errors import InputError
from codeformer.faces.face import Face
from codeformer.options import FaceOptions


def choose(
    faces: Sequence[Face], options: FaceOptions, width: int, height: int, among: Collection[int] | None = None
) -> set[int]:
    """Return the numbers (from 1, left to right) of the faces that the options leave.

    Args:
        faces: all faces of the picture, from left to right.
        options: which of them are wanted.
        width: of the picture, pixels.
        height: of the picture, pixels.
        among: numbers of the faces that may be chosen; None for all.

    Raises:
        InputError: the options name a number that does not exist.
    """
    numbers = set(range(1, len(faces) + 1))
    if among is not None:
        numbers &= set(among)
    if options.numbers:
        if missing := sorted(set(options.numbers) - numbers):
            found = f"only {len(faces)} face{'s' if len(faces) != 1 else ''}" if faces else "no face"
            raise InputError(f"--face {missing[0]}: {found} found; --draw_box shows the numbers")
        numbers = set(options.numbers)
    if options.max_face_size is not None:
        most = options.max_face_size
        numbers = {n for n in numbers if min(faces[n - 1].width, faces[n - 1].height) <= most}
    if options.only_center_face and numbers:
        middle = ((width - 1) / 2, (height - 1) / 2)
        numbers = {min(numbers, key=lambda n: math.dist(faces[n - 1].centre, middle))}
    if options.max_faces is not None:
        largest = sorted(numbers, key=lambda n: -faces[n - 1].width * faces[n - 1].height)
        numbers = set(largest[: options.max_faces])
    return numbers


def face_by_hand(landmarks: Landmarks) -> Face:
    """Return a face from its five points, with the box that a detector would draw around them."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    width, height = high - low
    x0, y0, x1, y1 = (low[0] - 0.45 * width, low[1] - 0.9 * height, high[0] + 0.45 * width, high[1] + 0.5 * height)
    return Face((float(x0), float(y0), float(x1), float(y1)), 1.0, landmarks)
