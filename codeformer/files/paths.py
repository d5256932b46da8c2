"""Questions about paths that are answered, never raised: where a folder on the way is closed, the answer is no."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

FileId = tuple[int, int]


def is_file(path: Path) -> bool:
    """Whether a regular file can be reached there (``Path.is_file`` raises PermissionError before Python 3.14)."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path | str) -> bool:
    """Whether a folder can be reached there; False for a link to itself, too."""
    return os.path.isdir(path)  # noqa: PTH112


def file_id(path: Path) -> FileId | None:
    """Return what tells the file behind a path from all others, by whatever name; None if there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return stat.st_dev, stat.st_ino


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file that is there."""
    found = file_id(one)
    return found is not None and found == file_id(other)


def shortened(stem: str, longest: int) -> str:
    """Return a file's name of at most so many bytes; a longer one ends with a digest that tells it from others."""
    data = os.fsencode(stem)
    if len(data) <= longest:
        return stem
    return os.fsdecode(data[: longest - 9]).encode("utf-8", "ignore").decode("utf-8", "ignore") + (
        "-" + hashlib.sha256(data).hexdigest()[:8]
    )
