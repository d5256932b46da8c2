"""A whole film: read, restored stretch by stretch in a few threads, written; resumable, interruptible, reported."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from codeformer.backends.choose import place_for
from codeformer.device import name_of
from codeformer.errors import CodeFormerError, ExitCode, InputError, OutOfMemoryError, OutputError, UsageError
from codeformer.files.atomic import sync_folder, unwritable, write_atomic
from codeformer.files.opening import read_regular
from codeformer.files.paths import is_file
from codeformer.images.picture import Picture, write_picture
from codeformer.models.file import ModelFile, find_model
from codeformer.options import OutputOptions
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.run.messages import Bar, Messages
from codeformer.run.record import describe
from codeformer.tasks.table import TASKS
from codeformer.version import __version__
from codeformer.video.animation import is_animated_webp, write_animation
from codeformer.video.compare import compared
from codeformer.video.encoding import (
    ANIMATIONS,
    CONTAINERS,
    Encoding,
    check_encoding,
    dimmed,
    hard_to_play,
    plan_encoding,
)
from codeformer.video.mux import Clip, mux, silenced
from codeformer.video.options import FilmOptions, output_file, partial_file, report_file
from codeformer.video.packets import SegmentWriter
from codeformer.video.people import entries_of, with_recogniser
from codeformer.video.preview import write_preview
from codeformer.video.reader import open_film
from codeformer.video.segment import MODES, Steadiness
from codeformer.video.source import Film, FilmInfo
from codeformer.video.stretches import restored_frames
from codeformer.video.summary import StretchNotes, Track, join_tracks, told_of_person, total
from codeformer.video.toning import film_tone
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


def run_film(
    options: FilmOptions, console: Messages, engine: Engine | None = None, *, model: ModelFile | None = None
) -> ExitCode:
    """Restore one film and write it with its report.

    ``engine`` and ``model``: the networks, or the weights file alone, where they are open already.
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
    if options.resume and (code := already_done(plan)) is not None:
        console.note(f"{plan.output} is already done with these settings (--overwrite does it again)")
        return code
    if options.resume:
        refuse_to_replace(plan, engine)
    try:
        plan.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(plan.output, error) from error
    work = WorkFolder(plan.output, work_stamp(plan, engine), resume=options.resume)
    try:
        return _work(plan, work, console, engine)
    finally:
        work.release()


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


def _work(plan: FilmPlan, work: WorkFolder, console: Messages, engine: Engine | None) -> ExitCode:
    started = time.monotonic()
    records = work.finished()
    clock = Clock()
    if records:
        console.note(f"going on after the first {total(records, 'frames')} frames, which an earlier run finished")
    try:
        if not (records and "end" in records[-1]):
            _restore_rest(plan, work, records, console, engine, clock)
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
    damage = [*end["problems"]]
    if early is not None:
        damage.append(
            f"the film is cut off: it ends after {early:.2f} s, of {_seconds(plan.film)} s; the rest is missing"
        )
    faces = total(records, "faces")
    tracks = join_tracks(records)
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


def _restore_rest(
    plan: FilmPlan,
    work: WorkFolder,
    records: list[dict[str, Any]],
    console: Messages,
    engine: Engine | None,
    clock: Clock,
) -> None:
    """Work on all stretches after ``records``, to which each finished one is added."""
    engine = engine or open_engine(TASKS["restore"], plan.options.work, plan.model)
    for note in engine.model.notes:
        console.detail(note)
    engine = replace(engine, film_tone=film_tone(plan.film, plan.options.work.tone))
    engine = with_recogniser(engine)
    if engine.film_tone is not None and plan.options.work.tone == "auto":
        console.note(f"{plan.options.source}: is toned: faces keep that; --tone free gives them colours")
    faces, began, last_duration, until = 0, time.monotonic(), 0, 0
    notes, writer = StretchNotes(), None
    shown: Any = None  # the last frame as the encoder takes it
    known = entries_of(records[-1]) if records else []
    steps = restored_frames(plan.film, engine, plan.steady, plan.options.stretch, len(records), clock, known)
    with console.progress(plan.film.info.frames or 0, unit="frame") as bar, closing(steps):
        bar.update(total(records, "frames"))
        try:
            for step in steps:
                if step.done is None:  # the stretch is complete
                    if writer is None:
                        continue
                    complete, writer = writer, None  # an interruption from here on does not close it twice
                    with clock.timed("write"):
                        complete.close()
                    records.append(
                        {**notes.record(), "duration": last_duration, "until": until, **(step.closing or {})}
                    )
                    work.finish(step.stretch, records[-1])
                    notes = StretchNotes()
                    continue
                frame = step.done.frame
                with clock.timed("write"):
                    writer = writer or SegmentWriter(work.unfinished(step.stretch), plan.encoding)
                    if step.picture is not None:
                        picture = step.picture
                        if plan.options.compare:
                            picture = compared(frame.picture(), picture, plan.options.compare)
                        shown = writer.convert(picture.rgb, picture.alpha)
                    writer.write(shown, frame.pts)
                last_duration, until = frame.duration, frame.pts + frame.duration
                notes.add(step.done)
                if plan.options.save_frames is not None:
                    _save_frame(plan.options.save_frames, frame.index, step.picture, plan.options.png_level)
                faces += len(step.done.restored)
                bar.update()
                _tell(bar, faces, time.monotonic() - began)
        except KeyboardInterrupt:
            if writer is not None:
                writer.close()
                records.append({**notes.record(), "duration": last_duration, "until": until, "unfinished": True})
            raise
        finally:
            if writer is not None:
                writer.abandon()


def _tell(bar: Bar, faces: int, seconds: float) -> None:
    bar.set_postfix_str(f"{faces / max(seconds, 1e-9):.2f} faces/s", refresh=False)


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


def _save_frame(folder: Path, index: int, picture: Picture | None, png_level: int) -> None:
    target = folder / f"{index + 1:08}.png"
    if picture is None:
        write_atomic(target, (folder / f"{index:08}.png").read_bytes(), below=folder)
    else:
        write_picture(picture, target, png_level=png_level, below=folder)


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
