"""``codeformer restore``: restore the faces in pictures."""

from __future__ import annotations

import argparse

from codeformer.cli.options import add_picture_options
from codeformer.cli.pictures import run_task
from codeformer.errors import ExitCode
from codeformer.tasks.table import TASKS


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    what = "restore the faces in pictures"
    parser = subparsers.add_parser("restore", help=what, description=f"{what.capitalize()}.")
    add_picture_options(parser, TASKS["restore"])
    parser.set_defaults(run=run, task="restore")


def run(args: argparse.Namespace) -> ExitCode:
    """Restore every picture. Raises CodeFormerError when nothing can be done at all."""
    return run_task(args, TASKS["restore"])
