"""Inputs that are named in a file: one path a line, or a column of a CSV or Parquet table."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from codeformer.errors import InputError, UsageError
from codeformer.extras import require
from codeformer.files.atomic import reason, shown
from codeformer.files.opening import open_regular

COLUMNS = ("path", "input", "file")
STDIN = Path("-")


def listed(file: Path) -> Iterator[Path]:
    """Yield the paths that a list names, one after the other; relative ones count from the working folder.

    ``.csv`` and ``.parquet`` are tables with a column ``path``, ``input`` or ``file``; anything else has one path on
    each line, in UTF-8, and ``-`` reads such lines from stdin. Empty lines are passed over.

    Raises:
        InputError: the list cannot be read, or has no such column.
        UsageError: Parquet needs pyarrow, which is not installed.
    """
    kind = file.suffix.lower()
    try:
        names = _parquet(file) if kind == ".parquet" else _csv(file) if kind == ".csv" else _lines(file)
        for name in names:
            if name:
                yield Path(name)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"--input_list {file}: {reason(error)}") from error


def _lines(file: Path) -> Iterator[str]:
    if file == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("--input_list - reads from a pipe, but stdin is a terminal: add < FILE")
        yield from _without_ends(sys.stdin.buffer)
        return
    with open_regular(file) as opened:
        yield from _without_ends(opened)


def _without_ends(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield lines as paths, also where their bytes are not UTF-8."""
    for number, line in enumerate(lines):
        text = line.decode("utf-8", "surrogateescape")
        yield (text.removeprefix("\ufeff") if number == 0 else text).rstrip("\r\n")


def _csv(file: Path) -> Iterator[str]:
    with open_regular(file) as opened, io.TextIOWrapper(opened, "utf-8-sig", "surrogateescape", newline="") as text:
        rows = csv.reader(text)
        place = _column(file, next(rows, []))
        for row in rows:
            if len(row) > place:
                yield row[place]


def _parquet(file: Path) -> Iterator[str]:
    parquet = require("pyarrow.parquet", f"--input_list {file}", "pyarrow")
    with open_regular(file) as opened:
        table = parquet.ParquetFile(opened)
        names = table.schema_arrow.names
        column = names[_column(file, names)]
        for batch in table.iter_batches(columns=[column], batch_size=4096):
            for name in batch.column(0).to_pylist():
                yield "" if name is None else str(name)


def _column(file: Path, names: Sequence[str]) -> int:
    for name in COLUMNS:
        if name in names:
            return names.index(name)
    there = ", ".join(map(shown, names)) or "none"
    raise InputError(f"--input_list {file}: needs a column {', '.join(COLUMNS)}; its columns are: {there}")
