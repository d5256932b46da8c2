"""Everything about one film that is settled before work on it begins, and what earlier runs left of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from codeformer.backends.choose import place_for
from codeformer.device import name_of
from codeformer.errors import ExitCode, InputError, UsageError
from codeformer.files.atomic import unwritable
from codeformer.files.opening import read_regular
from codeformer.files.paths import is_file
from codeformer.models.file import ModelFile
from codeformer.options import OutputOptions
from codeformer.pipeline.engine import Engine
from codeformer.run.messages import Messages
from codeformer.run.record import describe
from codeformer.tasks.table import TASKS
from codeformer.version import __version__
from codeformer.video.encoding import (
    CONTAINERS,
    Encoding,
    check_encoding,
    dimmed,
    hard_to_play,
    plan_encoding,
)
from codeformer.video.options import FilmOptions, output_file, partial_file, report_file
from codeformer.video.reader import open_film
from codeformer.video.segment import MODES, Steadiness
from codeformer.video.source import Film, FilmInfo
from codeformer.video.work import WorkFolder, fingerprint, work_folder

_PHOTOGRAPHS = ("mjpeg", "png", "bmp", "tiff", "webp", "jpeg2000")  # codecs of pictures, with one frame
_LARGEST_REPORT = 1 << 26  # bytes


@dataclass(frozen=True, eq=False)
class FilmPlan:
    """Everything that is settled before work begins."""

    options: FilmOptions
    film: Film
    output: Path
    encoding: Encoding
    steady: Steadiness
    model: ModelFile
    settings: dict[str, Any]
    stamp: str

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return report_file(self.output)

    @property
    def partial(self) -> Path:
        """Where an interrupted run leaves what it has."""
        return partial_file(self.output)


def plan_film(options: FilmOptions, model: ModelFile, console: Messages) -> FilmPlan:
    """Open a film, and settle everything about its result. Raises CodeFormerError."""
    output = output_file(options)
    film = open_film(
        options.source,
        start=options.start,
        end=options.end,
        rate=options.fps,
        clock=options.clock,
        stream=options.stream,
        deinterlace=options.deinterlace,
    )
    for note in film.info.notes:
        console.warning(f"{options.source}: {note}")
    _refuse_a_photograph(options.source, film.info)
    shown = film.info if options.compare != "side" else replace(film.info, width=2 * film.info.width)
    encoding = plan_encoding(
        shown,
        output.suffix,
        scale=options.work.canvas.upscale,
        codec=options.codec,
        crf=options.crf,
        preset=options.preset,
        pix_fmt=options.pix_fmt,
    )
    check_encoding(encoding, CONTAINERS[output.suffix.lower()][0])
    if warning := hard_to_play(encoding):
        console.warning(f"{output}: {warning}")
    for note in dimmed(encoding, film.info):
        console.warning(f"{output}: {note}")
    task = TASKS["restore"]
    for note in model.notes:
        console.note(note)
    for w in options.preview_w or (options.work.w,):
        for line in model.doubts(task, w):
            console.warning(line)
    steady = MODES[options.temporal]
    settings = describe(task, options.work, OutputOptions())
    del settings["output"]
    settings["video"] = {
        "temporal": options.temporal,
        **{f"temporal_{key}": value for key, value in asdict(steady).items()},
        "start": None if options.start is None else str(options.start),
        "end": None if options.end is None else str(options.end),
        "fps": None if options.clock is None else str(options.clock),
        "stream": options.stream,
        "deinterlace": options.deinterlace,
        "save_video_fps": None if options.fps is None else str(options.fps),
        "audio": options.audio,
        "save_frames": None if options.save_frames is None else str(options.save_frames.resolve()),
        "stretch": options.stretch,
        "compare": options.compare,
        "encoding": {key: str(value) for key, value in asdict(encoding).items()},
    }
    try:
        stamp = fingerprint({"settings": settings, "model": model.sha256, "version": __version__}, film.files())
    except OSError as error:
        raise InputError(f"{options.source}: cannot be read ({error.strerror})") from error
    return FilmPlan(options, film, output, encoding, steady, model, settings, stamp)


def _refuse_a_photograph(source: Path, info: FilmInfo) -> None:
    if info.codec in _PHOTOGRAPHS and (info.frames or 2) == 1 and is_file(source):
        raise InputError(f"{source}: is a photograph, not a film; run: codeformer restore -i {source}")


def already_done(plan: FilmPlan) -> ExitCode | None:
    """Return the exit code of the finished run whose film and report are there, or None."""
    try:
        report = json.loads(read_regular(plan.report, _LARGEST_REPORT))
        if report["fingerprint"] == plan.stamp and plan.output.stat().st_size == report["bytes"]:
            return ExitCode(report["exit_code"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def work_stamp(plan: FilmPlan, engine: Engine | None) -> str:
    """Return the fingerprint of unfinished work: frames of two devices or precisions are not mixed in one film."""
    if engine is not None:
        device, precision = engine.restorer.device, engine.restorer.precision
    else:
        place = place_for(plan.model, TASKS["restore"], plan.options.work.model)
        device, precision = place.device, place.precision
    return fingerprint({"settings": plan.stamp, "device": name_of(device), "precision": precision}, [])


def refuse_to_replace(plan: FilmPlan, engine: Engine | None) -> None:
    """Raise UsageError where this run would replace a film, or the work of an interrupted run, that are not its own."""
    began = os.path.lexists(work_folder(plan.output))
    others, _ = WorkFolder.others_work(plan.output, work_stamp(plan, engine)) if began else (0, False)
    if others:
        raise UsageError(
            f"{plan.output}: {others} finished stretches of an interrupted run with other settings, or on another "
            "device, are there: the command of that run goes on with them; choose another --output_path, or "
            "--overwrite to drop them"
        )
    if not os.path.lexists(plan.output) or began:
        return
    if os.path.lexists(plan.report):
        raise UsageError(
            f"{plan.output} is a finished film of other settings ({plan.report.name} has them): choose another "
            "--output_path, or --overwrite it"
        )
    raise UsageError(
        f"{plan.output} is there, but is not a result of codeformer: choose another --output_path, or --overwrite it"
    )


def begin_work(plan: FilmPlan, engine: Engine | None, *, resume: bool) -> WorkFolder:
    """Return a film's work folder, locked. Raises OutputError."""
    try:
        plan.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(plan.output, error) from error
    return WorkFolder(plan.output, work_stamp(plan, engine), resume=resume)
