"""``codeformer inpaint``: fill the masked parts of faces."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from codeformer.cli.options import add_picture_options
from codeformer.cli.pictures import run_task
from codeformer.cli.values import decimal
from codeformer.errors import ExitCode
from codeformer.tasks.inpaint import Inpaint

_DEFAULT = Inpaint()
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
    """Add the subcommand."""
    what = "fill the masked parts of faces"
    parser = subparsers.add_parser("inpaint", help=what, description=f"{what.capitalize()}.")
    add_picture_options(parser, _DEFAULT)
    _add_mask_options(parser)
    parser.set_defaults(run=run, task="inpaint")


def run(args: argparse.Namespace) -> ExitCode:
    """Fill the masked parts of every picture. Raises CodeFormerError when nothing can be done at all."""
    task = replace(
        _DEFAULT,
        mask=args.mask,
        color=args.mask_color,
        tolerance=args.mask_tolerance,
        grow=args.mask_grow,
        feather=args.mask_feather,
    )
    return run_task(args, task)


def _add_mask_options(parser: argparse.ArgumentParser) -> None:
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
        type=decimal,
        default=_DEFAULT.tolerance,
        metavar="0-255",
        help="how far paint may be from its colour (default: %(default)g)",
    )
    group.add_argument(
        "--mask_grow",
        type=int,
        default=_DEFAULT.grow,
        metavar="PIXELS",
        help="widen the mask, narrow it if negative (default: %(default)g)",
    )
    group.add_argument(
        "--mask_feather",
        type=int,
        default=_DEFAULT.feather,
        metavar="PIXELS",
        help="mix with the picture over so many pixels beyond the mask (default: %(default)g)",
    )


def parse_color(text: str) -> tuple[int, int, int]:
    """Return an argparse type: a colour's name, #RRGGBB, or r,g,b of 0-255."""
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
        message = f"{text!r} is not a colour: give {', '.join(_COLORS)}, #RRGGBB, or r,g,b of 0-255"
        raise argparse.ArgumentTypeError(message) from None
    return r, g, b
