"""Options from a file and from the environment; the command line wins."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer import cli as command_line
from codeformer.cli.parser import parse
from codeformer.errors import CodeFormerError, InputError, UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "restore.toml"


def options(words: list[str]) -> dict[str, Any]:
    args: argparse.Namespace = parse(words)[0]
    return {name: value for name, value in vars(args).items() if name not in ("config", "save_config", "paths", "run")}


def test_a_file_is_the_words_that_it_stands_for(file: Path) -> None:
    file.write_text(
        'device = "cpu"\ntile = 7\n'  # tile is upscale's: this command passes over it
        '[restore]\ninput_path = ["a.png", "b.png"]\nfidelity-weight = 0.25\nonly_final = true\ncompare = false\n'
        'face = [2, 1]\noverwrite = true\nlandmarks = "1,2 3,4 5,6 7,8 9,10"\n'
        "[video]\ncrf = 3\n"
    )
    words = ["restore", "-i", "a.png", "b.png", "--device", "cpu", "-w", "0.25", "--only_final"]
    words += ["--face", "2", "--face", "1", "--overwrite"]
    assert options(["restore", "--config", str(file)]) == options([*words, "--landmarks", "1,2 3,4 5,6 7,8 9,10"])


@pytest.mark.parametrize("given", [["-w", "0.9"], ["-w0.9"], ["--fidelity_weight=0.9"], ["--fidelity-weight", "0.9"]])
def test_the_command_line_wins(file: Path, given: list[str]) -> None:
    file.write_text(
        '[restore]\ninput_path = "a.png"\nfidelity_weight = 0.1\nface = [1, 2]\nquiet = true\noverwrite = true\n'
    )
    args = parse(["restore", "b.png", "--config", str(file), *given, "--face", "3", "--verbose", "--resume"])[0]
    assert (args.fidelity_weight, args.face, args.input_path) == ([0.9], [3], [Path("b.png")])
    assert (args.quiet, args.verbose, args.resume) == (False, True, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fidelty_weight = 1", "did you mean fidelity_weight?"),
        ("[restore]\ncrf = 1", "restore has no option crf"),
        ("only_final = 1", "only_final is true or false"),
        ("upscale = [1, 2]", "upscale takes one value"),
        ("upscale = true", "upscale takes a number"),
        ("restore = 1", "table of options"),
        ("a = ", "restore.toml"),
        ("[restore]\nconfig = 'x'", "no option config"),
    ],
)
def test_what_does_not_fit_is_named(text: str, says: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    assert command_line.main(["restore", "a.png", "--config", str(file)]) in (2, 3)
    said = capsys.readouterr().err
    assert says in said and "restore.toml" in said and said.count("\n") == 1


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.toml", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="--config"):
            parse(["restore", "a.png", "--config", str(path)])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with suppress(CodeFormerError, SystemExit):
        parse(["models", "--config", str(path)])


WORDS = [
    ["restore", "a b.png", 'quo"te\\.png', "-w", "0,3", "-s", "2", "--only-final", "--overwrite", "--face", "2"],
    ["restore", "-i", "a", "b", "--landmarks", "1,2 3,4 5,6 7,8 9,10.5", "--bg_tile", "auto", "--has_aligned"],
    ["inpaint", "x.png", "--mask_color", "#ff0000", "--mask_grow", "-3", "--mask", "m.png", "--verbose"],
    ["video", "f.mp4", "--fps", "30000/1001", "--start", "1:02", "--no_audio", "-o", "out.mkv", "--crf", "12"],
    ["evaluate", "--data", "faces", "-w", "0", "0,5", "1", "--limit", "3"],
    ["upscale", "ü.png", "-o", "out", "--tile", "0"],
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0])
def test_what_is_saved_is_what_is_read(words: list[str], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([*words, "--save_config", str(file)]) == 0
    assert f"codeformer {words[0]} --config {file}" in capsys.readouterr().err
    required = ["--data", "faces"] if words[0] == "evaluate" else ["-o", "out"] if words[0] == "upscale" else []
    assert options([words[0], *required, "--config", str(file)]) == options(words)


def test_nothing_is_saved_of_wrong_words(file: Path) -> None:
    assert command_line.main(["restore", "a.png", "-w", "much", "--save_config", str(file)]) == 2
    assert not file.exists()


def test_the_device_by_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("CODEFORMER_DEVICE", "cuda:3")
    assert parse(["restore", "a.png"])[0].device == "cuda:3"
    assert parse(["train", "--stage", "1", "--data", "x"])[0].device == "cuda:3"
    file.write_text('device = "mps"')
    assert parse(["restore", "a.png", "--config", str(file)])[0].device == "mps"
    assert parse(["restore", "a.png", "--device", "cpu", "--config", str(file)])[0].device == "cpu"
    with pytest.raises(UsageError, match="--device"):
        from codeformer.cli.asked import face_work

        monkeypatch.setenv("CODEFORMER_DEVICE", "gpu")
        face_work(parse(["restore", "a.png"])[0])


def test_false_switches_off_what_is_on_by_default(file: Path) -> None:
    file.write_text("[export]\nverify = false\n")
    words = ["export", "-o", "face.onnx"]
    assert options(words)["verify"] is True
    assert options([*words, "--config", str(file)]) == options([*words, "--no_verify"])
    assert options([*words, "--config", str(file)])["verify"] is False
