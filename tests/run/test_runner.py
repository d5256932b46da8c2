"""Runs over files and folders: names, resume, report, and what happens when something fails."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.errors import ExitCode, InputError, OutputError, RestorationError, UsageError
from codeformer.faces.find import Face
from codeformer.images.picture import SUFFIXES, Picture, read_picture, write_noting, write_picture
from codeformer.models.file import open_model
from codeformer.models.load import load_network
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, OutputOptions, RunOptions
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.restorer import FaceRestorer
from codeformer.run.inputs import Input, assign_names, find_inputs, output_root
from codeformer.run.pictures import run_pictures
from codeformer.run.record import describe, fingerprint_of, stamp_of
from codeformer.run.report import JOURNAL, NAME, Report
from codeformer.tasks.inpaint import Inpaint
from codeformer.tasks.table import TASKS
from tests.pipeline.test_pictures import Marks, face_at, scene
from tests.run.log import Log

# --- names -------------------------------------------------------------------------------------------------------

stems = st.text(alphabet="aAbB_2é́ß.", min_size=1, max_size=6).filter(lambda s: s.strip(".") == s)
files = st.lists(st.tuples(st.sampled_from(["", "sub", "Sub"]), stems, st.sampled_from([".png", ".JPG"])), max_size=12)


@given(files, files)
@settings(deadline=None)
def test_no_two_inputs_ever_share_a_name(first: list[tuple[str, str, str]], then: list[tuple[str, str, str]]) -> None:
    def inputs(parts: list[tuple[str, str, str]], top: str) -> list[Input]:
        return [Input(Path(top) / f / (s + e), PurePosixPath(f)) for f, s, e in dict.fromkeys(parts)]

    before = assign_names(inputs(first, "/one"), {})
    after = assign_names([*inputs(then, "/two"), *inputs(first, "/one")], {p.key: p.stem for p in before})
    names = [unicodedata.normalize("NFC", p.stem).casefold() for p in after]
    assert len(set(names)) == len(names)
    kept = {p.key: p.stem for p in after}
    assert all(kept[p.key] == p.stem for p in before)  # an input keeps the name that it had


def test_a_name_of_any_length_stays_legal() -> None:
    (one,) = assign_names([Input(Path("/x") / ("ü" * 127 + ".png"))], {})
    assert len(os.fsencode(one.stem)) < 200
    other = assign_names([Input(Path("/x") / ("ü" * 126 + "u.png"))], {})[0]
    assert other.stem != one.stem


@pytest.mark.parametrize(
    ("inputs", "task", "w", "name"),
    [
        (["whole_imgs/"], "restore", 0.7, "whole_imgs_0.7"),
        (["whole_imgs/a.b.png"], "restore", 1, "a.b_1.0"),
        (["whole_imgs/a.png", "whole_imgs/b.png"], "restore", 0.5, "whole_imgs_0.5"),
        (["whole_imgs"], "inpaint", 1.0, "whole_imgs_inpaint_1.0"),
    ],
)
def test_the_output_folder_is_named_as_the_original_does(
    inputs: list[str], task: str, w: float, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("whole_imgs").mkdir()
    assert output_root([Path(p) for p in inputs], TASKS[task], [w], None) == Path("results") / name


def test_the_output_folder_of_several_weights_names_them_all() -> None:
    assert output_root([Path("a.png")], TASKS["restore"], [0.3, 1], None) == Path("results/a_0.3_1.0")


def test_what_a_folder_holds(tmp_path: Path) -> None:
    for name in (
        "b.png",
        "a.JPG",
        "notes.txt",
        ".hidden.png",
        "sub/c.webp",
        "results/final_results/b.png",
        "old/final_results/o.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    (tmp_path / "old" / NAME).write_text("{}")

    def names(recursive: bool, *paths: Path) -> list[str]:
        found = find_inputs(paths or [tmp_path], recursive=recursive, suffixes=SUFFIXES, root=tmp_path / "results")
        assert recursive or paths or [p.name for p in found.ignored] == ["notes.txt"]
        return [one.path.relative_to(tmp_path).as_posix() for one in found.inputs]

    assert names(False) == ["a.JPG", "b.png"]
    assert names(True) == ["a.JPG", "b.png", "sub/c.webp"]  # not the results of an earlier run
    assert names(False, tmp_path / "b.png", tmp_path, tmp_path / "sub" / ".." / "b.png") == ["b.png", "a.JPG"]
    assert names(False, tmp_path / "gone.png", tmp_path) == ["gone.png", "a.JPG", "b.png"]  # reading it will name it
    with pytest.raises(InputError, match="no such file"):
        names(False, tmp_path / "gone.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures here"):
        names(False, tmp_path / "empty")


def test_what_runs_write_beside_results_is_no_stray_file(tmp_path: Path) -> None:
    for name in ("a.png", "b.txt", NAME, JOURNAL, f"{NAME}.damaged-2", "upscale.json"):
        (tmp_path / name).write_bytes(b"{}")
    found = find_inputs([tmp_path], recursive=True, suffixes=SUFFIXES, root=tmp_path)
    assert [one.path.name for one in found.inputs] == ["a.png"]
    assert [path.name for path in found.ignored] == ["b.txt"]


def test_what_cannot_be_looked_into_is_named_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "closed/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_inputs([tmp_path], recursive=True, suffixes=SUFFIXES, root=tmp_path / "results")
    assert [one.path.name for one in found.inputs] == ["a.png", "closed", "loop.png"]
    for one in found.inputs:
        with pytest.raises(InputError, match=one.path.name):
            read_picture(one.path)
    with pytest.raises(InputError, match=r"closed: cannot be listed"):
        find_inputs([tmp_path / "closed"], recursive=True, suffixes=SUFFIXES, root=tmp_path / "results")


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    picture = tmp_path / "final_results" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"x")
    with pytest.raises(UsageError, match="overwrite the input"):
        find_inputs([picture], recursive=False, suffixes=SUFFIXES, root=tmp_path)


# --- the report --------------------------------------------------------------------------------------------------


def record(name: str, **more: Any) -> dict[str, Any]:
    return {"input": name, "name": name, "status": "restored", "fingerprint": "f", "outputs": [], **more}


def test_a_torn_journal_loses_only_its_torn_line(tmp_path: Path) -> None:
    with Report(tmp_path) as report:
        report.append(record("a"))
        report.append(record("b"))
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-5])
    with Report(tmp_path) as report:
        assert list(report.known) == ["a"]
        report.append(record("c"))
        report.finish({"state": "finished"})
    assert not journal.exists()
    whole = json.loads((tmp_path / NAME).read_text())
    assert whole["state"] == "finished" and [r["input"] for r in whole["inputs"]] == ["a", "c"]


def test_the_last_record_of_an_input_counts_also_after_reformatting(tmp_path: Path) -> None:
    for fingerprint in ("old", "new"):
        with Report(tmp_path) as report:
            report.append(record("a", fingerprint=fingerprint))
            report.append(record("b"))
            report.finish({})
    text = json.loads((tmp_path / NAME).read_text())
    assert [r["fingerprint"] for r in text["inputs"]] == ["new", "f"]
    (tmp_path / NAME).write_text(json.dumps(text, indent=4))
    with Report(tmp_path) as report:
        assert report.known["a"].fingerprint == "new"
    for name in (f"{NAME}.damaged", f"{NAME}.damaged-2"):
        (tmp_path / NAME).write_text("{")
        with Report(tmp_path) as report:
            assert report.damaged == tmp_path / name and not report.known
            report.finish({})
        assert (tmp_path / name).read_text() == "{", "what was in it may be wanted"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (NAME, '{"accuracy": 0.9}'),
        (NAME, "[1, 2]"),
        (NAME, '{\n "inputs": [\n{"input": "x", "output": "y"}\n]}'),
        (JOURNAL, '{"input": "what?", "output": "that"}\n'),
        (JOURNAL, '{"loss": 1.0}\n{"loss": 0.5}\n'),
    ],
)
def test_a_strangers_file_of_the_same_name_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(OutputError, match=f"{name} that is not codeformer's"):
        Report(tmp_path)
    assert (tmp_path / name).read_text() == text and len(list(tmp_path.iterdir())) == 1


def test_a_journal_that_a_power_cut_tore_is_no_strangers(tmp_path: Path) -> None:
    for torn in (b"\0" * 100, b'\n{"inp', b'\n{"input":"a","na\0\0\0\0'):
        (tmp_path / JOURNAL).write_bytes(torn)
        with Report(tmp_path) as report:
            assert not report.known
            report.append(record("b"))
        with Report(tmp_path) as report:
            assert list(report.known) == ["b"]
        (tmp_path / JOURNAL).unlink()


def test_a_folder_that_cannot_be_reached_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", closed)
    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(OutputError, match="Permission denied"):
        Report(tmp_path / "closed" / "out")


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Report(tmp_path) as report:
        report.append(record("a"))
        report.finish({})
    assert json.loads((tmp_path / NAME).read_text())["inputs"]


def test_two_runs_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    with Report(tmp_path / "nothing done"):
        pass
    assert not (tmp_path / "nothing done").exists()
    with Report(tmp_path), pytest.raises(OutputError, match="another codeformer"):
        Report(tmp_path)
    Report(tmp_path).close()


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(small_model_path: Path) -> Engine:
    restorer = FaceRestorer(load_network(small_model_path), device="cpu", precision="fp32", batch_size=1)  # type: ignore[arg-type]
    work = FaceWork(faces=FaceOptions(parsing="none"), canvas=CanvasOptions(1.0))
    return Engine(
        TASKS["restore"], work, replace(open_model(small_model_path), metadata={"adain": "false"}), restorer, Marks()
    )


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(rgb: np.ndarray, detector: object, **options: object) -> list[Face]:
        ys, xs = np.nonzero((rgb == (255, 0, 0)).all(axis=2))
        return [face_at(float(x), float(y)) for x, y in sorted(zip(xs, ys, strict=True))]

    monkeypatch.setattr("codeformer.pipeline.crops.find_faces", find)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures with one, two and no faces."""
    for name, faces in {"a.png": [(50, 50)], "b.png": [(50, 50), (120, 60)], "c.webp": []}.items():
        write_picture(Picture(scene(*faces, seed=len(faces))), tmp_path / "in" / name, quality=100)
    return tmp_path / "in"


def go(engine: Engine, *inputs: Path, out: Path, log: Log | None = None, **output: Any) -> ExitCode:
    options = RunOptions(inputs, engine.work, OutputOptions(output_path=out, **output), recursive=True)
    return run_pictures(options, engine.task, log or Log(), engine)


def tree(root: Path) -> dict[str, bytes]:
    paths = (p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith("results.json"))
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def test_the_files_have_the_original_names(engine: Engine, folder: Path, tmp_path: Path) -> None:
    log = Log()
    assert go(engine, folder, out=tmp_path / "o", compare=True, suffix="x", log=log) == ExitCode.OK
    assert list(tree(tmp_path / "o")) == [
        *("compare/a_x.png", "compare/b_x.png", "compare/c_x.png"),
        *("cropped_faces/a_00.png", "cropped_faces/b_00.png", "cropped_faces/b_01.png"),
        *("final_results/a_x.png", "final_results/b_x.png", "final_results/c_x.png"),
        *("restored_faces/a_00_x.png", "restored_faces/b_00_x.png", "restored_faces/b_01_x.png"),
    ]
    assert read_picture(tmp_path / "o/compare/a_x.png").rgb.shape == (160, 400, 3)
    assert any("c.webp: no face found" in line for line in log.lines)
    report = json.loads((tmp_path / "o" / NAME).read_text())
    assert report["summary"] | {"seconds": 0} == {
        "inputs": 3, "done": 2, "faces": 3, "without_face": 1, "done_before": 0, "failed": 0, "left": 0, "seconds": 0,
    }  # fmt: skip
    b = report["inputs"][1]
    assert (b["name"], b["status"], b["size"]) == ("b", "restored", [200, 160])
    assert [face["number"] for face in b["faces"]] == [1, 2]
    assert b["faces"][1]["landmarks"][0] == [112.0, 60.0]
    assert all((tmp_path / "o" / out["path"]).stat().st_size == out["bytes"] for out in b["outputs"])


def test_several_weights_are_several_results(engine: Engine, folder: Path, tmp_path: Path) -> None:
    both = replace(engine, work=replace(engine.work, w=0.2, more_w=(0.9,)))
    assert go(both, folder, out=tmp_path / "o", compare=True, suffix="x") == ExitCode.OK
    files = tree(tmp_path / "o")
    for w in (0.2, 0.9):
        alone = replace(engine, work=replace(engine.work, w=w))
        assert go(alone, folder, out=tmp_path / f"{w}", suffix="x") == ExitCode.OK
        for name, data in tree(tmp_path / f"{w}").items():
            named = name if name.startswith("cropped") else name.replace("_x.png", f"_w{w}_x.png")
            assert files[named] == data, named
    assert [name for name in files if name.startswith("compare")] == [
        "compare/a_x.png",
        "compare/b_x.png",
        "compare/c_x.png",
    ]
    shown = read_picture(tmp_path / "o/compare/b_x.png").rgb
    pictures = [read_picture(tmp_path / f"o/final_results/b_w{w}_x.png").rgb for w in (0.2, 0.9)]
    np.testing.assert_array_equal(shown, np.hstack([read_picture(folder / "b.png").rgb, *pictures]))
    report = json.loads((tmp_path / "o" / NAME).read_text())
    assert report["settings"]["w"] == [0.2, 0.9]
    (record,) = [one for one in report["inputs"] if one["name"] == "a"]
    assert {one["path"]: one.get("w") for one in record["outputs"]} == {
        "cropped_faces/a_00.png": None,
        "restored_faces/a_00_w0.2_x.png": 0.2,
        "restored_faces/a_00_w0.9_x.png": 0.9,
        "compare/a_x.png": None,
        "final_results/a_w0.2_x.png": 0.2,
        "final_results/a_w0.9_x.png": 0.9,
    }


def test_several_weights_are_resumed_as_one(engine: Engine, folder: Path, tmp_path: Path) -> None:
    both = replace(engine, work=replace(engine.work, w=0.2, more_w=(0.9,)))

    def summary(engine: Engine) -> tuple[int, int]:
        go(engine, folder, out=tmp_path / "o")
        counts = json.loads((tmp_path / "o" / NAME).read_text())["summary"]
        return counts["done"] + counts["without_face"], counts["done_before"]

    assert summary(both) == (3, 0)
    assert summary(both) == (0, 3)
    (tmp_path / "o/final_results/a_w0.9.png").unlink()
    assert summary(both) == (1, 2), "one of its pictures is gone"
    before = tree(tmp_path / "o")
    alone = replace(engine, work=replace(engine.work, w=0.2))
    assert summary(alone) == (3, 0)
    assert before.items() <= tree(tmp_path / "o").items(), "results under other names stay"


def test_endings_and_only_final(engine: Engine, folder: Path, tmp_path: Path) -> None:
    go(engine, folder, out=tmp_path / "o", only_final=True, ext="same")
    assert list(tree(tmp_path / "o")) == ["final_results/a.png", "final_results/b.png", "final_results/c.webp"]
    go(engine, folder, out=tmp_path / "o", only_final=True, ext="jpg", no_face="skip")
    first = ["final_results/a.png", "final_results/b.png", "final_results/c.webp"]
    assert list(tree(tmp_path / "o")) == sorted([*first, "final_results/a.jpg", "final_results/b.jpg"])  # they stay


def test_aligned_crops_have_one_result_each(engine: Engine, tmp_path: Path) -> None:
    work = replace(engine.work, faces=replace(engine.work.faces, aligned=True))
    write_picture(Picture(scene(size=(64, 64))), tmp_path / "in" / "face.png")
    assert go(replace(engine, work=work), tmp_path / "in", out=tmp_path / "o", suffix="r") == ExitCode.OK
    assert list(tree(tmp_path / "o")) == ["restored_faces/face_r.png"]
    assert read_picture(tmp_path / "o/restored_faces/face_r.png").rgb.shape == (64, 64, 3)
    assert json.loads((tmp_path / "o" / NAME).read_text())["inputs"][0]["faces"] == [
        {"number": 1, "chosen": True, "box": None, "score": None, "distance": None, "landmarks": None}
    ]


def test_what_is_done_is_not_done_again(engine: Engine, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    go(engine, folder, out=out)
    first = tree(out)

    def done(**output: Any) -> int:
        go(engine, folder, out=out, **output)
        return int(json.loads((out / NAME).read_text())["summary"]["done_before"])

    assert done() == 3
    assert done(resume=False) == 0
    (out / "restored_faces/b_01.png").unlink()
    assert done() == 2
    (out / "final_results/a.png").write_bytes(b"cut")
    assert done() == 2
    assert tree(out) == first
    write_picture(Picture(scene((70, 50))), folder / "a.png")  # other bytes
    assert done() == 2
    assert done(suffix="n") == 0  # other settings
    assert done(suffix="n") == 3
    other = replace(engine, model=replace(engine.model, sha256="other"))
    go(other, folder, out=out, suffix="n")
    assert json.loads((out / NAME).read_text())["summary"]["done_before"] == 0


def test_networks_that_arrive_later_make_other_results(monkeypatch: pytest.MonkeyPatch) -> None:
    here: dict[str, Path] = {}
    monkeypatch.setattr("codeformer.hub.store.find", lambda file, folder=None, verify=True: here.get(file))
    monkeypatch.setattr("codeformer.upsampling.ncnn.find_packaged", lambda: Path("x4.param"))
    work = FaceWork(canvas=CanvasOptions(bg_upsampler="realesrgan"))

    def networks(work: FaceWork) -> object:
        return describe(TASKS["restore"], work, OutputOptions()).get("networks")

    assert networks(work) == {"upsampling": "x4.param"}
    here.update({name: Path(name) for name in ("parsing_bisenet.pth", "RealESRGAN_x2plus.pth")})
    assert networks(work) == {"parsing": "bisenet", "upsampling": "RealESRGAN_x2plus.pth"}
    assert networks(replace(work, faces=FaceOptions(aligned=True))) is None
    assert networks(FaceWork(faces=FaceOptions(parsing="none"))) is None


def test_another_strength_is_another_result() -> None:
    one, other = (describe(TASKS["restore"], FaceWork(strength=s), OutputOptions()) for s in (1.0, 0.5))
    assert stamp_of(one, "x") != stamp_of(other, "x")


def test_another_level_of_png_is_the_same_result() -> None:
    one, other = (describe(TASKS["restore"], FaceWork(), OutputOptions(png_level=level)) for level in (2, 9))
    assert one == other


def test_pictures_of_the_same_name_from_different_places(engine: Engine, folder: Path, tmp_path: Path) -> None:
    for name in ("more/a.png", "more/A.jpg", "more/deep/a.png"):
        write_picture(Picture(scene((60, 50), seed=len(name))), tmp_path / name)
    out = tmp_path / "o"
    go(engine, folder, out=out, only_final=True)
    before = tree(out)
    go(engine, tmp_path / "more", out=out, only_final=True)
    after = tree(out)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3
    assert "final_results/deep/a.png" in after


def test_the_same_name_in_two_given_folders(engine: Engine, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_picture(Picture(scene((60, 50), seed=len(folder))), tmp_path / folder / "x.png")
    go(engine, tmp_path / "one", tmp_path / "two", out=tmp_path / "o", only_final=True)
    assert list(tree(tmp_path / "o")) == ["final_results/x.png", "final_results/x_2.png"]


@pytest.mark.parametrize(
    ("no_face", "code", "files"), [("copy", 0, 1), ("skip", 0, 0), ("error", ExitCode.BAD_INPUT, 0)]
)
def test_a_picture_without_a_face(
    engine: Engine, folder: Path, tmp_path: Path, no_face: str, code: int, files: int
) -> None:
    log = Log()
    assert go(engine, folder / "c.webp", out=tmp_path / "o", no_face=no_face, log=log) == code
    assert len(tree(tmp_path / "o")) == files
    assert any("c.webp" in line for line in log.lines + log.errors)


def test_some_failed_all_failed(engine: Engine, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"not a picture")
    log = Log()
    assert go(engine, folder, out=tmp_path / "o", log=log) == ExitCode.SOME_FAILED
    assert [line for line in log.errors if "bad.png" in line]
    report = json.loads((tmp_path / "o" / NAME).read_text())
    (bad,) = [r for r in report["inputs"] if r["status"] == "failed"]
    assert bad["error"]["exit_code"] == 3 and "bad.png" in bad["error"]["message"] and bad["outputs"] == []
    gone = folder / "gone.png"
    assert go(engine, folder / "bad.png", gone, out=tmp_path / "p") == ExitCode.BAD_INPUT


def test_a_face_that_cannot_be_restored_leaves_no_file(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(crops: object, **options: object) -> list[np.ndarray]:
        raise RestorationError("not finite")

    monkeypatch.setattr(engine.restorer, "restore", broken)
    assert go(engine, folder / "a.png", out=tmp_path / "o") == ExitCode.SOME_FAILED
    assert not tree(tmp_path / "o")


def test_a_full_disk_stops_the_run_and_the_next_one_goes_on(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o"
    with monkeypatch.context() as patch:

        def full(picture: Picture, path: Path, **options: object) -> str:
            if path.name.startswith("b_"):
                try:
                    raise OSError(errno.ENOSPC, "No space left on device")
                except OSError as error:
                    raise OutputError(f"{path}: cannot be written") from error
            return write_noting(picture, path)

        patch.setattr("codeformer.run.outputs.write_noting", full)
        with pytest.raises(OutputError, match="cannot be written"):
            go(engine, folder, out=out)
        assert json.loads((out / NAME).read_text())["state"] == "failed"
    assert go(engine, folder, out=out) == ExitCode.OK
    go(engine, folder, out=tmp_path / "p")
    assert tree(out) == tree(tmp_path / "p")


def test_a_format_that_cannot_hold_one_picture_fails_that_one(engine: Engine, folder: Path, tmp_path: Path) -> None:
    write_picture(Picture(np.zeros((2, 17000, 3), np.uint8)), folder / "wide.png")
    log = Log()
    assert go(engine, folder, out=tmp_path / "o", ext="webp", log=log) == ExitCode.SOME_FAILED
    assert ["wide" in line for line in log.errors] == [True]


@pytest.mark.parametrize("failure", [MemoryError(), OSError(errno.EINVAL, "Invalid argument")])
def test_one_picture_that_cannot_be_written_fails_alone(
    failure: Exception, engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(picture: Picture, path: Path, **options: object) -> str:
        if path.name.startswith("b_"):
            if isinstance(failure, MemoryError):
                raise failure
            raise OutputError(f"{path}: cannot be written") from failure
        return write_noting(picture, path)

    monkeypatch.setattr("codeformer.run.outputs.write_noting", refuse)
    log = Log()
    assert go(engine, folder, out=tmp_path / "o", log=log) == ExitCode.SOME_FAILED
    assert len(log.errors) == 1 and "b.png" in log.errors[0]
    report = json.loads((tmp_path / "o" / NAME).read_text())
    assert (report["state"], report["summary"]["done"], report["summary"]["failed"]) == ("finished", 1, 1)


def test_ctrl_c_reports_what_is_done_and_what_is_left(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(8):
        write_picture(Picture(scene((50, 50), seed=i)), folder / f"d{i}.png")
    calls = iter(range(3))
    restore = engine.restorer.restore

    def interrupted(crops: list[np.ndarray], **options: Any) -> list[np.ndarray]:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return restore(crops, **options)

    out, log = tmp_path / "o", Log()
    with monkeypatch.context() as patch:
        patch.setattr(engine.restorer, "restore", interrupted)
        assert go(engine, folder, out=out, log=log) == ExitCode.INTERRUPTED
    report = json.loads((out / NAME).read_text())
    done, left = report["summary"]["done"], report["summary"]["left"]
    assert report["state"] == "interrupted" and done >= 2 and left >= 1 and len(report["inputs"]) == 11 - left
    assert f"{left} of 11 left" in log.errors[-1]
    assert go(engine, folder, out=out) == ExitCode.OK
    go(engine, folder, out=tmp_path / "p")
    assert tree(out) == tree(tmp_path / "p")


def test_what_would_be_skipped_next_time_has_its_mask(tmp_path: Path) -> None:
    picture, mask = tmp_path / "a.png", tmp_path / "masks" / "a.png"
    picture.write_bytes(b"a")
    mask.parent.mkdir()
    task = Inpaint(mask=mask.parent)
    assert fingerprint_of(picture, task, "s") == ("", None), "no mask yet: never taken for one that needs none"
    found = []
    for content in (b"one", b"two"):
        mask.write_bytes(content)
        found.append(fingerprint_of(picture, task, "s"))
    assert found[0][1] == mask and found[0][0] != found[1][0]
    assert fingerprint_of(picture, Inpaint(), "s")[0] not in ("", found[0][0], found[1][0])
    assert fingerprint_of(tmp_path / "none.png", task, "s") == ("", None)
