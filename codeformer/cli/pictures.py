"""``codeformer restore``, ``colorize`` and ``inpaint``: arguments become options, options one call of the runner."""

from __future__ import annotations

import argparse

from codeformer.cli.console import Console
from codeformer.cli.shared import add_picture_options, run_options
from codeformer.errors import ExitCode
from codeformer.tasks import TASKS, Task

_HELP = {
    "restore": "restore the faces in pictures",
    "colorize": "give colour to the faces in grey, toned or faded pictures",
    "inpaint": "fill the masked parts of faces",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add restore, colorize and inpaint."""
    for name, task in TASKS.items():
        parser = subparsers.add_parser(name, help=_HELP[name], description=_HELP[name].capitalize() + ".")
        add_picture_options(parser, task)
        parser.set_defaults(run=run, task=name)


def make_task(args: argparse.Namespace) -> Task:
    """The task with the user's settings."""
    return TASKS[args.task]


def run(args: argparse.Namespace) -> ExitCode:
    """Work on files and folders. Raises CodeFormerError when nothing can be done at all."""
    options, task = run_options(args), make_task(args)
    from codeformer.runner import run_pictures

    return run_pictures(options, task, Console(quiet=args.quiet, verbose=args.verbose))
