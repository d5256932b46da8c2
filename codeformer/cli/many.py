"""Command-line options of runs over many inputs: where they are named, and which are this process's."""

from __future__ import annotations

import argparse
from pathlib import Path

from codeformer.errors import UsageError
from codeformer.options import RayOptions, Shard


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


def add_engine_options(parser: argparse._ActionsContainer) -> None:
    """Add --engine, and what Ray is told."""
    parser.add_argument(
        "--engine",
        default="process",
        choices=("process", "ray"),
        help="who works: this process, or workers on a Ray cluster (default: process)",
    )
    parser.add_argument(
        "--ray_address",
        default="local",
        metavar="auto|local|HOST:PORT",
        help="auto: the cluster that this machine belongs to; local: one that is started here (default: local)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="Ray workers (default: as many as fit)")
    parser.add_argument(
        "--cpus_per_worker", type=float, default=1.0, metavar="N", help="cores of a Ray worker (default: 1)"
    )
    parser.add_argument(
        "--gpus_per_worker", type=float, metavar="N", help="GPUs of a Ray worker (default: 1 where there are any)"
    )


def ray_options(args: argparse.Namespace) -> RayOptions | None:
    """Return what Ray is told; None without it. Raises UsageError naming the flag."""
    if args.engine == "ray":
        return RayOptions(args.ray_address, args.workers, args.cpus_per_worker, args.gpus_per_worker)
    given = (args.ray_address != "local", args.workers, args.cpus_per_worker != 1, args.gpus_per_worker is not None)
    for flag, there in zip(("ray_address", "workers", "cpus_per_worker", "gpus_per_worker"), given, strict=True):
        if there:
            raise UsageError(f"--{flag} needs --engine ray")
    return None
