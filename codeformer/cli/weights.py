"""``codeformer download`` and ``codeformer models``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeformer.cli.console import Console
from codeformer.errors import ExitCode, WeightsError
from codeformer.hub import store as hub

if TYPE_CHECKING:
    from tqdm import tqdm

#: Ours, but of faces whose own licences allow no other use; the card says which.
_BUNDLED_LICENCE = "non-commercial research: see weights/README.md"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both subcommands."""
    download = subparsers.add_parser(
        "download",
        help="fetch published weights",
        description="Fetch published weights into the weights folder. What is half there is gone on with; size and "
        "SHA-256 are verified before a file gets its name. Only train and evaluate use the network too, where they are "
        "not given the file of their perceptual distance.",
    )
    download.add_argument(
        "names",
        nargs="*",
        default=["restoration"],
        metavar="NAME",
        help=f"all, {', '.join(hub.GROUPS)}, or a name that 'codeformer models' shows (default: restoration)",
    )
    _add_weights_dir(download)
    download.add_argument(
        "--base_url",
        metavar="URL",
        help="a mirror that has the files by their names: http, https or file (default: $CODEFORMER_MIRROR, if set)",
    )
    download.add_argument("--quiet", action="store_true", help="only errors on stderr")
    download.add_argument("--verbose", action="store_true", help="a traceback with unexpected errors")
    download.set_defaults(run=run_download)

    models = subparsers.add_parser(
        "models",
        help="list weights: which there are, which are here, whether they are right",
        description="List the published weights and the bundled model: what is here, where, and whether it verifies.",
    )
    _add_weights_dir(models)
    models.add_argument("--json", action="store_true", help="as JSON")
    models.add_argument("--verbose", action="store_true", help="a traceback with unexpected errors")
    models.set_defaults(run=run_models)


def _add_weights_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights_dir",
        type=Path,
        metavar="DIR",
        help="the weights folder (default: $CODEFORMER_WEIGHTS, else in the user's cache folder)",
    )


def run_download(args: argparse.Namespace) -> ExitCode:
    """Fetch; paths on stdout, everything else on stderr."""
    console = Console(quiet=args.quiet)
    chosen = hub.select(args.names)
    for line in hub.licences(chosen):
        console.note(line)
    with _bars(hidden=args.quiet) as bars:
        paths = hub.download(
            args.names,
            args.weights_dir,
            base_url=args.base_url,
            progress=bars,
            note=console.note,
        )
    for path in paths:
        print(path)
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


def run_models(args: argparse.Namespace) -> ExitCode:
    """The table, or JSON, on stdout."""
    carried = (_bundled_row("compact", "restoration"), *(_bundled_row(*special) for special in hub.SPECIAL.items()))
    rows = [*carried, *(_row(presence) for presence in hub.inventory(args.weights_dir))]
    if args.json:
        print(json.dumps({"weights_dir": str(hub.weights_dir(args.weights_dir)), "models": rows}, indent=2))
        return ExitCode.OK
    heads = ("name", "group", "MB", "state", "licence", "where")
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row["problem"]:
            print(row["problem"])
    print(f"weights folder: {hub.weights_dir(args.weights_dir)}")
    return ExitCode.OK


def _row(presence: hub.Presence) -> dict[str, Any]:
    weights = presence.weights
    return {
        "name": weights.name,
        "group": weights.group,
        "purpose": weights.purpose,
        "file": weights.file,
        "size": weights.size,
        "sha256": weights.sha256,
        "state": presence.state,
        "path": str(presence.path) if presence.path else None,
        "problem": presence.problem,
        "url": weights.url,
        "licence": weights.licence,
        "note": weights.note,
    }


def _bundled_row(name: str, group: str) -> dict[str, Any]:
    try:
        path, problem = hub.bundled(name), ""
    except WeightsError as error:
        path, problem = None, str(error)
    return {
        "name": name,
        "group": group,
        "purpose": "fill holes in faces, small" if group == "inpainting" else "restore and colorize faces, small",
        "file": f"{name}.safetensors",
        "size": path.stat().st_size if path else None,
        "sha256": hub.sha256_of(path) if path else None,
        "state": "bundled" if path else "missing",
        "path": str(path) if path else None,
        "problem": problem,
        "url": None,
        "licence": _BUNDLED_LICENCE,
        "note": "",
    }


def _way_to(row: dict[str, Any]) -> str:
    """Where a file that is not here comes from."""
    if row["licence"] == _BUNDLED_LICENCE:
        return "-"
    return row["note"] if row["note"].startswith("not needed") else f"codeformer download {row['group']}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['size'] / 1e6:.1f}" if row["size"] else "-"
    where = row["path"] or _way_to(row)
    return row["name"], row["group"], size, row["state"], row["licence"].partition(":")[0], where
