"""``codeformer models``: which weights there are, which are here, and whether they are right."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from codeformer.cli.options import add_weights_folder_option
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode, WeightsError
from codeformer.hub import store as hub
from codeformer.models.file import open_model
from codeformer.tasks.table import TASKS

#: Ours, but of faces whose own licences allow no other use; the card says which.
_BUNDLED_LICENCE = "non-commercial research: see weights/README.md"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "models",
        help="list weights: which there are, which are here, whether they are right",
        description="List the published weights and the bundled model: what is here, where, and whether it verifies.",
    )
    add_weights_folder_option(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--verbose", action="store_true", help="a traceback with unexpected errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Print the table, or JSON."""
    found = rows(args.weights_dir)
    if args.json:
        emit(json.dumps({"weights_dir": str(hub.weights_dir(args.weights_dir)), "models": found}, indent=2))
        return ExitCode.OK
    heads = ("name", "group", "MB", "state", "licence", "where")
    cells = [heads, *(_cells(row) for row in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    for line in cells:
        emit("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in found:
        if row["w"]:
            emit(f"{row['name']}: {row['w']}")
        if row["problem"]:
            emit(row["problem"])
    emit(f"weights folder: {hub.weights_dir(args.weights_dir)}")
    return ExitCode.OK


def rows(weights_dir: Path | None) -> list[dict[str, Any]]:
    """Return what is known of every weights file: those that the package carries first."""
    carried = (_bundled_row("compact", "restoration"), *(_bundled_row(*special) for special in hub.SPECIAL.items()))
    return [*carried, *(_row(presence) for presence in hub.inventory(weights_dir))]


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
        "w": None,
    }


def _bundled_row(name: str, group: str) -> dict[str, Any]:
    try:
        path, problem = hub.bundled(name), hub.bundled_problem(f"{name}.safetensors")
    except WeightsError as error:
        path, problem = None, str(error)
    return {
        "name": name,
        "group": group,
        "purpose": "fill holes in faces, small" if group == "inpainting" else "restore and colorize faces, small",
        "file": f"{name}.safetensors",
        "size": path.stat().st_size if path else None,
        "sha256": hub.sha256_of(path) if path else None,
        "state": "missing" if path is None else "wrong" if problem else "bundled",
        "path": str(path) if path else None,
        "problem": problem,
        "url": None,
        "licence": _BUNDLED_LICENCE,
        "note": "",
        "w": _about_w(path, group) if path and not problem else None,
    }


def _about_w(path: Path, group: str) -> str | None:
    """Return what a bundled file does with the fidelity weight; None if it cannot be opened."""
    try:
        model = open_model(path)
    except WeightsError:
        return None
    names = [name for name, task in TASKS.items() if task.weights_group == group or name in (model.tasks or ())]
    return "; ".join(f"{name} with {model.describe_w(TASKS[name])}" for name in names)


def _way_to(row: dict[str, Any]) -> str:
    """Where a file that is not here comes from."""
    if row["licence"] == _BUNDLED_LICENCE:
        return "-"
    return row["note"] if row["note"].startswith("not needed") else f"codeformer download {row['group']}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['size'] / 1e6:.1f}" if row["size"] else "-"
    where = row["path"] or _way_to(row)
    return row["name"], row["group"], size, row["state"], row["licence"].partition(":")[0], where
