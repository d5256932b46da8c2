"""Losing stderr, stdout or the terminal costs messages, never results; the exit code stays true."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codeformer import cli as command_line
from codeformer.cli.console import Console
from codeformer.cli.streams import Stream
from codeformer.images.picture import Picture, write_picture

LANDMARKS = "103.1,100.0 147.0,102.5 123.4,128.1 101.1,138.5 144.5,141.0"
_RUN = [sys.executable, "-m", "codeformer"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and descriptors of POSIX")


@pytest.fixture(scope="module")
def folder(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures and one that is damaged, so that a run has something to say before and after the others."""
    folder = tmp_path_factory.mktemp("streams") / "in"
    for i in range(4):
        write_picture(Picture(portrait), folder / f"{i}.png")
    (folder / "00 bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def words(folder: Path, small_model_path: Path, tmp_path: Path) -> list[str]:
    options = ["--landmarks", LANDMARKS, "--parsing", "none", "--device", "cpu", "-s", "1", "-o", str(tmp_path / "out")]
    return [*_RUN, "restore", "-i", str(folder), "--model", str(small_model_path), *options]


def assert_all_restored(out: Path, code: int) -> None:
    assert code == 1, "the damaged one failed"
    assert sorted(path.name for path in (out / "final_results").iterdir()) == [f"{i}.png" for i in range(4)]
    report = json.loads((out / "results.json").read_text())
    assert (report["state"], report["summary"]["done"], report["summary"]["failed"]) == ("finished", 4, 1)


def test_a_reader_that_leaves(words: list[str], tmp_path: Path) -> None:
    """``restore ... 2>&1 | head -1``."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert_all_restored(tmp_path / "out", process.wait(120))


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&- <&-", "2>/dev/full", ">/dev/full 2>&1"])
def test_closed_and_full(streams: str, words: list[str], tmp_path: Path) -> None:
    if "full" in streams and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    code = subprocess.run(["sh", "-c", f'exec "$@" {streams}', "sh", *words], timeout=120).returncode
    assert_all_restored(tmp_path / "out", code)


def test_a_terminal_that_is_gone(words: list[str], tmp_path: Path) -> None:
    """Its window is closed while the run, started by ``setsid``, goes on: the progress bar ends, no more."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(words, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    os.read(terminal, 1)
    os.close(terminal)
    assert_all_restored(tmp_path / "out", process.wait(120))


@pytest.mark.parametrize(
    ("streams", "code", "says"),
    [
        ("| head -n 1", 0, ""),
        (">/dev/full", 6, "No space left"),
        (">&-", 6, "stdout cannot be written"),
    ],
)
def test_data_that_is_lost_is_an_error(streams: str, code: int, says: str) -> None:
    """But a reader that leaves has what it wanted."""
    script = f'{{ "$@"; echo $? >&3; }} 3>&2 {streams}' if streams.startswith("|") else f'"$@" {streams}; echo $? >&2'
    result = subprocess.run(["sh", "-c", script, "sh", *_RUN, "models"], capture_output=True, text=True, timeout=60)
    lines = result.stderr.splitlines()
    assert lines[-1] == str(code)
    assert says in result.stderr and "Traceback" not in result.stderr
    assert len(lines) == (1 if code == 0 else 2)


def test_what_would_steer_a_terminal_is_escaped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, small_model_path: Path
) -> None:
    name = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u2028b\x9b31m"
    (tmp_path / f"{name}.png").write_bytes(b"no picture")
    model = ["--model", str(small_model_path)]
    assert command_line.main(["restore", "-i", str(tmp_path), "-o", str(tmp_path / "out"), *model]) == 3
    assert command_line.main(["restore", "-i", str(tmp_path / f"{name}.jpg"), *model]) == 3
    assert command_line.main(["restore", "-i", "x", name]) == 3
    assert command_line.main(["models", name]) == 2
    assert command_line.main(["download", name]) == 2
    said = capsys.readouterr()
    assert "\\x1b]0;owned\\x07" in said.err and "\\u202egnp.exe" in said.err
    for text in (said.out, said.err):
        assert not [c for c in text if not c.isprintable() and c != "\n"]


def test_scripts_of_the_world_are_not_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name = "пример\u3000例\u00a0می\u200cخواهم 👩\u200d👧.png"
    Console().error(name)
    assert capsys.readouterr().err == f"codeformer: error: {name}\n"


def test_a_path_that_is_no_text_reaches_a_pipe_byte_for_byte(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(folder)).mkdir()
    result = subprocess.run([*_RUN, "models", "--weights_dir", folder], capture_output=True)
    assert result.returncode == 0, result.stderr
    assert b"weights folder: " + folder in result.stdout


def test_a_closed_stream_has_no_descriptor_as_others_have_none(tmp_path: Path) -> None:
    """Python 3.14's argparse asks for it, and expects this error alone."""
    with (tmp_path / "file").open("w") as file:
        assert Stream(file).fileno() == file.fileno()
    with pytest.raises(io.UnsupportedOperation):
        Stream(file).fileno()
    assert not Stream(file).isatty()
