"""The tone of a monochrome print: sepia, selenium, cyanotype, yellowed paper, a scanner's faint tint.

Such a print has one colour for each brightness. It is judged as a whole, because a face alone, whose skin has one
colour for each brightness too, may look like one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Crop, Mask, Samples
from codeformer.images.colour import luma, to_ycc, with_chroma
from codeformer.images.picture import Picture

# Chroma below this mean is what JPEG leaves in a grey picture.
_GREY = 0.004
# The chroma that no cubic in the brightness explains: its root mean square, and its 99.5th percentile, which a small
# coloured face in a grey picture raises. 120 portraits dyed in sepia or yellow or tinted faintly had 0.0098 and 0.037
# at most, as they are, with 5 % of noise, and as JPEG of quality 40.
_RMS, _TAIL = 0.010, 0.040
_CELLS = 48 * 48  # of a picture that is judged: their means leave noise and JPEG's colour blocks behind
_SAMPLES = 256 * 256
_BINS = 64
_SMOOTH = 1.5  # bins


@dataclass(frozen=True, eq=False)
class Tone:
    """The colour of each brightness: ``chroma`` is (BINS, 2), Cb and Cr of as many steps of luma from 0 to 1."""

    chroma: NDArray[np.float64]

    def of(self, rgb: Samples) -> Samples:
        """Return the brightness of (H, W, 3) in [0, 1] in this tone."""
        y = luma(rgb)
        steps = (np.arange(_BINS) + 0.5) / _BINS
        chroma = np.stack([np.interp(y, steps, self.chroma[:, c]) for c in range(2)], axis=-1)
        return with_chroma(y, chroma.astype(np.float32))


def tone_in(picture: Picture, mask: Mask | None = None, *, always: bool = False) -> Tone | None:
    """Return the tone of a monochrome print; None for a picture in colour and for one without any.

    Args:
        picture: in any colour space; the tone is one of sRGB.
        mask: (H, W), 1 for pixels that do not count.
        always: also of a picture in colour: the mean colour of each brightness.
    """
    if picture.grey:
        return None
    ycc = to_ycc(_cells(picture, mask, _CELLS)).astype(np.float64)  # (N, 3)
    if len(ycc) == 0:
        return None
    y, chroma = ycc[:, 0], ycc[:, 1:]
    if float(np.linalg.norm(chroma, axis=1).mean()) < _GREY:
        return None
    powers = np.stack([np.ones_like(y), y, y**2, y**3], axis=1)
    fit, *_ = np.linalg.lstsq(powers, chroma, rcond=None)
    rest = np.linalg.norm(chroma - powers @ fit, axis=1)
    toned = np.sqrt((rest**2).mean()) < _RMS and np.percentile(rest, 99.5) < _TAIL
    if not (toned or always):
        return None
    fine = to_ycc(_cells(picture, mask, _SAMPLES)).astype(np.float64)
    return Tone(_curve(fine[:, 0], fine[:, 1:]))


def mean_tone(tones: Sequence[Tone]) -> Tone:
    """Return the mean of one or more tones."""
    return Tone(np.mean([tone.chroma for tone in tones], axis=0))


def in_own_colours(output: Crop, *, grey: bool, tone: Tone | None) -> Crop:
    """Return a face, (S, S, 3) in [0, 1], without colour for a picture without, and in the tone of a toned one."""
    if grey:
        y = luma(output)
        return np.repeat(y[..., None], 3, axis=-1)
    return output if tone is None else tone.of(output)


def _cells(picture: Picture, mask: Mask | None, count: int) -> Samples:
    """About ``count`` means of square parts of the picture, (N, 3) in [0, 1], sRGB; only of what is seen and counts."""
    height, width = picture.rgb.shape[:2]
    scale = min(1.0, (count / (height * width)) ** 0.5)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(np.ascontiguousarray(picture.rgb), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    small /= np.float32(np.iinfo(picture.rgb.dtype).max)
    if picture.space is not None:
        small = picture.space.to_srgb(small)
    counts = np.ones(small.shape[:2], bool)
    if picture.alpha is not None:
        top = np.iinfo(picture.alpha.dtype).max
        counts &= cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA) >= 0.98 * top
    if mask is not None:
        counts &= cv2.resize(np.asarray(mask, np.float32), size, interpolation=cv2.INTER_AREA) <= 0.02
    return small[counts]


def _curve(y: NDArray[np.float64], chroma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean chroma of each bin of brightness, smoothed; a bin without pixels gets its neighbours' chroma."""
    bins = np.clip((y * _BINS).astype(np.int64), 0, _BINS - 1)
    weight = np.bincount(bins, minlength=_BINS).astype(np.float64)
    sums = np.stack([np.bincount(bins, chroma[:, c], _BINS) for c in range(2)], axis=1)
    place = np.arange(_BINS)
    kernel = np.exp(-0.5 * ((place[:, None] - place) / _SMOOTH) ** 2)
    total = kernel @ weight
    known = total > 1e-3 * len(y) / _BINS
    means = (kernel @ sums)[known] / total[known, None]
    return np.stack([np.interp(place, place[known], means[:, c]) for c in range(2)], axis=1)
