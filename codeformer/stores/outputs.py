"""Results in a store: a run writes into a folder here, which mirrors the store's, and what it has made is uploaded.

What lies in the store already is a file of the same size here, which holds nothing and takes no space on the disk (but
an entry): so a run asks the folder what is done, as ever. A result becomes such a file when it has been uploaded. The
journal is uploaded in parts, before any result that it announces, and every few seconds; at the end the report does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from codeformer.errors import OutputError
from codeformer.files.opening import is_name_below
from codeformer.files.urls import joined
from codeformer.run.inputs import is_report
from codeformer.run.interrupts import signals_held
from codeformer.run.join import REPORTS
from codeformer.run.record import error_entry
from codeformer.run.report import Report
from codeformer.run.stored import Record
from codeformer.run.tally import Outcome
from codeformer.stores.access import Store, is_folder, unwritable

_PARTS = ".parts"  # behind a journal's name: the folder of its parts
_PUTTERS = 16  # files on their way at a time
_GROUP = 64  # inputs whose results are uploaded together,
_EVERY = 5.0  # or those of so many seconds
_MOST = 4 * _GROUP  # inputs whose results wait on the disk


class StoredOutputs:
    """The folder of a run's results in a store, and its mirror here.

    Args:
        store: where it lies.
        url: of the folder.
        folder: the mirror.
    """

    def __init__(self, store: Store, url: str, folder: Path) -> None:
        self.store, self.url, self.folder = store, url, folder
        self._run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        self._count = 0
        self._taken: list[str] = []  # names of the store's journals and their parts that the mirror has
        self._synced: dict[str, int] = {}  # bytes of each journal here that the store has

    def mirror(self, *, files: bool = True) -> None:
        """Fetch the reports and journals of earlier runs, and stand in for their results.

        Args:
            files: whether results are mirrored; else only the reports are.

        Raises:
            OutputError: the store cannot be asked, or the mirror not be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            found = list(self.store.listed(self.url))
        except FileNotFoundError:
            return  # a folder of a store begins with its first file
        except Exception as error:
            raise unwritable(self.url, error) from error
        try:
            for name, info in found:  # in order: results.jsonl before results.jsonl.parts
                if is_folder(info) and is_report(name.removesuffix(_PARTS)) and name.endswith(_PARTS):
                    self._take_parts(name)
                elif is_report(name):
                    self.store.get(joined(self.url, name), self.folder / name)
                    if name.endswith(".jsonl"):
                        self._taken.append(name)
                elif files:
                    self._stand_in(name, info)
        except Exception as error:
            raise unwritable(self.url, error) from error
        for journal in self.folder.glob("*.jsonl"):
            self._synced[journal.name] = journal.stat().st_size

    def uploaded(self, outcomes: Generator[Outcome, None, None], report: Report) -> Generator[Outcome, None, None]:
        """Yield outcomes when their results are in the store; a result that the store does not take is a failure.

        Raises:
            OutputError: the store does not take the journal: then nothing that is done could be recorded.
        """
        journal = report.root / report.journal
        name, data = self._piece(journal)
        self._put_piece(name, data or b"\n")  # before any work: a store that takes nothing is noticed here
        waiting: list[Outcome] = []
        flying: Future[list[Outcome]] | None = None
        began = time.monotonic()
        with (
            ThreadPoolExecutor(1, "codeformer-put") as group_pool,
            ThreadPoolExecutor(_PUTTERS, "codeformer-put") as pool,
        ):

            def fly(piece: tuple[str, bytes], group: list[tuple[Outcome, list[str]]]) -> list[Outcome]:
                self._put_piece(*piece)
                return list(pool.map(lambda one: self._put(*one), group))

            def begin() -> Future[list[Outcome]]:
                group = [(one, self._stale(one.record, report)) for one in waiting]
                waiting.clear()
                return group_pool.submit(fly, self._piece(journal), group)

            def drained() -> Iterator[Outcome]:
                if flying is not None:
                    yield from flying.result()
                if waiting:
                    yield from begin().result()

            try:
                for outcome in outcomes:
                    with signals_held():
                        waiting.append(outcome)
                        due = len(waiting) >= _GROUP or time.monotonic() - began > _EVERY
                        if flying is not None and (flying.done() or len(waiting) >= _MOST):
                            done, flying = flying, None
                            yield from done.result()
                        if due and flying is None:
                            flying, began = begin(), time.monotonic()
            except KeyboardInterrupt:
                with signals_held():
                    yield from drained()
                raise
            with signals_held():
                yield from drained()

    def settle(self) -> None:
        """Upload what a run has left in the mirror: its reports, or the rest of its journals.

        Raises:
            OutputError: the store does not take them.
        """
        for name in REPORTS:
            path = self.folder / name
            if path.is_file():
                self._put_file(path, joined(self.url, name))
        for path in self.folder.glob("*.damaged*"):  # kept for whoever wants to look into it
            self._put_file(path, joined(self.url, path.name))
        left = [path.name for path in self.folder.glob("*.jsonl") if not path.name.endswith(".names.jsonl")]
        for name in left:
            self._put_piece(*self._piece(self.folder / name))
        for name in self._taken:  # what reports hold now
            if name.partition(_PARTS)[0] not in left:
                with suppress(Exception):  # read again by the next run, it says nothing new
                    self.store.remove(joined(self.url, name))
        self._taken = [name for name in self._taken if name.partition(_PARTS)[0] in left]

    def _take_parts(self, name: str) -> None:
        journal = self.folder / name.removesuffix(_PARTS)
        with journal.open("ab") as file:
            for part, info in self.store.listed(joined(self.url, name)):
                if not is_folder(info):
                    piece = self.folder / ".part"
                    self.store.get(joined(self.url, f"{name}/{part}"), piece)
                    with piece.open("rb") as source:
                        file.write(b"\n")  # the last line of the part before may be torn
                        shutil.copyfileobj(source, file)
                    piece.unlink()
                    self._taken.append(f"{name}/{part}")

    def _stand_in(self, name: str, info: Any) -> None:
        """Make an empty file of the size of what lies in the store, or of all that a folder there holds."""
        if not is_name_below(name):
            return
        if is_folder(info):
            for below, inner in self.store.listed(joined(self.url, name)):
                self._stand_in(f"{name}/{below}", inner)
        else:
            hollow(self.folder / name, int(info.get("size") or 0))

    def _piece(self, path: Path) -> tuple[str, bytes]:
        """Return what a journal has got since the last time, and the name of its part in the store."""
        since = self._synced.get(path.name, 0)
        data = b""
        with suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(since)
            data = file.read()
        self._synced[path.name] = since + len(data)
        self._count += bool(data)
        return f"{path.name}{_PARTS}/{self._run}-{self._count:06d}", data

    def _put_piece(self, name: str, data: bytes) -> None:
        if data:
            try:
                self.store.write(data, joined(self.url, name))
            except Exception as error:
                raise unwritable(self.url, error) from error
            self._taken.append(name)

    def _stale(self, record: Record | None, report: Report) -> list[str]:
        """Return the names of earlier results of an input that the run has removed from the mirror."""
        known = report.known.get(record["input"]) if record else None
        if known is None:
            return []
        names = {name for name, _ in (*known.kept, *known.outputs)}
        return [name for name in names if not os.path.lexists(self.folder / name)]

    def _put(self, outcome: Outcome, stale: list[str]) -> Outcome:
        """Upload the results of one input, and remove what is wrong now."""
        record = outcome.record
        if record is None:
            return outcome
        up: list[dict[str, Any]] = []
        try:
            for one in record["outputs"]:
                path = self.folder / one["path"]
                if not is_hollow(path):
                    self._put_file(path, joined(self.url, one["path"]))
                    hollow(path, path.stat().st_size)
                up.append(one)
            for name in stale:
                self.store.remove(joined(self.url, name))
        except Exception as error:
            ours = error if isinstance(error, OutputError) else unwritable(self.url, error)
            for one in record["outputs"][len(up) :]:
                (self.folder / one["path"]).unlink(missing_ok=True)
            failed = {
                **record,
                "status": "failed",
                "fingerprint": "",
                "outputs": up,
                "error": error_entry(outcome.path, ours),
            }
            return replace(outcome, record=failed, error=ours, faces=0, without_face=False)
        return outcome

    def _put_file(self, path: Path, url: str) -> None:
        try:
            self.store.put(path, url)
        except Exception as error:
            raise unwritable(url, error) from error


def hollow(path: Path, size: int) -> None:
    """Make a file of this size that holds nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def is_hollow(path: Path) -> bool:
    """Return whether a file holds nothing but the zeros that nobody wrote; no result begins with that many."""
    with path.open("rb") as file:
        return not any(file.read(16))


def translated(value: Any, spoken: Callable[[str], str]) -> Any:
    """Return a record with all of its texts translated."""
    if isinstance(value, str):
        return spoken(value)
    if isinstance(value, dict):
        return {key: translated(inner, spoken) for key, inner in value.items()}
    return [translated(inner, spoken) for inner in value] if isinstance(value, list) else value
