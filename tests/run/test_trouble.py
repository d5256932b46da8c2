"""What comes in between: signals at any moment, one file that cannot be replaced, a folder that is taken away."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.errors import ExitCode, OutputError
from codeformer.faces.find import Face
from codeformer.images.picture import Picture, write_picture
from codeformer.models.file import open_model
from codeformer.models.load import load_network
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, OutputOptions, RunOptions
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.restorer import FaceRestorer
from codeformer.run.interrupts import signals_held
from codeformer.run.pictures import run_pictures
from codeformer.run.report import NAME, Report
from codeformer.tasks.table import TASKS
from tests.pipeline.test_pictures import Marks, face_at, scene
from tests.run.log import Log

COUNT = 8


@pytest.fixture(scope="module")
def engine(small_model_path: Path) -> Engine:
    restorer = FaceRestorer(load_network(small_model_path), device="cpu", precision="fp32", batch_size=1)  # type: ignore[arg-type]
    work = FaceWork(faces=FaceOptions(parsing="none"), canvas=CanvasOptions(1.0))
    return Engine(TASKS["restore"], work, open_model(small_model_path), restorer, Marks())


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(rgb: np.ndarray, detector: object, **options: object) -> list[Face]:
        return [face_at(50.0, 50.0)]

    monkeypatch.setattr("codeformer.pipeline.crops.find_faces", find)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(COUNT):
        write_picture(Picture(scene((50, 50), seed=i)), tmp_path / "in" / f"{i}.png")
    return tmp_path / "in"


def go(engine: Engine, folder: Path, out: Path, log: Log | None = None, **output: Any) -> ExitCode:
    options = RunOptions((folder,), engine.work, OutputOptions(output_path=out, **output))
    return run_pictures(options, engine.task, log or Log(), engine)


def at_the_third(function: Callable[..., Any], trouble: Callable[[], None], *, after: bool) -> Callable[..., Any]:
    """The function, with trouble before or after its third call."""
    calls = iter(range(2))

    def troubled(*args: Any, **kwargs: Any) -> Any:
        third = next(calls, None) is None
        if third and not after:
            trouble()
        result = function(*args, **kwargs)
        if third and after:
            trouble()
        return result

    return troubled


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("where", ["append", "update", "restore", "write"])
def test_an_interrupted_run_reports_every_file_that_it_wrote(
    where: str, after: bool, engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the signal comes: while a picture is computed, written, counted or recorded."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    log, main = Log(), os.getpid()

    def ctrl_c() -> None:
        os.kill(main, signal.SIGINT)
        time.sleep(0)

    targets: dict[str, tuple[Any, str]] = {
        "append": (Report, "append"),
        "update": (log, "update"),
        "restore": (engine.restorer, "restore"),
    }
    if where == "write":
        target = "codeformer.run.pictures.write_outputs"
        from codeformer.run.outputs import write_outputs

        monkeypatch.setattr(target, at_the_third(write_outputs, ctrl_c, after=after))
    else:
        owner, name = targets[where]
        monkeypatch.setattr(owner, name, at_the_third(getattr(owner, name), ctrl_c, after=after))
    try:
        code = go(engine, folder, tmp_path / "out", log)
    finally:
        signal.signal(signal.SIGINT, before)
    report = json.loads((tmp_path / "out" / NAME).read_text())
    files = sorted(path.name for path in (tmp_path / "out/final_results").iterdir())
    assert (code, report["state"]) == (ExitCode.INTERRUPTED, "interrupted")
    assert files == sorted(f"{Path(record['input']).name}" for record in report["inputs"])
    assert 1 <= report["summary"]["done"] == len(files) == COUNT - report["summary"]["left"]


def test_a_held_signal_comes_when_the_block_is_done() -> None:
    done, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), signals_held():
            signal.raise_signal(signal.SIGINT)
            with signals_held():
                signal.raise_signal(signal.SIGINT)
            done.append("the whole block")
        assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGHUP is of POSIX")
def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_held():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_result_that_is_open_in_a_viewer_fails_alone(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows answers for a file that another program holds open."""
    replace = os.replace

    def refuse(source: Any, target: Any, **options: Any) -> None:
        if str(target).endswith("3.png"):
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", refuse)
    log = Log()
    assert go(engine, folder, tmp_path / "out", log) == ExitCode.SOME_FAILED
    assert len(log.errors) == 1 and "3.png" in log.errors[0]
    report = json.loads((tmp_path / "out" / NAME).read_text())
    assert (report["summary"]["done"], report["summary"]["failed"]) == (COUNT - 1, 1)
    assert not list((tmp_path / "out").rglob(".*.tmp")), "the probe is gone too"


def test_a_folder_that_takes_no_file_ends_the_run(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only: the first picture that cannot be written is the last that is tried."""
    opened, tried = os.open, []
    of_the_report = f".{hashlib.sha256(NAME.encode()).hexdigest()[:8]}"

    def refuse(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT and str(path).endswith(".tmp") and not Path(path).name.startswith(of_the_report):
            tried.append(path)
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *args, **options)

    monkeypatch.setattr("codeformer.files.opening.os.open", refuse)
    with pytest.raises(OutputError, match="cannot be written"):
        go(engine, folder, tmp_path / "out")
    assert 2 <= len(tried) < 3 * COUNT


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed there")
@pytest.mark.parametrize("only_final", [False, True])
def test_an_output_folder_that_is_removed_is_an_error(
    only_final: bool, engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, out = Log(), tmp_path / "out"
    monkeypatch.setattr(log, "update", at_the_third(log.update, lambda: out.rename(tmp_path / "gone"), after=True))
    with pytest.raises(OutputError, match="removed or replaced"):
        go(engine, folder, out, log, only_final=only_final)
    assert not [line for line in log.lines if "restored" in line]


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed there")
def test_so_is_one_that_is_removed_when_all_is_done(
    engine: Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def removed(report: Report, header: Any) -> None:
        shutil.rmtree(out)
        out.mkdir()
        finish(report, header)

    finish = Report.finish
    monkeypatch.setattr(Report, "finish", removed)
    with pytest.raises(OutputError, match="removed or replaced"):
        go(engine, folder, out)
