"""``-o out.png``: the output path of a single picture may name the result's file instead of a folder."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from codeformer.errors import ExitCode, UsageError
from codeformer.files.atomic import unwritable
from codeformer.files.paths import is_folder, same_file
from codeformer.options import Extension

_EXTENSIONS: dict[str, Extension] = {f".{ext}": ext for ext in get_args(Extension) if ext != "same"}
_EXTENSIONS |= {".jpeg": "jpg", ".tif": "tiff"}


def names_picture(path: Path) -> bool:
    """Return whether a path has the ending of a picture that can be written."""
    return path.suffix.lower() in _EXTENSIONS


def result_file(output: Path | None, inputs: list[Path]) -> Path | None:
    """Return the output path if it names a picture and not a folder.

    Raises:
        UsageError: it names a picture, but there may be several results.
    """
    if output is None or not names_picture(output) or is_folder(output):
        return None
    if len(inputs) != 1 or is_folder(inputs[0]):
        raise UsageError(f"--output_path {output}: names one picture, and there may be several results: give a folder")
    return output


def take_file(file: Path, args: argparse.Namespace) -> None:
    """Set the options that a result's file stands for: its format, and nothing beside it.

    Raises:
        UsageError: an option that needs a folder; a file that is there, or is the input.
    """
    for flag in ("compare", "suffix", "watch", "shard", "input_list"):
        if getattr(args, flag, None):
            raise UsageError(f"--{flag} needs a folder: --output_path {file} is the only file that is written")
    if isinstance(weights := getattr(args, "fidelity_weight", None), list) and len(weights) > 1:
        raise UsageError(f"-w with {len(weights)} weights makes as many pictures: give a folder as -o, not {file}")
    if same_file(file, args.input_path[0]):
        raise UsageError(f"--output_path {file}: is the input; choose another name")
    if os.path.lexists(file) and args.resume:
        raise UsageError(f"{file} is there: choose another --output_path, or --overwrite it")
    args.only_final, args.ext = True, _EXTENSIONS[file.suffix.lower()]


def into_file(file: Path, run: Callable[[Path], ExitCode]) -> ExitCode:
    """Let a run write into a folder of its own beside the file, and put its only result in the file's place.

    Args:
        file: the result.
        run: takes the folder and returns its exit code.

    Raises:
        CodeFormerError: what the run raises; or the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".codeformer-", dir=file.parent) as folder:
            code = run(Path(folder) / "work")
            made = [path for path in Path(folder).rglob("*") if path.suffix.lower() in _EXTENSIONS]
            if code is ExitCode.OK and made:
                made[0].replace(file)
    except OSError as error:
        raise unwritable(file, error) from error
    return code
