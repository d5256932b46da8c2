"""What the benchmarks share: a measurement, how it is taken, and the photograph of which it is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "inputs" / "whole_imgs" / "00_astronaut.jpg"


@dataclass(frozen=True)
class Row:
    """One measurement.

    ``cpu_seconds``: of all threads of the process; with one thread, what a shared machine's load distorts least.
    ``ratio``: how many times faster, by the clock, than the row it is compared with (``against``).
    """

    stage: str
    what: str
    seconds: float | None
    cpu_seconds: float | None = None
    against: str = ""
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    device: str
    precisions: tuple[str, ...]
    w: float
    repeats: int
    quick: bool


def best(action: Callable[[], Any], repeats: int, *, warm: bool = True, by_cpu: bool = False) -> tuple[float, float]:
    """Return seconds by the clock and of CPU time of the best of several calls.

    Args:
        action: what is timed.
        repeats: how many calls count.
        warm: whether one call goes before, which does not count.
        by_cpu: whether the call with the least CPU time is the best one, instead of the one that ends first.
    """
    if warm:
        action()
    seconds = []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        action()
        seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    return min(seconds, key=lambda one: one[by_cpu])


def photograph() -> np.ndarray:
    """Return a photograph with one face."""
    from codeformer.images.picture import read_picture, to_uint8

    return to_uint8(read_picture(PICTURE).rgb)


def compared(row: Row, seconds: float | None, against: str) -> Row:
    """Return the row with its ratio to another one."""
    if not seconds or not row.seconds:
        return row
    return replace(row, against=against, ratio=round(seconds / row.seconds, 2))
