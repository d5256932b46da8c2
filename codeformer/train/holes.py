"""What inpainting has to fill, for training and evaluation: random holes in aligned faces, and what stands in them."""

import cv2
import numpy as np

from codeformer.arrays import Crop, Floats, Mask
from codeformer.faces.align import TEMPLATE_512
from codeformer.images.blend import mix
from codeformer.tasks.inpainting.masks import smear

KINDS = ("shapes", "strokes")
# Shares of an aligned crop that strokes cover.
LEAST, MOST = 0.05, 0.6


def random_hole(rng: np.random.Generator, size: int, kind: str = "shapes", cover: float = 0.0) -> Mask:
    """Return a random hole of a kind: (size, size) float32, 1 where to fill, else 0; `cover` is of shapes alone."""
    return stroke_mask(rng, size) if kind == "strokes" else random_mask(rng, size, cover)


def random_mask(rng: np.random.Generator, size: int, cover: float = 0.0) -> Mask:
    """Return a mask of thin random strokes and small shapes: (size, size) float32, 1 where to fill, else 0.

    With the chance `cover` an ellipse also lies over an eye, the nose or the mouth of an aligned face.
    """
    mask = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 5)):
        point = rng.uniform(0.1, 0.9, 2) * size
        heading = rng.uniform(0, 2 * np.pi)
        width = int(rng.uniform(0.02, 0.09) * size)
        for _ in range(rng.integers(2, 9)):
            heading += rng.normal(0, 0.7)
            step = rng.uniform(0.04, 0.16) * size
            after = np.clip(point + step * np.array([np.cos(heading), np.sin(heading)]), 0, size - 1)
            cv2.line(mask, _pixel(point), _pixel(after), 1.0, width)
            point = after
    for _ in range(rng.integers(0, 3)):
        centre, axes = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.03, 0.14, 2) * size
        if rng.random() < 0.5:
            cv2.ellipse(mask, _pixel(centre), _pixel(axes), rng.uniform(0, 180), 0, 360, 1.0, -1)
        else:
            cv2.rectangle(mask, _pixel(centre - axes), _pixel(centre + axes), 1.0, -1)
    if cover and rng.random() < cover:
        features = (*TEMPLATE_512[:3], TEMPLATE_512[3:].mean(axis=0))
        centre = (features[rng.integers(4)] / 512 + rng.uniform(-0.03, 0.03, 2)) * size
        axes = rng.uniform(0.05, 0.14, 2) * size
        cv2.ellipse(mask, _pixel(centre), _pixel(axes), rng.uniform(0, 180), 0, 360, 1.0, -1)
    return mask


def stroke_mask(rng: np.random.Generator, size: int, least: float = LEAST, most: float = MOST) -> Mask:
    """Return thick brush strokes as people paint them: (size, size) float32, 1 where to fill, else 0.

    Strokes of several joined lines, up to a quarter of the crop wide, go through the face and out to its border until
    they cover a random share of the crop between `least` and `most`.
    """
    mask = np.zeros((size, size), np.float32)
    goal = rng.uniform(least, most - 0.03)  # the last line may cover so much too much
    widest = 0.25
    while (covered := float(mask.mean())) < goal:
        more = mask.copy()
        width = max(1, round(rng.uniform(0.05, widest) * size))
        point = rng.uniform(-0.05, 1.05, 2) * size
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(rng.integers(1, 6)):
            after = point + rng.uniform(0.1, 0.45) * size * np.array([np.cos(heading), np.sin(heading)])
            cv2.line(more, _pixel(point), _pixel(after), 1.0, width)  # OpenCV rounds the ends, so that lines join
            if (share := float(more.mean())) >= goal:
                break
            point, heading = np.clip(after, -0.05 * size, 1.05 * size), heading + rng.normal(0, 1.0)
        if covered < share <= most:
            mask = more
        else:  # too much at once, or nothing of it lies in the picture
            widest = max(0.06, widest * 0.8)
    return mask


def fill(face: Crop, mask: Mask, hole: str) -> Crop:
    """Return the face with its hole as the network sees it: ``white``, or ``smear``, a blurred guess from around it.

    White shines through where the network does not know better; a guess can do no worse than be left as it is.
    """
    return smear(face, mask > 0) if hole == "smear" else paint_white(face, mask)


def paint_white(face: Crop, mask: Mask) -> Crop:
    """Return the face with white where the mask is 1, as published."""
    return np.asarray(mix(face, 1, mask[..., None]), np.float32)


def _pixel(point: Floats) -> tuple[int, int]:
    return int(point[0]), int(point[1])
