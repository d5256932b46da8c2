"""The Python API: ``Restorer`` keeps the networks loaded and works on arrays.

It never prints and never exits: what should be known about a result is in its ``notes``, and what goes wrong is raised
as a :class:`~codeformer.errors.CodeFormerError`.

>>> import numpy as np
>>> from codeformer import Restorer
>>> restorer = Restorer(model="auto", device="auto")
>>> photograph = np.full((480, 640, 3), 128, dtype=np.uint8)  # (H, W, 3) RGB; here one without a face
>>> result = restorer.restore(photograph, w=0.7)
>>> result.picture.shape, len(result.faces)
((480, 640, 3), 0)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from codeformer.errors import InputError
from codeformer.images.picture import Picture
from codeformer.options import (
    DEFAULT_DETECTOR,
    DEFAULT_THRESHOLD,
    CanvasOptions,
    FaceOptions,
    FaceWork,
    ModelOptions,
    Parsing,
    Precision,
)
from codeformer.pipeline.engine import open_engine
from codeformer.pipeline.pictures import Job, Result, process
from codeformer.tasks.base import Task
from codeformer.tasks.table import TASKS

# Python would print a library's warnings on stderr if nobody has set up logging
logging.getLogger("codeformer").addHandler(logging.NullHandler())


@dataclass(frozen=True, eq=False)
class RestoredFace:
    """One face of a picture.

    ``box`` (x0, y0, x1, y1) and ``landmarks`` (5, 2) are pixels of the input; both are None for an aligned crop.
    ``before`` and ``after`` are aligned crops, (S, S, 3) float32 RGB in [0, 1]; None where ``chosen`` is False.
    ``matrix`` (2, 3) maps the input to the crop.
    """

    number: int
    chosen: bool
    box: tuple[float, float, float, float] | None = None
    score: float | None = None
    landmarks: np.ndarray | None = None
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    matrix: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Restoration:
    """What came of a picture: ``picture`` (H, W, 3) RGB of the input's dtype, its faces from left to right, and notes.

    Without a face, ``picture`` is the input at the output's scale. ``seconds`` tells where the time went.
    """

    picture: np.ndarray
    faces: tuple[RestoredFace, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]


class Restorer:
    """CodeFormer, loaded once.

    Args:
        model: auto (the published weights if they are there, else the bundled ones), compact, official, or a file.
        device: auto, cpu, cuda, cuda:N or mps.
        task: restore, colorize or inpaint, or a configured :class:`~codeformer.tasks.base.Task`.
        precision: auto, fp32, bf16 or fp16.
        batch_size: faces at a time; None by the device.
        weights_dir: where downloaded weights lie; None for the usual places.
        detection_model, parsing, bg_upsampler, face_upsample: as the command line's options of these names.

    Raises:
        WeightsError: a weights file is missing, damaged, or of another network.
        UsageError: a value that is out of range, or a device that is not there.
    """

    def __init__(
        self,
        model: str | Path = "auto",
        device: str = "auto",
        *,
        task: str | Task = "restore",
        precision: Precision = "auto",
        batch_size: int | None = None,
        weights_dir: Path | None = None,
        detection_model: str = DEFAULT_DETECTOR,
        parsing: Parsing = "auto",
        bg_upsampler: str | None = None,
        face_upsample: bool = False,
    ) -> None:
        chosen = TASKS[task] if isinstance(task, str) else task
        work = FaceWork(
            w=chosen.default_w,
            model=ModelOptions(str(model), weights_dir, device, precision, batch_size),
            faces=FaceOptions(detection_model=detection_model, parsing=parsing),
            canvas=CanvasOptions(4.0 if face_upsample else 1.0, bg_upsampler, face_upsample),
        )
        self._engine = open_engine(chosen, work)
        self.notes = self._engine.model.notes

    @property
    def size(self) -> int:
        """Side of an aligned crop in pixels."""
        return self._engine.restorer.size

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._engine.restorer.device)

    def restore(
        self,
        rgb: np.ndarray,
        w: float | None = None,
        *,
        upscale: float = 1.0,
        aligned: bool = False,
        landmarks: Sequence[Sequence[Sequence[float]]] = (),
        det_threshold: float = DEFAULT_THRESHOLD,
        min_face_size: float = 0.0,
        max_faces: int | None = None,
        only_center_face: bool = False,
        alpha: np.ndarray | None = None,
    ) -> Restoration:
        """Restore the faces of one picture.

        Args:
            rgb: (H, W, 3) uint8 or uint16, RGB. It is not changed.
            w: fidelity weight in [0, 1]; None for what the model wants, or else the task's own.
            upscale: scale of the result, 1 to 4.
            aligned: the picture is an aligned crop; the result is (size, size, 3).
            landmarks: faces by hand instead of detection, five (x, y) each: eyes, nose, mouth corners.
            det_threshold, min_face_size, max_faces, only_center_face: which faces.
            alpha: (H, W), the picture's transparency; inpainting fills where it is 0.

        Raises:
            InputError: ``rgb`` is not such an array.
            UsageError: an option is out of range.
            RestorationError: the network's output is not finite, the task cannot be done on this picture, or the
                process was forked after this object's first use.
            OutOfMemoryError: not even one face fits.
        """
        points = tuple(tuple((float(x), float(y)) for x, y in face) for face in landmarks)
        old = self._engine.work
        faces = replace(
            old.faces,
            det_threshold=det_threshold,
            min_face_size=min_face_size,
            max_faces=max_faces,
            only_center_face=only_center_face,
            landmarks=points,
            aligned=aligned,
        )
        weight = self._engine.model.choose_w(self._engine.task, w)
        work = replace(old, w=weight, faces=faces, canvas=replace(old.canvas, upscale=upscale))
        engine = replace(self._engine, work=work)
        picture = _picture(rgb, alpha)
        result = next(process([Job(None, lambda: picture)], engine))
        if result.error is not None:
            raise result.error
        return _restoration(result)


def _restoration(result: Result[None]) -> Restoration:
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
        )
        for one in result.faces
    )
    return Restoration(result.output.rgb, faces, result.notes, dict(result.seconds))


def _picture(rgb: np.ndarray, alpha: np.ndarray | None) -> Picture:
    try:
        return Picture(np.ascontiguousarray(rgb), alpha)
    except (ValueError, AttributeError) as error:
        raise InputError(f"not a picture: {error}") from error
