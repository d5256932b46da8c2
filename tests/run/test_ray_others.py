"""``upscale`` and ``align`` with ``--engine ray``: the same files and reports as one process, also after a kill."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codeformer.cli import main
from codeformer.images.picture import Picture, write_picture
from codeformer.options import RayOptions
from tests.run import ray_jobs
from tests.run.ray_runs import in_process, records, tree
from tests.train.test_align import Faces, landmarks, photograph
from tests.upsampling.samples import photo


@pytest.fixture(params=["here", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Workers in this process, without Ray; or Ray's, of which one is killed."""
    if request.param == "ray":
        monkeypatch.setattr("codeformer.run.upscale.open_worker", partial(ray_jobs.upscaler, tmp_path))
        monkeypatch.setattr("codeformer.train.align.open_worker", partial(ray_jobs.aligner, tmp_path))
        shared: RayOptions = request.getfixturevalue("shared")
        return ["--engine", "ray", "--ray_address", shared.address, "--workers", "2"]
    (tmp_path / "once.begun").write_text("nobody is killed")
    for module in ("codeformer.run.upscale", "codeformer.train.align"):
        monkeypatch.setattr(f"{module}.ray_outcomes", in_process)
    return ["--engine", "ray"]


def head(out: Path, name: str) -> dict[str, Any]:
    report = json.loads((out / name).read_text())
    return {key: value for key, value in report.items() if key not in ("inputs", "started", "finished", "summary")}


def test_enlarged_pictures_are_the_same_as_of_one_process(
    engine: list[str], tmp_path: Path, networks: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also the one that a killed worker had written already; somebody else's picture stays."""
    for number, name in enumerate(("a", "b", "once", "taken", "sub/a")):
        write_picture(Picture(photo(20 + number, 30)), tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    ray, alone = tmp_path / "ray", tmp_path / "alone"
    for out in (alone, ray):
        write_picture(Picture(photo(5, 5)), out / "taken.png")

    def words(out: Path, *more: str) -> list[str]:
        network = str(networks["compact"])
        return ["upscale", str(tmp_path / "in"), "--recursive", "-o", str(out), "--model", network, "-s", "2", *more]

    assert main(words(alone)) == 1
    assert main(words(ray, *engine, "--verbose")) == 1
    told = capsys.readouterr().err
    assert told.count("taken.png exists and is not a result of this input") == 2 and told.count("bad.jpg: is text") == 2
    assert told.count("x2, cpu") == 1
    assert (tmp_path / "once.begun").exists() and len(tree(ray)) == 5
    assert tree(ray) == tree(alone) and records(ray, "upscale.json") == records(alone, "upscale.json")
    assert head(ray, "upscale.json") == head(alone, "upscale.json")

    stamps = {path: path.stat().st_mtime_ns for path in ray.rglob("*.png")}
    assert main(words(ray, *engine)) == 1
    assert "4 were done already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert main(words(ray, *engine, "--ext", "webp")) == 1, "other settings are another result"
    assert main(words(alone, "--ext", "webp")) == 1
    assert records(ray, "upscale.json") == records(alone, "upscale.json")


@pytest.mark.parametrize("more", [[], ["--engine", "ray"]])
def test_a_network_that_is_not_there_is_said_before_any_work(
    tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(Picture(photo(20, 30)), tmp_path / "in.png")
    words = ["upscale", str(tmp_path / "in.png"), "-o", f"{tmp_path / 'out'}/", "--model", str(tmp_path / "none.pth")]
    assert main([*words, *more]) == 4
    assert "none.pth: no such file; an upsampler is realesrgan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_killed_driver_leaves_of_upscale_is_known_as_its_result(
    tmp_path: Path, networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        write_picture(Picture(photo(20, 30)), tmp_path / "in" / name)
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(networks["nearest"])]

    def interrupted(jobs: Any, *more: Any, **others: Any) -> Any:
        yield next(in_process(jobs, *more, **others))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("codeformer.run.upscale.ray_outcomes", interrupted)
        assert main([*command, "--engine", "ray"]) == 130
    said = {Path(one["input"]).name: one["status"] for one in records(tmp_path / "out", "upscale.json")}
    assert said == {"a.png": "enlarged", "b.png": "pending"} and (tmp_path / "out" / "b.png").exists()
    assert main(command) == 0


def test_aligned_faces_are_the_same_as_of_one_process(
    engine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that a killed worker had written already."""
    monkeypatch.setattr("codeformer.train.align._open_detector", lambda options: Faces(landmarks(150, 20, 20)))
    for number, name in enumerate(("a", "b", "once", "sub/a")):
        photograph(tmp_path / "in" / f"{name}.png", seed=number)
    photograph(tmp_path / "in" / "blurred.png", blur=6)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    ray, alone = tmp_path / "ray", tmp_path / "alone"

    def words(out: Path, *more: str) -> list[str]:
        lenient = ["--size", "64", "--min_size", "0", "--min_sharpness", "20"]
        return ["align", str(tmp_path / "in"), str(out), "--recursive", *lenient, *more]

    assert main(words(alone)) == 1
    assert main(words(ray, *engine)) == 1
    assert capsys.readouterr().err.count("4 faces kept; left out: 0 too small faces, 1 too blurred face") == 2
    assert (tmp_path / "once.begun").exists() and len(tree(ray)) == 4
    assert tree(ray) == tree(alone) and records(ray, "align.json") == records(alone, "align.json")
    assert head(ray, "align.json") == head(alone, "align.json")
    photograph(tmp_path / "in" / "a.png", seed=9)
    assert main(words(ray, *engine)) == main(words(alone)) == 1
    assert capsys.readouterr().err.count("4 were done already") == 2
    assert tree(ray) == tree(alone) and records(ray, "align.json") == records(alone, "align.json")
