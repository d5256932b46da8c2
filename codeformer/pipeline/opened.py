"""A picture that is kept open: faces are found and encoded once, and each fidelity weight costs a decoder's run."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from codeformer.arrays import Crop
from codeformer.backends.base import EncodedBatch
from codeformer.errors import RestorationError
from codeformer.faces.choose import choose
from codeformer.faces.face import Face
from codeformer.images.picture import Picture
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.compose import compose
from codeformer.pipeline.crops import AlignedFace, align, find, recognised, toned
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.mend import mend
from codeformer.tasks.base import Study


@dataclass(eq=False)
class OpenPicture:
    """A picture between encoder and decoder.

    Attributes:
        study: the picture as the task wants it.
        faces: all its faces, left to right; empty for an aligned crop.
        aligned: those that the task can work on, by number from 1.
        chosen: the numbers that the options choose.
    """

    study: Study
    faces: list[Face]
    aligned: dict[int, AlignedFace]
    chosen: frozenset[int]
    _encoded: dict[int, EncodedBatch] = field(default_factory=dict)
    _decoded: dict[int, tuple[float, Crop]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def render(self, engine: Engine, w: float, numbers: Collection[int]) -> tuple[Picture, list[str]]:
        """Return the finished picture with some of its faces worked on, and notes for the user.

        It has the pixels that :func:`~codeformer.pipeline.pictures.process` gives. The network's encoder runs for a
        face when it is wanted first, the decoder when its weight changes.

        Args:
            engine: the networks that the picture was opened with; its canvas may differ.
            w: fidelity weight in [0, 1].
            numbers: which faces; others stay as they are.

        Raises:
            RestorationError: the network's output is not finite.
            OutOfMemoryError: not even one face fits.
        """
        wanted = [one for number, one in sorted(self.aligned.items()) if number in numbers]
        with self._lock:
            restored = [self._decode(one, engine, w) for one in wanted]
        how = replace(engine.composition, detail=engine.task.name == "restore")
        return compose(self.study, self.faces, wanted, restored, how, Clock())

    def _decode(self, one: AlignedFace, engine: Engine, w: float) -> Crop:
        known = self._decoded.get(one.number)
        if known is not None and known[0] == w:
            return known[1]
        encoded = self._encoded.get(one.number)
        if encoded is None:
            encoded = self._encoded[one.number] = engine.restorer.encode([one.source])
        output = engine.restorer.decode(encoded, encoded.logits.argmax(2), w=w, adain=engine.adain)[0]
        crop = engine.task.finish(one.crop, output)
        self._decoded[one.number] = (w, crop)
        return crop


def open_picture(picture: Picture, engine: Engine) -> OpenPicture:
    """Find and align the faces of a picture. Nothing is encoded yet.

    Raises:
        InputError, RestorationError: the task cannot be done on this picture.
    """
    task, options = engine.task, engine.work.faces
    if engine.mender is None:
        study = task.study(picture)
    else:
        mended = mend(picture, engine.mender, engine.detector, options, engine.work.tone)
        study = task.study_mended(mended.picture)
        study = replace(study, notes=(*mended.notes, *study.notes))
    if task.keeps_tone:
        study = toned(study, engine.work.tone)
    faces: list[Face] = []
    numbers: set[int] = {1}
    if not options.aligned:
        faces = find(study, engine.detector, options)
        height, width = study.picture.rgb.shape[:2]
        _, among = recognised(study.picture, faces, engine)
        numbers = choose(faces, options, width, height, among)
    every = set(range(1, len(faces) + 1))
    found = align(study, faces, every, task, engine.restorer.size, aligned=options.aligned)
    aligned = {one.number: one for one in found}
    chosen = frozenset(numbers & aligned.keys())
    if not aligned and engine.mender is None and (faces or options.aligned or task.needs_face):
        raise RestorationError(task.untouched(len(numbers)))
    return OpenPicture(study, faces, aligned, chosen)
