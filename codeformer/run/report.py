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
from pathlib import Path
from typing import IO, Any

from codeformer.errors import OutputError
from codeformer.files.atomic import replacing, why_closed
from codeformer.files.lock import lock
from codeformer.files.opening import open_own, remove_below
from codeformer.files.paths import file_id
from codeformer.run.inputs import folded_name
from codeformer.run.stored import Known, Record, head_of, judge, known_of, lines_of, set_aside, whole_of

FORMAT = 1
NAME = "results.json"
JOURNAL = f"{NAME}l"


class Earlier:
    """What a folder's report says of earlier runs, read and never written.

    ``name`` is its file's; the journal's has one letter more.
    """

    def __init__(self, root: Path, name: str = NAME, known: dict[str, Known] | None = None) -> None:
        self.root = root
        self.name, self.journal = name, f"{name}l"
        self.known: dict[str, Known] = known or {}

    def names(self) -> dict[str, str]:
        """Return the names of all inputs' results, by input: no other input may have them."""
        names, used = {}, set[str]()
        for key, known in self.known.items():
            folded = folded_name(known.stem)
            if folded not in used:  # two inputs with one name: only somebody else wrote that
                names[key] = known.stem
            used.add(folded)
        return names

    def is_done(self, key: str, fingerprint: str) -> bool:
        """Return whether an input's results are there, and were made of the same bytes with the same settings."""
        known = self.known.get(key)
        return known is not None and fingerprint == known.fingerprint != "" and known.complete(self.root)

    def records(self) -> Iterator[Record]:
        """Return every record on disk, the older first; of an input the last one counts."""
        for one in (self.name, self.journal):
            yield from (record for record in self._stored(one) if record is not None)

    def head(self) -> dict[str, Any]:
        """Return the head of the report that an earlier run wrote; empty if there is none."""
        return head_of(self.root / self.name)

    def _stored(self, name: str) -> Iterator[Record | None]:
        path = self.root / name
        found = False
        for record in lines_of(path):
            found = True
            yield record
        if not found and name != self.journal and os.path.lexists(path):
            with suppress(OSError, ValueError):
                yield from whole_of(path)


def look(root: Path, name: str = NAME) -> Earlier:
    """Return what earlier runs wrote down in a folder, which is left as it is, and need not be there.

    Raises:
        OutputError: a run could not write there: the folder may not be written, or holds somebody else's report.
    """
    earlier = Earlier(root, name)
    if error := why_closed(root):
        raise _unwritable(root, error)
    for own in (earlier.name, earlier.journal):
        if judge(root / own, journal=own == earlier.journal) == "foreign":
            raise _foreign(root, own)
    earlier.known.update((record["input"], known_of(record)) for record in earlier.records())
    return earlier


class Report(Earlier):
    """The report in a folder, open for one run: a context manager. Raises OutputError when it cannot be written.

    ``name`` is its file's; the journal's has one letter more.
    """

    def __init__(self, root: Path, name: str = NAME) -> None:
        super().__init__(root, name)
        self.damaged: Path | None = None  # where a report that could not be read was put aside
        self._new = not os.path.lexists(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            for own in (self.name, self.journal):
                judged = judge(root / own, journal=own == self.journal)
                if judged == "foreign":
                    raise _foreign(root, own)
                if judged == "unusable":
                    self.damaged = set_aside(root / own)
            self._journal = self._open_journal()
            self.known = self._take_in()
        except OSError as error:
            raise _unwritable(root, error) from error
        self._folder = file_id(root)

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
            if record["status"] != "failed" and is_stale(name):
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
        try:
            self._write(record)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        self.known[record["input"]] = known_of(record)

    def merge(self, header: Mapping[str, Any]) -> None:
        """Write ``results.json``: the header, then the last record of every input, in the order of first appearance."""
        self._require_folder()
        last: dict[str, int] = {}
        for index, record in enumerate(self.records()):
            last[record["input"]] = index
        try:
            with replacing(self.root / self.name, below=self.root) as file:
                head = json.dumps({"format": FORMAT, **header}, indent=1)
                file.write(head[: head.rindex("\n")].encode("ascii") + b',\n "inputs": [')
                between = b"\n"
                for index, record in enumerate(self.records()):
                    if last[record["input"]] == index:
                        file.write(between + json.dumps(record, separators=(",", ":")).encode("ascii"))
                        between = b",\n"
                file.write(b"\n ]\n}\n")
        except OSError as error:
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

    def _take_in(self) -> dict[str, Known]:
        """Return what is known of every input. A report that holds anything but records of ours is put aside."""
        path = self.root / self.name
        known: dict[str, Known] = {}
        odd = 0
        for record in self._stored(self.name):
            if record is None:
                odd += 1
            else:
                known[record["input"]] = known_of(record)
        newer = {record["input"]: known_of(record) for record in self._stored(self.journal) if record is not None}
        if os.path.lexists(path) and (odd or (not known and not _is_empty(path))):
            self.damaged = set_aside(path)
            for record in self._stored(self.damaged.name):  # what is good in it goes on in the journal
                if record is not None and record["input"] not in newer:
                    self._write(record)
        return known | newer

    def _open_journal(self) -> IO[bytes]:
        """Open the journal, locked: two runs in one folder would fight over names."""
        path = self.root / self.journal
        while True:
            journal = os.fdopen(open_own(path, os.O_RDWR | os.O_APPEND), "ab")
            if lock(journal) is False:
                journal.close()
                message = (
                    f"{self.root}: another codeformer is writing here; wait for it, or choose another --output_path"
                )
                raise OutputError(message)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(journal.fileno()), path.stat()):
                    return journal
            journal.close()  # a run that ended between our opening and our locking has removed it

    def _write(self, record: Record) -> None:
        line = b"\n" + json.dumps(record, separators=(",", ":")).encode("ascii")  # a torn line before it stays alone
        self._journal.write(line)
        self._journal.flush()


def _is_empty(path: Path) -> bool:
    """Return whether a report is whole and has no inputs."""
    try:
        return not whole_of(path)
    except (OSError, ValueError):
        return False


def _foreign(root: Path, own: str) -> OutputError:
    return OutputError(f"{root}: holds a {own} that is not codeformer's; choose another --output_path, or move it away")


def _unwritable(root: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(
        f"{root}: cannot write results here ({reason}); choose another --output_path, or free some space"
    )
