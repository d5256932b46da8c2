"""Before and after in one picture: beside each other, each in one half, or several results on a labelled sheet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from codeformer.arrays import Pixels, Rgb
from codeformer.images.alpha import enlarged
from codeformer.images.picture import Picture, replace_rgb

_MARGIN = 6  # pixels around a label's text


def compared(before: Picture, after: Picture, how: str) -> Picture:
    """Return a frame before and after as one picture.

    Args:
        before: the input's frame, which is enlarged to the result's size.
        after: the restored frame.
        how: "side" for beside each other, "split" for the left half before and the right half after.
    """
    height, width = after.rgb.shape[:2]
    before = enlarged(before, width, height)
    join = _beside if how == "side" else _split
    alpha = None
    if after.alpha is not None and before.alpha is not None:
        alpha = join(before.alpha, after.alpha)
        if how == "split":
            alpha[:, _line(width)] = np.iinfo(alpha.dtype).max
    rgb = join(before.rgb, after.rgb)
    if how == "split":
        rgb[:, _line(width)] = np.iinfo(rgb.dtype).max
    return replace_rgb(after if alpha is not None else Picture(after.rgb, cicp=after.cicp), rgb, alpha)


def _beside(before: Pixels, after: Pixels) -> Pixels:
    return np.concatenate([before, after], axis=1)


def _split(before: Pixels, after: Pixels) -> Pixels:
    half = after.shape[1] // 2
    return np.concatenate([before[:, :half], after[:, half:]], axis=1)


def _line(width: int) -> slice:
    """Return the columns of the line between the halves."""
    thick = max(1, width // 960)
    return slice(width // 2 - thick // 2, width // 2 - thick // 2 + thick)


def sheet(pictures: Sequence[Rgb], labels: Sequence[str]) -> Rgb:
    """Return pictures (H, W, 3), all of one size, beside each other with a label above each."""
    scale = max(0.4, pictures[0].shape[1] / 900)
    (_, tall), base = cv2.getTextSize("w 0.5", cv2.FONT_HERSHEY_SIMPLEX, scale, max(1, round(scale)))
    columns = []
    for picture, label in zip(pictures, labels, strict=True):
        bar = np.zeros((tall + base + 2 * _MARGIN, picture.shape[1]), np.uint8)  # OpenCV writes into 8 bits only
        at = (_MARGIN, tall + _MARGIN)
        cv2.putText(bar, label, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(scale)), cv2.LINE_AA)
        shade = bar.astype(picture.dtype) * (np.iinfo(picture.dtype).max // 255)
        columns.append(np.concatenate([np.repeat(shade[..., None], 3, axis=-1), picture], axis=0))
    return np.concatenate(columns, axis=1)
