"""``codeformer restore``, ``colorize`` and ``inpaint``: arguments become options, options one call of the runner."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from codeformer.cli.console import Console
from codeformer.cli.options import add_picture_options, run_options
from codeformer.errors import ExitCode
from codeformer.tasks.base import TASKS, Colorize, Inpaint, Task

_HELP = {
    "restore": "restore the faces in pictures",
    "colorize": "give colour to the faces in grey, toned or faded pictures",
    "inpaint": "fill the masked parts of faces",
}


_COLORS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "yellow": (255, 255, 0),
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add restore, colorize and inpaint."""
    for name, task in TASKS.items():
        parser = subparsers.add_parser(name, help=_HELP[name], description=_HELP[name].capitalize() + ".")
        add_picture_options(parser, task)
        if isinstance(task, Colorize):
            _add_color_options(parser, task)
        if isinstance(task, Inpaint):
            _add_mask_options(parser, task)
        parser.set_defaults(run=run, task=name)


def parse_color(text: str) -> tuple[int, int, int]:
    """An argparse type: a colour's name, #RRGGBB, or r,g,b of 0-255."""
    word = text.strip().lower()
    if word in _COLORS:
        return _COLORS[word]
    try:
        if word.startswith("#") and len(word) == 7:
            r, g, b = bytes.fromhex(word[1:])
        else:
            r, g, b = (int(value) for value in word.split(","))
        if not all(0 <= value <= 255 for value in (r, g, b)):
            raise ValueError
    except ValueError:
        message = f"{text!r} is no colour: give {', '.join(_COLORS)}, #RRGGBB, or r,g,b of 0-255"
        raise argparse.ArgumentTypeError(message) from None
    return r, g, b


def _add_color_options(parser: argparse.ArgumentParser, task: Colorize) -> None:
    group = parser.add_argument_group("colour")
    group.add_argument(
        "--keep_luma", action="store_true", help="take only the colour; the brightness stays the original's"
    )
    group.add_argument(
        "--color_strength",
        type=float,
        default=task.strength,
        metavar="0-1",
        help="how much of the colour; 0 leaves the picture's own (default: %(default)g)",
    )


def _add_mask_options(parser: argparse.ArgumentParser, task: Inpaint) -> None:
    group = parser.add_argument_group(
        "mask", "What to fill. Without these options: what is transparent, else what is painted over in white."
    )
    group.add_argument(
        "--mask",
        type=Path,
        metavar="FILE|FOLDER",
        help="white fills, black keeps, grey mixes; of the picture's size; in a folder, by the picture's name",
    )
    group.add_argument(
        "--mask_color",
        type=parse_color,
        metavar="COLOR",
        help="what is painted over in white, black, red, green, blue, cyan, magenta, yellow, #RRGGBB or r,g,b",
    )
    group.add_argument(
        "--mask_tolerance",
        type=float,
        default=task.tolerance,
        metavar="0-255",
        help="how far paint may be from its colour (default: %(default)g)",
    )
    group.add_argument(
        "--mask_grow",
        type=int,
        default=task.grow,
        metavar="PIXELS",
        help="widen the mask, narrow it if negative (default: %(default)g)",
    )
    group.add_argument(
        "--mask_feather",
        type=int,
        default=task.feather,
        metavar="PIXELS",
        help="mix with the picture over so many pixels beyond the mask (default: %(default)g)",
    )


def make_task(args: argparse.Namespace) -> Task:
    """The task with the user's settings. Raises UsageError naming the flag."""
    task = TASKS[args.task]
    if isinstance(task, Colorize):
        return replace(task, keep_luma=args.keep_luma, strength=args.color_strength)
    if isinstance(task, Inpaint):
        return replace(
            task,
            mask=args.mask,
            color=args.mask_color,
            tolerance=args.mask_tolerance,
            grow=args.mask_grow,
            feather=args.mask_feather,
        )
    return task


def run(args: argparse.Namespace) -> ExitCode:
    """Work on files and folders. Raises CodeFormerError when nothing can be done at all."""
    options, task = run_options(args), make_task(args)
    from codeformer.pipeline.engine import choose_model, settle_w
    from codeformer.run.runner import run_pictures

    w = settle_w(task, choose_model(task, options.work.model)[0], args.fidelity_weight)
    options = replace(options, work=replace(options.work, w=w))
    console = Console(quiet=args.quiet, verbose=args.verbose)
    if task.only_faces and not options.work.faces.aligned:
        console.note(f"only the faces are {task.past}; the rest of a picture stays as it is")
    return run_pictures(options, task, console)
