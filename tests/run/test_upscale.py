"""``codeformer upscale`` over files and folders: results, report, resume, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.cli import main
from codeformer.errors import ExitCode
from codeformer.images.picture import Picture, read_picture, write_picture
from tests.upsampling.samples import photo


def test_upscale_a_folder_with_a_bad_file(
    tmp_path: Path, networks: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    write_picture(Picture(photo(20, 30)), inputs / "a.png")
    deep = photo(16, 18, np.uint16)
    write_picture(Picture(deep, alpha=deep[..., 1].copy()), inputs / "deep.png")
    (inputs / "bad.jpg").write_bytes(b"no picture")
    command = ["upscale", "-i", str(inputs), "-o", str(out), "-s", "3", "--model", str(networks["nearest"])]

    assert main(command) == ExitCode.SOME_FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "bad.jpg" in captured.err
    assert "2 of 3 enlarged, 1 failed" in captured.err
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "deep.png", "upscale.json"]
    report = json.loads((out / "upscale.json").read_text())
    said = {Path(one["input"]).name: (one["status"], bool(one["error"])) for one in report["inputs"]}
    assert said == {"a.png": ("enlarged", False), "bad.jpg": ("failed", True), "deep.png": ("enlarged", False)}
    assert report["task"] == "upscale" and report["summary"]["failed"] == 1
    assert read_picture(out / "a.png").rgb.shape == (60, 90, 3)
    enlarged = read_picture(out / "deep.png")
    assert enlarged.rgb.dtype == np.uint16
    assert enlarged.alpha is not None
    assert enlarged.alpha.shape == (48, 54)
    assert len(np.unique(enlarged.rgb)) > 256

    stamp = (out / "a.png").stat().st_mtime_ns
    assert main(command) == ExitCode.SOME_FAILED
    assert "were done already" in capsys.readouterr().err
    assert (out / "a.png").stat().st_mtime_ns == stamp
    assert main([*command, "--overwrite"]) == ExitCode.SOME_FAILED
    assert (out / "a.png").stat().st_mtime_ns != stamp


def test_upscale_goes_on_within_its_own_input_folder(
    tmp_path: Path, networks: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "sub/b.png"):
        write_picture(Picture(photo(20, 30)), tmp_path / name)
    command = ["upscale", "-i", str(tmp_path), "--recursive", "-s", "2", "--model", str(networks["nearest"])]
    for out, more in ((tmp_path / "large", []), (tmp_path, ["--ext", "webp"])):
        here = [*command, "-o", str(out), *more]
        assert main([*here, "--overwrite"]) == ExitCode.OK
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        assert main(here) == ExitCode.OK
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before, "its results are not inputs"
        assert "were done already" in capsys.readouterr().err
        for path in (tmp_path / "large").rglob("*.png"):
            path.unlink()


def test_upscale_tells_its_results_by_what_they_were_made_of(
    tmp_path: Path, networks: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = tmp_path / "out", ["--model", str(networks["nearest"])]
    for name, height in (("one/p.png", 20), ("two/p.png", 24)):
        write_picture(Picture(photo(height, 30)), tmp_path / name)
    for folder in ("one", "two"):
        command = ["upscale", "-i", str(tmp_path / folder), "-o", str(out), *model]
        assert main([*command, "-s", "2"]) == ExitCode.OK
    assert {p.name: read_picture(p).rgb.shape[0] for p in out.glob("*.png")} == {"p.png": 40, "p_2.png": 48}
    capsys.readouterr()
    assert main([*command, "-s", "3"]) == ExitCode.OK and "1 of 1 enlarged" in capsys.readouterr().err
    assert read_picture(out / "p_2.png").rgb.shape[0] == 72, "another factor is another result"
    assert read_picture(out / "p.png").rgb.shape[0] == 40
    for ext in ("webp", "png"):
        assert main([*command, "-s", "3", "--ext", ext]) == ExitCode.OK
    assert {p.name for p in out.iterdir()} == {"p.png", "p_2.png", "p_2.webp", "upscale.json"}, "both are its results"
    assert main([*command, "-s", "3", "--ext", "webp"]) == ExitCode.OK
    write_picture(Picture(photo(10, 30)), tmp_path / "three" / "q.png")
    own = photo(5, 5)
    write_picture(Picture(own), out / "q.png")
    command = ["upscale", "-i", str(tmp_path / "three"), "-o", str(out), *model]
    assert main(command) == ExitCode.USAGE and "exists and is not a result of this input" in capsys.readouterr().err
    assert np.array_equal(read_picture(out / "q.png").rgb, own), "somebody else's picture stays"
    assert main([*command, "--overwrite"]) == ExitCode.OK


def test_what_a_kill_leaves_of_upscale_is_known_as_its_result(
    tmp_path: Path, networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        write_picture(Picture(photo(20, 30)), tmp_path / "in" / name)
    command = ["upscale", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(networks["nearest"])]

    def stopped(picture: Picture, path: Path, **options: Any) -> None:
        write_picture(picture, path, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("codeformer.run.upscale.write_noting", stopped)
        assert main(command) == ExitCode.INTERRUPTED
    assert (tmp_path / "out" / "a.png").exists()
    assert main(command) == ExitCode.OK
    assert read_picture(tmp_path / "out" / "b.png").rgb.shape == (80, 120, 3)


def test_upscale_never_replaces_its_input(tmp_path: Path, networks: dict[str, Path]) -> None:
    write_picture(Picture(photo(20, 30)), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    command = ["upscale", "-i", str(tmp_path / "a.png"), "-o", str(tmp_path), "--model", str(networks["nearest"])]
    assert main([*command, "--overwrite"]) == ExitCode.USAGE
    assert (tmp_path / "a.png").read_bytes() == before
    assert main([*command, "--ext", "webp"]) == ExitCode.OK
    assert read_picture(tmp_path / "a.webp").rgb.shape == (80, 120, 3)


def test_upscale_says_what_is_wrong_with_its_exit_code(tmp_path: Path, networks: dict[str, Path]) -> None:
    picture, out = tmp_path / "a.png", str(tmp_path / "out")
    write_picture(Picture(photo(20, 30)), picture)
    model = ["--model", str(networks["nearest"])]
    assert main(["upscale", "-i", str(tmp_path / "none.png"), "-o", out, *model]) == ExitCode.BAD_INPUT
    assert main(["upscale", "-i", str(picture), "-o", out, "-s", "0", *model]) == ExitCode.USAGE
    assert main(["upscale", "-i", str(picture), "-o", out, "--tile", "7", *model]) == ExitCode.USAGE
    assert main(["upscale", "-i", str(picture), "-o", str(picture), *model]) == ExitCode.USAGE
    assert main(["upscale", "-i", str(picture), "-o", out, "--model", str(picture)]) == ExitCode.WEIGHTS
    (tmp_path / "blocked").write_text("")
    blocked = str(tmp_path / "blocked" / "out")
    assert main(["upscale", "-i", str(picture), "-o", blocked, *model]) == ExitCode.OUTPUT
