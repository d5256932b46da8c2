"""Boxes and numbers of faces, drawn into a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from codeformer.arrays import Rgb
from codeformer.faces.face import Face


def draw_boxes(rgb: Rgb, faces: Sequence[Face], size: tuple[int, int]) -> Rgb:
    """Return a copy of a picture with each face's box and number.

    Args:
        rgb: (H, W, 3) uint8 or uint16.
        faces: from left to right; they are numbered from 1.
        size: the (width, height) that the boxes refer to.
    """
    height, width = rgb.shape[:2]
    sx, sy = width / size[0], height / size[1]
    thick = max(1, round(min(width, height) / 300))
    font = max(0.4, min(width, height) / 700)
    outline, ink = (np.zeros((height, width), np.uint8) for _ in range(2))  # OpenCV writes into 8 bits only
    for number, face in enumerate(faces, 1):
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(face.box, (sx, sy, sx, sy), strict=True))
        cv2.rectangle(ink, (x0, y0), (x1, y1), 255, thick)
        at = (x0 + 2 * thick, max(y0 - 2 * thick, round(22 * font)))
        for mask, width_of_line in ((outline, 3 * thick), (ink, thick)):
            cv2.putText(mask, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, font, 255, width_of_line, cv2.LINE_AA)
    result = rgb.copy()
    green = np.array([0, np.iinfo(rgb.dtype).max, 0], np.float32)
    for mask, colour in ((outline, 0 * green), (ink, green)):
        drawn = mask > 0
        weight = mask[drawn][:, None].astype(np.float32) / 255
        result[drawn] = np.rint(result[drawn] + (colour - result[drawn]) * weight).astype(rgb.dtype)
    return result
