"""What earlier runs wrote down in a folder, read with suspicion: somebody else may have written it.

A record counts only if it has the shape that a run gives it, and names from it are names below the folder.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from codeformer.files.opening import is_name_below, open_regular, read_regular, status_below

Record = dict[str, Any]

_LONGEST_LINE = 1 << 24  # bytes: a picture of ten thousand faces has a tenth of it
_LARGEST = 1 << 28  # bytes of a report that is not ours line by line and so must be read as a whole
_LARGEST_HEAD = 1 << 20
_RUN = b'{"run":'


@dataclass(frozen=True)
class Known:
    """What a later run needs to know of an input that is done: its fingerprint, name, and outputs with their sizes."""

    fingerprint: str
    stem: str
    status: str
    outputs: tuple[tuple[str, int], ...]
    kept: tuple[tuple[str, int], ...] = ()  # of earlier runs, under other names

    def complete(self, root: Path) -> bool:
        """Return whether the input was finished, and all its outputs are there with the sizes that were written."""
        if self.status == "failed":
            return False
        for name, size in self.outputs:
            try:
                if status_below(root, name).st_size != size:
                    return False
            except OSError:
                return False
        return True


def now() -> str:
    """Return the time, as the report writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def known_of(record: Record) -> Known:
    """Return what a record of the right shape says."""
    outputs, kept = (tuple((one["path"], one["bytes"]) for one in record.get(key, ())) for key in ("outputs", "kept"))
    return Known(record["fingerprint"], record["name"], record["status"], outputs, kept)


def is_record(value: object) -> bool:
    """Return whether a value has the shape of a record, whatever else it has."""
    if not isinstance(value, dict) or not isinstance(value.get("input"), str):
        return False
    texts = all(isinstance(value.get(key), str) for key in ("name", "status", "fingerprint"))
    named = not value.get("name") or is_name_below(value["name"])
    return texts and named and _are_files(value.get("outputs")) and _are_files(value.get("kept", []))


class Line(NamedTuple):
    """A line of a report or a journal that stands by itself.

    Attributes:
        record: an input's record; None where the line has another shape.
        run: the head of a run, which a journal may hold between its records; else None.
        offset: where the line begins, bytes.
        length: of the line, bytes.
    """

    record: Record | None
    run: Record | None
    offset: int
    length: int


def lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines that hold a record, the head of a run, or something of another shape in their place.

    Torn lines and what is not a record are passed over. A file that cannot be read has no lines.
    """
    try:
        file = open_regular(path)
    except OSError:
        return
    offset = 0
    with file:
        while line := file.readline(_LONGEST_LINE):
            begin, offset = offset, offset + len(line)
            text = line.strip().rstrip(b",")
            if text.startswith((b'{"input":', _RUN)):
                with suppress(ValueError, RecursionError):
                    value = json.loads(text)
                    if text.startswith(_RUN):
                        yield Line(None, value["run"] if is_run(value) else None, begin, len(line))
                    else:
                        yield Line(value if is_record(value) else None, None, begin, len(line))


def is_run(value: object) -> bool:
    """Return whether a value is what a journal has of a run: its head, under ``run``."""
    head = value.get("run") if isinstance(value, dict) else None
    return isinstance(head, dict) and all(isinstance(head.get(key), str) for key in ("codeformer", "started", "state"))


def whole_of(path: Path) -> list[Record | None]:
    """Return the records of a report that somebody has formatted anew, and None for each entry of another shape.

    Raises:
        ValueError: this is not a report.
        OSError: it cannot be read.
    """
    try:
        inputs = json.loads(read_regular(path, _LARGEST))["inputs"]
        if isinstance(inputs, dict):
            inputs = [_aligned_by_0_1(key, entry) for key, entry in inputs.items()]
        return [one if is_record(one) else None for one in list(inputs)]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("this is not a report") from error


def head_of(path: Path) -> dict[str, Any]:
    """Return a report's head, without its inputs; empty if it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(_LARGEST_HEAD)
        mark = start.find(b'"inputs": [')
        head = json.loads(start if mark < 0 else start[:mark] + b'"inputs": []}')
    except (OSError, ValueError, RecursionError):
        return {}
    return head if isinstance(head, dict) else {}


def judge(path: Path, *, journal: bool) -> Literal["ours", "unusable", "foreign"]:
    """Return what to do about a file of our name before a run writes.

    ``foreign`` is whole JSON with something in it, but nothing of ours: it stays where it is. ``unusable`` is what can
    be neither read nor written as ours: a link or a second name of another file (of a journal, which is appended to), a
    folder, a pipe. What is torn or damaged may be ours.
    """
    try:
        status = os.lstat(path)
        with open_regular(path) as file:
            if journal and (path.is_symlink() or status.st_nlink > 1):
                return "unusable"
            while line := file.readline(_LONGEST_LINE):
                text = line.strip().rstrip(b",")
                if journal or text.startswith(b'{"input":'):
                    with suppress(ValueError, RecursionError):
                        # One tells for all: a million lines are read soon enough.
                        value = json.loads(text)
                        return "ours" if _has_our_keys(value) or (journal and is_run(value)) else "foreign"
        if journal:
            return "ours"
        data = json.loads(read_regular(path, _LARGEST))
    except FileNotFoundError:
        return "unusable" if path.is_symlink() else "ours"
    except OSError as error:
        unusable = isinstance(error, IsADirectoryError) or error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO)
        return "unusable" if unusable else "ours"
    except (ValueError, RecursionError):
        return "ours"
    if isinstance(data, dict) and {"format", "inputs"} <= data.keys():
        return "ours"
    return "foreign" if isinstance(data, dict | list) and data else "ours"


def set_aside(path: Path) -> Path:
    """Rename a file that a run cannot use, and return its new name. Raises OSError."""
    target, count = path.with_name(f"{path.name}.damaged"), 2
    while os.path.lexists(target):
        target, count = path.with_name(f"{path.name}.damaged-{count}"), count + 1
    path.rename(target)
    return target


def _has_our_keys(value: object) -> bool:
    return isinstance(value, dict) and {"input", "name", "status", "fingerprint", "outputs"} <= value.keys()


def _are_files(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and is_name_below(one.get("path")) and type(one.get("bytes")) is int for one in value
    )


def _aligned_by_0_1(key: str, entry: Mapping[str, Any]) -> Record:
    """Return an input's record in an ``align.json`` of version 0.1, which had no fingerprints."""
    files = [face["file"] for face in entry["faces"] if face["file"]]
    return {
        "input": key,
        "name": entry["stem"],
        "status": entry["status"],
        "fingerprint": "",
        "faces": entry["faces"],
        "outputs": [{"path": file, "bytes": -1} for file in files],
    }
