"""A whole film: read, restored stretch by stretch in a few threads, written; resumable, interruptible, reported."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError, ExitCode, InputError, OutOfMemoryError, OutputError
from codeformer.files.atomic import sync_folder, write_atomic
from codeformer.models.file import ModelFile, find_model
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.run.messages import Messages
from codeformer.tasks.table import TASKS
from codeformer.version import __version__
from codeformer.video.animation import is_animated_webp, write_animation
from codeformer.video.encoding import (
    ANIMATIONS,
)
from codeformer.video.mux import Clip, mux, silenced
from codeformer.video.options import FilmOptions
from codeformer.video.plan import FilmPlan, already_done, begin_work, plan_film, refuse_to_replace
from codeformer.video.preview import write_preview
from codeformer.video.restoring import restore_stretches
from codeformer.video.source import Film
from codeformer.video.summary import Track, join_tracks, problems_of, told_of_person, total
from codeformer.video.toning import film_tone
from codeformer.video.work import WorkFolder


def run_film(
    options: FilmOptions,
    console: Messages,
    engine: Engine | None = None,
    *,
    model: ModelFile | None = None,
    begun: bool = False,
) -> ExitCode:
    """Restore one film and write it with its report.

    ``engine`` and ``model``: the networks, or the weights file alone, where they are open already. ``begun``: what lies
    in the work folder is this run's, see :mod:`codeformer.video.parts`.
    SOME_FAILED when the input was damaged and the film is what could be decoded; INTERRUPTED after Ctrl-C, with what
    is done in ``NAME.partial.EXT``. Raises CodeFormerError when nothing can be done; finished stretches then stay in
    the work folder for the next run.
    """
    asked = options.work.model
    model = engine.model if engine else model or find_model(asked.model, TASKS["restore"], asked.weights_dir)
    plan = plan_film(options, model, console)
    if options.preview:
        opened = engine or open_engine(TASKS["restore"], options.work, model)
        toned = replace(opened, film_tone=film_tone(plan.film, options.work.tone))
        return write_preview(options, plan.film.info.duration, plan.output, toned, console)
    if options.resume and not begun and (code := already_done(plan)) is not None:
        console.note(f"{plan.output} is already done with these settings (--overwrite does it again)")
        return code
    if options.resume and not begun:
        refuse_to_replace(plan, engine)
    work = begin_work(plan, engine, resume=options.resume or begun)
    try:
        return _work(plan, work, console, engine, begun=begun)
    finally:
        work.release()


def _work(plan: FilmPlan, work: WorkFolder, console: Messages, engine: Engine | None, *, begun: bool) -> ExitCode:
    started = time.monotonic()
    records = work.finished()
    clock = Clock()
    if records and not begun:
        console.note(f"going on after the first {total(records, 'frames')} frames, which an earlier run finished")
    try:
        if not (records and "end" in records[-1]):
            engine = engine or open_engine(TASKS["restore"], plan.options.work, plan.model)
            restore_stretches(plan, work, records, console, engine, clock)
    except KeyboardInterrupt:
        _leave_partial(plan, work, records, console)
        return ExitCode.INTERRUPTED
    except MemoryError as error:
        raise OutOfMemoryError(f"{plan.options.source}: not enough memory for frames of this size") from error
    frames = total(records, "frames")
    if not frames:
        work.remove()
        raise InputError(f"{plan.options.source}: no frame between --start and --end, or none that can be decoded")
    end = records[-1]["end"]
    notes = _finish(plan, work, records)
    early = end["ended_early"]
    damage = list(dict.fromkeys(line for record in records for line in problems_of(record)))
    if early is not None:
        damage.append(
            f"the film is cut off: it ends after {early:.2f} s, of {_seconds(plan.film)} s; the rest is missing"
        )
    faces = total(records, "faces")
    tracks = join_tracks(work.whole(len(records)))
    notes += told_of_person(tracks, plan.options.work.faces)
    if not tracks:
        notes.append("no face was found in the whole film")
    failed = early is not None or any("broken packets" in line for line in damage)
    code = ExitCode.SOME_FAILED if failed else ExitCode.OK
    for line in (*damage, *notes):
        (console.error if failed and line in damage else console.warning)(f"{plan.options.source}: {line}")
    seconds = time.monotonic() - started
    _write_report(plan, records, tracks, clock, seconds, [*damage, *notes], code)
    work.remove()
    with suppress(OSError):
        plan.partial.unlink()
    console.note(f"{plan.output}: {frames} frames, {faces} faces in {seconds:.1f} s")
    return code


def _finish(plan: FilmPlan, work: WorkFolder, records: list[dict[str, Any]]) -> list[str]:
    """Join the stretches under the final name; returns notes."""
    temporary = work.path / f"film.part{plan.output.suffix}"
    notes = _mux(plan, work, records, temporary, None)
    try:
        _put(temporary, plan.output)
    except OSError as error:
        raise OutputError(f"{plan.output}: cannot be written ({error.strerror})") from error
    return notes


def _put(temporary: Path, target: Path) -> None:
    """Give a finished file its name so that it outlasts a power cut, as its stretches do, which are deleted then."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    sync_folder(target.parent)


def _mux(
    plan: FilmPlan, work: WorkFolder, records: list[dict[str, Any]], target: Path, until: Fraction | None
) -> list[str]:
    options, suffix = plan.options, plan.output.suffix
    parts = [work.unfinished(i) if r.get("unfinished") else work.packets(i) for i, r in enumerate(records)]
    start = options.start or Fraction(0)
    ends = [end for end in (options.end, None if until is None else start + until) if end is not None]
    source = options.source if options.source.is_file() and not is_animated_webp(options.source) else None
    if suffix.lower() in ANIMATIONS:
        write_animation(target, suffix, parts, plan.encoding.time_base, records[-1]["duration"])
        return [] if source is None else silenced(source, suffix)
    return mux(
        target,
        plan.encoding,
        parts,
        suffix=suffix,
        source=source,
        stream=options.stream,
        clip=Clip(start, min(ends) if ends else None),
        last_duration=records[-1]["duration"],
        audio=options.audio,
    )


def _leave_partial(plan: FilmPlan, work: WorkFolder, records: list[dict[str, Any]], console: Messages) -> None:
    frames = total(records, "frames")
    if not frames:
        console.note("interrupted before the first frame was done")
        return
    temporary = work.path / f"film.part{plan.output.suffix}"
    until = records[-1]["until"] * plan.film.info.time_base
    try:
        _mux(plan, work, records, temporary, until)
        _put(temporary, plan.partial)
    except (CodeFormerError, OSError) as error:
        console.warning(f"no partial film could be written: {error}")
        return
    kept = total([record for record in records if not record.get("unfinished")], "frames")
    console.note(f"interrupted: {frames} frames are in {plan.partial}; the same command goes on after the first {kept}")


def _write_report(
    plan: FilmPlan,
    records: list[Mapping[str, Any]] | list[dict[str, Any]],
    tracks: list[Track],
    clock: Clock,
    seconds: float,
    warnings: list[str],
    code: ExitCode,
) -> None:
    info = plan.film.info
    frames = total(records, "frames")
    report = {
        "format": 1,
        "codeformer": __version__,
        "input": str(plan.options.source),
        "output": str(plan.output),
        "bytes": plan.output.stat().st_size,
        "exit_code": int(code),
        "fingerprint": plan.stamp,
        "frames": frames,
        "repeated_frames": total(records, "repeated"),
        "faces": total(records, "faces"),
        "bridged_faces": total(records, "bridged"),
        "tracks": tracks,
        "film": {
            "size": [info.width, info.height],
            "rate": str(info.rate),
            "codec": info.codec,
            "pix_fmt": info.pix_fmt,
            "colour": asdict(info.colour),
        },
        "seconds": {"total": round(seconds, 3), **{k: round(v, 3) for k, v in clock.seconds.items()}},
        "warnings": warnings,
        "model": str(plan.model.path),
        "model_sha256": plan.model.sha256,
        "settings": plan.settings,
    }
    write_atomic(plan.report, json.dumps(report, indent=1).encode(), below=plan.report.parent)


def _seconds(film: Film) -> str:
    return "?" if film.info.duration is None else f"{float(film.info.duration):.2f}"
