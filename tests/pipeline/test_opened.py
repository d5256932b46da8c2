"""A picture that is kept open has the pixels that a run gives, for every weight and every choice of faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codeformer.images.picture import Picture
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.opened import open_picture
from codeformer.pipeline.pictures import Job, process
from codeformer.tasks.table import TASKS

_FACE = ((103.1, 100.0), (147.0, 102.5), (123.4, 128.1), (101.1, 138.5), (144.5, 141.0))


@pytest.fixture(scope="module")
def engine(small_model_path: Path) -> Engine:
    other = tuple((x - 40, y + 20) for x, y in _FACE)
    faces = FaceOptions(landmarks=(_FACE, other), parsing="none")
    model = ModelOptions(str(small_model_path), device="cpu", precision="fp32")
    return open_engine(TASKS["restore"], FaceWork(model=model, faces=faces, canvas=CanvasOptions(1.5)))


def test_as_a_run(engine: Engine, portrait: np.ndarray) -> None:
    opened = open_picture(Picture(portrait), engine)
    assert opened.chosen == {1, 2}
    for w in (0.0, 0.7, 0.7, 1.0):
        for numbers in ((1, 2), (2,)):
            work = replace(engine.work, w=w, faces=replace(engine.work.faces, numbers=numbers))
            result = next(process([Job(None, lambda: Picture(portrait))], replace(engine, work=work)))
            assert result.output is not None
            assert (opened.render(engine, w, numbers)[0].rgb == result.output.rgb).all()


def test_the_encoder_runs_once(engine: Engine, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = engine.restorer.encode
    monkeypatch.setattr(engine.restorer, "encode", lambda crops: calls.append(len(crops)) or encode(crops))
    opened = open_picture(Picture(portrait), engine)
    for w in (0.1, 0.5, 0.9):
        opened.render(engine, w, {2})
    assert calls == [1]
    opened.render(engine, 0.9, {1, 2})
    assert calls == [1, 1]


def test_no_face_chosen_is_the_picture(engine: Engine, portrait: np.ndarray) -> None:
    plain = replace(engine, work=replace(engine.work, canvas=CanvasOptions(1.0)))
    picture, _ = open_picture(Picture(portrait), plain).render(plain, 0.5, ())
    assert (picture.rgb == portrait).all()
