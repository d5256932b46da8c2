"""``codeformer report``: join the journals of a folder, and show what became of every input."""

from __future__ import annotations

import argparse
from pathlib import Path

from codeformer.cli.console import Console
from codeformer.cli.options import add_message_options
from codeformer.cli.stores import Spoken, reports, without_file_urls
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode

FORMATS = ("json", "table", "csv")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="join the records of a folder, as results.json, a table or CSV",
        description="Join the records of all runs into a folder: those of shards, and of runs over very many inputs, "
        "which leave them in journals.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the output folder of a run")
    parser.add_argument(
        "--format",
        default="json",
        choices=FORMATS,
        help="json writes results.json (upscale.json, align.json) into DIR and prints its path; table and csv print "
        "the records on stdout and write nothing (default: json)",
    )
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Write or print the reports of a folder. Raises CodeFormerError."""
    console = Console(quiet=args.quiet, verbose=args.verbose)
    without_file_urls(args)
    with reports(args) as (folder, spoken):
        return _run(folder, args.format, console, spoken)


def _run(folder: Path, kind: str, console: Console, spoken: Spoken) -> ExitCode:
    from codeformer.run.join import as_csv, as_table, join, reports_in
    from codeformer.run.tally import counted

    for name in reports_in(folder):
        if kind == "json":
            head, inputs = join(folder, name)
            console.note(f"{name}: {counted(inputs, 'input')}, the last run: {head.get('state', 'unknown')}")
            emit(spoken(str(folder / name)))
        else:
            for line in (as_csv if kind == "csv" else as_table)(folder, name):
                emit(line)
    return ExitCode.OK
