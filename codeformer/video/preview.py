"""Some frames of a film, before and after, before the whole of it is restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from codeformer.errors import ExitCode, InputError
from codeformer.images.picture import Picture, as_srgb, write_picture
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine
from codeformer.run.messages import Messages
from codeformer.video.alpha import on_black
from codeformer.video.compare import sheet
from codeformer.video.container import measured_duration
from codeformer.video.options import FilmOptions
from codeformer.video.people import people_of
from codeformer.video.reader import open_film
from codeformer.video.segment import MODES, Done, find_in_frame, paste, restore_stretch
from codeformer.video.source import Frame


def write_preview(
    options: FilmOptions, duration: Fraction | None, output: Path, engine: Engine, console: Messages
) -> ExitCode:
    """Write some frames, evenly spread, each restored on its own: before and after, or after with several w.

    Args:
        options: what was asked for.
        duration: the film's seconds; None for a recording that was not closed.
        output: where the film would go; the frames go into a folder beside it.
        engine: the networks.
        console: where the run speaks.

    Raises:
        InputError: no frame can be read.
        UsageError: the weights file was not trained for one of the fidelity weights.
    """
    folder = output.with_name(f"{output.stem}_preview")
    if duration is None:
        duration = measured_duration(options.source, options.start or Fraction(0), options.stream)
    weights = tuple(engine.model.choose_w(engine.task, w) for w in options.preview_w) or (engine.work.w,)
    written = 0
    with console.progress(options.preview, unit="frame") as bar:
        for number in range(options.preview):
            at = (options.start or Fraction(0)) + duration * (2 * number + 1) / (2 * options.preview)
            frame = _frame_at(options, at)
            bar.update()
            if frame is not None:
                both = _before_and_after(frame, engine, weights)
                name = f"{number + 1:04}_{float(at):.2f}s.png"
                write_picture(both, folder / name, png_level=options.png_level, below=folder)
                written += 1
    if not written:
        raise InputError(f"{options.source}: no frame could be read for the preview")
    what = "before and after" if len(weights) == 1 else "before and with w " + ", ".join(f"{w:g}" for w in weights)
    console.note(f"{written} frames, {what}, in {folder.absolute()}")
    return ExitCode.OK


def _frame_at(options: FilmOptions, at: Fraction) -> Frame | None:
    try:
        film = open_film(
            options.source,
            start=at,
            rate=options.fps,
            clock=options.clock,
            stream=options.stream,
            deinterlace=options.deinterlace,
        )
        return next(iter(film.frames()), None)
    except InputError:
        return None


def _before_and_after(frame: Frame, engine: Engine, weights: Sequence[float]) -> Picture:
    seen = find_in_frame(frame, engine)
    pictures = [paste(Done(frame), engine, Clock())]
    for w in weights:
        own = replace(engine, work=replace(engine.work, w=w))
        people = people_of(own, (), frame.index, frame.index + 1)
        done = next(restore_stretch([seen], frame.index, frame.index + 1, own, MODES["off"], Clock(), people))
        pictures.append(paste(done, own, Clock()))
    shown = [on_black(one.rgb, one.alpha) for one in map(as_srgb, pictures)]
    if len(weights) == 1:
        return Picture(np.concatenate(shown, axis=1))
    return Picture(sheet(shown, ["before", *(f"w {w:g}" for w in weights)]))
