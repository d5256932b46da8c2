"""Command-line options of runs over many inputs: where they are named, and which are this process's."""

from __future__ import annotations

import argparse
from pathlib import Path

from codeformer.errors import UsageError
from codeformer.options import Shard


def parse_shard(text: str) -> Shard:
    """Return an argparse type: ``I/N``, this process's number and how many there are."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N: write 0/4 for the first of four processes")
    try:
        return Shard(int(index), int(count))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--shard ")) from None


def add_shard_option(group: argparse._ActionsContainer) -> None:
    """Add --shard."""
    group.add_argument(
        "--shard",
        type=parse_shard,
        metavar="I/N",
        help="this is process I, from 0, of N that work on one output folder: each input is done by exactly one of "
        "them; codeformer report DIR joins their records (default: one process does all)",
    )


def add_input_list_option(group: argparse._ActionsContainer) -> None:
    """Add --input_list."""
    group.add_argument(
        "--input_list",
        type=Path,
        metavar="FILE",
        help="inputs that FILE names: one path a line (- reads them from stdin), or the column path, input or file of "
        "a .csv or .parquet table (default: none)",
    )


def add_many_options(group: argparse._ActionsContainer) -> None:
    """Add --input_list and --shard."""
    add_input_list_option(group)
    add_shard_option(group)


def add_json_option(parser: argparse._ActionsContainer) -> None:
    """Add --json to a command with a report."""
    parser.add_argument(
        "--json", action="store_true", help="the report's record of each input on stdout, one a line, as it is done"
    )


def add_watch_option(parser: argparse._ActionsContainer) -> None:
    """Add --watch to a command over folders."""
    parser.add_argument(
        "--watch", action="store_true", help="then wait for pictures that arrive in the folders, until Ctrl-C"
    )
