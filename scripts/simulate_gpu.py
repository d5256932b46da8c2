"""How well reading, network and pasting overlap on a GPU, without one.

``benchmark.py --simulate_gpu`` calls this. Reading a picture, and a face in the network, are pauses of a fixed length
in which the processor is free, as it is while it waits for a disk or a card; all else is the program's own code. The
ideal is the longer one of what must be read, by all readers together, and of what the network takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from codeformer.images.picture import Picture
from codeformer.options import CanvasOptions, FaceOptions, FaceWork
from codeformer.pipeline import pictures
from codeformer.pipeline.engine import Engine
from codeformer.tasks.table import TASKS

READ = NETWORK = 0.02  # seconds for a picture, and for a face
COUNT = 128
SIDE = 64  # of the crops: the program's own work is small beside the pauses, as it is beside a network's


@dataclass(frozen=True)
class Simulated:
    """One run: faces in a batch, the sizes of the batches that the network saw, seconds, and the least possible."""

    what: str
    batch: int
    batches: tuple[int, ...]
    seconds: float
    ideal: float


class _Model:
    """What a pipeline asks of a weights file."""

    w_least = w_keeps = 0.0

    def adain(self, task: Any) -> bool:
        return True


class _Restorer:
    """A network that takes its time, on a device that is not here."""

    device = torch.device("cuda")
    precision = "fp32"
    size = SIDE

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.batches: list[int] = []

    def require_own_process(self) -> None:
        pass

    def restore(self, crops: Sequence[np.ndarray], *, w: float, adain: bool) -> list[np.ndarray]:
        results: list[np.ndarray] = []
        for start in range(0, len(crops), self.batch_size):
            part = list(crops[start : start + self.batch_size])
            self.batches.append(len(part))
            time.sleep(NETWORK * len(part))
            results += part
        return results


def simulate(batch: int, *, aligned: bool, count: int = COUNT) -> Simulated:
    """Work on ``count`` pictures with a face each: aligned crops, or whole pictures into which faces are pasted."""
    points = (((20.0, 24.0), (44.0, 24.0), (32.0, 36.0), (24.0, 48.0), (40.0, 48.0)),)
    faces = FaceOptions(aligned=aligned, landmarks=() if aligned else points, parsing="none")
    work = FaceWork(faces=faces, canvas=CanvasOptions(1.0), tone="free")
    restorer: Any = _Restorer(batch)
    model: Any = _Model()
    engine = Engine(TASKS["restore"], work, model, restorer)
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)

    def load() -> Picture:
        time.sleep(READ)
        return Picture(rgb)

    start = time.perf_counter()
    jobs = (pictures.Job(index, partial(load)) for index in range(count))
    done = sum(result.error is None for result in pictures.process(jobs, engine, ahead=2))
    seconds = time.perf_counter() - start
    if done != count:
        raise RuntimeError(f"{count - done} pictures failed")
    return Simulated("crops" if aligned else "whole", batch, tuple(restorer.batches), seconds, NETWORK * count)


def table(batches: Sequence[int] = (1, 16, 64)) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| what | batch | batches seen | seconds | ideal | share of the ideal |"
    yield "|---|---|---|---|---|---|"
    for aligned in (True, False):
        for batch in batches:
            run = simulate(batch, aligned=aligned)
            seen = f"{len(run.batches)} of {max(run.batches)}"
            cells = [run.what, str(run.batch), seen, f"{run.seconds:.2f}", f"{run.ideal:.2f}"]
            yield f"| {' | '.join(cells)} | {run.ideal / run.seconds:.0%} |"
