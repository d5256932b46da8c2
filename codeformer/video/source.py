"""What the rest needs to know of a film, and the films that are folders or patterns of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from codeformer.arrays import Pixels, Rgb
from codeformer.errors import InputError
from codeformer.images.alpha import is_opaque
from codeformer.images.picture import SUFFIXES, Picture, as_srgb, read_picture
from codeformer.video.light import Light
from codeformer.video.pixels import Colour, fit, fit_alpha


@dataclass(frozen=True)
class FilmInfo:
    """A film as it will be shown: ``width`` and ``height`` are upright, times count from its start."""

    path: Path
    width: int
    height: int
    time_base: Fraction  # seconds per tick of a frame's pts
    rate: Fraction  # average frames per second
    frames: int | None  # None: the container does not say
    duration: Fraction | None  # seconds
    sample_aspect_ratio: Fraction = Fraction(1)
    colour: Colour = field(default_factory=Colour)
    bits: int = 8
    alpha: bool = False  # whether something of it is transparent
    light: Light | None = None  # what an HDR film says of its brightness
    codec: str = ""
    pix_fmt: str = ""
    stream: int = 1  # which of the file's video streams, from 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: (H, W, 3) upright RGB, uint8 or uint16. ``same``: its pixels equal the frame before."""

    index: int  # from 0, in the order shown
    pts: int  # ticks of the film's time_base, strictly increasing
    duration: int  # ticks
    rgb: Rgb
    same: bool = False
    alpha: Pixels | None = None  # (H, W) of the depth of rgb; None: opaque
    code: bytes | None = None  # H.273's code points where the colours are not sRGB's

    def picture(self) -> Picture:
        """Return the frame as a picture."""
        return Picture(self.rgb, self.alpha, cicp=self.code)


class Film(Protocol):
    """A source of frames that can be read again from any index."""

    @property
    def info(self) -> FilmInfo:
        """What is known before the first frame."""

    @property
    def problems(self) -> list[str]:
        """What went wrong while reading, one line each; complete once ``frames`` has ended."""

    @property
    def ended_early(self) -> float | None:
        """Seconds at which a damaged film ended before its time, or None; known once ``frames`` has ended."""

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames from index ``first`` on."""

    def files(self) -> list[Path]:
        """Return the files whose bytes decide the frames."""


class FrameFolder:
    """Pictures as a film of constant rate, in the order of the numbers in their names.

    The first picture gives the size; others are fitted into it. Raises InputError when there is no picture.
    """

    def __init__(self, paths: list[Path], where: Path, rate: Fraction, notes: tuple[str, ...] = ()) -> None:
        if not paths:
            raise InputError(f"no pictures in {where}: give a film, a folder of frames, or a pattern like f_%05d.png")
        first = read_picture(paths[0])
        height, width = first.rgb.shape[:2]
        self._paths = paths
        self.problems: list[str] = []
        self.ended_early: float | None = None
        self.info = FilmInfo(
            path=where,
            width=width,
            height=height,
            time_base=1 / rate,
            rate=rate,
            frames=len(paths),
            duration=len(paths) / rate,
            colour=Colour(1, 1, 1, 1),
            bits=8 if first.rgb.dtype == np.uint8 else 16,
            alpha=not is_opaque(first),
            codec=first.format,
            pix_fmt="rgb",
            notes=notes,
        )

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames from index ``first`` on. Raises InputError for a picture that cannot be read."""
        before: Rgb | None = None
        self.problems = []
        for index in range(max(0, first - 1), len(self._paths)):
            picture = as_srgb(read_picture(self._paths[index]))  # the film is tagged BT.709, not as each picture is
            rgb, alpha = picture.rgb, picture.alpha
            if rgb.shape[:2] != (self.info.height, self.info.width):
                note = "the pictures are not all of one size: others are fitted into the first one's"
                if note not in self.problems:
                    self.problems.append(note)
                rgb = fit(rgb, (self.info.width, self.info.height))
                if alpha is not None:
                    alpha = fit_alpha(alpha, (self.info.width, self.info.height))
            same = before is not None and np.array_equal(before, rgb) and alpha is None
            if same and before is not None:
                rgb = before
            before = rgb
            if index >= first:
                yield Frame(index, index, 1, rgb, same, alpha)

    def files(self) -> list[Path]:
        """Return the pictures."""
        return list(dict.fromkeys(self._paths))  # one that is held over a gap counts once


def find_frames(path: Path) -> list[Path] | None:
    """Return the pictures of a folder or pattern (``%05d``, ``*``, ``?``), naturally sorted; None if it is neither."""
    if path.is_dir():
        candidates = [entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    elif path.exists():
        return None
    elif re.search(r"%0?\d*d", path.name):
        number = re.compile(re.sub(r"%0?\d*d", lambda _: r"\d+", _escape(path.name)))
        candidates = [entry for entry in _listing(path.parent) if number.fullmatch(entry.name)]
    elif re.search(r"[*?\[]", path.name):
        candidates = list(path.parent.glob(path.name))
    else:
        return None
    return sorted(candidates, key=lambda entry: _natural(entry.name))


def _escape(name: str) -> str:
    """As ``re.escape``, but the percent sign of a pattern stays."""
    return "".join(re.escape(part) if not part.startswith("%") else part for part in re.split(r"(%0?\d*d)", name))


def _listing(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_file()] if folder.is_dir() else []


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts frame9 before frame10."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part.lower()) for part in re.findall(r"\d+|\D+", name)]
