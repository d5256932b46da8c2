"""Pictures through pipes, records on stdout, and watched folders: the program in its own process."""

from __future__ import annotations

import io
import json
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
from codeformer.images.picture import Picture, encode_picture, read_picture, to_uint16, write_picture

LANDMARKS = "103.1,100.0 147.0,102.5 123.4,128.1 101.1,138.5 144.5,141.0"
_RUN = [sys.executable, "-m", "codeformer"]


@pytest.fixture(scope="module")
def photo(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipes") / "photo.png"
    write_picture(Picture(portrait), path)
    return path


@pytest.fixture
def options(small_model_path: Path) -> list[str]:
    return ["--model", str(small_model_path), "--landmarks", LANDMARKS, "--parsing", "none", "-s", "1"]


Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs the program within this process: its exit code, and the bytes on descriptors 1 and 2."""

    def run(*words: str | Path, data: bytes = b"") -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        capfdbinary.readouterr()
        code = command_line.main([str(word) for word in words])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def test_a_pipe_of_the_shell(photo: Path, options: list[str], tmp_path: Path) -> None:
    """``codeformer restore -i - -o - < in.png > out.png``."""
    with photo.open("rb") as source, (tmp_path / "out.png").open("wb") as goal:
        done = subprocess.run(
            [*_RUN, "restore", "-i", "-", "-o", "-", *options], stdin=source, stdout=goal, timeout=300
        )
    assert done.returncode == 0
    assert read_picture(tmp_path / "out.png").rgb.shape == (240, 240, 3)


@pytest.mark.parametrize("task", ["restore", "colorize", "inpaint"])
def test_a_pipe_gives_the_pixels_of_a_run(
    run: Run, task: str, photo: Path, portrait: np.ndarray, options: list[str], tmp_path: Path
) -> None:
    more = []
    if task == "inpaint":
        mask = np.zeros(portrait.shape, np.uint8)
        mask[90:120, 90:150] = 255
        write_picture(Picture(mask), tmp_path / "mask.png")
        more = ["--mask", str(tmp_path / "mask.png")]
    code, out, said = run(task, "-i", "-", "-o", "-", *options, *more, data=photo.read_bytes())
    assert code == 0, said
    assert run(task, "-i", photo, "-o", tmp_path / "out", *options, *more)[0] == 0
    pixels = np.asarray(Image.open(io.BytesIO(out)))
    expected = read_picture(tmp_path / "out" / "final_results" / "photo.png").rgb
    assert (pixels == expected).all()
    assert (pixels != portrait).any()


def test_upscale_and_the_format_of_the_input(run: Run, portrait: np.ndarray, networks: dict[str, Path]) -> None:
    source = io.BytesIO()
    Image.fromarray(portrait[:60, :80]).save(source, "JPEG")
    words = ["upscale", "-i", "-", "-o", "-", "--model", networks["nearest"], "-s", "2", "--ext", "same"]
    code, out, said = run(*words, data=source.getvalue())
    assert code == 0, said
    result = Image.open(io.BytesIO(out))
    assert (result.format, result.size) == ("JPEG", (160, 120))


@pytest.mark.parametrize("command", ["restore", "upscale"])
def test_what_the_results_format_cannot_hold_is_one_line(
    run: Run, command: str, portrait: np.ndarray, options: list[str], networks: dict[str, Path]
) -> None:
    """Transparency and 16 bits into JPEG: on stderr; a PNG says nothing."""
    deep = to_uint16(portrait)
    data = encode_picture(Picture(deep, np.full(deep.shape[:2], 30000, np.uint16)), "PNG")
    words = options if command == "restore" else ["--model", str(networks["nearest"]), "-s", "2"]
    lost = "stdin: JPEG cannot hold transparency (white instead) and 16 bits a channel (8 instead); PNG can"
    code, out, said = run(command, "-i", "-", "-o", "-", "--ext", "jpg", *words, data=data)
    assert code == 0 and Image.open(io.BytesIO(out)).format == "JPEG"
    assert [line for line in said.splitlines() if "cannot hold" in line] == [f"codeformer: warning: {lost}"]
    assert "cannot hold" not in run(command, "-i", "-", "-o", "-", *words, data=data)[2]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-i", "-", "-o", "-"], 3, "stdin: is text, not a picture"),
        (["-i", "-", "-o", "out"], 2, "-i - needs -o -"),
        (["-i", "a.png", "b.png", "-o", "-"], 2, "-o - takes one picture"),
        (["-i", "-", "-o", "-", "--compare"], 2, "--compare needs results in files"),
        (["-i", "-", "-o", "-", "--json"], 2, "--json needs results in files"),
        (["-i", "a.png", "--watch"], 2, "--watch needs folders"),
    ],
)
def test_what_a_pipe_cannot_do(words: list[str], code: int, says: str, options: list[str], run: Run) -> None:
    assert (result := run("restore", *words, *options, data=b"no picture at all"))[:2] == (code, b"")
    assert says in result[2]
    assert result[2].count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_leaves_with_half_a_picture(photo: Path, options: list[str]) -> None:
    words = [*_RUN, "restore", "-i", str(photo), "-o", "-", *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(120) == 6
    assert b"stdout cannot be written" in said


def test_records_on_stdout(run: Run, photo: Path, options: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    code, out, _ = run("restore", "-i", photo, tmp_path / "bad.png", "-o", tmp_path / "out", "--json", *options)
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [(r["name"], r["status"]) for r in records] == [("photo", "restored"), ("bad", "failed")]
    assert records[0]["faces"][0]["chosen"]
    assert "is text" in records[1]["error"]["message"]
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["inputs"] == records


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert process.poll() is None, "it ended before its time"
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_watched_folder(photo: Path, options: list[str], tmp_path: Path) -> None:
    """What is there, what arrives in pieces, what is damaged, and Ctrl-C."""
    folder, final = tmp_path / "in", tmp_path / "out" / "final_results"
    folder.mkdir()
    data = photo.read_bytes()
    (folder / "first.png").write_bytes(data)
    words = [*_RUN, "restore", "-i", str(folder), "-o", str(tmp_path / "out"), "--watch", "--json", *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _until((final / "first.png").exists, process)
        with (folder / "second.png").open("wb") as file:
            file.write(data[: len(data) // 3])
            file.flush()
            time.sleep(0.3)
            file.write(data[len(data) // 3 :])
        (folder / "bad.png").write_bytes(b"no picture")
        _until((final / "second.png").exists, process)
        journal, report = tmp_path / "out" / "results.jsonl", tmp_path / "out" / "results.json"
        _until(lambda: report.exists() and "bad.png" in report.read_text() and not journal.exists(), process)
        time.sleep(2)  # from writing the report to waiting: Ctrl-C before that is one of a run that works
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert b"Traceback" not in said
    assert (read_picture(final / "second.png").rgb == read_picture(final / "first.png").rgb).all()
    names = sorted(json.loads(line)["name"] for line in out.splitlines())
    assert set(names) == {"bad", "first", "second"}
