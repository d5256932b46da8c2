"""What a result's format cannot hold of a picture stands in the report of that picture, and is said once."""

# ruff: noqa: F811
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codeformer.cli import main
from codeformer.errors import ExitCode
from codeformer.images.picture import Picture, to_uint16, write_picture
from codeformer.pipeline.engine import Engine
from codeformer.run.report import NAME
from tests.pipeline.test_pictures import scene
from tests.run.log import Log
from tests.run.test_runner import engine, go, marks  # noqa: F401
from tests.upsampling.samples import photo


def test_a_restored_pictures_losses(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rgb = to_uint16(scene((50, 50)))
    alpha = np.full(rgb.shape[:2], 40000, np.uint16)
    for name, picture in (
        ("a.png", Picture(rgb, alpha, text=(("Title", "us"),))),
        ("b.png", Picture(rgb // 257 * 257)),
    ):
        write_picture(picture, tmp_path / "in" / name)
    log = Log()
    assert go(engine, tmp_path / "in", out=tmp_path / "o", ext="jpg", log=log) == ExitCode.OK, log.errors
    by_name = {one["name"]: one["notes"] for one in json.loads((tmp_path / "o" / NAME).read_text())["inputs"]}
    line = (
        "final_results/a.jpg: JPEG cannot hold transparency (white instead) and 16 bits a channel (8 instead); PNG can"
    )
    assert by_name["a"] == [line]
    assert by_name["b"] == ["final_results/b.jpg: JPEG cannot hold 16 bits a channel (8 instead); PNG can"]
    assert [said for said in log.lines if line in said] == [f"{tmp_path / 'in' / 'a.png'}: {line}"]
    assert not [one for one in caplog.records if "cannot hold" in one.getMessage()], "not by the log as well"


def test_the_same_loss_of_several_files_is_one_line(engine: Engine, tmp_path: Path) -> None:
    rgb = scene((50, 50))
    write_picture(Picture(rgb, np.full(rgb.shape[:2], 99, np.uint8)), tmp_path / "a.png")
    go(engine, tmp_path / "a.png", out=tmp_path / "o", ext="jpg", compare=True)
    (entry,) = json.loads((tmp_path / "o" / NAME).read_text())["inputs"]
    lost = "JPEG cannot hold transparency (white instead); PNG can"
    assert entry["notes"] == [f"compare/a.jpg, final_results/a.jpg: {lost}"]


def test_an_enlarged_pictures_losses(
    tmp_path: Path, networks: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(Picture(photo(16, 18, np.uint16)), tmp_path / "a.png")
    command = ["upscale", "-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "o"), "-s", "3", "--ext", "webp"]
    assert main([*command, "--model", str(networks["nearest"])]) == ExitCode.OK
    (entry,) = json.loads((tmp_path / "o" / "upscale.json").read_text())["inputs"]
    assert entry["notes"] == ["a.webp: WEBP cannot hold 16 bits a channel (8 instead); PNG can"]
    assert capsys.readouterr().err.count("cannot hold") == 1
