"""Face parsing: which pixels of a crop are the face itself, so that what hangs before it stays as it is.

BiSeNet (Yu et al., ECCV 2018, arXiv 1808.00897; 28 GFLOP) and ParseNet (Chen et al., CVPR 2021; 469 GFLOP), both
trained on CelebAMask-HQ's 19 labels, in facexlib's definitions and with its published files. They number the labels
differently, and they were trained with different normalisation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Bits, Crop, Labels, Mask
from codeformer.errors import UsageError, WeightsError
from codeformer.extras import require
from codeformer.faces.paste import border_ramp, smooth_step

_log = logging.getLogger("codeformer")

SIZE = 512  # what both networks were trained on
_BATCH = 4
_FEATHER = 18  # pixels of the 512 crop, inside the face: outside it the weight is 0
_CONTOUR = 3.0  # sigma that rounds the label map's staircase
_HOLE = 400  # a hole of fewer pixels is a mistake of the network's, not something before the face
_LEAST = 0.03  # of the crop: less is not a face


class Parser(Protocol):
    """(S, S, 3) float RGB crops in [0, 1] -> soft masks (512, 512) float32 in [0, 1], all 0 where no face is seen."""

    name: str

    def __call__(self, crops: Sequence[Crop]) -> list[Mask]:
        """Return where each crop shows its face."""


@dataclass(frozen=True)
class Layout:
    """One published network: its file, its numbers of the face's parts, the normalisation of its input."""

    file: str
    face: frozenset[int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    build: Callable[[], Any]


def _bisenet() -> Any:
    return require("facexlib.parsing.bisenet", "--parsing bisenet", "facexlib").BiSeNet(num_class=19)


def _parsenet() -> Any:
    module = require("facexlib.parsing.parsenet", "--parsing parsenet", "facexlib")
    return module.ParseNet(in_size=SIZE, out_size=SIZE, parsing_ch=19)


# The face: skin, brows, eyes, glasses, ears, nose, mouth, lips. Not: neck, cloth, hair, hat, jewels
LAYOUTS: dict[str, Layout] = {
    "bisenet": Layout(
        file="parsing_bisenet.pth",
        face=frozenset({1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13}),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        build=_bisenet,
    ),
    "parsenet": Layout(
        file="parsing_parsenet.pth",
        face=frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        build=_parsenet,
    ),
}


def make_parser(
    name: str = "auto", *, device: str = "cpu", weights_dir: Path | None = None, path: Path | None = None
) -> Parser | None:
    """Return the parser of that name.

    ``auto``: BiSeNet's if its file is there, else ParseNet's, else None; ``none``: None.

    ``path``: the weights file itself, instead of the one in the weights folder. WeightsError when the network that was
    asked for has no file, or its file is refused; UsageError for an unknown name.
    """
    if name == "none":
        return None
    if name != "auto" and name not in LAYOUTS:
        raise UsageError(f"there is no parser {name!r}: choose one of auto, {', '.join(LAYOUTS)}, none")
    if path is not None and name == "auto":
        raise UsageError("a parser's file needs its name: bisenet or parsenet")
    if path is not None:
        return NetworkParser(name, path, device)
    found = find_parser(name, weights_dir)
    if found is not None and (name != "auto" or _has_facexlib(found[1])):
        return NetworkParser(*found, device)
    if name == "auto":
        return None
    raise WeightsError(
        f"--parsing {name} needs {LAYOUTS[name].file}: run `codeformer download parsing`, or give --parsing none"
    )


def _has_facexlib(file: Path) -> bool:
    if find_spec("facexlib") is not None:
        return True
    _log.warning(
        "%s is here, but not the package that opens it: pip install facexlib; faces are pasted with a geometric mask",
        file.name,
    )
    return False


def find_parser(name: str, weights_dir: Path | None = None) -> tuple[str, Path] | None:
    """Return the parser that ``auto`` or a name stands for here, and its file. Raises WeightsError."""
    from codeformer.hub.store import find

    for candidate in LAYOUTS if name == "auto" else (name,):
        found = find(LAYOUTS[candidate].file, weights_dir)
        if found is not None:
            return candidate, found
    return None


class NetworkParser:
    """One of the two networks on a device."""

    def __init__(self, name: str, path: Path, device: str = "cpu") -> None:
        from codeformer.device import pick_device
        from codeformer.models.state import load_into

        self.name = name
        self._layout = LAYOUTS[name]
        self._device = pick_device(device)
        net = self._layout.build()
        load_into(net, path, of=name)
        self._net = net.eval().to(self._device)

    def __call__(self, crops: Sequence[Crop]) -> list[Mask]:
        """Return where each crop shows its face; see :class:`Parser`."""
        from codeformer.device import in_fitting_batches

        refused = f"no memory to parse one face with {self.name}: give --parsing none"
        labels, _ = in_fitting_batches(self._labels, crops, _BATCH, self._device, refused)
        return [face_mask(one, self._layout.face) for one in labels]

    def _labels(self, crops: Sequence[Crop]) -> list[Labels]:
        """Return the label numbers of each crop, (512, 512)."""
        import torch

        from codeformer.device import whole_floats

        x = np.stack([_normalised(crop, self._layout) for crop in crops])  # (B, 3, 512, 512)
        with torch.inference_mode(), whole_floats(self._device):
            scores = self._net(torch.from_numpy(x).to(self._device))[0]  # (B, 19, 512, 512)
            return list(scores.argmax(dim=1).to(torch.uint8).cpu().numpy())


def _normalised(crop: Crop, layout: Layout) -> NDArray[np.float32]:
    if crop.shape[:2] != (SIZE, SIZE):
        interpolation = cv2.INTER_AREA if crop.shape[0] > SIZE else cv2.INTER_LINEAR
        crop = np.asarray(cv2.resize(crop, (SIZE, SIZE), interpolation=interpolation), np.float32)
    whitened = (np.clip(crop, 0.0, 1.0) - np.array(layout.mean, np.float32)) / np.array(layout.std, np.float32)
    return np.ascontiguousarray(whitened.transpose(2, 0, 1), dtype=np.float32)


def face_mask(labels: Labels, face: frozenset[int] | set[int]) -> Mask:
    """Label numbers (H, W) as a soft mask (H, W) float32: 0 wherever the label is none of ``face``.

    Of several faces in the crop the one in its middle counts. The weight rises from 0 at the face's contour to 1
    inside it, so that no weight lies on hair, hats or hands; on the crop's border it is 0. All 0 where the labels
    show no face in the middle.
    """
    inside = np.isin(labels, list(face)).astype(np.uint8)
    inside = _without_holes(_middle_part(inside))
    if inside.mean() < _LEAST:
        return np.zeros(labels.shape, dtype=np.float32)
    # The contour without its staircase, but never beyond the labels
    rounded = (cv2.GaussianBlur(inside.astype(np.float32), (0, 0), _CONTOUR) > 0.5).astype(np.uint8) & inside
    # The frame counts as outside: a face that the crop cuts fades there too
    padded = cv2.copyMakeBorder(rounded, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    weight = smooth_step(depth / (_FEATHER * labels.shape[0] / SIZE))
    # Where two edges meet, the distance has a crease; smoothing it must not carry weight outside
    return (cv2.GaussianBlur(weight, (0, 0), 1.5) * rounded * border_ramp(labels.shape[0])).astype(np.float32)


def _middle_part(inside: Bits) -> Bits:
    """Return the part that covers most of the crop's middle, where the alignment puts eyes, nose and mouth."""
    _, parts = cv2.connectedComponents(inside, connectivity=4)
    height, width = inside.shape
    middle = parts[round(height * 0.38) : round(height * 0.76), round(width * 0.33) : round(width * 0.67)]
    counts = np.bincount(middle[middle > 0].ravel())
    if counts.size == 0:
        return np.zeros_like(inside)
    return (parts == int(counts.argmax())).astype(np.uint8)


def _without_holes(inside: Bits) -> Bits:
    _, holes, stats, _ = cv2.connectedComponentsWithStats(1 - inside, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < _HOLE * inside.size / SIZE**2
    small[0] = False  # the face itself
    return inside | small[holes].astype(np.uint8)
