"""What restore, colorize and inpaint do with their options: a run over files, one file, a pipe, or a watched folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.cli.asked import run_options
from codeformer.cli.console import Console
from codeformer.cli.one_file import into_file, result_file, take_file
from codeformer.cli.stores import Spoken, places, without_file_urls
from codeformer.cli.streams import stdout_for_data
from codeformer.errors import ExitCode, UsageError
from codeformer.tasks.base import Task

if TYPE_CHECKING:
    from codeformer.run.places import Place

PIPE = Path("-")


def run_task(args: argparse.Namespace, task: Task) -> ExitCode:
    """Work on every picture. Raises CodeFormerError when nothing can be done at all."""
    if args.dry_run and args.watch:
        raise UsageError("--dry_run and --watch contradict each other: leave one out")
    if args.engine == "ray" and args.watch:
        raise UsageError("--watch works in this process: leave --engine ray out")
    if args.input_list and args.watch:
        raise UsageError("--watch needs folders: leave --input_list out")
    without_file_urls(args)
    console = Console(quiet=args.quiet, verbose=args.verbose, json=args.json)
    with places(args, console, tars=True) as (place, console, spoken):
        return _run(args, task, console, place, spoken)


def _run(args: argparse.Namespace, task: Task, console: Console, place: Place, spoken: Spoken) -> ExitCode:
    file = None if PIPE in args.input_path else result_file(args.output_path, args.input_path)
    if file is not None:
        take_file(file, args)
        args.output_path = None
    options = run_options(args)
    if is_pipe(options.inputs, options.output.output_path, args):
        from codeformer.run.pipe import picture_to

        with stdout_for_data() as write:
            return picture_to(write, options, task, console)
    if args.watch:
        from codeformer.run.watch import watch

        return watch(options, task, console)
    if args.dry_run:
        from codeformer.cli.dry_run import show_plan
        from codeformer.run.plan import plan_pictures

        return show_plan(plan_pictures(options, task, console, file, place), console, spoken)
    from codeformer.run.pictures import run_pictures

    if file is None:
        return run_pictures(options, task, console, place=place)

    def run(folder: Path) -> ExitCode:
        inside = replace(options, output=replace(options.output, output_path=folder))
        return run_pictures(inside, task, console, where=file, place=place)

    return into_file(file, run)


def is_pipe(inputs: Sequence[Path], output: Path | None, args: argparse.Namespace) -> bool:
    """Whether the result goes to stdout.

    Raises:
        UsageError: ``-`` with what needs files or folders.
    """
    if output != PIPE:
        if PIPE in inputs:
            raise UsageError("-i - needs -o -: what comes through a pipe has no name for a result in a folder")
        return False
    if len(inputs) != 1 or inputs[0].is_dir():
        raise UsageError("-o - takes one picture: give -i - or one file, or a folder as -o")
    if isinstance(weights := getattr(args, "fidelity_weight", None), list) and len(weights) > 1:
        raise UsageError(f"-w with {len(weights)} weights makes as many pictures: give a folder as -o, not -")
    if getattr(args, "engine", "process") == "ray":
        raise UsageError("--engine ray needs results in files: give a folder as -o, not -")
    for flag in ("compare", "suffix", "watch", "json", "dry_run", "shard", "input_list"):
        if getattr(args, flag, None):
            raise UsageError(f"--{flag} needs results in files: give a folder as -o, not -")
    return True
