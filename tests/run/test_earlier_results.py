"""What earlier runs made stays, but for what this one would call the same and does not make any more."""

# ruff: noqa: F811
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeformer.errors import ExitCode
from codeformer.images.picture import Picture, write_picture
from codeformer.options import OutputOptions
from codeformer.pipeline.engine import Engine
from codeformer.run.outputs import expected_names, is_stale
from codeformer.run.report import NAME, Report
from tests.pipeline.test_pictures import scene
from tests.run.log import Log
from tests.run.test_runner import engine, go, marks, tree  # noqa: F401


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.png"
    write_picture(Picture(scene((50, 50), (120, 60))), path)
    return path


def two_faces(tail: str, ending: str = ".png") -> list[str]:
    return [
        f"final_results/a{tail}{ending}",
        f"restored_faces/a_00{tail}.png",
        f"restored_faces/a_01{tail}.png",
    ]


def weighted(engine: Engine, w: float) -> Engine:
    return replace(engine, work=replace(engine.work, w=w))


def test_a_second_suffix_leaves_the_first_ones_results(engine: Engine, photo: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "o", Log()
    go(weighted(engine, 0.2), photo, out=out, suffix="w02")
    before = tree(out)
    go(weighted(engine, 0.9), photo, out=out, suffix="w09", log=log)
    after = tree(out)
    assert before.items() <= after.items()
    crops = ["cropped_faces/a_00.png", "cropped_faces/a_01.png"]
    assert list(after) == sorted([*two_faces("_w02"), *two_faces("_w09"), *crops])
    assert not any("removed" in line or "replaced" in line for line in log.lines)
    (entry,) = json.loads((out / NAME).read_text())["inputs"]
    assert {one["path"] for one in entry["kept"]} == set(two_faces("_w02"))


@pytest.mark.parametrize("between", [None, "other"])
def test_a_face_less_under_the_same_name_is_removed_and_said(
    engine: Engine,
    photo: Path,
    tmp_path: Path,
    between: str | None,
) -> None:
    """Also where a run with another suffix came between: what the first one made is still known."""
    out, log = tmp_path / "o", Log()
    go(engine, photo, out=out, compare=True)
    if between:
        go(engine, photo, out=out, suffix=between)
    write_picture(Picture(scene((50, 50))), photo)
    assert go(engine, photo, out=out, log=log) == ExitCode.OK
    names = ["cropped_faces/a_00.png", "final_results/a.png", "restored_faces/a_00.png"]
    if between:
        names += [*two_faces("_other"), "cropped_faces/a_01.png"]  # that crop belongs to a face that is kept
    assert list(tree(out)) == sorted(names)
    (line,) = [line for line in log.lines if "removed" in line]
    assert "compare/a.png" in line and "restored_faces/a_01.png" in line and "_other" not in line


def test_another_weight_under_the_same_name_replaces_and_says_so(engine: Engine, photo: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "o", Log()
    go(weighted(engine, 0.2), photo, out=out, log=log)
    assert not any("replaced" in line for line in log.lines)
    go(weighted(engine, 0.9), photo, out=out, log=log)
    assert any("earlier results of 1 picture" in line and "--suffix" in line for line in log.lines)
    log = Log()
    go(weighted(engine, 0.9), photo, out=out, log=log, resume=False)
    assert not any("replaced" in line for line in log.lines), "the same again"


def test_what_fails_now_keeps_what_was_there(engine: Engine, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    go(engine, photo, out=out)
    before = tree(out)
    data = photo.read_bytes()
    photo.write_bytes(b"not a picture")
    go(engine, photo, out=out)
    assert tree(out) == before
    photo.write_bytes(data)
    write_picture(Picture(scene((50, 50))), photo)
    go(engine, photo, out=out)
    assert list(tree(out)) == ["cropped_faces/a_00.png", "final_results/a.png", "restored_faces/a_00.png"]


def test_a_results_file_of_before_is_understood(tmp_path: Path) -> None:
    """It has no word of what is kept."""
    record: dict[str, Any] = {"input": "/a.png", "name": "a", "status": "restored", "fingerprint": "f"}
    record["outputs"] = [{"path": "final_results/a.png", "bytes": 1}]
    (tmp_path / NAME).write_text(json.dumps({"format": 1, "inputs": [record]}))
    with Report(tmp_path) as report:
        assert report.known["/a.png"].kept == ()
        report.finish({})


def test_names_with_weights_are_told_apart() -> None:
    options, weights = OutputOptions(suffix="x"), (0.3, 1.0)
    ours = ["final_results/a_w0.3_x.png", "final_results/a_w1_x.png", "restored_faces/a_00_w1_x.png", "compare/a_x.png"]
    theirs = ["final_results/a_x.png", "final_results/a_w0.5_x.png", "restored_faces/a_00_x.png", "compare/a_w1_x.png"]
    assert [name for name in ours + theirs if is_stale(name, "a", options, ".png", (), weights)] == ours
    assert set(expected_names("a", ".png", options, weights, aligned=False)) == {
        *("final_results/a_w0.3_x.png", "final_results/a_w1_x.png", "cropped_faces/a_NN.png"),
        *("restored_faces/a_NN_w0.3_x.png", "restored_faces/a_NN_w1_x.png"),
    }


@given(
    st.sampled_from(["", "x", "00", "a_01"]),
    st.sampled_from(["", "y", "x_x"]),
    st.sampled_from(["a", "sub/a", "a.b", "a(1)"]),
    st.sampled_from([".png", ".jpg"]),
)
def test_names_are_told_apart(suffix: str, other: str, stem: str, ending: str) -> None:
    ours, theirs = (OutputOptions(suffix=one or None) for one in (suffix, other))
    tails = [f"_{one}" if one else "" for one in (suffix, other)]
    names = [
        [f"{folder}/{stem}{tail}{ending}" for folder in ("final_results", "compare")]
        + [f"restored_faces/{stem}_{number:02d}{tail}.png" for number in (0, 12)]
        for tail in tails
    ]
    assert all(is_stale(name, stem, ours, ending, names[0]) for name in names[0])
    if suffix != other and not (suffix == "00" and not other):  # a_00: a face's number, or an aligned crop's suffix
        assert not any(is_stale(name, stem, ours, ending, names[1]) for name in names[1])
    crop = f"cropped_faces/{stem}_12.png"
    assert is_stale(crop, stem, ours, ending, names[0])
    if suffix != other:
        assert not is_stale(crop, stem, ours, ending, [*names[0], *names[1]]) or suffix == other
    assert not is_stale(f"elsewhere/{stem}{ending}", stem, theirs, ending, [])
    assert not is_stale(f"final_results/z{stem}{ending}", stem, theirs, ending, [])
