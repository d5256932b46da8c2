"""The stages over a stream of pictures: faces of several pictures share a batch, results come out in order.

Memory is the window: a few pictures and their crops, whatever the stream's length.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Generic, TypeVar

import numpy as np

from codeformer.errors import CodeFormerError, OutOfMemoryError, RestorationError
from codeformer.faces.choose import choose
from codeformer.faces.find import Face
from codeformer.faces.paste import coverage
from codeformer.images.picture import Picture
from codeformer.pipeline import stages
from codeformer.pipeline.engine import Engine
from codeformer.tasks.base import Study

K = TypeVar("K")
_log = logging.getLogger("codeformer")

_WINDOW_PIXELS = 40_000_000  # a window holds no more source pixels than this, but always one picture
_WINDOW_PICTURES = 32


@dataclass(frozen=True)
class Job(Generic[K]):
    """A picture to come: ``load`` gives it when its turn is there; ``key`` comes back with the result."""

    key: K
    load: Callable[[], Picture]


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One face of a picture.

    ``chosen`` says whether the task worked on it; then ``before`` and ``after`` are (S, S, 3) float32 in [0, 1].
    ``face`` is None for an aligned crop. ``number`` counts from 1, left to right.
    """

    number: int
    face: Face | None
    chosen: bool = False
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    matrix: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Result(Generic[K]):
    """What became of a picture: ``output`` or ``error``, never both.

    Without any face that the task worked on, ``output`` is the resized input and ``done`` is 0. ``seconds`` by stage;
    the time of a shared batch is divided among its faces.
    """

    key: K
    picture: Picture | None = None
    output: Picture | None = None
    faces: tuple[FaceResult, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    error: CodeFormerError | None = None

    @property
    def done(self) -> int:
        """How many faces were worked on."""
        return sum(face.chosen for face in self.faces)


@dataclass(eq=False)
class _Waiting(Generic[K]):
    """A picture inside the window."""

    key: K
    seconds: dict[str, float] = field(default_factory=dict)
    study: Study | None = None
    picture: Picture | None = None
    faces: list[Face] = field(default_factory=list)
    cuts: list[stages.Cut] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)
    error: CodeFormerError | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the time of the block to the stage; what goes wrong in it becomes this picture's error.

        An unexpected exception too, for one odd picture shall not end a run over thousands: it is kept as the cause.
        """
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.error = as_our_error(error, stage)
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def as_our_error(error: Exception, stage: str) -> CodeFormerError:
    """Return what went wrong with a picture in a stage as an error of ours, with the exception as its cause."""
    if isinstance(error, CodeFormerError):
        return error
    from codeformer.pipeline.restorer import is_out_of_memory

    ours: CodeFormerError
    if is_out_of_memory(error):
        ours = OutOfMemoryError("not enough memory for a picture of this size; shrink it or lower --upscale")
    else:
        _log.debug("unexpected error in stage %s", stage, exc_info=True)
        what = " ".join(str(error).split())  # OpenCV's messages have several lines
        ours = RestorationError(f"unexpected {type(error).__name__} in stage {stage}: {what}")
    ours.__cause__ = error
    return ours


def process(jobs: Iterable[Job[K]], engine: Engine, *, ahead: int = 0) -> Generator[Result[K], None, None]:
    """Work on the pictures and yield a result for each, in order.

    ``ahead``: how many pictures a thread reads and detects while the network works on earlier ones; 0 for no thread.
    ``jobs`` is always iterated by the caller's thread. What goes wrong with one picture is its result's ``error``; the
    others go on.
    """
    with ThreadPoolExecutor(1, "codeformer-read") as reader:
        try:
            begun = _in_advance(jobs, engine, reader, ahead) if ahead else (_begin(job, engine) for job in jobs)
            for window in _windows(begun, engine.restorer.batch_size):
                _restore(window, engine)
                for item in window:
                    yield _finish(item, engine)
        finally:  # also when the caller is not interested any more
            reader.shutdown(wait=False, cancel_futures=True)


def _in_advance(
    jobs: Iterable[Job[K]], engine: Engine, reader: ThreadPoolExecutor, ahead: int
) -> Iterator[_Waiting[K]]:
    """``_begin`` in the reader's thread, at most ``ahead`` pictures before they are wanted."""
    queue: deque[Future[_Waiting[K]]] = deque()
    for job in jobs:
        queue.append(reader.submit(_begin, job, engine))
        if len(queue) > ahead:
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()


def _windows(items: Iterator[_Waiting[K]], faces_wanted: int) -> Iterator[list[_Waiting[K]]]:
    """Groups of pictures with at least a full batch of faces, as far as the window's memory allows."""
    window: list[_Waiting[K]] = []
    for item in items:
        window.append(item)
        faces = sum(len(one.cuts) for one in window)
        pixels = sum(one.picture.rgb.size // 3 for one in window if one.picture is not None)
        # A picture that waits for nothing (no face, an error) need not wait for others either
        if faces == 0 or faces >= faces_wanted or pixels >= _WINDOW_PIXELS or len(window) >= _WINDOW_PICTURES:
            yield window
            window = []
    if window:
        yield window


def _begin(job: Job[K], engine: Engine) -> _Waiting[K]:
    """Read, study, detect and cut."""
    item = _Waiting(job.key)
    with item.timed("read"):
        item.picture = job.load()
    if item.picture is None:
        return item
    with item.timed("study"):
        item.study = engine.task.study(item.picture)
    if item.study is None:
        return item
    numbers: set[int] = set()
    if not engine.work.faces.aligned:
        with item.timed("detect"):
            item.faces = stages.look(engine, item.study)
            height, width = item.study.picture.rgb.shape[:2]
            numbers = choose(item.faces, engine.work.faces, width, height)
    if item.error is None:
        with item.timed("align"):
            item.cuts = stages.cut(engine, item.study, item.faces, numbers)
            if not item.cuts and (item.faces or engine.work.faces.aligned or engine.task.needs_face):
                raise RestorationError(engine.task.untouched(len(numbers)))
    return item


def _restore(window: Sequence[_Waiting[K]], engine: Engine) -> None:
    """One network call for the faces of the whole window; if that fails, one for each picture."""
    waiting = [item for item in window if item.error is None and item.cuts]
    if len(waiting) > 1:
        start = time.perf_counter()
        try:
            outputs = iter(_outputs(chain.from_iterable(item.cuts for item in waiting), engine))
        except Exception:
            _log.debug("a batch failed; its pictures are tried one by one", exc_info=True)
        else:
            share = (time.perf_counter() - start) / sum(len(item.cuts) for item in waiting)
            for item in waiting:
                item.outputs = [next(outputs) for _ in item.cuts]
                item.seconds["restore"] = share * len(item.cuts)
            return
    for item in waiting:
        with item.timed("restore"):
            item.outputs = _outputs(item.cuts, engine)


def _outputs(cuts: Iterable[stages.Cut], engine: Engine) -> list[np.ndarray]:
    cuts = list(cuts)
    restored = engine.restorer.restore([one.source for one in cuts], w=engine.work.w, adain=engine.adain)
    return [engine.task.finish(one.crop, face) for one, face in zip(cuts, restored, strict=True)]


def _finish(item: _Waiting[K], engine: Engine) -> Result[K]:
    """Mask, upsample, paste."""
    study = item.study
    output: Picture | None = None
    notes: list[str] = []
    if item.error is None and study is not None:
        if engine.work.faces.aligned and not engine.task.in_place:
            output = stages.as_picture(study.picture, item.outputs[0])
            output = replace(output, exif=study.picture.exif)
        else:
            output = _whole(item, study, engine, notes)
    picture = item.picture
    return Result(
        key=item.key,
        picture=picture,
        output=None if item.error else output,
        faces=() if item.error else _face_results(item),
        notes=(*(picture.warnings if picture else ()), *(study.notes if study else ()), *notes),
        seconds=item.seconds,
        error=item.error,
    )


def _whole(item: _Waiting[K], study: Study, engine: Engine, notes: list[str]) -> Picture | None:
    canvas = study.picture
    height, width = canvas.rgb.shape[:2]
    face_masks: list[np.ndarray] = []
    with item.timed("parse"):
        face_masks = stages.masks(engine, item.cuts, item.outputs)
    if item.error is None and not engine.work.faces.aligned:
        with item.timed("upsample_background"):
            canvas = stages.background(engine, canvas)
    if item.error is None:
        with item.timed("upsample_faces"):
            scale = (canvas.rgb.shape[1] / width, canvas.rgb.shape[0] / height)
            crops, matrices, more = stages.upsample_faces(engine, item.cuts, item.outputs, scale)
            notes += more
    if item.error is None:
        with item.timed("paste"):
            whole = engine.work.faces.aligned
            plain, canvas = canvas, stages.compose(canvas, crops, matrices, face_masks, whole=whole)
            size = (canvas.rgb.shape[1], canvas.rgb.shape[0])
            covered = partial(coverage, size, crops, matrices, face_masks, whole=whole)
            canvas, more = engine.task.complete(study, plain, canvas, covered)
            notes += [f"face {one.number}: {said}" for one in item.cuts if (said := engine.task.remark(one.crop))]
            notes += more
            if engine.work.canvas.draw_box:
                canvas = stages.draw_boxes(canvas, item.faces, engine.work.canvas, (width, height))
    return canvas


def _face_results(item: _Waiting[K]) -> tuple[FaceResult, ...]:
    worked = {one.number: (one, face) for one, face in zip(item.cuts, item.outputs, strict=True)}
    numbers = range(1, max(len(item.faces), len(worked)) + 1)
    results = []
    for number in numbers:
        face = item.faces[number - 1] if item.faces else None
        if number in worked:
            one, after = worked[number]
            results.append(FaceResult(number, face, True, one.crop.pixels, after, one.matrix))
        else:
            results.append(FaceResult(number, face))
    return tuple(results)
