"""What ``codeformer video`` was asked for, validated once. Nothing heavy is imported here."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from codeformer.errors import UsageError
from codeformer.files.paths import file_id, is_file, is_folder, same_file, shortened
from codeformer.options import DEFAULT_PNG_LEVEL, VIDEO_SUFFIXES, FaceWork

Temporal = Literal["auto", "off", "landmarks", "codes"]
TEMPORALS: tuple[str, ...] = get_args(Temporal)
DEINTERLACE: tuple[str, ...] = ("auto", "off", "on", "telecine")
_LONGEST_STEM = 160  # bytes: with .partial, .codeformer-work and an ending still a legal name everywhere
#: Endings of the films that can be written.
ENDINGS: tuple[str, ...] = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".apng", ".gif", ".webp")
_KEPT = tuple(ending for ending in ENDINGS if ending != ".gif")  # the result of a GIF is a film, with all its colours


@dataclass(frozen=True)
class FilmOptions:
    """One film to restore. Times are seconds from its beginning.

    Attributes:
        source: a film, or a folder or pattern of frames.
        fps: frames per second of the result; ``clock`` those of an input without a clock.
        stream: which of the input's video streams is the film, from 1; None for the one with the most merit.
        deinterlace: what becomes of fields, one of :data:`DEINTERLACE`.
        preview: how many frames to write instead of the film, before and after.
        preview_w: fidelity weights that a preview shows beside each other; () for ``work.w`` alone.
        compare: how the result shows the input too, "side" by side or "split" in the middle; None for the result alone.
        w_by_model: nobody asked for ``work.w``; a weights file that wants another fidelity weight gets it.
    """

    source: Path
    output: Path | None = None  # a file, or a folder; None: results/<name>_<w>
    work: FaceWork = field(default_factory=FaceWork)
    temporal: Temporal = "auto"
    start: Fraction | None = None
    end: Fraction | None = None
    fps: Fraction | None = None
    clock: Fraction | None = None
    stream: int | None = None
    deinterlace: str = "auto"
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    audio: bool = True
    suffix: str | None = None
    save_frames: Path | None = None
    png_level: int = DEFAULT_PNG_LEVEL  # of saved frames and previews
    preview: int = 0
    preview_w: tuple[float, ...] = ()
    compare: str | None = None
    resume: bool = True
    stretch: int = 96  # frames that are finished, and kept over a kill, together
    w_by_model: bool = False

    def __post_init__(self) -> None:
        if self.temporal not in TEMPORALS:
            raise UsageError(f"--temporal must be one of {', '.join(TEMPORALS)}, not {self.temporal!r}")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise UsageError("--end must come after --start")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"--save_video_fps must lie between 0 and 1000, not {float(self.fps):g}")
        if self.clock is not None and not 0 < self.clock <= 1000:
            raise UsageError(f"--fps must lie between 0 and 1000, not {float(self.clock):g}")
        if self.stream is not None and self.stream < 1:
            raise UsageError(f"--stream counts from 1, not {self.stream}")
        if self.deinterlace not in DEINTERLACE:
            raise UsageError(f"--deinterlace must be one of {', '.join(DEINTERLACE)}, not {self.deinterlace!r}")
        if not 0 <= self.png_level <= 9:
            raise UsageError(f"--png_level must lie in [0, 9], not {self.png_level}")
        if self.preview < 0:
            raise UsageError("--preview must be 0 or more")
        if self.preview_w and not self.preview:
            raise UsageError("--preview_w needs --preview N: how many frames to show with these w")
        if wrong := [w for w in self.preview_w if not 0 <= w <= 1]:
            raise UsageError(f"--preview_w must lie between 0 and 1, not {wrong[0]:g}")
        if self.compare not in (None, "side", "split"):
            raise UsageError(f"--compare must be side or split, not {self.compare!r}")
        if self.stretch < 1:
            raise UsageError("--stretch must be at least 1 frame")
        if self.work.faces.numbers:
            raise UsageError("--face: faces have no fixed numbers in a film; use --only_center_face or --max_faces")
        if self.work.faces.aligned:
            raise UsageError("--aligned is for pictures; a film of aligned crops is a folder of frames for restore")
        frames = self.source if is_folder(self.source) else self.source.parent
        if self.save_frames is not None and not is_file(self.source) and same_file(self.save_frames, frames):
            raise UsageError(f"--save_frames {self.save_frames}: holds the input's frames; choose another folder")
        if self.suffix and re.search(r'[/\\\0:*?"<>|]', self.suffix):
            raise UsageError("--suffix becomes part of a file name and cannot hold path characters")


def parse_time(text: str) -> Fraction:
    """Seconds from ``SS``, ``MM:SS`` or ``HH:MM:SS``, each with decimals. Raises UsageError."""
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a time: write seconds, MM:SS or HH:MM:SS, such as 1:02.5")
    hours, minutes, seconds = match.groups()
    return Fraction(hours or 0) * 3600 + Fraction(minutes or 0) * 60 + Fraction(seconds)


def films_in(paths: Sequence[Path]) -> list[Path]:
    """Return the films behind paths: of a folder that holds films those, in the order of their names.

    A folder without films is a film of frames, and stays.
    """
    found: list[Path] = []
    for path in paths:
        films: list[Path] = []
        if is_folder(path):
            with suppress(OSError):  # reading it will say why
                films = sorted(e for e in path.iterdir() if e.suffix.lower() in VIDEO_SUFFIXES and is_file(e))
        found += films or [path]
    return found


def output_file(options: FilmOptions) -> Path:
    """Where the film goes: the file given, or one named after the input in the folder given or ``results``.

    Raises UsageError when that is the input itself or an ending that no film has.
    """
    given, source = options.output, options.source
    if os.path.lexists(source):  # brackets are part of a file's name; only in a pattern are they none
        stem = source.name if source.is_dir() else source.stem
    else:
        stem = re.sub(r"%0?\d*d|[*?\[\]]", "", source.stem).strip("._- ") or "film"
    stem = shortened(stem, _LONGEST_STEM)
    ending = source.suffix.lower() if source.suffix.lower() in _KEPT and not source.is_dir() else ".mp4"
    name = stem + (f"_{options.suffix}" if options.suffix else "") + ending
    if given is None:
        result = Path("results") / f"{stem}_{float(options.work.w)}{_part(options)}{_compared(options)}" / name
    elif given.is_dir() or not given.suffix:
        result = given / name
    elif given.suffix.lower() in ENDINGS:
        result = given
    else:
        raise UsageError(f"--output_path {given}: a film ends with {', '.join(ENDINGS)} (or give a folder)")
    if os.path.realpath(result) == os.path.realpath(source) or same_file(result, source):
        raise UsageError(f"--output_path {result} is the input itself; choose another")
    if same_file(partial_file(result), source):
        raise UsageError(f"{source}: has the name of an interrupted run's part of {result}; rename one of them")
    return result


def _part(options: FilmOptions) -> str:
    """Return what tells a part of a film from the whole in the name of its folder."""
    if options.start is None and options.end is None:
        return ""
    end = "" if options.end is None else f"{float(options.end):g}"
    return f"_{float(options.start or 0):g}-{end}s"


def _compared(options: FilmOptions) -> str:
    return "" if options.compare is None else f"_{'compare' if options.compare == 'side' else 'split'}"


def partial_file(output: Path) -> Path:
    """Where an interrupted run leaves what it has of the film ``output``."""
    return output.with_name(f"{output.stem}.partial{output.suffix}")


def report_file(output: Path) -> Path:
    """Return where the report of the film ``output`` lies."""
    return output.with_name(output.name + ".json")


def check_apart(films: Sequence[FilmOptions]) -> None:
    """Raise UsageError if a film's results would replace another film of the run, or another one's results."""
    given = films[0].output
    if len(films) > 1 and given is not None and given.suffix and not given.is_dir():
        raise UsageError(f"--output_path {given}: several films need a folder, not one file")
    sources = {identity: film.source for film in films if (identity := file_id(film.source)) is not None}
    taken: dict[str, Path] = {}
    for film in films:
        output = output_file(film)
        for written in map(file_id, (output, partial_file(output))):
            if written in sources:
                raise UsageError(
                    f"{film.source}: its result {output} would replace {sources[written]}; choose another -o"
                )
        place = os.path.realpath(output).casefold()
        if place in taken:
            both = f"{taken[place]} and {film.source}"
            raise UsageError(f"{both}: both results would be {output}; do them one by one, with an -o each")
        taken[place] = film.source
    if len(films) > 1 and films[0].save_frames is not None:
        raise UsageError("--save_frames: several films would mix their frames; do them one by one, with a folder each")
