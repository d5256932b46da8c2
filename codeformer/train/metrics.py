"""How near one face is to another: PSNR, SSIM, colour, identity. Pictures are (S, S, 3) float32 RGB in [0, 1].

The perceptual distance stands with the losses: `codeformer.train.losses.PerceptualDistance`.
"""

import cv2
import numpy as np

from codeformer.arrays import Crop, Floats, Mask
from codeformer.faces.identity import Identity
from codeformer.images.colour import LUMA

__all__ = ["Identity", "chroma_error", "colourfulness", "cosine", "decibels", "psnr", "ssim"]

_MAX_PSNR = 100.0


def psnr(a: Crop, b: Crop, mask: Mask | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB over all three channels, at most 100.

    With `mask` (S, S) only the pixels where it is above a half count; without any such pixel the ratio is 100.
    """
    error = (a.astype(np.float64) - b) ** 2
    if mask is not None:
        error = error[mask > 0.5]
    return decibels(float(error.mean()) if error.size else 0.0)


def decibels(error: float) -> float:
    """Return the peak signal-to-noise ratio in dB, at most 100, of a mean squared error of values in [0, 1]."""
    return min(_MAX_PSNR, -10 * float(np.log10(max(error, 1e-30))))


def ssim(a: Crop, b: Crop) -> float:
    """Return the structural similarity of the two lumas (BT.601), in [-1, 1].

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004: an 11 x 11 Gaussian
    window of 1.5 pixels, K1 = 0.01, K2 = 0.03, averaged over the windows that lie inside the picture.
    """
    x, y = (face.astype(np.float64) @ LUMA.astype(np.float64) for face in (a, b))

    def blur(values: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), np.float64)[5:-5, 5:-5]

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def chroma_error(a: Crop, b: Crop) -> float:
    """Return the mean distance of the colours in the a*b* plane of CIELAB (D65), brightness left aside; 0 is equal."""
    return float(np.linalg.norm(_chroma(a) - _chroma(b), axis=2).mean())


def colourfulness(a: Crop, b: Crop) -> float:
    """Return the mean chroma (distance from grey in the a*b* plane) of `a` as a share of `b`'s."""
    own, other = (float(np.linalg.norm(_chroma(face), axis=2).mean()) for face in (a, b))
    return own / max(other, 1e-6)


def _chroma(face: Crop) -> Floats:
    lab = cv2.cvtColor(np.ascontiguousarray(face, np.float32), cv2.COLOR_RGB2LAB)
    return np.asarray(lab, np.float32)[..., 1:]


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
