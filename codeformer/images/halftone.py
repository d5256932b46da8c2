"""Halftone: the dots that newspapers and books print photographs in, which a face network takes for texture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Plane, Rgb
from codeformer.images.colour import LUMA

_TILE = 256  # pixels
_LEAST_TILE = 64
_WEAKEST = 1.5  # levels of 255, of the waves that dots consist of
_SHORTEST, _LONGEST = 1.6, 7.0  # pixels from dot to dot
# How far the second peak of the spectrum, in another direction than the first and of nearly the same distance of dots,
# stands out above its surroundings (natural logarithm). None of 1,500 photographs of faces reaches it; 180 screens of 3
# to 6 pixels on such photographs had 3.6 at least, also as JPEG of quality 75.
_STANDS_OUT = 1.2


def halftone_of(rgb: Rgb) -> float | None:
    """Return the distance of a halftone's dots in pixels, of a picture (H, W, 3) uint8 or uint16; None for none.

    A screen shows as the same sharp peaks, in two directions, in the spectra of all parts of a picture.
    """
    height, width = rgb.shape[:2]
    size = min(_TILE, max(_LEAST_TILE, min(height, width) // 4 * 2))
    if min(height, width) < size:
        return None
    corners = [(y, x) for y in (0, height - size) for x in (0, width - size)]
    places = dict.fromkeys([*corners, ((height - size) // 2, (width - size) // 2)])
    scale = np.float32(255 / np.iinfo(rgb.dtype).max)
    spectra = [_spectrum(rgb[y : y + size, x : x + size].astype(np.float32) @ LUMA * scale) for y, x in places]
    return _period(np.mean(spectra, axis=0), size)


def _spectrum(tile: Plane) -> NDArray[np.float32]:
    size = tile.shape[0]
    window = np.hanning(size).astype(np.float32)
    detail = (tile - cv2.GaussianBlur(tile, (0, 0), 4)) * window[:, None] * window
    return np.fft.fftshift(np.log(np.abs(np.fft.rfft2(detail)) + 1e-3 * size), axes=0).astype(np.float32)


def _period(spectrum: NDArray[np.float32], size: int) -> float | None:
    around = cv2.GaussianBlur(cv2.medianBlur(spectrum, 5), (0, 0), size / 24)
    fy = np.fft.fftshift(np.fft.fftfreq(size))[:, None] * np.ones((1, spectrum.shape[1]))
    fx = np.fft.rfftfreq(size)[None] * np.ones((size, 1))
    far = np.hypot(fy, fx)
    near = 1.6 / size
    blocks = [np.abs(8 * f - np.rint(8 * f)) < 8 * near for f in (fy, fx)]  # JPEG's, and so are the axes
    wanted = (far > 1 / _LONGEST) & (far < 1 / _SHORTEST) & (np.abs(fy) > near) & (np.abs(fx) > near)
    wanted &= ~(blocks[0] & blocks[1])
    height = np.where(wanted, spectrum - around, -np.inf)
    first = np.unravel_index(int(height.argmax()), height.shape)
    angle = np.arctan2(fy, fx)
    turned = np.abs(angle - angle[first])
    turned = np.minimum(turned, np.pi - turned)
    strong = spectrum > np.log(_WEAKEST * size**2 / 8)  # the window halves each side's sum, and a wave has two peaks
    second = height[strong & (turned > 0.6) & (np.abs(far - far[first]) < 0.25 * far[first])]
    return float(1 / far[first]) if second.size and second.max() > _STANDS_OUT else None
