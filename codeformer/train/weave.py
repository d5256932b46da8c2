"""How much of a weave a network draws into hair and skin.

A network that unfolds cells and doubles grids repeats its grids in the picture, with periods of 4, 8 and 16 pixels. A
face has energy at these periods too, so what counts is the ratio to the sharp face's: about 1 for a faithful picture,
less for a blurred one, more for a woven one.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from codeformer.arrays import Crop, Plane, Where
from codeformer.images.colour import LUMA

PERIODS = (4, 8, 16)
REGIONS = ("hair", "skin")
_SIDE = 32  # of the windows, pixels: a multiple of every period
_STEP = 16
_FULL = 0.85  # share of a window that must lie in the region
# Where the skin of a face aligned to the FFHQ template is bare, the forehead and both cheeks: left, top, right and
# bottom in shares of its side. Its hair is what is dark above and beside them.
_SKIN = ((0.36, 0.24, 0.64, 0.38), (0.27, 0.52, 0.41, 0.68), (0.59, 0.52, 0.73, 0.68))
_HAIR_BOTTOM, _DARK = 0.55, 0.6

Energies = dict[tuple[str, int], float]


def regions_of(face: Crop) -> dict[str, Where]:
    """Return where an aligned sharp face (S, S, 3) shows dark hair and bare skin, (S, S) each.

    Skin is the forehead and the cheeks of the template; hair what is darker than 0.6 of the skin's median luma in the
    upper part of the crop, outside of the face. Both are rough, and the same for all pictures of one face.
    """
    size = face.shape[0]
    luma = cv2.GaussianBlur(np.asarray(face @ LUMA, np.float32), (0, 0), size / 128)
    skin = np.zeros((size, size), bool)
    for left, top, right, bottom in _SKIN:
        skin[round(top * size) : round(bottom * size), round(left * size) : round(right * size)] = True
    inner = np.zeros((size, size), np.uint8)
    centre, axes = (size // 2, round(0.56 * size)), (round(0.27 * size), round(0.34 * size))
    cv2.ellipse(inner, centre, axes, 0, 0, 360, 1, -1)
    hair = (inner == 0) & (luma < _DARK * float(np.median(luma[skin])))
    hair[round(_HAIR_BOTTOM * size) :] = False
    return {"hair": hair, "skin": skin}


def energies(picture: Crop, regions: Mapping[str, Where]) -> Energies:
    """Return a picture's energy in each region at each period, both axes together; no entry where no window fits.

    Windows of 32 pixels are freed of their mean line by line and weighted by a Hann window; of the spectrum along each
    axis counts the power at the period.
    """
    luma = np.asarray(picture @ LUMA, np.float32)
    found: Energies = {}
    for name, region in regions.items():
        windows = _windows(luma, region)
        if not len(windows):
            continue
        for axis in (1, 2):
            lines = windows - windows.mean(axis=axis, keepdims=True)
            taper = np.hanning(_SIDE + 1)[:-1]
            power = np.abs(np.fft.rfft(lines * np.expand_dims(taper, (0, 3 - axis)), axis=axis)) ** 2
            for period in PERIODS:
                at = float(np.take(power, _SIDE // period, axis=axis).mean())
                found[name, period] = found.get((name, period), 0.0) + at / 2
    return found


def _windows(luma: Plane, region: Where) -> Plane:
    """Return the windows of which enough lies in the region, (N, 32, 32); the rest of them is their mean in it.

    Otherwise the region's own edges, against a light background, would outshine what is in it.
    """
    windows = []
    for y in range(0, luma.shape[0] - _SIDE + 1, _STEP):
        for x in range(0, luma.shape[1] - _SIDE + 1, _STEP):
            inside = region[y : y + _SIDE, x : x + _SIDE]
            if inside.mean() >= _FULL:
                window = luma[y : y + _SIDE, x : x + _SIDE]
                windows.append(np.where(inside, window, window[inside].mean()))
    return np.array(windows, np.float32)


class Weave:
    """Energies of many faces' answers, added up, and their ratios to the sharp faces'."""

    def __init__(self) -> None:
        self._sums: dict[str, Energies] = {}
        self._sharp: Energies = {}
        self.faces = dict.fromkeys(REGIONS, 0)

    def add(self, sharp: Crop, answers: Mapping[str, Crop]) -> None:
        """Take in one face: the sharp one, and the answers by title."""
        regions = regions_of(sharp)
        _add(self._sharp, own := energies(sharp, regions))
        for region in REGIONS:
            self.faces[region] += (region, PERIODS[0]) in own
        for title, answer in answers.items():
            _add(self._sums.setdefault(title, {}), energies(answer, regions))

    def ratios(self) -> dict[str, dict[str, float]]:
        """Return for each answer the ratios by name, such as ``hair 4``: 1 is as much as the sharp faces have."""
        return {
            title: {
                f"{region} {period}": sums[region, period] / max(self._sharp[region, period], 1e-12)
                for region in REGIONS
                for period in PERIODS
                if (region, period) in sums
            }
            for title, sums in self._sums.items()
        }


def _add(sums: Energies, more: Energies) -> None:
    for key, value in more.items():
        sums[key] = sums.get(key, 0.0) + value
