"""Preparing photographs: which faces are kept, at what size, under which name, and what the report says."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.cli import main
from codeformer.errors import ExitCode, OutputError, UsageError
from codeformer.faces.align import TEMPLATE_512
from codeformer.faces.face import Face
from codeformer.images.picture import Picture, read_picture, write_picture
from codeformer.options import AlignOptions, Demands
from codeformer.train.align import judge, run_align, sharpness
from codeformer.train.data import read_face
from tests.run.log import Log

LENIENT = Demands(size=64, min_size=0, min_sharpness=0)


class Faces:
    """A detector that knows where the faces are: one for each pair of grey eyes' place it was given."""

    name = "faces"

    def __init__(self, *landmarks: np.ndarray) -> None:
        self.landmarks = landmarks

    def __call__(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        scale = rgb.shape[1] / 400  # find_faces looks at the picture at its own scale
        faces = []
        for points in self.landmarks:
            points = (points * scale).astype(np.float32)
            (x0, y0), (x1, y1) = points.min(0), points.max(0)
            faces.append(Face((float(x0), float(y0), float(x1), float(y1)), 0.9, points))
        return [face for face in faces if face.score >= threshold]


def landmarks(side: float, left: float = 0, top: float = 0) -> np.ndarray:
    """Five landmarks of a face whose aligned square has `side` pixels and lies at (left, top)."""
    return (TEMPLATE_512 * side / 512 + [left, top]).astype(np.float32)


def photograph(path: Path, blur: float = 0, seed: int = 0) -> Path:
    """Write a 400 x 300 picture full of detail, or a blurred one."""
    rng = np.random.default_rng(seed)
    pixels = cv2.resize(rng.integers(0, 256, (75, 100, 3), np.uint8), (400, 300), interpolation=cv2.INTER_NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, cv2.GaussianBlur(pixels, (0, 0), blur) if blur else pixels)
    assert ok
    path.write_bytes(data.tobytes())
    return path


def align(
    inputs: list[Path], out: Path, detector: Faces, demands: Demands, log: Log | None = None, **options: Any
) -> ExitCode:
    return run_align(AlignOptions(tuple(inputs), out, demands=demands, **options), log or Log(), detector)


def report(out: Path) -> dict:
    return {entry["input"]: entry for entry in json.loads((out / "align.json").read_text())["inputs"]}


def count(out: Path, status: str) -> int:
    return sum(face["status"] == status for entry in report(out).values() for face in entry["faces"])


def names(out: Path) -> list[str]:
    return sorted(p.name for p in out.iterdir() if p.name != "align.json")


# --- one face


@given(st.floats(0.5, 12))
@settings(max_examples=15, deadline=None)
def test_blur_lowers_sharpness(sigma: float) -> None:
    rng = np.random.default_rng(0)
    crop = cv2.resize(rng.random((64, 64, 3), np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
    assert sharpness(cv2.GaussianBlur(crop, (0, 0), sigma)) < sharpness(crop)
    assert sharpness(np.full_like(crop, 0.5)) == pytest.approx(0, abs=1e-6)


def test_sharpness_does_not_depend_on_the_crops_size() -> None:
    rng = np.random.default_rng(0)
    large = cv2.resize(rng.random((64, 64, 3), np.float32), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    values = [sharpness(cv2.resize(large, (s, s), interpolation=cv2.INTER_AREA)) for s in (256, 512, 1024)]
    assert max(values) < 1.1 * min(values)


@pytest.mark.parametrize(
    ("side", "enlarge", "status", "size"),
    [(200, False, "kept", 128), (100, False, "kept", 100), (100, True, "kept", 128), (60, True, "too small", 0)],
)
def test_a_face_is_written_no_larger_than_its_photograph_has_it(
    side: float, enlarge: bool, status: str, size: int
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    face = Face((0, 0, 1, 1), 0.9, landmarks(side, 50, 40))
    demands = Demands(size=128, min_size=80, min_sharpness=0, enlarge=enlarge)
    found, crop = judge(rgb, face, demands)
    assert (found.status, found.side) == (status, pytest.approx(side, rel=0.01))
    assert crop is None if size == 0 else crop is not None and crop.shape == (size, size, 3)


def test_the_crop_is_the_photographs_square() -> None:
    rgb = np.zeros((300, 400, 3), np.uint8)
    rgb[40:168, 50:178] = 200
    _, crop = judge(
        rgb, Face((0, 0, 1, 1), 0.9, landmarks(128, 50, 40)), Demands(size=128, min_size=0, min_sharpness=0)
    )
    assert crop is not None and np.allclose(crop[2:-2, 2:-2], 200 / 255, atol=0.01)


# --- many photographs


def test_small_and_blurred_faces_are_left_out_and_reported(tmp_path: Path) -> None:
    sharp, soft = photograph(tmp_path / "in/sharp.png"), photograph(tmp_path / "in/soft.png", blur=8)
    detector = Faces(landmarks(40, 10, 10), landmarks(200, 150, 50))
    log = Log()
    assert align([sharp, soft], tmp_path / "out", detector, Demands(size=128, min_size=100), log) is ExitCode.OK
    assert [count(tmp_path / "out", status) for status in ("kept", "too small", "too blurred")] == [1, 2, 1]
    assert "1 face kept; left out: 2 too small faces, 1 too blurred face" in log.lines
    assert names(tmp_path / "out") == ["sharp_02.png"], "faces are numbered from left to right"
    faces = report(tmp_path / "out")[str(sharp)]["faces"]
    assert [f["file"] for f in faces] == [None, "sharp_02.png"] and faces[1]["sharpness"] > 80
    assert np.allclose(faces[1]["landmarks"], landmarks(200, 150, 50), atol=0.6)
    crop, is_sharp = read_face(tmp_path / "out/sharp_02.png", 128)
    assert crop.shape == (128, 128, 3) and is_sharp, "training opens what align wrote"


def test_equal_names_do_not_overwrite_each_other_also_in_a_later_run(tmp_path: Path) -> None:
    paths = [photograph(tmp_path / name, seed=i) for i, name in enumerate(["a/x.png", "b/x.png", "b/X.jpg", "c/x.png"])]
    out, detector = tmp_path / "out", Faces(landmarks(200, 50, 50))
    align(paths[:2], out, detector, LENIENT)
    first = {p.name: p.read_bytes() for p in out.glob("*.png")}
    align(paths[2:], out, detector, LENIENT)
    assert len(names(out)) == 4 and len({n.lower() for n in names(out)}) == 4
    assert all((out / name).read_bytes() == data for name, data in first.items())
    assert len(report(out)) == 4, "the report keeps earlier runs"
    align(paths[::-1], out, detector, LENIENT)
    assert len(names(out)) == 4, "repeated, every photograph has its own name again"
    assert all((out / name).read_bytes() == data for name, data in first.items())


def test_a_strangers_picture_in_the_folder_is_safe(tmp_path: Path) -> None:
    stranger = photograph(tmp_path / "out/x_01.png", seed=9).read_bytes()
    align([photograph(tmp_path / "in/x.png")], tmp_path / "out", Faces(landmarks(200, 50, 50)), LENIENT)
    assert (tmp_path / "out/x_01.png").read_bytes() == stranger and len(names(tmp_path / "out")) == 2


def test_a_strangers_picture_in_a_subfolder_is_safe_too(tmp_path: Path) -> None:
    out, detector = tmp_path / "out", Faces(landmarks(200, 50, 50))
    stranger = photograph(out / "album/1_01.png", seed=9).read_bytes()
    photograph(out / "album_2/own.png", seed=8)
    for name in ("album/1.jpg", "1.jpg", "album.jpg"):
        photograph(tmp_path / "in" / name)
    for _ in range(2):
        align([tmp_path / "in"], out, detector, LENIENT, recursive=True, resume=False)
        assert (out / "album/1_01.png").read_bytes() == stranger
        ours = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
        assert ours == ["1_01.png", "album/1_01.png", "album/1_2_01.png", "album_01.png", "album_2/own.png"]


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_faces_of_a_photograph_that_can_no_longer_be_read_stay(tmp_path: Path, loss: str) -> None:
    path, out, detector = photograph(tmp_path / "x.png"), tmp_path / "out", Faces(landmarks(200, 50, 50))
    other = photograph(tmp_path / "y.png", seed=1)
    align([path, other], out, detector, LENIENT)
    before, face = report(out)[str(path)]["faces"], (out / "x_01.png").read_bytes()
    if loss == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:300])
    for _ in range(2):
        assert align([path, other], out, detector, LENIENT) is ExitCode.SOME_FAILED
        assert (out / "x_01.png").read_bytes() == face and report(out)[str(path)]["faces"] == before
    align([photograph(path)], out, detector, Demands(size=64, min_size=300))
    assert names(out) == ["y_01.png"], "read again, it is judged again"


def test_a_repeated_run_removes_faces_that_no_longer_pass(tmp_path: Path) -> None:
    path, out, detector = photograph(tmp_path / "x.png"), tmp_path / "out", Faces(landmarks(200, 50, 50))
    align([path], out, detector, LENIENT)
    assert names(out) == ["x_01.png"]
    align([path], out, detector, Demands(size=64, min_size=300))
    assert names(out) == []


def test_a_killed_run_can_be_repeated_without_doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [photograph(tmp_path / f"in/{i}.png", seed=i) for i in range(3)]
    out, detector = tmp_path / "out", Faces(landmarks(200, 50, 50))

    class Killed(BaseException):
        pass

    def stop(picture: Picture, path: Path, **options: Any) -> None:
        write_picture(picture, path, **options)
        if path.name == "1_01.png":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("codeformer.train.align.write_picture", stop)
        align(paths, out, detector, LENIENT)
    assert {Path(path).name: entry["status"] for path, entry in report(out).items()} == {
        "0.png": "done",
        "1.png": "pending",
    }
    first = (out / "0_01.png").stat().st_mtime_ns
    assert align(paths, out, detector, LENIENT) is ExitCode.OK
    assert names(out) == ["0_01.png", "1_01.png", "2_01.png"]
    assert (out / "0_01.png").stat().st_mtime_ns == first, "what was done is not done again"


def test_a_damaged_file_stops_nobody_else(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.png", photograph(tmp_path / "good.png")
    bad.write_bytes(good.read_bytes()[:500])
    code = align([bad, good], tmp_path / "out", Faces(landmarks(200, 50, 50)), LENIENT)
    assert code is ExitCode.SOME_FAILED and names(tmp_path / "out") == ["good_01.png"]
    assert "bad.png" in report(tmp_path / "out")[str(bad)]["error"]["message"]
    assert align([bad], tmp_path / "out2", Faces(), LENIENT) is ExitCode.BAD_INPUT


def test_sixteen_bits_and_webp(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 65536, (300, 400, 3), np.uint16))
    demands = Demands(size=64, min_size=0, min_sharpness=0, ext="webp", quality=100)
    align([path], tmp_path / "out", Faces(landmarks(200, 50, 50)), demands)
    assert read_picture(tmp_path / "out/deep_01.webp").rgb.dtype == np.uint8


def test_a_photograph_is_aligned_again_only_when_something_changed(tmp_path: Path) -> None:
    paths = [photograph(tmp_path / f"in/{i}.png", seed=i) for i in range(2)]
    out, detector, log = tmp_path / "out", Faces(landmarks(200, 50, 50)), Log()

    def done_before(**options: Any) -> int:
        assert align(paths, out, detector, options.pop("demands", LENIENT), log, **options) is ExitCode.OK
        return int(json.loads((out / "align.json").read_text())["summary"]["done_before"])

    assert [done_before(), done_before(), done_before(resume=False)] == [0, 2, 0]
    assert any("2 were done already" in line for line in log.lines)
    (out / "1_01.png").unlink()
    assert done_before() == 1
    photograph(paths[0], seed=7)
    assert done_before() == 1
    assert done_before(demands=Demands(size=32, min_size=0, min_sharpness=0)) == 0


def test_a_report_of_version_0_1_is_read(tmp_path: Path) -> None:
    """It had its inputs in an object, by path, and no fingerprints."""
    paths, out = [photograph(tmp_path / f"in/{name}/x.png") for name in "ab"], tmp_path / "out"
    for stem in ("x_2", "x"):
        photograph(out / f"{stem}_01.png", seed=3)
        photograph(out / f"{stem}_02.png", seed=4)
    entries = {
        str(path): {
            "stem": stem,
            "status": "done",
            "faces": [{"status": "kept", "file": f"{stem}_0{i}.png"} for i in (1, 2)],
            "warnings": [],
        }
        for path, stem in zip(paths, ("x_2", "x"), strict=True)
    }
    (out / "align.json").write_text(json.dumps({"format": 1, "demands": {}, "inputs": entries}, indent=1))
    paths[1].unlink()
    assert align(paths, out, Faces(landmarks(200, 50, 50)), LENIENT) is ExitCode.SOME_FAILED
    assert names(out) == ["x_01.png", "x_02.png", "x_2_01.png"], "every name stays, the second face is gone"
    assert [face["file"] for face in report(out)[str(paths[1])]["faces"]] == ["x_01.png", "x_02.png"]


def test_a_strangers_report_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = photograph(tmp_path / "x.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/align.json").write_text("[1]")
    with pytest.raises(OutputError, match=r"align\.json"):
        align([path], tmp_path / "out", Faces(), LENIENT)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="file"):
        align([path], tmp_path / "file/out", Faces(), LENIENT)
    with pytest.raises(UsageError, match="is a file"):
        align([path], tmp_path / "file", Faces(), LENIENT)


def test_inputs_from_the_output_folder_and_impossible_demands(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another folder"):
        align([photograph(tmp_path / "out/deeper/x.png")], tmp_path / "out", Faces(), LENIENT)
    for wrong in ({"size": 1}, {"min_size": -1}, {"threshold": 2}, {"ext": "jpg"}, {"quality": 0}):
        with pytest.raises(UsageError):
            Demands(**wrong)


# --- the command, with a real photograph and the real detector


def test_the_command(astronaut: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deeper").mkdir(parents=True)
    cv2.imwrite(str(folder / "deeper" / "eileen.png"), astronaut[0:240, 100:340, ::-1])
    (folder / "notes.txt").write_text("no picture")
    assert main(["align", str(folder), str(out), "--size", "128"]) == 3, "no pictures without --recursive"
    assert "--recursive" in capsys.readouterr().err
    words = ["align", str(folder), str(out), "--size", "128", "--recursive", "--min-size"]
    assert main([*words, "400"]) == 0
    said = capsys.readouterr()
    assert (
        said.out.strip() == str(out / "align.json")
        and "1 too small face" in said.err
        and "no face was kept" in said.err
    )
    assert main([*words, "100"]) == 0
    assert "1 face kept" in capsys.readouterr().err
    (face,) = [f for entry in report(out).values() for f in entry["faces"]]
    assert face["file"] == "deeper/eileen_01.png" and 140 < face["side"] < 200
    crop, _ = read_face(out / face["file"], 128)
    eyes = crop[54:66, 42:86].mean(axis=2)
    cheeks = crop[76:84, 40:56].mean()
    assert eyes.min() < 0.35 < cheeks, "dark eyes where the template has them, bright cheeks below"
    assert main(["align", str(out), str(out), "--recursive"]) == 2
    assert "another folder" in capsys.readouterr().err
