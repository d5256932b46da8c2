"""``codeformer completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import argparse
from pathlib import Path

from codeformer.cli.options import commands_of
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode, UsageError

SHELLS = ("bash", "zsh", "tcsh")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "completion",
        help="print a script by which a shell completes commands and options",
        description="Print a script by which a shell completes commands, options, choices and file names.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Print the script. Raises UsageError where shtab is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise UsageError("completion needs shtab: pip install shtab") from error
    parser = args.parser
    for command in commands_of(parser).values():
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    emit(shtab.complete(parser, args.shell))
    return ExitCode.OK
