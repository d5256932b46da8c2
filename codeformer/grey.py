"""Grey faces: recognising them and keeping them grey. Pure functions on float RGB in [0, 1]."""

import numpy as np

#: ITU-R BT.601 luma of gamma-encoded RGB, the weights that JPEG uses for its grey.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def is_grey(rgb: np.ndarray) -> bool:
    """Whether a picture (H, W, 3), float in [0, 1], has no colour but a scanner's or JPEG's faint noise.

    A toned (sepia) picture is not grey: its tint is even, but far above the limits.
    """
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    return bool(spread.mean() <= 2 / 255 and np.quantile(spread, 0.995) <= 8 / 255)


def without_chroma(rgb: np.ndarray) -> np.ndarray:
    """The luma of (H, W, 3) float RGB in all three channels. In float, so nothing can overflow or wrap."""
    luma = rgb.astype(np.float32, copy=False) @ LUMA
    return np.repeat(luma[..., None], 3, axis=2)
