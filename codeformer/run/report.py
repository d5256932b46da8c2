"""The report of a run over pictures: ``results.json``, written through a journal.

Every finished input is one line appended to ``results.jsonl``; at the end the journal is merged into ``results.json``
(one line per input inside it, so a million of them can be read and merged line by line). A process that is killed
leaves a whole ``results.json`` of the runs before it and a journal whose last line may be torn; the next run takes
both in. Above :data:`LARGE` inputs, and for a shard of a run in several processes, the journal stays, and
``codeformer report`` merges it. What is known of the inputs lies in an index, not in memory.
The format is described in ``docs/report.md``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from codeformer.errors import OutputError
from codeformer.files.atomic import replacing, why_closed
from codeformer.files.lock import lock
from codeformer.files.opening import open_own, open_regular, remove_below
from codeformer.files.paths import file_id
from codeformer.files.spool import Spool, packed_text, unpacked_text
from codeformer.options import Shard
from codeformer.run.index import Index, Position
from codeformer.run.journal import busy, journal_name, journals_of, names_file, require_alone, written
from codeformer.run.shards import joined
from codeformer.run.stored import Known, Record, head_of, judge, known_of, lines_of, now, set_aside, whole_of

FORMAT = 1
NAME = "results.json"
JOURNAL = journal_name(NAME)
#: Of more inputs than this the report is not written at the end of a run, but by ``codeformer report``.
LARGE = 100_000


class Earlier:
    """What a folder's report says of earlier runs, read and never written.

    ``name`` is its file's; the journal's has one letter more, or names the shard.
    """

    def __init__(self, root: Path, name: str = NAME, shard: Shard | None = None) -> None:
        self.root = root
        self.name, self.journal, self.shard = name, journal_name(name, shard), shard
        self.known = Index()
        self.runs: dict[str, Record] = {}  # the last head that each journal has
        self.odd = 0  # entries of the report that are not records
        self._whole: dict[str, Record] = {}  # records of a report that does not have them line by line

    def names(self) -> Mapping[str, str]:
        """Return the names of all inputs' results, by input: no other input may have them."""
        return self.known.names()

    def is_done(self, key: str, fingerprint: str) -> bool:
        """Return whether an input's results are there, and were made of the same bytes with the same settings."""
        known = self.known.get(key)
        return known is not None and fingerprint == known.fingerprint != "" and known.complete(self.root)

    def record(self, key: str) -> Record | None:
        """Return the last record of an input; None if there is none. Raises OutputError if its file was changed."""
        place = self.known.place(key)
        if place is None:
            return None
        with ExitStack() as stack:
            return json.loads(self._line(key, place, {}, stack))

    def records(self) -> Iterator[Record]:
        """Yield the last record of every input, in the order of first appearance."""
        with ExitStack() as stack:
            for _, line in self.lines(stack):
                yield json.loads(line)

    def lines(self, stack: ExitStack) -> Iterator[tuple[str, bytes]]:
        """Yield every input with the line of its last record; the files stay open until the stack is closed."""
        files: dict[str, BinaryIO] = {}
        for key, place in self.known.places():
            yield key, self._line(key, place, files, stack)

    def head(self) -> dict[str, Any]:
        """Return the head of the newest run that an earlier run wrote; empty if there is none."""
        return joined(head_of(self.root / self.name), self.runs)

    def _scan(self) -> tuple[int, int]:
        """Index what is on disk; return how many entries of the report itself are records, and how many are not."""
        counts = self._scan_file(self.name, "")
        for journal in journals_of(self.root, self.name):
            self._scan_file(journal, written(self.root / journal))
        return counts

    def _scan_file(self, name: str, began: str) -> tuple[int, int]:
        path, good, odd = self.root / name, 0, 0
        for line in lines_of(path):
            if line.run is not None:
                self.runs[name] = line.run
                began = line.run["started"]
            elif line.record is None:
                odd += 1
            else:
                good += 1
                place = Position(name, line.offset, line.length, began)
                self.known.put(line.record["input"], known_of(line.record), place)
        if not (good or odd) and name == self.name and os.path.lexists(path):
            with suppress(OSError, ValueError):
                for record in whole_of(path):
                    odd += record is None
                    if record is not None:
                        good += 1
                        self._whole[record["input"]] = record
                        self.known.put(record["input"], known_of(record), Position())
        return good, odd

    def _line(self, key: str, place: Position, files: dict[str, BinaryIO], stack: ExitStack) -> bytes:
        """Return the line of a record as it stands in its file. Raises OutputError."""
        if not place.source:
            return json.dumps(self._whole[key], separators=(",", ":")).encode("ascii")
        try:
            if place.source not in files:
                files[place.source] = stack.enter_context(open_regular(self.root / place.source))
            file = files[place.source]
            if file.tell() != place.offset:
                file.seek(place.offset)
            text = file.read(place.length).strip().rstrip(b",")
        except OSError as error:
            raise _unwritable(self.root, error) from error
        if not (text.startswith(b'{"input":') and text.endswith(b"}")):
            raise OutputError(f"{self.root / place.source}: was changed during the run; run the same command again")
        return text


def look(root: Path, name: str = NAME, shard: Shard | None = None) -> Earlier:
    """Return what earlier runs wrote down in a folder, which is left as it is, and need not be there.

    Raises:
        OutputError: a run could not write there: the folder may not be written, or holds somebody else's report.
    """
    earlier = Earlier(root, name, shard)
    if error := why_closed(root):
        raise _unwritable(root, error)
    for own in (earlier.name, earlier.journal, *journals_of(root, name)):
        if judge(root / own, journal=own != earlier.name) == "foreign":
            raise _foreign(root, own)
    _, earlier.odd = earlier._scan()
    return earlier


def write_report(earlier: Earlier, header: Mapping[str, Any]) -> None:
    """Write a report: the header, then the last record of every input, in the order of first appearance.

    Raises:
        OutputError: it cannot be written.
    """
    moved = Spool(_packed_move, _unpacked_move)
    try:
        with replacing(earlier.root / earlier.name, below=earlier.root) as file, ExitStack() as stack:
            head = json.dumps({"format": FORMAT, **header}, indent=1)
            file.write(head[: head.rindex("\n")].encode("ascii") + b',\n "inputs": [')
            between = b"\n"
            for key, line in earlier.lines(stack):
                offset = file.tell() + len(between)
                file.write(between + line)
                moved.append((key, offset, len(line)))
                between = b",\n"
            file.write(b"\n ]\n}\n")
            stack.close()  # Windows replaces no file that is open
    except OSError as error:
        raise _unwritable(earlier.root, error) from error
    for key, offset, length in moved:
        earlier.known.move(key, Position(earlier.name, offset, length))


class Report(Earlier):
    """The report in a folder, open for one run: a context manager. Raises OutputError when it cannot be written.

    ``name`` is its file's. ``shard``: this run is one of several processes; its journal is then its own, and it leaves
    the report to ``codeformer report``.
    """

    def __init__(self, root: Path, name: str = NAME, shard: Shard | None = None) -> None:
        super().__init__(root, name, shard)
        self.damaged: Path | None = None  # where a report that could not be read was put aside
        self._new = not os.path.lexists(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            for own in dict.fromkeys((self.name, self.journal, *journals_of(root, name))):
                judged = judge(root / own, journal=own != self.name)
                if judged == "foreign":
                    raise _foreign(root, own)
                if judged == "unusable":
                    self.damaged = set_aside(root / own)
            self._journal = self._open_journal()
            self._began = now()
            try:
                require_alone(root, name, shard)
                self._take_in()
            except BaseException:
                self._journal.close()
                raise
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
        return remove_stale(self.root, self.known.get(record["input"]), record, is_stale)

    def append(self, record: Record) -> None:
        """Add what became of one input; from now on a kill does not lose it."""
        self._require_folder()
        try:
            place = self._write(record)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        self.known.put(record["input"], known_of(record), place)

    @property
    def left_to_join(self) -> bool:
        """Whether ``results.json`` is left to ``codeformer report``: of a shard, and of very many inputs."""
        return self.shard is not None or len(self.known) > LARGE

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write down that a run works now."""
        if self.left_to_join:
            self._write_run({**header, "state": "running"})
        else:
            self.merge({**header, "state": "running"})

    def merge(self, header: Mapping[str, Any]) -> None:
        """Write ``results.json``: the header, then the last record of every input, in the order of first appearance."""
        self._require_folder()
        write_report(self, header)

    def finish(self, header: Mapping[str, Any]) -> None:
        """Merge, and drop the journals that are then contained in ``results.json``; or leave that to a later join."""
        if self.left_to_join:
            self._require_folder()
            self._write_run(header)
            self._journal.close()
            return
        self.merge(header)
        self.drop_journals()

    def drop_journals(self) -> None:
        """Remove the journals, after a merge; nobody else may hold one."""
        self._journal.close()
        for own in (*journals_of(self.root, self.name), names_file(self.name)):
            with suppress(OSError):
                (self.root / own).unlink()

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

    def _take_in(self) -> None:
        """Index what is known of every input. A report that holds anything but records of ours is put aside."""
        path = self.root / self.name
        good, odd = self._scan()
        if os.path.lexists(path) and (odd or (not good and not _is_empty(path))):
            self.damaged = set_aside(path)
            with ExitStack() as stack:
                files: dict[str, BinaryIO] = {}
                for key, place in self.known.places():  # what is good in it goes on in the journal
                    if place.source in ("", self.name):
                        if place.source:
                            place = replace(place, source=self.damaged.name)
                        record = json.loads(self._line(key, place, files, stack))
                        self.known.move(key, self._write(record))

    def _open_journal(self) -> IO[bytes]:
        """Open the journal, locked: two runs in one folder would fight over names."""
        path = self.root / self.journal
        while True:
            journal = os.fdopen(open_own(path, os.O_RDWR | os.O_APPEND), "ab")
            if lock(journal) is False:
                journal.close()
                raise busy(self.root, self.journal)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(journal.fileno()), path.stat()):
                    return journal
            journal.close()  # a run that ended between our opening and our locking has removed it

    def _write(self, record: Record) -> Position:
        line = json.dumps(record, separators=(",", ":")).encode("ascii")
        self._journal.write(b"\n" + line)  # a torn line before it stays alone
        self._journal.flush()
        return Position(self.journal, self._journal.tell() - len(line), len(line), self._began)

    def _write_run(self, header: Mapping[str, Any]) -> None:
        """Write the head of the run into the journal. Raises OutputError."""
        of = {} if self.shard is None else {"shard": str(self.shard)}
        run = {"started": self._began, **header, **of}
        try:
            self._write({"run": run})
        except OSError as error:
            raise _unwritable(self.root, error) from error


def _packed_move(move: tuple[str, int, int]) -> bytes:
    return packed_text("\0".join(map(str, move)))


def _unpacked_move(data: bytes) -> tuple[str, int, int]:
    key, offset, length = unpacked_text(data).rsplit("\0", 2)
    return key, int(offset), int(length)


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


def remove_stale(root: Path, known: Known | None, record: Record, is_stale: Callable[[str], bool]) -> list[str]:
    """Do what :meth:`Report.remove_stale` says; ``known`` is what earlier runs made of the input below ``root``."""
    if known is None:
        return []
    new = {one["path"] for one in record["outputs"]}
    removed, kept = [], {}
    for name, size in (*known.kept, *known.outputs):
        if name in new:
            continue
        if record["status"] != "failed" and is_stale(name):
            with suppress(OSError):
                remove_below(root, name)
                removed.append(name)
        elif os.path.lexists(root / name):
            kept[name] = size
    if kept:
        record["kept"] = [{"path": name, "bytes": size} for name, size in kept.items()]
    return removed
