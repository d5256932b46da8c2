"""The Python API: its docstring's example, its values, and that it stays silent."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import codeformer.api
from codeformer import Restorer
from codeformer.errors import InputError, UsageError, WeightsError
from codeformer.hub.store import Choice


@pytest.fixture(scope="module")
def restorer(small_model_path: Path) -> Restorer:
    return Restorer(model=small_model_path, device="cpu", parsing="none")


@pytest.fixture(autouse=True)
def silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def test_the_example_of_the_docstring(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "codeformer.models.file.resolve_model", lambda *args: Choice(small_model_path, notes=("a note",))
    )
    result = doctest.testmod(codeformer.api)
    assert result.attempted >= 4 and result.failed == 0


def test_a_photograph(restorer: Restorer, portrait: np.ndarray) -> None:
    before = portrait.copy()
    result = restorer.restore(portrait, w=0.7)
    assert (portrait == before).all()
    assert result.picture.shape == portrait.shape and result.picture.dtype == np.uint8
    (face,) = result.faces
    assert face.chosen and face.box is not None and face.after is not None and face.matrix is not None
    x0, y0, x1, y1 = face.box
    assert 60 < x0 < x1 < 190 and 40 < y0 < y1 < 200  # Eileen Collins' face
    assert face.after.shape == (restorer.size, restorer.size, 3)
    assert (result.picture != portrait)[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.5
    assert (result.picture[:20, :20] == portrait[:20, :20]).all()
    assert result.seconds["restore"] > 0
    again = restorer.restore(portrait, w=0.7)
    assert (again.picture == result.picture).all()


def test_options(restorer: Restorer, portrait: np.ndarray) -> None:
    points = [[(100.0, 100.0), (147.0, 102.0), (123.0, 128.0), (101.0, 138.0), (144.0, 141.0)]]
    by_hand = restorer.restore(portrait.astype(np.uint16) * 257, upscale=1.5, landmarks=points)
    assert by_hand.picture.shape == (360, 360, 3) and by_hand.picture.dtype == np.uint16
    assert len(by_hand.faces) == 1
    assert restorer.restore(portrait, aligned=True).picture.shape == (64, 64, 3)


def test_errors_are_raised(restorer: Restorer, portrait: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fidelity_weight"):
        restorer.restore(portrait, w=2)
    with pytest.raises(InputError, match="not a picture"):
        restorer.restore(portrait[..., 0])
    with pytest.raises(InputError, match="not a picture"):
        restorer.restore(portrait / 255)
    with pytest.raises(WeightsError, match="gone"):
        Restorer(model=tmp_path / "gone.pth")


def test_importing_it_is_cheap() -> None:
    code = "import sys, codeformer; print({'torch', 'cv2', 'numpy', 'PIL'} & set(sys.modules), codeformer.__version__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("set()")


def test_six_threads_share_one_restorer(restorer: Restorer, portrait: np.ndarray) -> None:
    pictures = [np.ascontiguousarray(np.roll(portrait, shift, axis=1)) for shift in (0, 3, 6, 9, 12, 15)]
    alone = [restorer.restore(picture, w=0.5).picture for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda picture: restorer.restore(picture, w=0.5).picture, pictures))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


FORKING = """
import multiprocessing, sys
import numpy as np
from codeformer import Restorer
from codeformer.errors import RestorationError

restorer = Restorer(model=sys.argv[1], device="cpu", parsing="none")
picture = np.load(sys.argv[2])
if sys.argv[3] == "used":
    restorer.restore(picture)

def child(queue):
    try:
        queue.put(len(restorer.restore(picture).faces))
    except RestorationError as error:
        queue.put(str(error))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
print(queue.get(timeout=100))
process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(("use", "answer"), [("used", "was used before the process was forked"), ("loaded", "1")])
def test_a_model_that_was_used_before_a_fork_says_so_at_once(
    small_model_path: Path, portrait: np.ndarray, tmp_path: Path, use: str, answer: str
) -> None:
    np.save(tmp_path / "picture.npy", portrait)
    command = [sys.executable, "-c", FORKING, str(small_model_path), str(tmp_path / "picture.npy"), use]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert answer in done.stdout, done.stderr
