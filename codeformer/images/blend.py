"""Mixing two pictures by a weight, and what lies beyond a picture's edge.

``faces.paste`` blends in place and tile by tile, as ``before + (after - before) * weight``: that rounds otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Mask, Pixels


def mix(before: Any, after: Any, weight: Any) -> NDArray[Any]:
    """Return ``after`` as far as the weight says so, in [0, 1], and ``before`` for the rest, in floating point.

    Numbers, and arrays of any shapes that go together: a mask for (H, W, 3) is (H, W, 1).
    """
    return np.asarray(before * (1 - weight) + after * weight)


def composite(before: Pixels, after: Pixels, weight: Mask) -> Pixels:
    """Return ``after`` where the weight is 1, ``before`` where it is 0, both bit for bit; rounded mixtures between.

    Two pictures (H, W, ...) uint8 or uint16 and a mask (H, W); the result has the type of the pictures.
    """
    result = before.copy()
    full = weight >= 1
    result[full] = after[full]
    mixed = (weight > 0) & ~full
    share = weight[mixed].reshape(-1, *([1] * (before.ndim - 2)))
    result[mixed] = np.rint(mix(before[mixed], after[mixed], share)).astype(before.dtype)
    return result


def reflected(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return indices into an axis of ``length``, reflected at its first and last element as often as it takes."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * length - 2
    folded = index % period
    return np.minimum(folded, period - folded)
