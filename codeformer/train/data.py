"""Faces from folders; every sample is a function of (seed, step, index), however many workers there are."""

import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from codeformer.arrays import Crop, Floats
from codeformer.errors import InputError, UsageError
from codeformer.files.atomic import reason
from codeformer.files.opening import read_regular
from codeformer.images.damage import LEAST
from codeformer.images.decoding import unlimited_pillow
from codeformer.images.limits import least_bytes, most_pixels
from codeformer.images.png import decode
from codeformer.images.tiff import table_of
from codeformer.train.degrade import Degradation, for_task, parse_degradation

DRAWS = 8
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_LARGEST = 1 << 30  # bytes of a face's file


@dataclass(frozen=True)
class Folder:
    """A folder of aligned faces, and how often it is sampled beside the others; None: by its number of pictures."""

    path: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Folder":
        """Read ``PATH`` or ``PATH=WEIGHT``."""
        path, _, weight = text.rpartition("=")
        try:
            return cls(Path(path), float(weight)) if path else cls(Path(text))
        except ValueError:
            return cls(Path(text))


def chances_of(folders: Sequence[Folder], counts: Sequence[int]) -> Floats:
    """Return the chance of each folder, by the weights, or without any by the numbers of pictures.

    Raises:
        UsageError: some have a weight and some have none, or the weights are negative or all 0.
    """
    given = [folder.weight for folder in folders if folder.weight is not None]
    if given and len(given) < len(folders):
        raise UsageError("--data: give each folder a weight, or none of them")
    weights = np.array(given or counts, float)
    if not (np.isfinite(weights) & (weights >= 0)).all() or not weights.sum():
        raise UsageError("--data: weights are numbers from 0 on, and not all 0")
    chances: Floats = weights / weights.sum()
    return chances


def list_faces(folder: Path) -> list[Path]:
    """Return the pictures below `folder`, sorted.

    Raises:
        InputError: it is not a folder, or holds no picture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of faces")
    faces = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not faces:
        raise InputError(f"{folder}: holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return faces


def read_face(path: Path, size: int) -> tuple[Crop, bool]:
    """Read an aligned face as (size, size, 3) float32 RGB in [0, 1], and whether it had that many pixels.

    Raises:
        InputError: the file cannot be read, is not a square picture, or announces more pixels than it can hold or the
            memory can.
    """
    try:
        raw = read_regular(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from error
    width, height = _size_of(path, raw)
    if height != width:
        raise InputError(f"{path}: {width}x{height} is not square; prepare photographs with: codeformer align")
    if height * width > (most := most_pixels()):
        raise InputError(f"{path}: {width}x{height} pixels are more than the limit of {most}; shrink it first")
    try:
        data = decode(raw, cv2.IMREAD_COLOR)
    except ValueError as error:
        raise InputError(f"{path}: not a picture, or damaged") from error
    height, width = data.shape[:2]
    if height != width:
        raise InputError(f"{path}: not a picture, or damaged")
    if height != size:
        method = cv2.INTER_AREA if height > size else cv2.INTER_CUBIC
        data = cv2.resize(data, (size, size), interpolation=method)
    return data[..., ::-1].astype(np.float32) / np.float32(255), height >= size


def _size_of(path: Path, data: bytes) -> tuple[int, int]:
    """Return the width and height that a picture's file announces: a small file can make a decoder take much memory.

    Raises:
        InputError: it announces none, or more pixels than so few bytes can hold.
    """
    try:
        with unlimited_pillow(), Image.open(io.BytesIO(data)) as image:
            (width, height), least = image.size, least_bytes(image.format or "", data[:4096], image)
    except Exception as error:  # Pillow refuses TIFF files in colour and floating point, and OpenCV reads them
        try:
            table = table_of(data)
            (width,), (height,), least = table.numbers(256), table.numbers(257), 0
        except Exception:  # a mutated table makes struct raise anything at all
            raise InputError(f"{path}: not a picture") from error
    if len(data) < LEAST * least:
        raise InputError(f"{path}: is cut off: {width}x{height} pixels need {least} bytes or more")
    return width, height


class FaceDataset(Dataset[dict[str, Any]]):
    """Training samples.

    Args:
        folders: where the faces lie.
        size: side of the samples, pixels.
        degradations: names (``medium``, ``heavy``) or ranges, each as likely as the others.
        tasks: chance of each task; they need not sum to 1.
        seed: every sample follows from it.
        hole: what inpainting sees where it fills: ``white``, or ``smear``.
        cover: chance that its hole covers an eye, the nose or the mouth, besides what is random.
        strokes: chance that its hole is thick strokes instead of thin ones and small shapes.

    A sample is a dict: ``hq`` and ``lq`` (3, S, S) float32 in [-1, 1]; ``mask`` (1, S, S); ``sharp``, whether
    the picture really had S pixels (an enlarged one tells nothing of the finest detail); ``task``; ``draws``,
    uniform numbers for whatever the losses choose at random.
    """

    def __init__(
        self,
        folders: Sequence[Folder],
        size: int,
        degradations: Sequence[str | Mapping[str, Any] | Degradation],
        tasks: Mapping[str, float],
        seed: int,
        hole: str = "white",
        cover: float = 0.0,
        strokes: float = 0.0,
    ) -> None:
        self.hole, self.cover, self.strokes = hole, cover, strokes
        self.files = [list_faces(folder.path) for folder in folders]
        self.chances = chances_of(folders, [len(files) for files in self.files])
        self.size, self.seed = size, seed
        self.degradations = [parse_degradation(d) for d in degradations]
        self.tasks = list(tasks)
        shares = np.array([tasks[t] for t in self.tasks], float)
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return sum(map(len, self.files))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return sample `index` of training step `step`, for ``key = (step, index)``."""
        rng = np.random.default_rng((self.seed, *key))
        files = self.files[rng.choice(len(self.files), p=self.chances)]
        hq, sharp = read_face(files[rng.integers(len(files))], self.size)
        if rng.random() < 0.5:
            hq = hq[:, ::-1]
        task = self.tasks[rng.choice(len(self.tasks), p=self.shares)]
        degradation = self.degradations[rng.integers(len(self.degradations))]
        lq, hq, mask = for_task(task, np.ascontiguousarray(hq), degradation, rng, self.hole, self.cover, self.strokes)
        return {
            "hq": to_tensor(hq),
            "lq": to_tensor(lq),
            "mask": torch.from_numpy(mask)[None],
            "sharp": sharp,
            "task": task,
            "draws": torch.from_numpy(rng.random(DRAWS)),
        }


def to_tensor(face: Crop) -> Tensor:
    """Map (S, S, 3) in [0, 1] to (3, S, S) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(face.transpose(2, 0, 1))).mul(2).sub(1)


def to_picture(face: Tensor) -> Crop:
    """Map (3, S, S) in [-1, 1] to (S, S, 3) float32 in [0, 1], clipped."""
    return face.detach().float().clamp(-1, 1).add(1).div(2).permute(1, 2, 0).cpu().numpy()


class Steps(Sampler[list[tuple[int, int]]]):
    """The batches of one process: at step s, process r of R takes the indices from r B to (r + 1) B."""

    def __init__(self, first: int, last: int, batch: int, rank: int = 0) -> None:
        self.first, self.last, self.batch, self.rank = first, last, batch, rank

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        start = self.rank * self.batch
        for step in range(self.first, self.last):
            yield [(step, index) for index in range(start, start + self.batch)]


def make_loader(faces: FaceDataset, first: int, last: int, batch: int, *, rank: int, workers: int) -> DataLoader[Any]:
    """Return a loader of the batches of steps `first` to `last`, exclusive."""
    return DataLoader(
        faces,
        batch_sampler=Steps(first, last, batch, rank),
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
    )


def _quiet_worker(_: int) -> None:
    """Give a loading process one thread and a group of its own.

    The cores belong to the network; and signals that a shell or scheduler sends to all processes of a run are the run's
    to answer, after the step.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of pictures that are named by an error of ours, or whole
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
