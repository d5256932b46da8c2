"""The numbers in the names of a film's frames, and the frames that are missing between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_SHOWN = 5  # gaps that a line names


def filled(paths: Sequence[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Return frames with the one before each gap of their numbers held, and a line that names the gaps.

    The frames of a film that was taken apart must stay at their times, or its sound is out of step. Names without
    numbers, or whose numbers mostly go up by more than 1, have no gaps. Where more frames are missing than are there,
    none is held, and the line says so.

    Args:
        paths: the frames in order.
    """
    numbers = [_number(path) for path in paths]
    known = [number for number in numbers if number is not None]
    frames = {number[0] for number in known}
    if len(known) < len(paths) or len(frames) > 1 or len(paths) < 2:
        return list(paths), ()
    steps = [after[1] - before[1] for before, after in pairwise(known)]
    if 2 * sum(step == 1 for step in steps) < len(steps):
        return list(paths), ()
    gaps = [(before[1] + 1, after[1] - 1) for before, after in pairwise(known) if after[1] - before[1] > 1]
    missing = sum(last - first + 1 for first, last in gaps)
    if not missing:
        return list(paths), ()
    named = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in gaps[:_SHOWN])
    more = f" and in {len(gaps) - _SHOWN} more places" if len(gaps) > _SHOWN else ""
    said = f"{missing} frames are missing ({named}{more})"
    if missing > len(paths):
        return list(paths), (f"{said}: more than are there, so the others follow each other",)
    result = [path for path, step in zip(paths, steps, strict=False) for _ in range(max(1, step))]
    return [*result, paths[-1]], (f"{said}: the frame before each gap is held",)


def _number(path: Path) -> tuple[tuple[str, str], int] | None:
    """Return a name's last number, and what is around it."""
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", path.name[: -len(path.suffix)] if path.suffix else path.name)
    return None if match is None else ((match[1], match[3]), int(match[2]))
