"""The steps of a film in their threads: read, find, align, restore, paste.

Frames come out in order, stretch by stretch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from codeformer.environment import cores
from codeformer.faces.face import Face
from codeformer.images.picture import Picture
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.read_ahead import calls_ahead, items_ahead
from codeformer.video.people import Entry, people_of
from codeformer.video.segment import (
    Done,
    Item,
    Seen,
    Steadiness,
    find_in_frame,
    paste,
    prepare_items,
    restore_items,
)
from codeformer.video.source import Film, Frame

_QUEUE = 2  # frames between two threads, or as many as a batch has faces
_QUEUE_BYTES = 200_000_000  # beyond the first two, for their pixels
_READY_BYTES = 400_000_000  # the same of the frames that are ready for the network, of which a batch is made at once
_THREADS = 4  # that find faces, that steady crops, and that paste, on a GPU
_MOST_THREADS = 16  # that steady crops, which takes the most of a processor: half of the cores, if they are more


@dataclass(frozen=True, eq=False)
class Step:
    """A frame that is done, or, with ``done`` None, the end of a stretch.

    ``picture``: its pixels at the output's size, None if they are those of the frame before. ``closing``: at the end of
    a stretch, what its record gets: who its people are, and after the film's last stretch, how the reading ended.
    """

    stretch: int
    done: Done | None
    picture: Picture | None = None
    closing: dict[str, Any] | None = None


def restored_frames(
    film: Film,
    engine: Engine,
    steady: Steadiness,
    length: int,
    first_stretch: int,
    clock: Clock,
    people: Sequence[Entry] = (),
    end: int | None = None,
) -> Generator[Step, None, None]:
    """Yield the film from the stretch ``first_stretch`` on, each of ``length`` frames.

    ``people``: what the stretch before it knew of its tracks. ``end``: the stretch before which to stop; None for the
    film's end. What a step raises is raised here. Close the generator to stop the threads.
    """
    return items_ahead(_pasted(film, engine, steady, length, first_stretch, clock, people, end), _QUEUE)


def _threads(engine: Engine) -> int:
    """Return how many threads share a step beside that which iterates it: on a CPU the network wants the cores."""
    return 0 if engine.restorer.device.type == "cpu" else _THREADS


def _steadying(engine: Engine) -> int:
    """Return how many threads steady crops beside that which iterates the step."""
    threads = _threads(engine)
    return threads and max(threads, min(_MOST_THREADS, cores() // 2))


def _queue(film: Film, engine: Engine) -> int:
    """Return how many frames wait between two threads: a batch of them, so that no thread waits for a whole batch."""
    frame = film.info.width * film.info.height * 3
    return max(_QUEUE, min(engine.restorer.batch_size, _QUEUE_BYTES // max(1, frame)))


def _ready(film: Film, engine: Engine, steady: Steadiness) -> int:
    """Return how many frames wait for the network.

    On a GPU it is a batch with the margins of a stretch: where one stretch ends and the next one begins, so many frames
    are prepared twice, and the network would wait for them.
    """
    if engine.restorer.device.type == "cpu":
        return _queue(film, engine)
    frame = film.info.width * film.info.height * 3
    return max(_QUEUE, min(engine.restorer.batch_size + 2 * steady.margin + 1, _READY_BYTES // max(1, frame)))


def _pasted(
    film: Film,
    engine: Engine,
    steady: Steadiness,
    length: int,
    first_stretch: int,
    clock: Clock,
    people: Sequence[Entry],
    end: int | None,
) -> Iterator[Step]:
    steps_ahead = _restored(film, engine, steady, length, first_stretch, clock, people, end)
    with closing(items_ahead(steps_ahead, _queue(film, engine))) as steps:
        # An upsampler is a network, too, and shrinks its tiles where memory runs out: one at a time
        threads = 0 if engine.background or engine.face_upsampler else _threads(engine)
        calls = (partial(_with_picture, step, fresh, engine, clock) for step, fresh in _with_fresh(steps))
        yield from calls_ahead(calls, threads, threads=max(1, threads))


def _with_fresh(steps: Iterator[Step]) -> Iterator[tuple[Step, bool]]:
    """Yield the steps, and whether a frame is the first of its stretch, whose encoder has seen none before."""
    fresh = True
    for step in steps:
        yield step, fresh
        fresh = step.done is None


def _with_picture(step: Step, fresh: bool, engine: Engine, clock: Clock) -> Step:
    if step.done is None or (step.done.same and not fresh):
        return step
    return Step(step.stretch, step.done, paste(step.done, engine, clock))


@dataclass(frozen=True, eq=False)
class _Border:
    """The end of a stretch among its items. ``closing`` as in :class:`Step`; ``ends``: nothing comes after it."""

    closing: dict[str, Any]
    ends: bool


def _restored(
    film: Film,
    engine: Engine,
    steady: Steadiness,
    length: int,
    first_stretch: int,
    clock: Clock,
    carried: Sequence[Entry],
    end: int | None,
) -> Iterator[Step]:
    """Yield the frames with their faces restored. The thread runs nothing but the network, which thus never waits."""
    with (
        closing(_prepared(film, engine, steady, length, first_stretch, clock, carried, end)) as prepared,
        closing(items_ahead(clock.over("align", prepared), _ready(film, engine, steady))) as items,
    ):
        for number in count(first_stretch):
            borders: list[_Border] = []
            own = _up_to_border(clock.over("wait for faces", items), borders)

            def ends(borders: list[_Border] = borders) -> bool:
                return "end" in borders[0].closing  # not that of a part, which must be the same in a whole film

            stretch = restore_items(own, number * length, (number + 1) * length, engine, steady, ends)
            for done in clock.over("restore", stretch):
                yield Step(number, done)
            (border,) = borders
            yield Step(number, None, closing=border.closing)
            if border.ends:
                return


def _up_to_border(items: Iterator[Item | _Border], borders: list[_Border]) -> Iterator[Item]:
    """Yield the items of one stretch, and put its end into ``borders``."""
    for item in items:
        if isinstance(item, _Border):
            borders.append(item)
            return
        yield item


def _prepared(
    film: Film,
    engine: Engine,
    steady: Steadiness,
    length: int,
    first_stretch: int,
    clock: Clock,
    carried: Sequence[Entry],
    end: int | None,
) -> Generator[Item | _Border, None, None]:
    """Yield what the network needs of the frames, stretch by stretch, and after each stretch its border."""
    begin = max(0, first_stretch * length - steady.reach)
    with (
        closing(items_ahead(_read(film, begin, clock), _queue(film, engine))) as frames,
        closing(items_ahead(_found(frames, engine, clock), _queue(film, engine))) as seen,
    ):
        window = _Window(clock.over("wait for frames", seen), steady.reach)
        for number in count(first_stretch):
            first, last = number * length, (number + 1) * length
            people = people_of(engine, carried, first, last)
            around = window.around(first, last)
            yield from prepare_items(around, first, last, engine, steady, clock, people, _steadying(engine))
            carried = people.at_end() if people is not None else ()
            record: dict[str, Any] = {"people": carried} if people is not None else {}
            ends = not window.more(last)
            if film.problems:
                record["problems"] = list(film.problems)
            if ends:
                record["end"] = {"problems": list(film.problems), "ended_early": film.ended_early}
            ends = ends or number + 1 == end
            yield _Border(record, ends)
            if ends:
                return


class _Window:
    """The frames around one stretch after the other: what lies around a border is kept for the next stretch."""

    def __init__(self, seen: Iterator[Seen], reach: int) -> None:
        self._seen, self._reach = seen, reach
        self._kept: deque[Seen] = deque()

    def around(self, first: int, last: int) -> Iterator[Seen]:
        """Yield the frames from ``reach`` before ``first`` to ``reach`` after ``last``."""
        while self._kept and self._kept[0].frame.index < first - self._reach:
            self._kept.popleft()
        yield from list(self._kept)
        for one in self._seen:
            self._kept.append(one)
            while self._kept and self._kept[0].frame.index < last - self._reach:
                self._kept.popleft()
            yield one
            if one.frame.index >= last + self._reach - 1:
                return

    def more(self, last: int) -> bool:
        """Whether the film has a frame ``last``; asked after ``around`` was exhausted."""
        return bool(self._kept) and self._kept[-1].frame.index >= last


def _read(film: Film, first: int, clock: Clock) -> Iterator[Frame]:
    return clock.over("read", film.frames(first))


def _found(frames: Iterator[Frame], engine: Engine, clock: Clock) -> Iterator[Seen]:
    """Yield the frames with their faces; a frame equal to the one before has the same."""

    def look(frame: Frame, known: bool) -> tuple[Frame, tuple[Face, ...] | None]:
        if known:
            return frame, None
        with clock.timed("find"):
            return frame, find_in_frame(frame, engine).faces

    def calls() -> Iterator[Callable[[], tuple[Frame, tuple[Face, ...] | None]]]:
        first = True
        for frame in frames:
            yield partial(look, frame, frame.same and not first)
            first = False

    before: tuple[Face, ...] = ()
    threads = _threads(engine)
    for frame, faces in calls_ahead(calls(), threads, threads=max(1, threads)):
        before = before if faces is None else faces
        yield Seen(frame, before)
