"""An engine whose detector and network are a few array operations: films are restored in milliseconds.

Its face is a bright red square with five dark dots as landmarks (``square_face`` draws it); its network inverts the
crop's colours and adds what its codes say, so that everything which passes through it shows in the film.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codeformer.cli.console import Console
from codeformer.faces.find import Face
from codeformer.files.digest import sha256_of
from codeformer.models.config import Config
from codeformer.models.file import ModelFile
from codeformer.options import CanvasOptions, FaceWork, ModelOptions
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.restorer import EncodedFaces
from codeformer.tasks.table import TASKS
from codeformer.video.film import run_film
from codeformer.video.options import FilmOptions

SIZE = 64
#: Landmarks in a face of side 1.
POINTS = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])


def square_face(index: int, width: int = 160, height: int = 120, side: int = 48, speed: float = 1.5) -> np.ndarray:
    """A grey frame with noise of its own and one face that moves to the right."""
    rng = np.random.default_rng(index)
    rgb = rng.integers(70, 110, (height, width, 3), dtype=np.uint8)
    x = 10 + round(speed * index) % (width - side - 20)
    y = 30
    rgb[y : y + side, x : x + side] = (230, 40, 40)
    rgb[y : y + side, x : x + side] += rng.integers(0, 20, (side, side, 3), dtype=np.uint8)
    for px, py in np.rint(POINTS * side).astype(int):
        rgb[y + py - 1 : y + py + 2, x + px - 1 : x + px + 2] = 0
    return rgb


class SquareDetector:
    """Finds the red square."""

    name = "square"

    def __call__(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        red = (rgb[..., 0].astype(int) - rgb[..., 1] > 90) & (rgb[..., 0] > 150)
        ys, xs = np.nonzero(red)
        if len(xs) < 200:
            return []
        x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        points = np.array([x0, y0]) + POINTS * [x1 - x0, y1 - y0]
        return [Face((float(x0), float(y0), float(x1), float(y1)), 0.9, points.astype(np.float32))]


class InvertingRestorer:
    """Looks like a FaceRestorer. ``pause``: seconds that it takes for each face."""

    size = SIZE
    device = torch.device("cpu")
    precision = "fp32"

    def __init__(self, batch_size: int = 2, pause: float = 0.0) -> None:
        self.batch_size = batch_size
        self.pause = pause
        self.faces = 0

    def encode(self, crops: list[np.ndarray]) -> EncodedFaces:
        x = torch.from_numpy(np.stack(crops))  # (B, S, S, 3)
        grey = x.mean(3).reshape(len(crops), 16, 4, 16, 4).mean((2, 4)).reshape(len(crops), 256)
        centres = torch.linspace(0, 1, 8)
        logits = -((grey[..., None] - centres) ** 2) * 200
        return EncodedFaces(x, {"4": x}, logits)

    def decode(self, encoded: EncodedFaces, codes: torch.Tensor, *, w: float, adain: bool) -> list[np.ndarray]:
        self.faces += len(encoded)
        time.sleep(self.pause * len(encoded))
        tint = codes.reshape(-1, 16, 1, 16, 1).expand(-1, 16, 4, 16, 4).reshape(-1, SIZE, SIZE, 1) / 64
        return list((1 - encoded.features["4"] * 0.8 - tint * 0.2).numpy())


def engine_for(work: FaceWork, pause: float = 0.0, batch_size: int = 2) -> Any:
    """The fake engine."""
    model = ModelFile(Path(work.model.model), sha256_of(Path(work.model.model)), Config())
    return Engine(TASKS["restore"], work, model, InvertingRestorer(batch_size, pause), SquareDetector())  # type: ignore[arg-type]


def options_for(source: Path, output: Path, model: Path, **more: Any) -> FilmOptions:
    """Options at scale 1 with any file as the model."""
    work = FaceWork(model=ModelOptions(model=str(model)), canvas=CanvasOptions(upscale=more.pop("upscale", 1.0)))
    return FilmOptions(source=source, output=output, work=work, **more)


def main(source: str, output: str, model: str, stretch: str, pause: str) -> int:
    """A run in a process of its own, for killing."""
    options = options_for(Path(source), Path(output), Path(model), stretch=int(stretch))
    return int(run_film(options, Console(), engine_for(options.work, float(pause))))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
