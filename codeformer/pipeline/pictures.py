"""The steps over a stream of pictures: faces of several pictures share a batch, results come out in order.

Memory is the window: a few pictures and their crops, whatever the stream's length.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar

from codeformer.arrays import Crop, Matrix, Where
from codeformer.environment import threads
from codeformer.errors import CodeFormerError, OutOfMemoryError, RestorationError
from codeformer.faces.choose import choose
from codeformer.faces.face import Face
from codeformer.faces.find import close_scale, smallest_face
from codeformer.images.halftone import halftone_of
from codeformer.images.picture import Picture
from codeformer.options import FaceOptions
from codeformer.pipeline.batches import in_batches
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.compose import compose, ground_of
from codeformer.pipeline.crops import AlignedFace, align, find, recognised, toned
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.mend import mend
from codeformer.pipeline.read_ahead import calls_ahead
from codeformer.tasks.base import Study

K = TypeVar("K")
_log = logging.getLogger("codeformer")

_WINDOW_BYTES = 400_000_000  # a window holds no more pixels and crops than this, but always one picture
_WINDOW_PICTURES = 32  # or as many as a batch has faces
_READERS, _PASTERS = 8, 4  # threads at most; a GPU gets all of them: the cores have little else to do
_SMALL_FACE = 24.5  # pixels: where smaller faces may be missed, a note says so


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
    before: Crop | None = None
    after: Crop | None = None
    matrix: Matrix | None = None
    distance: float | None = None  # from the person of --person; None: nobody asked


@dataclass(frozen=True, eq=False)
class Rendering:
    """A picture with one fidelity weight; ``output`` and ``faces`` as :class:`Result` has them."""

    output: Picture
    faces: tuple[FaceResult, ...]
    w: float | None = None


@dataclass(frozen=True, eq=False)
class Result(Generic[K]):
    """What became of a picture: ``output`` or ``error``, never both.

    Without any face that the task worked on, ``output`` is the resized input and ``done`` is 0. ``damage`` are the
    pixels of the input that were filled as scratches, (H, W); None where nobody looked for any. ``mended`` says that
    filling them is a result without a face, too. ``seconds`` by step; the time of a shared batch is divided among its
    faces. ``by_weight`` has a rendering for each fidelity weight, where there are several; ``output`` and ``faces`` are
    the first one's.
    """

    key: K
    picture: Picture | None = None
    output: Picture | None = None
    damage: Where | None = None
    mended: bool = False
    faces: tuple[FaceResult, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    error: CodeFormerError | None = None
    by_weight: tuple[Rendering, ...] = ()

    @property
    def done(self) -> int:
        """How many faces were worked on."""
        return sum(face.chosen for face in self.faces)

    @property
    def without_face(self) -> bool:
        """Whether nothing was done, for want of a face."""
        return self.done == 0 and not self.mended

    @property
    def nbytes(self) -> int:
        """Bytes of its pictures, before and after."""
        outputs = [one.output for one in self.by_weight] if self.by_weight else [self.output]
        return sum(picture.rgb.nbytes for picture in (self.picture, *outputs) if picture is not None)

    @property
    def nothing(self) -> str:
        """Why no face was worked on, for the user."""
        if not self.faces:
            return "no face found"
        if all(one.distance is None for one in self.faces):
            return f"{'all its faces are' if len(self.faces) > 1 else 'its face is'} larger than --max_face_size"
        far = min((one.distance for one in self.faces if one.distance is not None), default=float("inf"))
        none = "its face is not" if len(self.faces) == 1 else f"none of its {len(self.faces)} faces is"
        return f"{none} the person's (nearest distance {far:.2f})"


@dataclass(eq=False)
class _Waiting(Generic[K]):
    """A picture inside the window."""

    key: K
    clock: Clock = field(default_factory=Clock)
    picture: Picture | None = None
    study: Study | None = None
    damage: Where | None = None
    faces: list[Face] = field(default_factory=list)
    aligned: list[AlignedFace] = field(default_factory=list)
    restored: list[tuple[Crop, ...]] = field(default_factory=list)  # what the network gave of each face, by its w
    distances: list[float] = field(default_factory=list)  # of the faces from the person, where one is asked for
    notes: list[str] = field(default_factory=list)
    error: CodeFormerError | None = None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn what goes wrong in the block into this picture's error.

        Also an unexpected exception, with itself as the cause: one odd picture must not end a run over thousands.
        """
        try:
            yield
        except Exception as error:
            self.error = as_our_error(error, self.clock.step)


def as_our_error(error: Exception, step: str) -> CodeFormerError:
    """Return what went wrong with a picture in a step as an error of ours, with the exception as its cause."""
    if isinstance(error, CodeFormerError):
        return error
    from codeformer.device import is_out_of_memory

    ours: CodeFormerError
    if is_out_of_memory(error):
        ours = OutOfMemoryError("not enough memory for a picture of this size; shrink it or lower --upscale")
    else:
        _log.debug("unexpected error in the step %s", step, exc_info=True)
        what = " ".join(str(error).split())  # OpenCV's messages have several lines
        ours = RestorationError(f"unexpected {type(error).__name__} in the step {step}: {what}")
    ours.__cause__ = error
    return ours


def process(jobs: Iterable[Job[K]], engine: Engine, *, ahead: int = 0) -> Generator[Result[K], None, None]:
    """Work on the pictures and yield a result for each, in order.

    ``ahead``: how many pictures are read and detected while the network works on earlier ones, or as many as a batch
    has faces, if that is more and they take little memory; 0 for no threads. On a GPU several threads read, and the
    first batches are smaller, so that the network soon begins. Others
    paste, while the network goes on. ``jobs`` is always iterated by the caller's thread, in which the network
    runs. What goes wrong with one picture is its result's ``error``; the others go on.

    Raises:
        RestorationError: the engine was loaded before this process was forked.
    """
    engine.restorer.require_own_process()  # before the detector, whose threads did not come along either
    batch = engine.restorer.batch_size
    on_cpu = engine.restorer.device.type == "cpu"
    depth = ahead and max(ahead, batch)
    # On a CPU the other networks would take memory and cores from this one
    alone = on_cpu and any((engine.parser, engine.background, engine.face_upsampler))
    few = max(1, threads() // 4)  # on a CPU the network wants the cores
    readers = 1 if engine.mender else min(_READERS, few) if on_cpu else _READERS
    first = None if on_cpu or not ahead else readers
    begun = calls_ahead((partial(_begin, job, engine) for job in jobs), depth, threads=readers, is_full=_fills_memory)

    def restored() -> Iterator[Callable[[], Result[K]]]:
        full = partial(_is_full, batch=batch)
        for window in in_batches(begun, lambda item: len(item.aligned), batch, full, first):
            _restore(window, engine)
            for item in window:
                yield partial(_finish, item, engine)

    with closing(begun):
        pasters = 1 if engine.background or engine.face_upsampler else min(_PASTERS, few) if on_cpu else _PASTERS
        pasted = 0 if alone or not ahead else max(batch, pasters)
        finished = calls_ahead(restored(), pasted, threads=pasters, is_full=_results_fill_memory, keep=True)
        with closing(finished):
            yield from finished


def _is_full(window: Sequence[_Waiting[K]], *, batch: int) -> bool:
    """Whether the window's memory allows no more pictures."""
    return len(window) >= max(_WINDOW_PICTURES, batch) or _fills_memory(window)


def _fills_memory(window: Sequence[_Waiting[K]]) -> bool:
    pictures = sum(one.picture.rgb.nbytes for one in window if one.picture is not None)
    return pictures + sum(2 * face.source.nbytes for one in window for face in one.aligned) >= _WINDOW_BYTES


def _results_fill_memory(results: Sequence[Result[K]]) -> bool:
    return sum(result.nbytes for result in results) >= _WINDOW_BYTES


def _begin(job: Job[K], engine: Engine) -> _Waiting[K]:
    """Read, find and align."""
    item, task, options = _Waiting(job.key), engine.task, engine.work.faces
    with item.guarded():
        with item.clock.timed("read"):
            item.picture = job.load()
        numbers: set[int] = set()
        mended = None
        if engine.mender is not None:
            with item.clock.timed("mend"):
                mended = mend(item.picture, engine.mender, engine.detector, options, engine.work.tone)
                item.damage = mended.damage
                item.notes += mended.notes
        with item.clock.timed("find"):
            item.study = task.study(item.picture) if mended is None else task.study_mended(mended.picture)
            if task.keeps_tone:
                item.study = toned(item.study, engine.work.tone)
            if not options.aligned:
                item.faces = find(item.study, engine.detector, options)
                height, width = item.study.picture.rgb.shape[:2]
                if engine.detector is not None and (least := smallest_face(width, height)) > _SMALL_FACE:
                    item.notes.append(
                        f"was searched at {close_scale(width, height):.0%} of its size; faces below about {least:.0f} "
                        "pixels may be missed: cut the picture into pieces to find them"
                    )
                item.distances, among = recognised(item.study.picture, item.faces, engine)
                numbers = choose(item.faces, options, width, height, among)
        with item.clock.timed("align"):
            size = engine.restorer.size
            item.aligned = align(item.study, item.faces, numbers, task, size, aligned=options.aligned)
        if not item.aligned and mended is None and (numbers or options.aligned or task.needs_face):
            raise RestorationError(task.untouched(len(numbers)))
        if large := _left_alone(item.faces, numbers, options):
            item.notes.append(large)
        if item.distances and 0 < len(numbers) < len(item.faces):
            item.notes.append(_others(item.distances, numbers))
        item.notes += _doubts(item, engine)
    return item


def _left_alone(faces: Sequence[Face], numbers: Collection[int], options: FaceOptions) -> str:
    """Return which faces are larger than the user wants, where others are not; else nothing."""
    if options.max_face_size is None or not numbers:
        return ""
    sizes = {number: min(face.width, face.height) for number, face in enumerate(faces, 1)}
    large = [f"{number} ({size:.0f} pixels)" for number, size in sizes.items() if size > options.max_face_size]
    if not large:
        return ""
    return f"larger than --max_face_size {options.max_face_size:g}, and left as they are: face {', '.join(large)}"


def _others(distances: Sequence[float], numbers: Collection[int]) -> str:
    """Return which faces are the person's, where a picture has others too."""
    chosen = ", ".join(f"{number} (distance {distances[number - 1]:.2f})" for number in sorted(numbers))
    only = f"face {chosen} is" if len(numbers) == 1 else f"faces {chosen} are"
    return f"of {len(distances)} faces only {only} taken for the person's; the others stay as they are"


def _doubts(item: _Waiting[K], engine: Engine) -> list[str]:
    """Return what to say of an input that is not what the network wants."""
    if item.picture is None:
        return []
    notes = []
    height, width = item.picture.rgb.shape[:2]
    if engine.work.faces.aligned and height != width:
        notes.append(
            f"has {width} x {height} pixels, but an aligned crop is square: the face is stretched for the network; "
            "without --has_aligned it is found and aligned"
        )
    if item.aligned and engine.task.name == "restore" and (dots := halftone_of(item.picture.rgb)) is not None:
        w, least = max(engine.work.weights), max(0.2, engine.model.w_least, engine.model.w_keeps)
        lower = f"-w {least:g} takes fewer of them for skin" if w > least + 0.05 else "shrink it until they vanish"
        notes.append(f"looks like a halftone print with dots every {dots:.1f} pixels: {lower}")
    return notes


def _restore(window: Sequence[_Waiting[K]], engine: Engine) -> None:
    """One network call for the faces of the whole window; if that fails, one for each picture."""
    waiting = [item for item in window if item.error is None and item.aligned]
    if len(waiting) > 1:
        start = time.perf_counter()
        try:
            restored = iter(_restored([one for item in waiting for one in item.aligned], engine))
        except Exception:
            _log.debug("a batch failed; its pictures are tried one by one", exc_info=True)
        else:
            share = (time.perf_counter() - start) / sum(len(item.aligned) for item in waiting)
            for item in waiting:
                item.restored = [next(restored) for _ in item.aligned]
                item.clock.add("restore", share * len(item.aligned))
            return
    for item in waiting:
        with item.guarded(), item.clock.timed("restore"):
            item.restored = _restored(item.aligned, engine)


def _restored(aligned: Sequence[AlignedFace], engine: Engine) -> list[tuple[Crop, ...]]:
    """Return what the network gives of each face, by fidelity weight."""
    crops, work = [one.source for one in aligned], engine.work
    if work.more_w:
        return engine.restorer.restore_at(crops, work.weights, adain=engine.adain)
    return [(one,) for one in engine.restorer.restore(crops, w=work.w, adain=engine.adain)]


def _finish(item: _Waiting[K], engine: Engine) -> Result[K]:
    """Finish the faces, parse, upsample and paste: all that another thread does than the network's."""
    picture, study = item.picture, item.study
    renderings: list[Rendering] = []
    notes: dict[str, None] = {}  # in order; several weights often give the same
    if item.error is None and study is not None:
        with item.guarded():
            how = replace(engine.composition, detail=engine.task.name == "restore")
            weights = engine.work.weights
            ground = None
            if len(weights) > 1 and not how.aligned:
                with item.clock.timed("upsample"):
                    ground = ground_of(study.picture, how)
            for index, w in enumerate(weights):
                with item.clock.timed("paste"):
                    faces = zip(item.aligned, item.restored, strict=True)
                    crops = [engine.task.finish(one.crop, outputs[index]) for one, outputs in faces]
                output, more = compose(study, item.faces, item.aligned, crops, how, item.clock, ground)
                renderings.append(Rendering(output, _face_results(item, crops), w))
                notes.update(dict.fromkeys(more))
    first = renderings[0] if renderings and item.error is None else None
    return Result(
        key=item.key,
        picture=picture,
        output=first.output if first else None,
        damage=None if item.error else item.damage,
        mended=item.damage is not None and (engine.task.needs_face or bool(item.damage.any())),
        faces=first.faces if first else (),
        notes=(*(picture.warnings if picture else ()), *(study.notes if study else ()), *item.notes, *notes),
        seconds=item.clock.seconds,
        error=item.error,
        by_weight=tuple(renderings) if first and len(renderings) > 1 else (),
    )


def _face_results(item: _Waiting[K], restored: Sequence[Crop]) -> tuple[FaceResult, ...]:
    worked = {one.number: (one, face) for one, face in zip(item.aligned, restored, strict=True)}
    numbers = range(1, max(len(item.faces), len(worked)) + 1)
    results = []
    for number in numbers:
        face = item.faces[number - 1] if item.faces else None
        far = item.distances[number - 1] if item.distances else None
        if number in worked:
            one, after = worked[number]
            results.append(FaceResult(number, face, True, one.crop.pixels, after, one.matrix, far))
        else:
            results.append(FaceResult(number, face, distance=far))
    return tuple(results)
