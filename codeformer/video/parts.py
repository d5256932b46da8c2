"""One film in several processes: its stretches are restored in parts by whoever has time, then joined.

A stretch depends on the frames around it alone, so that it is the same whoever makes it. What a part makes lies in the
film's work folder, as what an interrupted run leaves: :func:`~codeformer.video.film.run_film` goes on from there, joins
the stretches, and does again what a lost part did not do. Who gives out the parts has the lock on the folder meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from codeformer.errors import UsageError
from codeformer.models.file import ModelFile
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine
from codeformer.run.messages import Kept, Messages
from codeformer.run.tally import Outcome
from codeformer.video.options import FilmOptions
from codeformer.video.people import tells_apart
from codeformer.video.plan import FilmPlan, already_done, begin_work, plan_film, refuse_to_replace, work_stamp
from codeformer.video.restoring import restore_stretches
from codeformer.video.work import WorkFolder


@dataclass(frozen=True)
class FilmPart:
    """Stretches of a film that follow each other.

    Attributes:
        plan: the film.
        stamp: of its work folder.
        first: the first stretch.
        end: the one after the last; None for the film's end.
    """

    plan: FilmPlan
    stamp: str
    first: int
    end: int | None


@dataclass(frozen=True, kw_only=True)
class Divided(Outcome):
    """A film whose work folder is ready, and the parts that are to be done."""

    film: FilmOptions
    parts: tuple[FilmPart, ...] = ()


def divided(film: FilmOptions, count: int, model: ModelFile) -> Divided:
    """Begin the work on a film, and return its parts: none, where it has to be done as a whole.

    That is so of previews, of short films, of those whose length nobody knows, and where the package is installed that
    tells people apart: who they are is handed on from stretch to stretch.

    Args:
        film: what to do.
        count: how many parts there may be.
        model: the weights file.

    Raises:
        CodeFormerError: as :func:`~codeformer.video.film.run_film` does before its first frame.
    """
    whole = Divided(path=film.source, film=film)
    if film.preview or tells_apart():
        return whole
    plan = plan_film(film, model, Kept())  # run_film says the same again
    if film.resume:
        if already_done(plan) is not None:
            return whole
        refuse_to_replace(plan, None)
    stretches = -(-(plan.film.info.frames or 0) // film.stretch)
    size = -(-stretches // count)
    if stretches < 2:
        return whole
    work = begin_work(plan, None, resume=film.resume)
    try:
        stamp = work_stamp(plan, None)
        starts = range(0, stretches, size)
        ends = [*starts[1:], None]  # the last part goes on to the film's end, wherever that is
        parts = [FilmPart(plan, stamp, first, end) for first, end in zip(starts, ends, strict=True)]
        return replace(whole, parts=tuple(part for part in parts if _left(work, part) is not None))
    finally:
        work.release()


def restore_part(part: FilmPart, engine: Engine, console: Messages) -> Outcome:
    """Restore what is not done of a part.

    Raises:
        UsageError: the worker's device or precision is another than that of the one who divided the film.
        CodeFormerError: nothing can be done, or written.
    """
    plan = part.plan
    if work_stamp(plan, engine) != part.stamp:
        raise UsageError("the workers have different devices, whose frames are not mixed in one film")
    work = WorkFolder(plan.output, part.stamp, shared=True)
    first = _left(work, part)
    if first is not None:
        restore_stretches(plan, work, [], console, engine, Clock(), (first, part.end))
    return Outcome(plan.options.source)


def _left(work: WorkFolder, part: FilmPart) -> int | None:
    """Return the first stretch of a part that is not done; None if all are."""
    number = part.first
    while number != part.end:
        record = work.record(number)
        if record is None:
            return number
        if "end" in record:
            return None
        number += 1
    return None
