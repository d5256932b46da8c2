"""--dry_run: says what a run would do, ends as it would, and leaves every file as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from codeformer.cli import program
from codeformer.errors import ExitCode, InputError, OutputError, UsageError, WeightsError
from codeformer.images.picture import Picture, write_picture
from tests.video.clips import make_film
from tests.video.fakes import square_face


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder, with its times."""
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def place(tmp_path: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two pictures in ``in``; nothing of the machine's is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEFORMER_WEIGHTS", str(tmp_path / "no_weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_picture(Picture(portrait), tmp_path / "in" / "a.png")
    write_picture(Picture(portrait[:, ::-1].copy()), tmp_path / "in" / "b.jpg")
    return tmp_path


class Dry:
    """Runs a command with and without --dry_run."""

    def __init__(self, place: Path, capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
        self.place, self.capfd, self.words = place, capfd, words

    def __call__(self, *more: str) -> tuple[ExitCode, list[str], str]:
        before = state(self.place)
        code = program([*self.words, *more, "--dry_run"])
        assert state(self.place) == before
        out, err = self.capfd.readouterr()
        return code, out.splitlines(), err

    def really(self, *more: str) -> ExitCode:
        code = program([*self.words, *more])
        self.capfd.readouterr()
        return code

    def results(self, lines: list[str]) -> set[str]:
        """The files that the lines name, with the first face's number."""
        named = [
            name
            for line in lines
            if " -> " in line
            for name in line.partition(" -> ")[2].partition(" (")[0].split(", ")
        ]
        return {os.path.normpath(name).replace("NN", "00") for name in named}

    def files(self, folder: str) -> set[str]:
        return {
            str(path.relative_to(self.place))
            for path in (self.place / folder).rglob("*")
            if path.is_file() and path.name not in ("results.json", "upscale.json", "align.json")
        }


@pytest.mark.parametrize(
    "more",
    [[], ["--suffix", "x", "--ext", "same", "--compare"], ["--only_final", "--ext", "webp"], ["--has_aligned"]],
    ids=["plain", "all", "final", "aligned"],
)
def test_restore_names_the_files_that_the_run_then_makes(
    place: Path, capfd: pytest.CaptureFixture[str], small_model_path: Path, more: list[str]
) -> None:
    words = ["restore", "in", "-o", "out", "--model", str(small_model_path), "--device", "cpu", "--precision", "fp32"]
    dry = Dry(place, capfd, [*words, *more])
    code, lines, err = dry()
    assert code is ExitCode.OK
    assert f"model: {small_model_path}, w 0.5" in lines and "device: cpu, fp32" in lines
    assert "2 of 2 would be restored; nothing was written" in err
    assert dry.really() is ExitCode.OK
    assert dry.results(lines) == dry.files("out")
    code, lines, err = dry()
    assert code is ExitCode.OK and "0 of 2 would be restored, 2 done already" in err
    assert [line.split(" ")[0] for line in lines if "is done already: out/" in line] == ["in/a.png", "in/b.jpg"]
    assert not any(line.startswith("device") for line in lines)  # nothing was loaded
    assert "2 of 2" in dry("--overwrite")[2]
    (place / "in/a.png").write_bytes((place / "in/b.jpg").read_bytes())
    assert "1 of 2 would be restored, 1 done already" in dry()[2]


def test_an_input_that_cannot_be_read_fails_in_the_plan_too(
    place: Path, capfd: pytest.CaptureFixture[str], small_model_path: Path
) -> None:
    (place / "in/c.png").write_text("no picture")
    words = ["restore", "in", "gone.png", "--model", str(small_model_path), "--has_aligned", "-o", "out"]
    dry = Dry(place, capfd, words)
    code, lines, err = dry("--json")
    assert code is ExitCode.SOME_FAILED
    records = [json.loads(line) for line in lines]
    assert [record["status"] for record in records] == ["to do", "to do", "failed", "failed"]
    assert records[3]["error"]["exit_code"] == ExitCode.BAD_INPUT
    assert "c.png" in err and "gone.png: no such file" in err and "2 would fail" in err
    assert dry.really() is code


def test_the_checks_refuse_what_the_run_would_refuse(
    place: Path, capfd: pytest.CaptureFixture[str], small_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ["--model", str(small_model_path)]
    (place / "file").write_text("x")
    (place / "theirs").mkdir()
    (place / "theirs/results.json").write_text('{"theirs": 1}')
    for kind, words in (
        (InputError, ["nothing.png", *model]),
        (WeightsError, ["in", "--model", "missing.pth"]),
        (WeightsError, ["in", "--model", "official"]),
        (UsageError, ["in", *model, "--device", "cuda:99"]),
        (UsageError, ["in", *model, "--watch"]),
        (UsageError, ["in/a.png", *model, "-o", "-"]),
        (UsageError, ["in/a.png", *model, "-o", "in/a.png"]),
        (OutputError, ["in", *model, "-o", "file/out"]),
        (OutputError, ["in", *model, "-o", "theirs"]),
    ):
        before = state(place)
        with pytest.raises(kind):
            program(["restore", *words, "--dry_run"])
        assert state(place) == before, words
    capfd.readouterr()
    monkeypatch.setattr("os.access", lambda *args: False)
    with pytest.raises(OutputError, match="Permission denied"):
        program(["restore", "in", *model, "--dry_run"])


def test_a_single_results_file(place: Path, capfd: pytest.CaptureFixture[str], small_model_path: Path) -> None:
    words = ["restore", "in/a.png", "-o", "out/one.jpg", "--model", str(small_model_path), "--has_aligned"]
    dry = Dry(place, capfd, words)
    code, lines, _ = dry()
    assert code is ExitCode.OK and "in/a.png -> out/one.jpg" in lines
    assert dry.really() is ExitCode.OK and dry.files("out") == {"out/one.jpg"}
    with pytest.raises(UsageError, match="is there"):
        dry()


def test_inpaint_misses_its_mask_and_colorize_does_not(
    place: Path, capfd: pytest.CaptureFixture[str], small_model_path: Path
) -> None:
    (place / "masks").mkdir()
    model = ["--model", str(small_model_path), "--has_aligned"]
    code, _, err = Dry(place, capfd, ["inpaint", "in", "--mask", "masks", *model])()
    assert code is ExitCode.BAD_INPUT and err.count("error:") == 2 and "mask" in err
    code, lines, err = Dry(place, capfd, ["colorize", "in", *model])()
    assert code is ExitCode.OK and "2 of 2 would be colorized" in err
    assert any("results/in_colorize_" in line for line in lines)


def test_upscale(place: Path, capfd: pytest.CaptureFixture[str], networks: dict[str, Path]) -> None:
    words = ["upscale", "in", "-o", "out", "--model", str(networks["nearest"]), "-s", "2", "--device", "cpu"]
    dry = Dry(place, capfd, words)
    code, lines, _ = dry()
    assert code is ExitCode.OK and "in/b.jpg -> out/b.png" in lines and "device: cpu, " in "\n".join(lines)
    assert dry.really() is ExitCode.OK and dry.results(lines) == dry.files("out")
    assert "2 done already" in dry()[2]
    (place / "out/upscale.json").unlink()
    code, _, err = dry()
    assert code is dry.really() is ExitCode.USAGE and err.count("exists and is not a result of this input") == 2


def test_align(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["align", "in", "out", "--size", "64", "--min_size", "32", "--min_sharpness", "0", "--device", "cpu"]
    dry = Dry(place, capfd, words)
    code, lines, _ = dry()
    assert code is ExitCode.OK and "device: cpu" in lines
    assert dry.really() is ExitCode.OK
    assert {name.replace("_00.", "_01.") for name in dry.results(lines)} == dry.files("out")
    assert "2 done already" in dry()[2]


def test_video(place: Path, capfd: pytest.CaptureFixture[str], small_model_path: Path) -> None:
    make_film(place / "film.mp4", [square_face(i) for i in range(3)])
    words = ["video", "film.mp4", "-o", "out/film.mp4", "--model", str(small_model_path), "--device", "cpu"]
    dry = Dry(place, capfd, words)
    code, lines, err = dry()
    assert code is ExitCode.OK and "1 of 1 would be restored" in err
    assert dry.results(lines) == {"out/film.mp4", "out/film.mp4.json"}
    assert dry.really() is ExitCode.OK and dry.files("out") == dry.results(lines)
    assert "1 done already" in dry()[2]
    code, _, err = dry("--crf", "30")
    assert code is ExitCode.USAGE and "is a finished film of other settings" in err
    (place / "film.mp4").write_bytes(b"x")
    assert dry()[0] is ExitCode.BAD_INPUT
