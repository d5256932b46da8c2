"""The command line as a user meets it: in its own process, with its exit codes, killed and interrupted."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codeformer import cli as command_line
from codeformer.cli.console import Console, library_messages
from codeformer.errors import CodeFormerError, ExitCode, OutOfMemoryError, RestorationError
from codeformer.images.picture import Picture, write_picture

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS = ("restore", "colorize", "inpaint", "video", "upscale", "train", "evaluate", "align", "download", "models")
# The astronaut's eyes, nose and mouth in the `portrait` fixture: saves the tests the time for detecting them
LANDMARKS = "103.1,100.0 147.0,102.5 123.4,128.1 101.1,138.5 144.5,141.0"


@pytest.fixture(scope="module")
def folder(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty good and twenty bad files of different kinds."""
    folder = tmp_path_factory.mktemp("mixed") / "photos"
    for i in range(30):
        ending = ("png", "jpg", "webp", "bmp", "tif")[i % 5]
        shade = np.clip(portrait.astype(int) + i - 15, 0, 255).astype(np.uint8)
        write_picture(Picture(shade), folder / f"good {i:02d} ü.{ending}")
    good = {path.suffix: path.read_bytes() for path in folder.iterdir()}
    rng = np.random.default_rng(0)
    gif = io.BytesIO()
    Image.new("P", (50, 50)).save(gif, "GIF")
    bomb = good[".png"][:16] + (100_000).to_bytes(4, "big") * 2 + good[".png"][24:]
    bad = {
        "empty.png": b"", "empty.jpg": b"", "empty.webp": b"",
        "text.png": b"not a picture\n", "page.jpg": b"<!DOCTYPE html><html></html>", "paper.png": b"%PDF-1.7\n%",
        "noise.jpg": rng.bytes(4000), "noise.png": rng.bytes(4000), "zeros.tif": bytes(4000), "one.bmp": b"B",
        "zip.png": b"PK\x03\x04" + bytes(100), "film.jpg": b"\x00\x00\x00\x18ftypmp42" + bytes(100), "bomb.png": bomb,
        "header.png": good[".png"][:8], "header.jpg": good[".jpg"][:4], "head.webp": good[".webp"][:12],
        # Cut before the first row of pixels: what has any is read as far as it goes
        "cut.png": good[".png"][:40], "cut.jpg": good[".jpg"][:200], "cut.tif": good[".tif"][:40],
    }  # fmt: skip
    for name, data in bad.items():
        (folder / f"bad {name}").write_bytes(data)
    (folder / "bad link.png").symlink_to(folder / "nowhere.png")
    assert len(list(folder.iterdir())) == 50
    return folder


def words(folder: Path, model: Path, out: Path) -> list[str | Path]:
    options = ["--landmarks", LANDMARKS, "--parsing", "none", "--device", "cpu", "-s", "1"]
    return ["restore", "-i", folder, "-w", "0.7", "--model", model, "-o", out, *options]


def tree(root: Path) -> dict[str, bytes]:
    """Every file but the report, whose times differ; half-written ones too, if there were any."""
    paths = (p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith("results.json"))
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


@pytest.fixture(scope="module")
def whole(cli: Cli, folder: Path, small_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run over the folder; its output folder."""
    out = tmp_path_factory.mktemp("whole") / "out"
    result = cli(*words(folder, small_model_path, out))
    (out.parent / "stderr").write_text(result.stderr)
    (out.parent / "code").write_text(str(result.returncode))
    assert result.stdout == ""
    return out


def test_thirty_good_and_twenty_bad(whole: Path) -> None:
    stderr = (whole.parent / "stderr").read_text()
    assert (whole.parent / "code").read_text() == "1", stderr
    finals = sorted((whole / "final_results").iterdir())
    assert [path.stem for path in finals] == [f"good {i:02d} ü" for i in range(30)]
    assert "30 of 50 restored" in stderr and "20 failed" in stderr
    summary = stderr[stderr.index("20 failed") :]
    report = json.loads((whole / "results.json").read_text())
    failed = [record for record in report["inputs"] if record["status"] == "failed"]
    assert len(failed) == 20 and report["summary"]["done"] == 30
    for record in failed:
        assert Path(record["input"]).name in summary  # named, each with its reason
        assert record["error"]["message"] in stderr
    assert "Traceback" not in stderr


def start(folder: Path, model: Path, out: Path) -> subprocess.Popen[str]:
    """A run in the background that has finished some inputs, but not all."""
    command = [sys.executable, "-m", "codeformer", *map(str, words(folder, model, out))]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    journal = out / "results.jsonl"
    while not (journal.is_file() and journal.read_bytes().count(b'"status":"restored"') >= 4):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    return process


def test_killed_and_started_again_gives_the_same_files(
    cli: Cli, whole: Path, folder: Path, small_model_path: Path, tmp_path: Path
) -> None:
    process = start(folder, small_model_path, tmp_path / "out")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "out/results.json").read_text())["state"] == "running"
    done = len(list((tmp_path / "out/final_results").iterdir()))
    assert 4 <= done < 30
    result = cli(*words(folder, small_model_path, tmp_path / "out"))
    assert result.returncode == 1 and "were done already" in result.stderr
    assert tree(tmp_path / "out") == tree(whole)
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert report["state"] == "finished" and len(report["inputs"]) == 50
    assert report["summary"]["done_before"] >= 4 and report["summary"]["left"] == 0


def test_ctrl_c(folder: Path, small_model_path: Path, tmp_path: Path) -> None:
    process = start(folder, small_model_path, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130, stderr
    assert "left; the same command goes on" in stderr and "Traceback" not in stderr
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert report["state"] == "interrupted"
    assert 4 <= report["summary"]["done"] == len(list((tmp_path / "out/final_results").iterdir()))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["restore", "-i", "{tmp}", "-w", "1.5"], 2, "--fidelity_weight"),
        (["restore", "-i", "{tmp}", "--no-such-option"], 2, "--no_such_option"),
        (["restore", "-i", "{tmp}"], 3, "no pictures here"),
        (["restore", "-i", "{tmp}/gone.png", "--model", "{model}"], 3, "gone.png"),
        (["restore", "-i", "{picture}", "--model", "{tmp}/gone.pth"], 4, "gone.pth"),
        (["restore", "-i", "{picture}", "--model", "{picture}"], 4, "not a PyTorch checkpoint"),
        (["restore", "-i", "{picture}", "-o", "{picture}/sub"], 6, "cannot write"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_exit_codes(
    cli: Cli, options: list[str], code: int, says: str, small_model_path: Path, folder: Path, tmp_path: Path
) -> None:
    places = {"tmp": tmp_path, "model": small_model_path, "picture": folder / "good 00 ü.png"}
    result = cli(*(word.format(**places) for word in options), cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert says in result.stderr and "Traceback" not in result.stderr and result.stdout == ""


def test_out_of_memory_ends_with_5(folder: Path, small_model_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from codeformer.cli import main; from codeformer.models.codeformer import CodeFormer\n"
        "def full(self, x): raise RuntimeError('DefaultCPUAllocator: not enough memory')\n"
        "CodeFormer.encode_features = full\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *map(str, words(folder / "good 00 ü.png", small_model_path, tmp_path / "o"))]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 5, result.stderr
    assert "one face does not fit" in result.stderr


def test_help_is_cheap_and_complete() -> None:
    code = (
        "import sys; from codeformer.cli.parser import build_parser; text = build_parser().format_help()\n"
        "heavy = {'torch', 'cv2', 'PIL', 'av', 'onnxruntime', 'tqdm'} & set(sys.modules)\n"
        "print(text); sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in COMMANDS:
        assert command in result.stdout


# --- the error boundary, in this process -------------------------------------------------------------------------


def boundary(error: BaseException, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    def program(argv: object) -> ExitCode:
        raise error

    monkeypatch.setattr(command_line, "program", program)
    return command_line.main(list(words))


@pytest.mark.parametrize("error", CodeFormerError.__subclasses__())
def test_every_error_is_one_line_and_its_code(
    error: type[CodeFormerError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boundary(error("a.png: is\nbroken"), monkeypatch=monkeypatch) == error.exit_code
    assert capsys.readouterr().err == "codeformer: error: a.png: is broken\n"


def test_an_unexpected_error_shows_its_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boundary(ZeroDivisionError("x"), monkeypatch=monkeypatch) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "--verbose" in err and "Traceback" not in err
    assert boundary(ZeroDivisionError("x"), "--verbose", monkeypatch=monkeypatch) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupts_and_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert boundary(KeyboardInterrupt(), monkeypatch=monkeypatch) == 130
    assert boundary(MemoryError(), monkeypatch=monkeypatch) == OutOfMemoryError.exit_code
    assert boundary(SystemExit(2), monkeypatch=monkeypatch) == 2
    assert RestorationError.exit_code == 1


def test_what_the_library_logs_arrives_as_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("codeformer")
    with library_messages(Console()):
        logger.warning("a.png: %s", "odd")
        logger.debug("detail")
    with library_messages(Console(quiet=True)):
        logger.warning("unheard")
    assert capsys.readouterr().err == "codeformer: warning: a.png: odd\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("codeformer 0.")


def test_a_film_goes_to_the_video_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr("codeformer.cli.video.run", lambda args: seen.append(args) or ExitCode.OK)
    assert command_line.main(["restore", "-i", "A.MP4", "-w", "0.25", "--quiet"]) == 0
    assert [(args.command, args.input_path, args.fidelity_weight) for args in seen] == [
        ("video", [Path("A.MP4")], 0.25)
    ]
    assert command_line.main(["restore", "-i", "a.mp4", "--only_final"]) == 2  # what films do not have is refused
    assert "--only_final" in capsys.readouterr().err
    assert command_line.main(["restore", "-i", "a.mp4", "b.png"]) == 2
    assert "a.mp4 is a film" in capsys.readouterr().err


def test_a_missing_system_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """OpenCV's wheel wants libGL, which servers lack: one line says what to install."""

    def broken(*_: object) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(command_line, "program", broken)
    assert command_line.main(["models"]) == 1
    assert "libGL.so.1" in (message := capsys.readouterr().err)
    assert "apt install libgl1" in message
    assert message.count("\n") == 1
