"""Names of tar files and their members: braces that stand for many, and keys that hold a sample's members together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath

from codeformer.errors import UsageError

_BRACES = re.compile(r"\{(-?\d+)\.\.(-?\d+)\}|\{([^{}]*,[^{}]*)\}")
_MOST = 100_000  # names that one pattern may stand for


def is_tar(path: Path) -> bool:
    """Return whether a path is that of a tar file, by its ending. Raises UsageError for one that is compressed."""
    name = path.name.lower()
    if re.search(r"\.(tgz|tar\.(gz|bz2|xz|zst))$", name):
        raise UsageError(f"{path}: is compressed, which saves nothing on pictures: unpack it to a plain .tar")
    return name.endswith(".tar")


def expanded(path: Path) -> list[Path]:
    """Return the paths that a path with braces stands for, as a shell and webdataset expand them.

    ``{000..999}`` counts, with as many digits as its ends have where one of them begins with 0; ``{a,b}`` lists.
    Braces of another form, and those of a file that is there, stand for themselves.

    Raises:
        UsageError: they stand for more than 100,000 names.
    """
    text = str(path)
    if os.path.lexists(path) or not _BRACES.search(text):
        return [path]
    parts: list[list[str]] = []
    end, count = 0, 1
    for found in _BRACES.finditer(text):
        many = found[3].split(",") if found[3] is not None else list(_counted(found[1], found[2], path))
        count *= len(many)
        if count > _MOST:
            raise _too_many(path)
        parts += [[text[end : found.start()]], many]
        end = found.end()
    return [Path("".join(words) + text[end:]) for words in product(*parts)]


def key_and_field(name: str) -> tuple[str, str]:
    """Return a member's key and field, as webdataset has them: ``a/0001.mask.png`` has ``a/0001`` and ``mask.png``.

    The key is what stands before the first dot behind the folders; a name that begins with a dot has no key ("").
    """
    folder, _, base = name.rpartition("/")
    stem, _, field = base.partition(".")
    return (str(PurePosixPath(folder, stem)) if stem else ""), field


def _counted(first: str, last: str, path: Path) -> Iterator[str]:
    start, stop = int(first), int(last)
    if abs(stop - start) >= _MOST:
        raise _too_many(path)
    padded = any(len(one.lstrip("-")) > 1 and one.lstrip("-").startswith("0") for one in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if stop >= start else -1
    return (f"{number:0{width}d}" if width else str(number) for number in range(start, stop + step, step))


def _too_many(path: Path) -> UsageError:
    return UsageError(f"{path}: stands for more than {_MOST:,} names: give several patterns, to several runs")
