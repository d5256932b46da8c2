"""A film at another rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from codeformer.video.source import Film, Frame


class Resampled:
    """A film at a constant rate: at each tick the frame that is on the screen then."""

    def __init__(self, film: Film, rate: Fraction) -> None:
        self._film, self._rate = film, rate
        duration = film.info.duration
        count = None if duration is None else max(1, round(duration * rate))
        self.info = replace(film.info, time_base=1 / rate, rate=rate, frames=count)

    @property
    def problems(self) -> list[str]:
        """As the film's."""
        return self._film.problems

    @property
    def ended_early(self) -> float | None:
        """As the film's."""
        return self._film.ended_early

    def files(self) -> list[Path]:
        """As the film's."""
        return self._film.files()

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames from tick ``first`` on."""
        ratio = self._film.info.time_base * self._rate  # ticks of ours per tick of the film
        tick = 0
        before: Any = None
        for frame in self._film.frames():
            end = (frame.pts + frame.duration) * ratio
            while tick + Fraction(1, 2) <= end:  # the frame shown at the middle of the tick
                if tick >= first:  # an equal frame brings the same array
                    yield replace(frame, index=tick, pts=tick, duration=1, same=frame.rgb is before)
                before = frame.rgb
                tick += 1
