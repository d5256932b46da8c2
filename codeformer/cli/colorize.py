"""``codeformer colorize``: give colour to grey faces."""

from __future__ import annotations

import argparse
from dataclasses import replace

from codeformer.cli.options import add_picture_options
from codeformer.cli.pictures import run_task
from codeformer.cli.values import decimal
from codeformer.errors import ExitCode
from codeformer.tasks.colorize import Colorize

_DEFAULT = Colorize()


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    what = "give colour to the faces in grey, toned or faded pictures"
    parser = subparsers.add_parser("colorize", help=what, description=f"{what.capitalize()}.")
    add_picture_options(parser, _DEFAULT)
    group = parser.add_argument_group("colour")
    group.add_argument(
        "--keep_luma", action="store_true", help="take only the colour; the brightness stays the original's"
    )
    group.add_argument(
        "--color_strength",
        type=decimal,
        default=_DEFAULT.strength,
        metavar="0-1",
        help="how much of the colour; 0 leaves the picture's own (default: %(default)g)",
    )
    parser.set_defaults(run=run, task="colorize")


def run(args: argparse.Namespace) -> ExitCode:
    """Colorize every picture. Raises CodeFormerError when nothing can be done at all."""
    task = replace(_DEFAULT, keep_luma=args.keep_luma, strength=args.color_strength)
    return run_task(args, task)
