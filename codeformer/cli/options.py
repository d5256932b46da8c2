"""Command-line options that several subcommands share; `codeformer.cli.asked` makes option dataclasses of them.

Declared with underscores; ``codeformer.cli`` also accepts them with dashes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from codeformer.cli.many import add_engine_options, add_json_option, add_many_options, add_watch_option
from codeformer.cli.values import decimal, number_or, parse_landmarks
from codeformer.cli.whose import add_person_options
from codeformer.options import (
    BACKENDS,
    DEFAULT_DETECTOR,
    DEFAULT_PNG_LEVEL,
    DEFAULT_THRESHOLD,
    EXTENSIONS,
    NO_FACE,
    PARSINGS,
    PRECISIONS,
    SCRATCHES,
    TONES,
)
from codeformer.tasks.base import Task

#: What the commands over pictures take.
PICTURES = "pictures, folders, URLs or tar files ('a-{000..999}.tar'); - for a picture from stdin, with -o - to stdout"


def group_of(parser: argparse.ArgumentParser, title: str) -> argparse._ActionsContainer:
    """Return the parser's group of this title. ``--help`` shows the groups in the order in which they were made."""
    for group in parser._action_groups:
        if group.title == title:
            return group
    return parser.add_argument_group(title)


def add_input_options(parser: argparse.ArgumentParser, what: str = "pictures or folders") -> None:
    """Add the inputs, which may stand alone or after -i/--input_path; `codeformer.cli.parser` puts them together."""
    group = group_of(parser, "input")
    group.add_argument("paths", nargs="*", type=Path, metavar="PATH", help=what)
    group.add_argument(
        "-i",
        "--input_path",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="PATH",
        help="the same; repeatable",
    )


def add_max_pixels_option(parser: argparse.ArgumentParser) -> None:
    """Add --max_pixels to a command that reads pictures."""
    group_of(parser, "input").add_argument(
        "--max_pixels",
        type=number_or("auto"),
        default=None,
        metavar="auto|N",
        help="refuse pictures of more pixels (default: auto, what fits into this machine's memory with its result)",
    )


def add_weights_folder_option(parser: argparse.ArgumentParser) -> None:
    """Add --weights_dir to a command that looks after the weights folder itself."""
    parser.add_argument(
        "--weights_dir",
        type=Path,
        metavar="DIR",
        help="the weights folder (default: $CODEFORMER_WEIGHTS, else in the user's cache folder)",
    )


def add_recursive_option(parser: argparse.ArgumentParser) -> None:
    """Add --recursive."""
    group_of(parser, "input").add_argument("--recursive", action="store_true", help="folders within folders too")


def add_device_options(group: argparse._ActionsContainer, *, precision: bool = True) -> None:
    """Add --weights_dir, --device and, unless there is no choice of it, --precision."""
    group.add_argument("--weights_dir", type=Path, metavar="DIR", help="where downloaded weights lie")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    if precision:
        group.add_argument("--precision", default="auto", choices=PRECISIONS, help="arithmetic (default: %(default)s)")


def add_detector_option(group: argparse._ActionsContainer) -> None:
    """Add --detection_model."""
    group.add_argument(
        "--detection_model",
        default=DEFAULT_DETECTOR,
        metavar="NAME",
        help="retinaface_mobile0.25, retinaface_resnet50 or dlib (default: %(default)s)",
    )


def add_format_options(group: argparse._ActionsContainer) -> None:
    """Add --ext, --quality and --png_level."""
    group.add_argument("--ext", default="png", choices=EXTENSIONS, help="format of the final picture (default: png)")
    group.add_argument("--quality", type=int, default=95, metavar="1-100", help="of JPEG and WebP (default: 95)")
    add_png_level_option(group)


def add_png_level_option(group: argparse._ActionsContainer) -> None:
    """Add --png_level."""
    group.add_argument(
        "--png_level",
        type=int,
        default=DEFAULT_PNG_LEVEL,
        metavar="0-9",
        help="compression of PNG files, all lossless: 0 is the largest file, 9 the slowest (default: %(default)s)",
    )


def add_backend_option(group: argparse._ActionsContainer) -> None:
    """Add --backend."""
    group.add_argument(
        "--backend",
        default="auto",
        choices=BACKENDS,
        help="what runs the network: torch, onnxruntime, openvino, or auto: PyTorch, but ONNX Runtime for an exported "
        ".onnx file, and for one picture on a CPU (default: auto); docs/export.md names the devices of each",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model, and what decides how fast it runs, and where."""
    group_of(parser, "quality").add_argument(
        "--model",
        default="auto",
        metavar="NAME|FILE",
        help="auto (published weights if present, else the bundled compact ones), compact, official, or a file, also "
        "one of GFPGAN or RestoreFormer (default: auto)",
    )
    group = group_of(parser, "speed")
    add_backend_option(group)
    add_device_options(group)
    group.add_argument(
        "--batch_size", type=number_or("auto"), default=None, metavar="auto|N", help="faces at a time (default: auto)"
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="let torch.compile translate the network for a CUDA card: a face then takes it half of the time, after a "
        "minute of translating; for many thousands of faces",
    )


def add_face_options(parser: argparse.ArgumentParser, *, person: bool = True) -> None:
    """Which faces are worked on, and how they are masked. ``person``: whether a person may be asked for."""
    group = group_of(parser, "faces")
    add_detector_option(group)
    group.add_argument(
        "--det_threshold",
        type=decimal,
        default=DEFAULT_THRESHOLD,
        metavar="0-1",
        help="least score of a face (default: %(default)g)",
    )
    group.add_argument(
        "--min_face_size", type=decimal, default=0.0, metavar="PIXELS", help="leave smaller faces alone (default: 0)"
    )
    group.add_argument("--max_face_size", type=decimal, metavar="PIXELS", help="leave larger faces alone")
    group.add_argument("--max_faces", type=int, metavar="N", help="only the N largest faces")
    group.add_argument("--only_center_face", action="store_true", help="only the face nearest the centre")
    group.add_argument(
        "--face",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="only face N, left to right from 1; repeatable",
    )
    if person:
        add_person_options(group)
    group.add_argument(
        "--landmarks",
        type=parse_landmarks,
        action="append",
        default=[],
        metavar="POINTS",
        help='do not detect; the face is at "x,y x,y x,y x,y x,y" (eyes, nose, mouth corners); repeatable',
    )
    group.add_argument(
        "--has_aligned", "--aligned", dest="aligned", action="store_true", help="the inputs are aligned face crops"
    )
    group.add_argument(
        "--tone",
        default="auto",
        choices=TONES,
        help="toned prints (sepia, selenium, yellowed): auto finds them and keeps their tone, keep takes every picture "
        "for one, free gives faces the network's colours (default: auto)",
    )
    group.add_argument(
        "--parsing", default="auto", choices=PARSINGS, help="mask faces with a parsing network (default: if present)"
    )


def add_canvas_options(parser: argparse.ArgumentParser, upscale: float | None) -> None:
    """Add the options of the picture around the faces: its scale and its upsampler.

    Args:
        parser: gets the options.
        upscale: the scale without ``--upscale``; None for 1, or 2 where an upsampler is asked for.
    """
    group = group_of(parser, "quality")
    default = "1, with an upsampler 2" if upscale is None else f"{upscale:g}"
    group.add_argument(
        "-s",
        "--upscale",
        type=decimal,
        default=upscale,
        metavar="1-4",
        help=f"scale of the result (default: {default})",
    )
    group.add_argument(
        "--bg_upsampler",
        default=None,
        metavar="NAME|FILE",
        help="realesrgan, or a super-resolution file (default: none, Lanczos)",
    )
    group.add_argument("--face_upsample", action="store_true", help="upsample restored faces too, where it adds detail")
    group_of(parser, "speed").add_argument(
        "--bg_tile",
        type=number_or("auto"),
        default=None,
        metavar="auto|N|0",
        help="side of an upsampler's tile in pixels, 0 for no tiles (default: auto, by the memory)",
    )
    group_of(parser, "output").add_argument(
        "--draw_box", action="store_true", help="draw the numbered face boxes into the result"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where results go, for subcommands that write pictures."""
    group = group_of(parser, "output")
    group.add_argument(
        "-o",
        "--output_path",
        type=Path,
        metavar="DIR|FILE",
        help="a folder, or for a single picture the result's file, such as out.png; - for stdout (default: the folder "
        "results/<input name>_<w>; for other tasks than restore, with the task's name)",
    )
    group.add_argument("--suffix", metavar="TEXT", help="added to the names of restored pictures")
    add_format_options(group)
    group.add_argument("--compare", action="store_true", help="also write before and after side by side")
    group.add_argument("--only_final", action="store_true", help="write no face crops")
    group.add_argument(
        "--no_face",
        default="copy",
        choices=NO_FACE,
        help="a picture without a face is left out, written resized with a warning (default), or an error; to inpaint "
        "it is always an error",
    )


def add_resume_options(parser: argparse.ArgumentParser) -> None:
    """--resume (default) and --overwrite."""
    group = group_of(parser, "output").add_mutually_exclusive_group()
    group.add_argument(
        "--resume", dest="resume", action="store_true", default=True, help="skip what is already done (default)"
    )
    group.add_argument(
        "--overwrite", dest="resume", action="store_false", help="do everything again, over what is there"
    )


def add_dry_run_option(group: argparse._ActionsContainer) -> None:
    """Add --dry_run."""
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="only check, and say what would be done: inputs, results, model, device, what is done already",
    )


def add_message_options(parser: argparse.ArgumentParser) -> None:
    """--quiet and --verbose, which every subcommand has."""
    group = group_of(parser, "messages and settings").add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="only errors on stderr")
    group.add_argument("--verbose", action="store_true", help="more on stderr; a traceback with unexpected errors")


def add_fidelity_option(
    parser: argparse.ArgumentParser, default_w: float, *, by_model: bool = False, several: bool = False
) -> None:
    """Add -w/--fidelity_weight.

    Args:
        parser: gets the option.
        default_w: its default.
        by_model: not given, it is None, and the weights file may know a better default.
        several: it takes several weights, and is a list of them.
    """
    or_by_model = ", unless the model wants another: see codeformer models" if by_model else ""
    group_of(parser, "quality").add_argument(
        "-w",
        "--fidelity_weight",
        type=decimal,
        nargs="+" if several else None,
        default=None if by_model else default_w,
        metavar="0-1",
        help="0: a clean face that may be another person's, 1: the face closest to the picture, with its flaws; "
        f"{'several give a result each, as -w 0.3 0.5 0.7; ' if several else ''}default: {default_w:g}{or_by_model}",
    )


def add_strength_option(parser: argparse.ArgumentParser) -> None:
    """Add --strength, beside -w."""
    group_of(parser, "quality").add_argument(
        "--strength",
        type=decimal,
        default=1.0,
        metavar="0-1",
        help="share of the restored faces in the result, the rest is the input as it was: 1 shows them alone, 0.5 lets "
        "half of the input through (default: 1)",
    )


def add_scratches_option(parser: argparse.ArgumentParser) -> None:
    """Add --scratches."""
    group_of(parser, "quality").add_argument(
        "--scratches",
        nargs="?",
        const="auto",
        default="off",
        choices=SCRATCHES,
        help="auto finds scratches, creases, dust and torn corners, fills them first, and writes a mask of what it "
        "found (default: off)",
    )


def add_picture_options(parser: argparse.ArgumentParser, task: Task) -> None:
    """Everything that restore, colorize and inpaint have in common."""
    add_input_options(parser, PICTURES)
    add_recursive_option(parser)
    add_max_pixels_option(parser)
    add_output_options(parser)
    add_watch_option(group_of(parser, "input"))
    add_many_options(group_of(parser, "input"))
    add_json_option(group_of(parser, "output"))
    add_resume_options(parser)
    add_dry_run_option(group_of(parser, "output"))
    add_face_options(parser, person=task.recognises)
    add_fidelity_option(parser, task.default_w, by_model=True, several=task.name == "restore")
    if task.blends:
        add_strength_option(parser)
    if task.mends:
        add_scratches_option(parser)
    add_model_options(parser)
    add_canvas_options(parser, task.default_upscale)
    add_engine_options(group_of(parser, "speed"))
    add_message_options(parser)


def commands_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the parsers of the subcommands by their names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    raise TypeError("a parser without subcommands")
