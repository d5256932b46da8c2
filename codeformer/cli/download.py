"""``codeformer download``: fetch published weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeformer.cli.console import Console
from codeformer.cli.options import add_weights_folder_option
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode
from codeformer.hub import store as hub

if TYPE_CHECKING:
    from tqdm import tqdm


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "download",
        help="fetch published weights",
        description="Fetch published weights into the weights folder. What is half there is gone on with; size and "
        "SHA-256 are verified before a file gets its name. Only train and evaluate use the network too, where they are "
        "not given the file of their perceptual distance.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        default=["restoration"],
        metavar="NAME",
        help=f"all, {', '.join(hub.GROUPS)}, or a name that 'codeformer models' shows (default: restoration)",
    )
    parser.add_argument("--all", action="store_true", help="every published file, as the name all")
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help="put all files into DIR, also those that this machine has: to be carried to a machine without a network, "
        "whose --weights_dir or $CODEFORMER_WEIGHTS it becomes",
    )
    add_weights_folder_option(parser)
    parser.add_argument(
        "--base_url",
        "--mirror",
        dest="mirror",
        metavar="URL|hf",
        help="another place that has the files by their names: an http, https or file address, hf:OWNER/REPOSITORY on "
        "Hugging Face, or hf for the copies of other people that are known there (default: $CODEFORMER_MIRROR, if set)",
    )
    parser.add_argument("--quiet", action="store_true", help="only errors on stderr")
    parser.add_argument("--verbose", action="store_true", help="a traceback with unexpected errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Fetch; paths on stdout, everything else on stderr."""
    console = Console(quiet=args.quiet)
    names = ["all"] if args.all else args.names
    chosen = hub.select(names)
    for line in hub.licences(chosen):
        console.note(line)
    with _bars(hidden=args.quiet) as bars:
        paths = hub.download(
            names,
            args.weights_dir,
            base_url=args.mirror,
            into=args.dir,
            progress=bars,
            note=console.note,
        )
    for path in paths:
        emit(path)
    if args.dir is not None:
        console.note(
            f"take {args.dir} to the other machine, and use it there with --weights_dir or $CODEFORMER_WEIGHTS"
        )
    return ExitCode.OK


class _Bars:
    """One progress bar for each file, made when its first bytes are there."""

    def __init__(self, hidden: bool) -> None:
        self._hidden = hidden
        self._of: str = ""
        self._bar: tqdm[Any] | None = None

    def __call__(self, weights: hub.Weights, done: int) -> None:
        from tqdm import tqdm

        if self._bar is None or self._of != weights.file:
            self.close()
            self._of = weights.file
            self._bar = tqdm(
                desc=weights.file,
                total=weights.size,
                initial=done,
                unit="B",
                unit_scale=True,
                file=sys.stderr,
                disable=self._hidden or not sys.stderr.isatty(),
                dynamic_ncols=True,
            )
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _bars(hidden: bool) -> Iterator[_Bars]:
    bars = _Bars(hidden)
    try:
        yield bars
    finally:
        bars.close()
