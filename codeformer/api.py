"""The Python API: ``Restorer`` keeps the networks loaded and works on paths, Pillow images and arrays.

It never prints and never exits: what should be known about a result is in its ``notes``, and what goes wrong is raised
as a :class:`~codeformer.errors.CodeFormerError`.

>>> import numpy as np
>>> from codeformer import Restorer
>>> restorer = Restorer(model="auto", device="auto")
>>> photograph = np.full((480, 640, 3), 128, dtype=np.uint8)  # (H, W, 3) RGB; here one without a face
>>> result = restorer.restore(photograph, w=0.7)
>>> result
<Restoration 640 x 480, no face>
>>> result.picture.shape, len(result.faces)
((480, 640, 3), 0)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from codeformer.backends.base import backend_of
from codeformer.errors import CodeFormerError, InputError, UsageError
from codeformer.images.picture import SUFFIXES, Picture, read_picture, warn_of, write_noting
from codeformer.options import (
    DEFAULT_DETECTOR,
    DEFAULT_THRESHOLD,
    PERSON_DISTANCE,
    Backend,
    CanvasOptions,
    FaceOptions,
    FaceWork,
    ModelOptions,
    Parsing,
    Precision,
    ScratchPolicy,
    TonePolicy,
)
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.pictures import Job, Result, process
from codeformer.tasks.base import Task
from codeformer.tasks.table import TASKS

if TYPE_CHECKING:
    from PIL import Image

    #: What a picture may be: a path, an image of Pillow's, a picture of ours, or (H, W, 3) uint8 or uint16 RGB.
    Source = str | Path | Image.Image | Picture | np.ndarray

Progress = Callable[[int, int], None]
"""Called after each picture with how many are done, and how many there are."""

# Python would print a library's warnings on stderr if nobody has set up logging
logging.getLogger("codeformer").addHandler(logging.NullHandler())

_AHEAD = 2  # pictures that a thread reads and searches for faces while the network works


class Choices(TypedDict, total=False):
    """Options that hold for all pictures of a call; :meth:`Restorer.restore` explains them."""

    upscale: float
    aligned: bool
    det_threshold: float
    min_face_size: float
    max_face_size: float | None
    max_faces: int | None
    only_center_face: bool
    tone: TonePolicy
    strength: float


@dataclass(frozen=True, eq=False, repr=False)
class RestoredFace:
    """One face of a picture.

    Attributes:
        number: counts from 1, left to right.
        chosen: whether the task worked on it.
        box: (x0, y0, x1, y1) in pixels of the input; None for an aligned crop.
        score: the detector's, in [0, 1]; None for an aligned crop.
        landmarks: (5, 2) in pixels of the input; None for an aligned crop.
        before: the aligned crop, (S, S, 3) float32 RGB in [0, 1]; None where ``chosen`` is False.
        after: the same, restored.
        matrix: (2, 3), maps the input to the crop.
        distance: from the person that the restorer was made for; up to ``person_distance`` it is that person.
    """

    number: int
    chosen: bool
    box: tuple[float, float, float, float] | None = None
    score: float | None = None
    landmarks: np.ndarray | None = None
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    matrix: np.ndarray | None = None
    distance: float | None = None

    def __repr__(self) -> str:
        place = "" if self.box is None else " at " + ", ".join(str(round(value)) for value in self.box)
        score = "" if self.score is None else f", score {self.score:.2f}"
        return f"<RestoredFace {self.number}{place}{score}{'' if self.chosen else ', left alone'}>"


@dataclass(frozen=True, eq=False, repr=False)
class Restoration:
    """What came of a picture.

    Attributes:
        picture: (H, W, 3) RGB of the input's dtype. Without a face, the input at the output's scale.
        faces: from left to right.
        notes: what should be known about the result, a line each.
        seconds: where the time went, by step.
        output: the picture with all that its file carried: alpha, colour profile, EXIF.
        damage: (H, W) bool, the pixels of the input that were filled as scratches; None where none were looked for.
    """

    picture: np.ndarray
    faces: tuple[RestoredFace, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    output: Picture = field(kw_only=True)
    damage: np.ndarray | None = field(kw_only=True, default=None)

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        done, count = sum(face.chosen for face in self.faces), len(self.faces)
        faces = f"{done} of {count} face{'s' if count > 1 else ''} done" if count else "no face"
        return f"<Restoration {width} x {height}, {faces}>"

    def save(self, path: str | Path, *, quality: int = 95, png_level: int = 2) -> Path:
        """Write the picture in the format of the path's suffix, with what its input's file carried.

        Args:
            path: the file; folders on the way are made, and a file that is there is replaced in one step.
            quality: 1 to 100, for JPEG, WebP, AVIF and HEIC.
            png_level: 0 to 9, for PNG: how hard it is compressed, always without loss.

        Returns:
            The path.

        Warns:
            LossWarning: the format cannot hold all of the picture: its transparency, 16 bits, colours or texts.

        Raises:
            OutputError: it cannot be written.
        """
        path = Path(path)
        warn_of(write_noting(self.output, path, quality=quality, png_level=png_level), path)
        return path

    def to_pil(self) -> Image.Image:
        """Return the picture as an image of Pillow's, RGB or RGBA of 8 bits."""
        from codeformer.images.pil import to_pil

        return to_pil(self.output)


class Restorer:
    """CodeFormer, loaded once.

    Args:
        model: auto (the published weights if they are there, else the bundled ones), compact, official, or a file.
        device: auto, cpu, cuda, cuda:N or mps, or a device of another engine (docs/export.md).
        task: restore, colorize or inpaint, or a configured :class:`~codeformer.tasks.base.Task`.
        precision: auto, fp32, bf16 or fp16.
        batch_size: faces at a time; None by the device.
        backend: auto (PyTorch for weights, ONNX Runtime for an exported network), torch, onnxruntime or openvino.
        weights_dir: where downloaded weights lie; None for the usual places.
        detection_model: as the command line's option.
        parsing: as the command line's option.
        bg_upsampler: as the command line's option.
        face_upsample: as the command line's option.
        person: photographs of the one person whose faces are worked on; others stay as they are.
        person_distance: as the command line's option.
        keep_occluders: as the command line's option.
        scratches: as the command line's option: with auto, scratches are found and filled before anything else.
        compile: as the command line's option.

    Raises:
        InputError: a photograph of the person cannot be read, or shows no face or several.
        WeightsError: a weights file is missing, damaged, or of another network.
        UsageError: a value that is out of range, a device that is not there, or a package that is not installed.
    """

    def __init__(
        self,
        model: str | Path = "auto",
        device: str = "auto",
        *,
        task: str | Task = "restore",
        precision: Precision = "auto",
        batch_size: int | None = None,
        backend: Backend = "auto",
        weights_dir: Path | None = None,
        detection_model: str = DEFAULT_DETECTOR,
        parsing: Parsing = "auto",
        bg_upsampler: str | None = None,
        face_upsample: bool = False,
        person: str | Path | Sequence[str | Path] = (),
        person_distance: float = PERSON_DISTANCE,
        keep_occluders: bool = False,
        scratches: ScratchPolicy = "off",
        compile: bool = False,
    ) -> None:
        chosen = TASKS[task] if isinstance(task, str) else task
        photos = tuple(Path(one) for one in ([person] if isinstance(person, str | Path) else person))
        work = FaceWork(
            w=chosen.default_w,
            model=ModelOptions(str(model), weights_dir, device, precision, batch_size, backend, compile),
            faces=FaceOptions(
                detection_model=detection_model,
                parsing=parsing,
                person=photos,
                person_distance=person_distance,
                keep_occluders=keep_occluders,
            ),
            canvas=CanvasOptions(4.0 if face_upsample else 1.0, bg_upsampler, face_upsample),
            scratches=scratches,
        )
        if scratches != "off" and not chosen.mends:
            raise UsageError(f"scratches is for the tasks restore and inpaint, not {chosen.name}: leave it out")
        self._engine = open_engine(chosen, work)
        self.notes = self._engine.model.notes

    def __repr__(self) -> str:
        return f"<Restorer {self._engine.task.name} with {self._engine.model.path.name} on {self.device}>"

    @property
    def size(self) -> int:
        """Side of an aligned crop in pixels."""
        return self._engine.restorer.size

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._engine.restorer.device)

    @property
    def backend(self) -> str:
        """The engine that runs the network: torch, onnxruntime or openvino."""
        return backend_of(self._engine.restorer.device)

    @property
    def precision(self) -> str:
        """The network's arithmetic: fp32, bf16 or fp16."""
        return str(self._engine.restorer.precision)

    def restore(
        self,
        picture: Source,
        w: float | None = None,
        *,
        landmarks: Sequence[Sequence[Sequence[float]]] = (),
        alpha: np.ndarray | None = None,
        **choices: Unpack[Choices],
    ) -> Restoration:
        """Restore the faces of one picture.

        Args:
            picture: a path, an image of Pillow's, what ``read_picture`` gives, or an array (H, W, 3) uint8 or uint16
                RGB. It is not changed.
            w: fidelity weight in [0, 1]; None for what the model wants, or else the task's own.
            landmarks: faces by hand instead of detection, five (x, y) each: eyes, nose, mouth corners.
            alpha: (H, W), the transparency of an array; inpainting fills where it is 0.
            **choices: ``upscale``, the scale of the result, 1 to 4; ``aligned``, the picture is an aligned crop and the
                result is (size, size, 3); ``det_threshold``, ``min_face_size``, ``max_face_size``, ``max_faces`` and
                ``only_center_face``, which faces; ``tone``, auto, keep or free, as the command line's option;
                ``strength``, the share in [0, 1] of the restored faces in the result (the task restore only; ``after``
                of a face is always the whole restored one).

        Raises:
            InputError: the picture cannot be read, or is not such an array.
            UsageError: an option is out of range.
            RestorationError: the network's output is not finite, the task cannot be done on this picture, or the
                process was forked after this object was made.
            OutOfMemoryError: not even one face fits.
        """
        engine = self._with(w, choices, landmarks)
        result = next(process([Job(None, partial(_picture, picture, alpha))], engine))
        return _restoration(result, engine)

    def restore_many(
        self,
        pictures: Iterable[Source],
        w: float | None = None,
        *,
        progress: Progress | None = None,
        return_errors: bool = False,
        **choices: Unpack[Choices],
    ) -> list[Any]:
        """Restore several pictures. Their faces share the network's batches, as many as the memory holds.

        Args:
            pictures: as in :meth:`restore`.
            w: as in :meth:`restore`.
            progress: called after each picture with how many are done, and how many there are.
            return_errors: what goes wrong with a picture takes its place in the list, instead of being raised.
            **choices: as in :meth:`restore`.

        Returns:
            A :class:`Restoration` for each picture, in order, or with ``return_errors`` a CodeFormerError.

        Raises:
            CodeFormerError: the first failure, when all pictures have been tried.
        """
        found = [result for _, result in self._each(list(pictures), w, progress, choices)]
        if not return_errors:
            for result in found:
                if isinstance(result, CodeFormerError):
                    raise result
        return found

    def restore_folder(
        self,
        folder: str | Path,
        w: float | None = None,
        *,
        recursive: bool = False,
        progress: Progress | None = None,
        **choices: Unpack[Choices],
    ) -> Iterator[tuple[Path, Restoration | CodeFormerError]]:
        """Restore the pictures of a folder one after another, in the order of their names. Nothing is written.

        Memory does not grow with the folder: a few pictures are under way at a time.

        Args:
            folder: the folder.
            w: as in :meth:`restore`.
            recursive: folders within folders too.
            progress: as in :meth:`restore_many`.
            **choices: as in :meth:`restore`.

        Yields:
            The path of each picture with its :class:`Restoration`, or with the error where it failed.

        Raises:
            InputError: the folder cannot be listed, or holds no pictures.
        """
        from codeformer.run.inputs import find_inputs

        top = Path(folder)
        listing = find_inputs([top], recursive=recursive, suffixes=SUFFIXES, root=top)
        return self._each([one.path for one in listing.inputs], w, progress, choices)

    def _each(
        self, pictures: Sequence[Any], w: float | None, progress: Progress | None, choices: Choices
    ) -> Iterator[tuple[Any, Any]]:
        engine = self._with(w, choices)
        jobs = (Job(picture, partial(_picture, picture)) for picture in pictures)
        return _results(jobs, engine, len(pictures), progress)

    def _with(self, w: float | None, choices: Choices, landmarks: Sequence[Sequence[Sequence[float]]] = ()) -> Engine:
        """Return the engine with one call's options."""
        points = tuple(tuple((float(x), float(y)) for x, y in face) for face in landmarks)
        old = self._engine.work
        faces = replace(
            old.faces,
            det_threshold=choices.get("det_threshold", DEFAULT_THRESHOLD),
            min_face_size=choices.get("min_face_size", 0.0),
            max_face_size=choices.get("max_face_size"),
            max_faces=choices.get("max_faces"),
            only_center_face=choices.get("only_center_face", False),
            landmarks=points,
            aligned=choices.get("aligned", False),
        )
        unknown = set(choices) - set(Choices.__annotations__)
        if unknown:
            raise TypeError(f"there is no option {', '.join(sorted(unknown))}: {', '.join(Choices.__annotations__)}")
        weight = self._engine.model.choose_w(self._engine.task, w)
        canvas = replace(old.canvas, upscale=choices.get("upscale", 1.0))
        tone, strength = choices.get("tone", "auto"), choices.get("strength", 1.0)
        if strength != 1 and not self._engine.task.blends:
            raise UsageError(f"strength is for the task restore, not {self._engine.task.name}: leave it out")
        work = replace(old, w=weight, faces=faces, canvas=canvas, tone=tone, strength=strength)
        return replace(self._engine, work=work)


def _results(
    jobs: Iterable[Job[Any]], engine: Engine, count: int, progress: Progress | None
) -> Iterator[tuple[Any, Any]]:
    with closing(process(jobs, engine, ahead=_AHEAD)) as results:
        for done, result in enumerate(results, 1):
            if progress is not None:
                progress(done, count)
            yield result.key, result.error or _restoration(result, engine)


def _restoration(result: Result[Any], engine: Engine) -> Restoration:
    if result.error is not None:
        raise result.error
    assert result.output is not None  # there is an output or an error
    faces = tuple(
        RestoredFace(
            number=one.number,
            chosen=one.chosen,
            box=one.face.box if one.face else None,
            score=one.face.score if one.face else None,
            landmarks=one.face.landmarks if one.face else None,
            before=one.before,
            after=one.after,
            matrix=one.matrix,
            distance=one.distance,
        )
        for one in result.faces
    )
    doubts = engine.model.doubts(engine.task, engine.work.w) if result.done else ()
    notes = (*result.notes, *doubts)
    seconds = dict(result.seconds)
    return Restoration(result.output.rgb, faces, notes, seconds, output=result.output, damage=result.damage)


def _picture(source: Source, alpha: np.ndarray | None = None) -> Picture:
    """Return what the caller gave as a picture. Raises InputError."""
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, Path)):
        return read_picture(source)
    try:
        if isinstance(source, np.ndarray):
            return Picture(np.ascontiguousarray(source), alpha)
    except (ValueError, AttributeError) as error:
        raise InputError(f"not a picture: {error}") from error
    from PIL import Image

    if isinstance(source, Image.Image):
        from codeformer.images.pil import from_pil

        return from_pil(source)
    raise InputError(
        f"not a picture: {type(source).__name__}; give a path, an image of Pillow's or an array (H, W, 3) of uint8 RGB"
    )
