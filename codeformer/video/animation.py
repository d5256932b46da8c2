"""Animated pictures: WebP, which FFmpeg does not read, and APNG, GIF and WebP, written by Pillow.

While a film is worked on, its frames are PNGs in the packet files; at its end they become the animation.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codeformer.errors import InputError, OutputError
from codeformer.files.opening import open_regular
from codeformer.video.encoding import ANIMATIONS
from codeformer.video.packets import read_packets
from codeformer.video.pixels import Colour
from codeformer.video.source import FilmInfo, Frame

_TICK = Fraction(1, 1000)
_LEAST = 10  # milliseconds; browsers show what is shorter for a tenth of a second


def is_animated_webp(path: Path) -> bool:
    """Whether a file is a WebP of several frames."""
    try:
        with open_regular(path) as file:
            head = file.read(64)
    except (OSError, ValueError):
        return False
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and bool(head[20] & 2)


class AnimatedWebp:
    """A WebP of several frames as a film; the arguments are seconds, as those of ``open_film``.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: Path, start: Fraction = Fraction(0), end: Fraction | None = None) -> None:
        self._path, self._start, self._end = path, start, end
        self.problems: list[str] = []
        self.ended_early: float | None = None
        durations = []
        try:
            with Image.open(path, formats=["WEBP"]) as image:
                size, count = image.size, int(getattr(image, "n_frames", 1))
                for number in range(count):
                    image.seek(number)
                    image.load()
                    durations.append(max(1, round(float(image.info.get("duration") or 100))))
        except (OSError, EOFError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: the animation cannot be read ({error})") from error
        self._times = np.concatenate([[0], np.cumsum(durations)]) * _TICK.numerator
        total = int(self._times[-1])
        until = total if end is None else min(total, int(end / _TICK))
        shown = [time for time in self._times[:-1] if start / _TICK <= time < until]
        rate = Fraction(1000 * count, total).limit_denominator(1001)
        self.info = FilmInfo(
            path=path,
            width=size[0],
            height=size[1],
            time_base=_TICK,
            rate=rate,
            frames=len(shown),
            duration=max(Fraction(0), until * _TICK - start),
            colour=Colour(1, 1, 1, 1),
            codec="webp",
            pix_fmt="rgba",
            alpha=True,
        )

    def files(self) -> list[Path]:
        """Return the one file."""
        return [self._path]

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames from index ``first`` on."""
        index, before = 0, None
        begin = round(self._start / _TICK)
        end = None if self._end is None else round(self._end / _TICK)
        with Image.open(self._path, formats=["WEBP"]) as image:
            for number, time in enumerate(map(int, self._times[:-1])):
                if time < begin:
                    continue
                if end is not None and time >= end:
                    return
                image.seek(number)
                pixels = np.asarray(image.convert("RGBA"))
                same = before is not None and np.array_equal(before, pixels)
                before = pixels
                duration = int(self._times[number + 1]) - time
                if index >= first:
                    rgb, alpha = np.ascontiguousarray(pixels[..., :3]), pixels[..., 3].copy()
                    yield Frame(index, time - begin, duration, rgb, same, alpha=alpha)
                index += 1


def write_animation(output: Path, suffix: str, stretches: Sequence[Path], time_base: Fraction, last: int) -> None:
    """Write finished stretches, whose packets are PNGs, as an animation that goes on for ever.

    Args:
        output: the file that is written.
        suffix: its ending, one of :data:`ANIMATIONS`.
        stretches: the packet files, in order.
        time_base: seconds per tick.
        last: ticks for which the last frame is shown.

    Raises:
        OutputError: it cannot be written.
    """
    packets = [(stored.pts, stored.duration or last) for stored in read_packets(stretches)]
    begin = packets[0][0]
    marks = [round((pts - begin) * time_base * 1000) for pts, _ in packets]
    marks.append(round((packets[-1][0] + packets[-1][1] - begin) * time_base * 1000))
    durations = [max(_LEAST, after - before) for before, after in pairwise(marks)]
    kind = ANIMATIONS[suffix.lower()]
    more: dict[str, Any] = {"loop": 0, "duration": durations}
    if kind == "WEBP":
        more |= {"quality": 90, "alpha_quality": 100, "method": 4, "background": (0, 0, 0, 0)}
    elif kind == "GIF":
        more |= {"disposal": 2, "optimize": False}
    pictures = _Pictures(stretches)
    try:
        first = next(pictures.every())
        if kind == "WEBP" and first.mode == "RGBA":
            more["lossless"] = True  # libwebp's lossy animations lose their transparency (Pillow 12)
        first.save(output, format=kind, save_all=True, append_images=pictures, **more)
    except (OSError, ValueError) as error:
        raise OutputError(f"{output}: the animation cannot be written ({error})") from error


class _Pictures:
    """All frames but the first, opened one by one, as often as they are asked for."""

    def __init__(self, stretches: Sequence[Path]) -> None:
        self._stretches = stretches

    def every(self) -> Iterator[Image.Image]:
        for stored in read_packets(self._stretches):
            yield Image.open(io.BytesIO(stored.data))

    def __iter__(self) -> Iterator[Image.Image]:
        return islice(self.every(), 1, None)
