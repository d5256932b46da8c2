"""Training as its documentation promises: offline with `tiny`, a bar that tells the truth, a limit from the start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from codeformer.cli import main
from codeformer.cli import train as command
from codeformer.train import loop, perceptual, reporter
from codeformer.train.networks import Files, Networks
from codeformer.train.processes import World
from codeformer.train.reporter import Reporter
from codeformer.train.settings import load_settings


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for i in range(4):
        picture = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(picture, (64, 64), interpolation=cv2.INTER_CUBIC))
    return folder


def test_tiny_runs_through_all_stages_without_vgg(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(weights: Path | None) -> Any:
        raise AssertionError("VGG16 is opened")

    monkeypatch.setattr(perceptual, "read_features", forbidden)
    init: list[str] = []
    for stage in ("1", "2", "3"):
        words = ["train", "--stage", stage, "--config", "tiny", "--data", str(faces), "--validation", str(faces)]
        words += ["-o", str(tmp_path / stage), "--device", "cpu", "--quiet", *init, "--set", "steps=2"]
        assert main(words) == 0
        init = ["--init", capsys.readouterr().out.strip()]
        assert "perceptual" not in (tmp_path / stage / "scalars.jsonl").read_text()
    assert main(["train", "--stage", "3", "--data", str(faces), "--init", init[1], "-o", str(tmp_path / "x")]) != 0


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_the_rate_counts_from_the_first_step_and_without_validations(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(reporter, "time", SimpleNamespace(monotonic=clock.monotonic))
    rows: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(reporter.checkpoint, "append_scalars", lambda out, step, scalars: rows.append((step, scalars)))
    settings = load_settings("tiny", 1, ["log_every=2", "validate_every=1", "sheet_every=99", "steps=99"])
    report = Reporter(settings, tmp_path, World("cpu"), Files(validation=faces), 0, quiet=True)

    def validate(*_: Any) -> dict[str, float]:
        clock.now += 1000
        return {"psnr": 20.0}

    report.validation = validate  # type: ignore[assignment]
    clock.now += 500  # networks are loaded, the first batch is fetched
    assert report.bar is None
    for step in range(4):
        report.start(step)
        clock.now += 2
        report.after(step, {"loss": torch.tensor(1.0)}, Networks(torch.nn.Linear(1, 1)), {})  # type: ignore[arg-type]
    report.close()
    rates = [scalars["images/s"] for _, scalars in rows if "images/s" in scalars]
    assert rates == pytest.approx([settings.batch_size / 2] * 2)


def test_the_time_limit_counts_from_the_start_of_the_command(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    clock = Clock()
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=clock.monotonic))

    def record(*_: Any, **options: Any) -> Path:
        given.update(options)
        return tmp_path

    def load(*words: Any) -> Any:
        clock.now += 7  # imports take their time
        return load_settings(*words)

    monkeypatch.setattr(loop, "train", record)
    monkeypatch.setattr("codeformer.train.settings.load_settings", load)
    words = ["train", "--stage", "1", "--config", "tiny", "--data", str(faces), "--time_limit", "60s"]
    assert main(words) == 0 and given["time_limit"] == pytest.approx(53)
    assert main(words[:-2]) == 0 and given["time_limit"] is None
