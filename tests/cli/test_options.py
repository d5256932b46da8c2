"""Options are refused before any work, and the message names the flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeformer.cli import parser
from codeformer.cli.asked import face_work, run_options
from codeformer.cli.options import commands_of
from codeformer.cli.parser import normalise
from codeformer.errors import UsageError
from codeformer.options import (
    AlignOptions,
    CanvasOptions,
    FaceOptions,
    FaceWork,
    ModelOptions,
    OutputOptions,
    RunOptions,
    UpscaleOptions,
)
from codeformer.video.options import FilmOptions

NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "values", "flag"),
    [
        (FaceWork, {"w": 1.01}, "--fidelity_weight"),
        (FaceWork, {"w": NAN}, "--fidelity_weight"),
        (FaceWork, {"strength": 1.01}, "--strength"),
        (FaceWork, {"strength": NAN}, "--strength"),
        (ModelOptions, {"model": ""}, "--model"),
        (ModelOptions, {"device": "cuda:x"}, "--device"),
        (ModelOptions, {"compile": True, "device": "cpu"}, "--compile"),
        (ModelOptions, {"compile": True, "backend": "onnxruntime"}, "--compile"),
        (ModelOptions, {"precision": "fp8"}, "--precision"),
        (ModelOptions, {"batch_size": 0}, "--batch_size"),
        (FaceOptions, {"det_threshold": -0.1}, "--det_threshold"),
        (FaceOptions, {"min_face_size": NAN}, "--min_face_size"),
        (FaceOptions, {"max_faces": 0}, "--max_faces"),
        (FaceOptions, {"numbers": (0,)}, "--face"),
        (FaceOptions, {"numbers": (1,), "only_center_face": True}, "--only_center_face"),
        (FaceOptions, {"landmarks": (((1.0, 2.0),),)}, "--landmarks"),
        (FaceOptions, {"landmarks": (((1.0, NAN),) * 5,)}, "--landmarks"),
        (FaceOptions, {"aligned": True, "only_center_face": True}, "--aligned"),
        (FaceOptions, {"parsing": "yes"}, "--parsing"),
        (CanvasOptions, {"upscale": 0.5}, "--upscale"),
        (CanvasOptions, {"upscale": 4.5}, "--upscale"),
        (CanvasOptions, {"bg_tile": 7}, "--bg_tile"),
        (OutputOptions, {"quality": 0}, "--quality"),
        (OutputOptions, {"png_level": 10}, "--png_level"),
        (UpscaleOptions, {"inputs": (Path("a"),), "output_path": Path("b"), "png_level": -1}, "--png_level"),
        (AlignOptions, {"inputs": (Path("a"),), "output_path": Path("b"), "png_level": -1}, "--png_level"),
        (FilmOptions, {"source": Path("a"), "png_level": 10}, "--png_level"),
        (OutputOptions, {"ext": "gif"}, "--ext"),
        (OutputOptions, {"no_face": "cry"}, "--no_face"),
        (OutputOptions, {"suffix": "../up"}, "--suffix"),
        (RunOptions, {"inputs": ()}, "--input_path"),
        (RunOptions, {"inputs": (Path("a"),), "output": OutputOptions(output_path=Path(__file__))}, "--output_path"),
    ],
)
def test_out_of_range_names_the_flag(make: Any, values: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        make(**values)


@given(st.floats(0, 1), st.floats(1, 4), st.floats(0, 1))
def test_the_whole_range_is_accepted(w: float, upscale: float, threshold: float) -> None:
    work = FaceWork(w, faces=FaceOptions(det_threshold=threshold), canvas=CanvasOptions(upscale))
    assert (work.w, work.canvas.upscale, work.faces.det_threshold) == (w, upscale, threshold)


def parse(*words: str) -> Any:
    return parser.parse(words)[0]


def test_dashes_and_underscores_are_the_same() -> None:
    one = parse("restore", "--input-path", "a-b.png", "--fidelity-weight=0.3", "--has-aligned", "--bg-tile", "auto")
    two = parse("restore", "--input_path", "a-b.png", "--fidelity_weight=0.3", "--has_aligned", "--bg_tile", "auto")
    assert run_options(one) == run_options(two)
    assert run_options(one).inputs == (Path("a-b.png"),)  # a value keeps its dashes


@given(st.lists(st.text(alphabet="ab-_=", min_size=1)))
def test_normalise_touches_only_names_of_long_options(words: list[str]) -> None:
    for before, after in zip(words, normalise(words), strict=True):
        if not before.startswith("--"):
            assert after == before
        elif "--" not in words:
            name, equals, value = after[2:].partition("=")
            assert "-" not in name
            assert before.partition("=")[1:] == (equals, value)


def test_all_options_of_the_original_are_taken() -> None:
    words = (
        "restore -i x -o out -w 0.7 -s 2 --has_aligned --draw_box --detection_model retinaface_resnet50 "
        "--bg_upsampler None --face_upsample --bg_tile 400 --suffix new"
    )
    args = parse(*words.split(), "--only_center_face")
    assert (args.draw_box, args.only_center_face, args.aligned, args.suffix) == (True, True, True, "new")
    assert args.bg_upsampler == "None"
    args.aligned = False
    assert face_work(args).canvas == CanvasOptions(2.0, None, True, 400, True)


@pytest.mark.parametrize("command", ["restore", "video"])
def test_the_strength_arrives(command: str) -> None:
    args, _ = parser.parse([command, "x.mp4" if command == "video" else "x.png", "--strength", "0,7"])
    assert face_work(args).strength == 0.7


def test_several_inputs_and_faces() -> None:
    args = parse(
        "restore", "-i", "a", "b", "-i", "c", "--face", "2", "--face", "1", "--landmarks", "1,2 3,4 5,6 7,8 9,10.5"
    )
    options = run_options(args)
    assert options.inputs == (Path("a"), Path("b"), Path("c"))
    assert options.work.faces.numbers == (2, 1)
    assert options.work.faces.landmarks == (((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.5)),)


@pytest.mark.parametrize(
    "words",
    ["restore", "restore -i x --upsc 2", "restore -i x -w half", "restore -i x --batch_size few", "dance"],
)
def test_argparse_refuses(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(*words.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "w", "upscale"), [("restore", 0.5, 2.0), ("colorize", 0.0, 1.0), ("inpaint", 1.0, 1.0)]
)
def test_each_task_has_its_own_defaults(task: str, w: float, upscale: float) -> None:
    work = face_work(parse(task, "-i", "x"))
    assert (work.w, work.canvas.upscale) == (w, upscale)


def test_every_command_that_writes_png_takes_its_level() -> None:
    commands = commands_of(parser.build_parser())
    takes = {name for name, one in commands.items() if "--png_level" in one.format_help()}
    assert takes >= {"restore", "colorize", "inpaint", "upscale", "align", "video"}


def test_every_option_can_be_typed_as_help_shows_it() -> None:
    for name, command in commands_of(parser.build_parser()).items():
        for action in command._actions:
            shown = list(action.option_strings)
            assert normalise(shown) == shown, f"codeformer {name} {' '.join(shown)}"
