"""How much of a weave a network draws into hair and skin.

A network that unfolds cells and doubles grids repeats its grids in the picture, with periods of 4, 8 and 16 pixels. A
face has energy at these periods too, so two ratios to the sharp face are measured. The energy itself is less than 1
for a blurred picture even where it is woven. The peak says how far the energy at a period stands out of that at the
periods around it: it is about 1 for a picture without a weave, however blurred, and more where there is one.
"""

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from codeformer.arrays import Crop, Floats, Plane, Where
from codeformer.images.colour import LUMA

PERIODS = (4, 8, 16)
REGIONS = ("hair", "skin")
_SIDE = 64  # of the windows, pixels: a multiple of every period
_STEP = 16
_FULL = 0.85  # share of a window that must lie in the region
# Where the skin of a face aligned to the FFHQ template is bare, the forehead and both cheeks: left, top, right and
# bottom in shares of its side. Its hair is what is dark above and beside them.
_SKIN = ((0.36, 0.24, 0.64, 0.38), (0.27, 0.52, 0.41, 0.68), (0.59, 0.52, 0.73, 0.68))
_HAIR_BOTTOM, _DARK = 0.55, 0.6

_APART = 2  # how many frequencies beside a period's its neighbours lie: a Hann window spreads a line over one

Spectra = dict[str, Floats]


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


def spectra(picture: Crop, regions: Mapping[str, Where]) -> Spectra:
    """Return a picture's power in each region by frequency, (33,), both axes together; none where no window fits.

    Windows of 64 pixels are freed of their mean line by line and weighted by a Hann window.
    """
    luma = np.asarray(picture @ LUMA, np.float32)
    taper = np.hanning(_SIDE + 1)[:-1]
    found: Spectra = {}
    for name, region in regions.items():
        windows = _windows(luma, region)
        if not len(windows):
            continue
        found[name] = np.zeros(_SIDE // 2 + 1)
        for axis in (1, 2):
            lines = windows - windows.mean(axis=axis, keepdims=True)
            power = np.abs(np.fft.rfft(lines * np.expand_dims(taper, (0, 3 - axis)), axis=axis)) ** 2
            found[name] += power.mean(axis=(0, 3 - axis)) / 2
    return found


def peak(spectrum: Floats, period: int) -> float:
    """Return how many times the power at a period is that of its neighbours, shorter and longer (geometric mean)."""
    at = _SIDE // period
    around = np.sqrt(spectrum[at - _APART] * spectrum[at + _APART])
    return float(spectrum[at] / max(around, 1e-12))


def _windows(luma: Plane, region: Where) -> Plane:
    """Return the windows of which enough lies in the region, (N, 64, 64); the rest of them is their mean in it.

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
    """Spectra of many faces' answers beside those of the sharp faces."""

    def __init__(self) -> None:
        self._sharp: list[Spectra] = []
        self._answers: dict[str, list[Spectra]] = {}

    def add(self, sharp: Crop, answers: Mapping[str, Crop]) -> None:
        """Take in one face: the sharp one, and the answers by title."""
        regions = regions_of(sharp)
        self._sharp.append(spectra(sharp, regions))
        for title, answer in answers.items():
            self._answers.setdefault(title, []).append(spectra(answer, regions))

    @property
    def faces(self) -> dict[str, int]:
        """In how many faces each region was found."""
        return {region: sum(region in one for one in self._sharp) for region in REGIONS}

    def energies(self) -> dict[str, dict[str, float]]:
        """Return each answer's energy as a ratio to the sharp faces', by region and period, such as ``hair 4``."""

        def total(faces: Sequence[Spectra], region: str, period: int) -> float:
            return float(sum(one[region][_SIDE // period] for one in faces if region in one))

        return self._ratios(lambda one, sharp, *at: total(one, *at) / max(total(sharp, *at), 1e-12))

    def peaks(self) -> dict[str, dict[str, float]]:
        """Return each answer's :func:`peak` as a ratio to the sharp faces', by region and period: geometric means."""

        def mean(faces: Sequence[Spectra], region: str, period: int) -> float:
            found = [peak(one[region], period) for one in faces if region in one]
            return float(np.exp(np.mean(np.log(np.maximum(found, 1e-12)))))

        return self._ratios(lambda one, sharp, *at: mean(one, *at) / max(mean(sharp, *at), 1e-12))

    def _ratios(self, compare: Callable[..., float]) -> dict[str, dict[str, float]]:
        regions = [region for region, count in self.faces.items() if count]
        return {
            title: {
                f"{region} {period}": compare(faces, self._sharp, region, period)
                for region in regions
                for period in PERIODS
            }
            for title, faces in self._answers.items()
        }
