"""The stretches of a film, restored and encoded one after the other, each with its record."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from codeformer.errors import OutputError
from codeformer.files.atomic import reason, write_atomic
from codeformer.images.picture import Picture, write_picture
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine
from codeformer.run.messages import Bar, Messages
from codeformer.video.compare import compared
from codeformer.video.packets import SegmentWriter
from codeformer.video.people import entries_of, with_recogniser
from codeformer.video.plan import FilmPlan
from codeformer.video.stretches import restored_frames
from codeformer.video.summary import StretchNotes, total
from codeformer.video.toning import film_tone
from codeformer.video.work import WorkFolder, slim


def restore_stretches(
    plan: FilmPlan,
    work: WorkFolder,
    records: list[dict[str, Any]],
    console: Messages,
    engine: Engine,
    clock: Clock,
    span: tuple[int, int | None] | None = None,
) -> None:
    """Restore stretches of a film, and finish each in its work folder.

    Args:
        plan: the film.
        work: its work folder.
        records: those of all stretches before; each finished one is added, slim, and after Ctrl-C what was done of
            the one at hand, as ``unfinished``.
        console: where the work speaks.
        engine: the networks.
        clock: gets the time of each step.
        span: the first stretch, and the one after the last or None for the film's end; by default all that are left.
            Of a part of a film, ``records`` is empty.
    """
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
    first, end = span or (len(records), None)
    steps = restored_frames(plan.film, engine, plan.steady, plan.options.stretch, first, clock, known, end)
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
                    record = {**notes.record(), "duration": last_duration, "until": until, **(step.closing or {})}
                    records.append(slim(record))
                    work.finish(step.stretch, record)
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


def _save_frame(folder: Path, index: int, picture: Picture | None, png_level: int) -> None:
    """Write a frame's picture; without one it equals the frame before, whose file is copied. Raises OutputError."""
    target = folder / f"{index + 1:08}.png"
    if picture is None:
        before = folder / f"{index:08}.png"
        try:
            data = before.read_bytes()
        except OSError as error:
            raise OutputError(
                f"{before}: the next frame is equal to this one, which cannot be read any more ({reason(error)}): "
                "leave the folder of --save_frames alone, and run the same command with --overwrite"
            ) from error
        write_atomic(target, data, below=folder)
    else:
        write_picture(picture, target, png_level=png_level, below=folder)
