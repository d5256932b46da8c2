"""Watched folders: Ctrl-C at the moment when a run ends, and what is said at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codeformer import cli
from codeformer.errors import ExitCode
from codeformer.run import watch


@pytest.mark.parametrize("failed", [True, False])
def test_an_interrupt_as_a_run_ends_is_one_of_that_run(
    failed: bool, small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came of the run's pictures is unknown then, so the exit code is neither OK nor that of failed pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(folder / "photo.png")
    codes = [ExitCode.SOME_FAILED if failed else ExitCode.OK]

    def ending(*args: object) -> ExitCode:
        if codes:
            (folder / "photo.png").touch()  # it changed: another run
            return codes.pop()
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "run_pictures", ending)
    monkeypatch.setattr(watch, "open_engine", lambda *args: None)
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    words = ["restore", "-i", str(folder), "-o", str(tmp_path / "out"), "--watch", "--model", str(small_model_path)]
    assert cli.main(words) == ExitCode.INTERRUPTED


def test_pictures_that_were_taken_away_have_come(
    small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()

    def put(name: str) -> None:
        Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(folder / name)

    def exchange() -> None:
        (folder / "a.png").unlink()
        put("b.png")

    def end() -> None:
        raise KeyboardInterrupt

    pauses = iter([lambda: None, exchange, lambda: None, end])
    monkeypatch.setattr(watch, "run_pictures", lambda *args: ExitCode.OK)
    monkeypatch.setattr(watch, "open_engine", lambda *args: None)
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: next(pauses)())
    put("a.png")
    words = ["restore", "-i", str(folder), "-o", str(tmp_path / "out"), "--watch", "--model", str(small_model_path)]
    assert cli.main(words) == ExitCode.OK
    assert "watching ended; 2 pictures came" in capsys.readouterr().err
