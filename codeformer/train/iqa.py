"""Further measures by pyiqa (the extra ``metrics``): DISTS, NIQE, MUSIQ, FID.

pyiqa fetches the weights of each measure when it is first made. Where they cannot be had, the measure is left out and
the reason is said.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from codeformer.arrays import Crop
from codeformer.errors import UsageError, WeightsError
from codeformer.extras import require

# Whether a measure compares a picture with the sharp one.
COMPARES = {"dists": True, "niqe": False, "musiq": False}
NAMES = (*COMPARES, "fid")


class Iqa:
    """One of pyiqa's measures of single pictures.

    Raises:
        UsageError: there is no such measure, or the extra is missing.
        WeightsError: its weights cannot be had.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in COMPARES:
            raise UsageError(f"--metrics {name}: there are {', '.join(NAMES)}")
        self.name, self.device = name, device
        self._measure = _create(name, device)

    def __call__(self, picture: Crop, hq: Crop) -> float:
        """Return the score of a picture (S, S, 3) in [0, 1], against the sharp one where the measure compares."""
        pictures = (picture, hq) if COMPARES[self.name] else (picture,)
        return float(self._measure(*(_tensor(one).to(self.device) for one in pictures)))


class Fid:
    """Fréchet inception distance of sets of pictures to the set of sharp ones. Needs hundreds of faces to mean much."""

    def __init__(self, device: torch.device) -> None:
        self._measure = _create("fid", device)
        self._home = tempfile.TemporaryDirectory(prefix="codeformer-fid-")
        self._folders: dict[str, Path] = {}
        self._count = 0

    def add(self, hq: Crop, answers: Mapping[str, Crop]) -> None:
        """Take in one face's answers."""
        for title, picture in {**answers, "": hq}.items():
            folder = self._folders.setdefault(title, Path(self._home.name) / str(len(self._folders)))
            folder.mkdir(exist_ok=True)
            pixels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
            cv2.imwrite(str(folder / f"{self._count}.png"), pixels[..., ::-1])
        self._count += 1

    def distances(self) -> dict[str, float]:
        """Return each answer's distance by title, and forget the pictures."""
        sharp = self._folders.pop("")
        found = {title: float(self._measure(str(folder), str(sharp))) for title, folder in self._folders.items()}
        self._home.cleanup()
        return found


def _create(name: str, device: torch.device) -> Any:
    pyiqa = require("pyiqa", f"--metrics {name}", "pyiqa")
    try:
        return pyiqa.create_metric(name, device=device)
    except (OSError, RuntimeError, ValueError) as error:  # no network, no space, or a file that was cut off
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{name.upper()} is left out: its weights cannot be had ({reason})") from error


def _tensor(picture: Crop) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.clip(picture, 0, 1).transpose(2, 0, 1)))[None]
