"""The report of a run over pictures: ``results.json``, written through a journal.

Every finished input is one line appended to ``results.jsonl``; at the end the journal is merged into ``results.json``
(one line per input inside it, so a million of them can be read and merged line by line). A process that is killed
leaves a whole ``results.json`` of the runs before it and a journal whose last line may be torn; the next run takes
both in.
The format is described in ``docs/report.md``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeformer.errors import OutputError
from codeformer.files.lock import lock
from codeformer.files.opening import remove_below
from codeformer.files.paths import file_id

FORMAT = 1
NAME = "results.json"
JOURNAL = f"{NAME}l"

Record = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """What a later run needs to know of an input that is done: its fingerprint, name, and outputs with their sizes."""

    fingerprint: str
    stem: str
    status: str
    outputs: tuple[tuple[str, int], ...]
    kept: tuple[tuple[str, int], ...] = ()  # of earlier runs, under other names

    def complete(self, root: Path) -> bool:
        """Whether the input was finished and all its outputs are there with the sizes that were written."""
        if self.status == "failed":
            return False
        for name, size in self.outputs:
            try:
                if (root / name).stat().st_size != size:
                    return False
            except OSError:
                return False
        return True


class Report:
    """The report in a folder, open for one run: a context manager. Raises OutputError when it cannot be written.

    ``name`` is its file's; the journal's has one letter more.
    """

    def __init__(self, root: Path, name: str = NAME) -> None:
        self.root = root
        self.name, self.journal = name, f"{name}l"
        self.damaged: Path | None = None  # where a report that could not be read was put aside
        self._unreadable = False
        self._new = not os.path.lexists(root)
        for own in (self.name, self.journal):
            if _is_foreign(root / own):
                raise OutputError(
                    f"{root}: holds a {own} that is not codeformer's; choose another --output_path, or move it away"
                )
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._journal = (root / self.journal).open("ab")
        except OSError as error:
            raise _unwritable(root, error) from error
        if lock(self._journal) is False:  # two runs in one folder would fight over names
            self._journal.close()
            message = f"{root}: another codeformer is writing here; wait for it, or choose another --output_path"
            raise OutputError(message)
        self._folder = file_id(root)
        self.known: dict[str, Known] = {record["input"]: _known(record) for record in self.records()}
        if self._unreadable:
            self.damaged = self._put_aside()

    def names(self) -> dict[str, str]:
        """Return the names of all inputs' results, by input: no other input may have them."""
        return {key: known.stem for key, known in self.known.items()}

    def is_done(self, key: str, fingerprint: str) -> bool:
        """Return whether an input's results are there, and were made of the same bytes with the same settings."""
        known = self.known.get(key)
        return known is not None and fingerprint == known.fingerprint != "" and known.complete(self.root)

    def records(self) -> Iterator[Record]:
        """Return every record on disk, the older first; of an input the last one counts."""
        yield from self._merged()
        yield from _lines(self.root / self.journal)

    def remove_stale(self, record: Record, is_stale: Callable[[str], bool]) -> list[str]:
        """Remove what an earlier run wrote for this input and is wrong now, say a sixth face, and return its names.

        What else earlier runs wrote stays, and is put into the record as ``kept``.

        Args:
            record: what is about to be appended. If its input failed, all earlier results stay.
            is_stale: whether a name below the folder is one that this run would give to a result; no other file is
                removed.
        """
        known = self.known.get(record["input"])
        if known is None:
            return []
        new = {one["path"] for one in record["outputs"]}
        removed, kept = [], {}
        for name, size in (*known.kept, *known.outputs):
            if name in new:
                continue
            if record["status"] != "failed" and is_stale(name) and ".." not in name.split("/"):
                with suppress(OSError):
                    remove_below(self.root, name)
                    removed.append(name)
            elif os.path.lexists(self.root / name):
                kept[name] = size
        if kept:
            record["kept"] = [{"path": name, "bytes": size} for name, size in kept.items()]
        return removed

    def append(self, record: Record) -> None:
        """Add what became of one input; from now on a kill does not lose it."""
        self._require_folder()
        line = b"\n" + json.dumps(record, separators=(",", ":")).encode("ascii")  # a torn line before it stays alone
        try:
            self._journal.write(line)
            self._journal.flush()
        except OSError as error:
            raise _unwritable(self.root, error) from error
        self.known[record["input"]] = _known(record)

    def merge(self, header: Mapping[str, Any]) -> None:
        """Write ``results.json``: the header, then the last record of every input, in the order of first appearance."""
        self._require_folder()
        last: dict[str, int] = {}
        for index, record in enumerate(self.records()):
            last[record["input"]] = index
        target = self.root / self.name
        temporary = self.root / f".{self.name}.tmp"
        try:
            with temporary.open("wb") as file:
                head = json.dumps({"format": FORMAT, **header}, indent=1)
                file.write(head[: head.rindex("\n")].encode("ascii") + b',\n "inputs": [')
                between = b"\n"
                for index, record in enumerate(self.records()):
                    if last[record["input"]] == index:
                        file.write(between + json.dumps(record, separators=(",", ":")).encode("ascii"))
                        between = b",\n"
                file.write(b"\n ]\n}\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise _unwritable(self.root, error) from error

    def finish(self, header: Mapping[str, Any]) -> None:
        """Merge, and drop the journal that is then contained in ``results.json``."""
        self.merge(header)
        self._journal.close()
        with suppress(OSError):
            (self.root / self.journal).unlink()

    def close(self) -> None:
        """Leave the journal for the next run; leave nothing where nothing was done."""
        with suppress(OSError):
            self._journal.close()
            if (self.root / self.journal).stat().st_size == 0:
                (self.root / self.journal).unlink()
            if self._new:
                self.root.rmdir()  # only if it is empty

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _require_folder(self) -> None:
        """Raise OutputError if the folder is gone, or another one has its name: the journal is written to nowhere."""
        if file_id(self.root) != self._folder:
            raise OutputError(
                f"{self.root}: the output folder was removed or replaced during the run, and the results with it; run "
                "the same command again"
            )

    def _merged(self) -> Iterator[Record]:
        path = self.root / self.name
        found = False
        for record in _lines(path):
            found = True
            yield record
        if found or not path.is_file():
            return
        try:  # somebody may have formatted it anew
            inputs = json.loads(path.read_bytes())["inputs"]
            if isinstance(inputs, dict):
                inputs = [_aligned_by_0_1(key, entry) for key, entry in inputs.items()]
            yield from [r for r in inputs if isinstance(r, dict) and "input" in r]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._unreadable = True

    def _put_aside(self) -> Path:
        target, count = self.root / f"{self.name}.damaged", 2
        while target.exists():
            target, count = self.root / f"{self.name}.damaged-{count}", count + 1
        try:
            (self.root / self.name).rename(target)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        return target


def _is_foreign(path: Path) -> bool:
    """Whether a file of our name is somebody else's: whole JSON, but no report or record of ours.

    What is torn or damaged may be ours.
    """
    is_journal = path.suffix == ".jsonl"
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        for line in file:
            text = line.strip().rstrip(b",")
            if is_journal or text.startswith(b'{"input":'):
                try:
                    return not _is_record(json.loads(text))  # one tells for all: a million lines are read soon enough
                except ValueError:
                    continue
    if is_journal:
        return False
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return not (isinstance(data, dict) and {"format", "inputs"} <= data.keys())


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and {"input", "name", "status", "fingerprint", "outputs"} <= value.keys()


def _lines(path: Path) -> Iterator[Record]:
    """The records that stand whole on one line each; torn and foreign lines are passed over."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        for line in file:
            text = line.strip().rstrip(b",")
            if not text.startswith(b'{"input":'):
                continue
            try:
                record = json.loads(text)
            except ValueError:
                continue
            if isinstance(record, dict) and isinstance(record["input"], str):
                yield record


def _aligned_by_0_1(key: str, entry: Mapping[str, Any]) -> Record:
    """An input's record in an ``align.json`` of version 0.1, which had no fingerprints."""
    files = [face["file"] for face in entry["faces"] if face["file"]]
    outputs = [{"path": str(file), "bytes": -1} for file in files]
    name, status = str(entry["stem"]), str(entry["status"])
    return {
        "input": key,
        "name": name,
        "status": status,
        "fingerprint": "",
        "faces": entry["faces"],
        "outputs": outputs,
    }


def _known(record: Record) -> Known:
    outputs, kept = (
        tuple((str(o["path"]), int(o["bytes"])) for o in record.get(key, ())) for key in ("outputs", "kept")
    )
    return Known(record.get("fingerprint", ""), record.get("name", ""), record.get("status", "failed"), outputs, kept)


def _unwritable(root: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"{root}: cannot write results here ({reason}); choose another --output_path, or free some space"
    )
