"""How well reading, network and pasting overlap on a GPU, without one.

``benchmark.py --simulate_gpu`` calls this. Reading a picture or a frame, and a face in the network, are pauses of a
fixed length in which the processor is free, as it is while it waits for a disk or a card; all else is the program's own
code. The ideal is the longer one of what must be read, by all readers together, and of what the network takes. On a
busy machine the best of several runs counts: what other programs take is not the program's. ``--slower N`` makes the
pauses N times as long, beside which a busy machine's late wakes are small: what is then lost, the program loses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codeformer.backends.base import EncodedArrays
from codeformer.images.picture import Picture
from codeformer.options import CanvasOptions, FaceOptions, FaceWork
from codeformer.pipeline import pictures
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine
from codeformer.tasks.table import TASKS
from codeformer.video.segment import MODES
from codeformer.video.source import FilmInfo, Frame
from codeformer.video.stretches import restored_frames

READ = NETWORK = 0.02  # seconds for a picture, and for a face
READ_FRAME = 0.002  # seconds: one decoder reads a film, and a frame is less work than a file
COUNTS = {"crops": 128, "whole": 128, "film": 256}  # pictures, or frames
SIDE = 64  # of the crops: the program's own work is small beside the pauses, as it is beside a network's
LANDMARKS = ((20.0, 24.0), (44.0, 24.0), (32.0, 36.0), (24.0, 48.0), (40.0, 48.0))


@dataclass(frozen=True)
class Simulated:
    """One run: faces in a batch, the sizes of the batches that the network saw, seconds, and the least possible.

    ``cpu_seconds``: of the program's own work.
    """

    what: str
    batch: int
    batches: tuple[int, ...]
    seconds: float
    cpu_seconds: float
    ideal: float


class _Model:
    """What a pipeline asks of a weights file."""

    w_least = w_keeps = 0.0

    def adain(self, task: Any) -> bool:
        return True


class _Restorer:
    """A network that takes ``pause`` seconds for a face, on a device that need not be here.

    ``threads``: those in which it ran; ``batches``: how many faces it got at a time.
    """

    precision = "fp32"
    size = SIDE

    def __init__(self, batch_size: int, pause: float, device: str) -> None:
        self.batch_size = batch_size
        self.pause = pause
        self.device = torch.device(device)
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def require_own_process(self) -> None:
        pass

    def _pause(self, faces: float) -> None:
        self.threads.add(threading.get_ident())
        time.sleep(self.pause * faces)

    def restore(self, crops: Sequence[np.ndarray], *, w: float, adain: bool) -> list[np.ndarray]:
        for start in range(0, len(crops), self.batch_size):
            self.batches.append(len(crops[start : start + self.batch_size]))
            self._pause(self.batches[-1])
        return list(crops)

    def encode(self, crops: Sequence[np.ndarray]) -> EncodedArrays:
        faces = np.stack(crops)
        self._pause(len(faces) / 2)
        return EncodedArrays(np.zeros((len(faces), 4, 8), np.float32), {"faces": faces})

    def decode(self, encoded: EncodedArrays, codes: Any, *, w: float, adain: bool) -> list[np.ndarray]:
        self.batches.append(len(encoded))
        self._pause(len(encoded) / 2)
        return list(encoded.features["faces"])


class _Film:
    """Frames of one scene: a picture of noise that is a little different in each, with one face."""

    problems: tuple[str, ...] = ()
    ended_early = None

    def __init__(self, count: int, pause: float) -> None:
        self._pause = pause
        self.info = FilmInfo(Path("film"), SIDE, SIDE, Fraction(1, 25), Fraction(25), count, Fraction(count, 25))
        rng = np.random.default_rng(0)
        self._rgb = rng.integers(8, 248, (SIDE, SIDE, 3), np.uint8) + rng.integers(0, 8, (count, 1, 1, 3), np.uint8)

    def frames(self, first: int = 0) -> Iterator[Frame]:
        for index in range(first, len(self._rgb)):
            time.sleep(self._pause)
            yield Frame(index, index, 1, self._rgb[index])

    def files(self) -> list[Path]:
        return []


def make_engine(batch: int, *, aligned: bool, pause: float = NETWORK, device: str = "cuda") -> tuple[Engine, _Restorer]:
    """Return an engine with a simulated network, and that network. A face is where ``LANDMARKS`` say."""
    faces = FaceOptions(aligned=aligned, landmarks=() if aligned else (LANDMARKS,), parsing="none")
    work = FaceWork(faces=faces, canvas=CanvasOptions(1.0), tone="free")
    restorer: Any = _Restorer(batch, pause, device)
    model: Any = _Model()
    return Engine(TASKS["restore"], work, model, restorer), restorer


def _pictures(engine: Engine, count: int, slower: float) -> Iterator[bool]:
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)

    def load() -> Picture:
        time.sleep(READ * slower)
        return Picture(rgb)

    jobs = (pictures.Job(index, partial(load)) for index in range(count))
    return (result.error is None for result in pictures.process(jobs, engine, ahead=2))


def _frames(engine: Engine, count: int, slower: float) -> Iterator[bool]:
    film: Any = _Film(count, READ_FRAME * slower)
    steps = restored_frames(film, engine, MODES["auto"], 96, 0, Clock())
    return (bool(step.done.restored) for step in steps if step.done is not None)


def simulate(what: str, batch: int, count: int, slower: float = 1.0) -> Simulated:
    """Work on aligned crops, on whole pictures into which faces are pasted, or on a film, one face in each.

    Args:
        what: ``crops``, ``whole`` or ``film``.
        batch: faces in a batch.
        count: pictures or frames.
        slower: how many times as long all pauses are.
    """
    engine, restorer = make_engine(batch, aligned=what == "crops", pause=NETWORK * slower)
    work: Callable[[Engine, int, float], Iterator[bool]] = _frames if what == "film" else _pictures
    start, cpu = time.perf_counter(), time.process_time()
    done = sum(work(engine, count, slower))
    seconds, spent = time.perf_counter() - start, time.process_time() - cpu
    if done != count:
        raise RuntimeError(f"{count - done} of {count} failed")
    return Simulated(what, batch, tuple(restorer.batches), seconds, spent, NETWORK * slower * count)


def table(
    slower: float = 1.0, repeats: int = 3, kinds: Sequence[str] = tuple(COUNTS), batches: Sequence[int] = (1, 16, 64)
) -> Iterator[str]:
    """Yield the lines of a table: the best of several runs of each.

    Args:
        slower: how many times as long all pauses are.
        repeats: runs of each.
        kinds: of ``COUNTS``.
        batches: faces in a batch.
    """
    yield "| what | batch | batches seen | seconds | CPU s | ideal | share of the ideal |"
    yield "|---|---|---|---|---|---|---|"
    for what in kinds:
        count = COUNTS[what]
        for batch in batches:
            run = min((simulate(what, batch, count, slower) for _ in range(repeats)), key=lambda one: one.seconds)
            seen = f"{len(run.batches)} of {max(run.batches)}"
            cells = [run.what, str(run.batch), seen, f"{run.seconds:.2f}", f"{run.cpu_seconds:.2f}", f"{run.ideal:.2f}"]
            yield f"| {' | '.join(cells)} | {run.ideal / run.seconds:.0%} |"
