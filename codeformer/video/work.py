"""Finished stretches on disk, so that a killed run goes on where it was.

Beside the output ``NAME.mp4`` lies the folder ``NAME.mp4.codeformer-work``. A stretch is finished when its record
``NNNNN.json`` is there; it is renamed into place after its packets are on the disk. The folder belongs to one
combination of input and settings, its fingerprint; with another one it is emptied first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from codeformer.errors import OutputError
from codeformer.files.atomic import unwritable, write_atomic
from codeformer.files.lock import hold
from codeformer.files.opening import open_regular, read_regular, status_below

SUFFIX = ".codeformer-work"
_LARGEST = 1 << 26  # bytes of a stretch's record
_ON_THE_DISK = ("tracks", "people")  # of a record: a line or more for each face, which nobody wants before the end


def fingerprint(settings: Mapping[str, Any], files: Iterable[Path]) -> str:
    """SHA-256 over the settings and the bytes of the input's files. Raises OSError."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in files:
        own = hashlib.blake2b()
        with open_regular(path) as file:
            while block := file.read(1 << 22):
                own.update(block)
        digest.update(own.digest())
    return digest.hexdigest()


def work_folder(output: Path) -> Path:
    """Where the work on a film lies."""
    return output.with_name(output.name + SUFFIX)


def hold_work(output: Path) -> IO[bytes]:
    """Return the lock on the work on a film. Raises OutputError if another process has it, or OSError."""
    path = work_folder(output)
    return hold(path / "lock", f"{path}: another codeformer works on this film; wait for it, or choose another -o")


class WorkFolder:
    """The work folder of one output, locked for this process. Raises OutputError.

    ``shared``: others work in it too, each on stretches of its own, and who gave them out has the lock. The folder must
    be there already.
    """

    def __init__(self, output: Path, stamp: str, *, resume: bool = True, shared: bool = False) -> None:
        self.path = work_folder(output)
        self._lock: IO[bytes] | None = None
        self._own = ""
        if shared:
            # A worker whose driver was killed may work on for a moment
            self._own = f"-{secrets.token_hex(4)}"
            if _stamp(self.path) != stamp:
                raise OutputError(f"{self.path}: is gone, or of another device or other settings; run it again")
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.path.is_symlink():  # somebody else's folder would be emptied
                raise OSError(errno.ELOOP, "is a link")
            self._lock = hold_work(output)
            if not resume or _stamp(self.path) != stamp:
                self._empty()
                write_atomic(self.path / "work.json", json.dumps({"fingerprint": stamp}).encode(), below=self.path)
            self._sweep()
        except OSError as error:
            raise unwritable(self.path, error) from error

    @staticmethod
    def others_work(output: Path, stamp: str) -> tuple[int, bool]:
        """Return how many finished stretches of other settings lie in the work folder, and whether it is this run's."""
        path = work_folder(output)
        own = _stamp(path) == stamp
        count = 0 if own or not path.is_dir() else sum(1 for entry in path.glob("[0-9]*.json"))
        return count, own

    def finished(self) -> list[dict[str, Any]]:
        """Return the records of the stretches that are done, from the film's beginning on without a gap.

        The last one is whole, and the others are :func:`slim`: :meth:`whole` has all of them.
        """
        records: list[dict[str, Any]] = []
        while (record := self.record(len(records))) is not None:
            records[-1:] = [slim(before) for before in records[-1:]]
            records.append(record)
        return records

    def whole(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield the records of the first ``count`` stretches with all that they say, one at a time.

        Raises:
            OutputError: one of them is gone, or damaged, since this run wrote or found it.
        """
        for number in range(count):
            record = self.record(number)
            if record is None:
                raise OutputError(f"{self.path}: stretch {number} was removed or changed during the run: run it again")
            yield record

    def record(self, number: int) -> dict[str, Any] | None:
        """Return the record of a stretch; None if it is not done."""
        try:
            record = json.loads(read_regular(self.path / f"{number:05}.json", _LARGEST))
            packets = status_below(self.path, self.packets(number).name)
            return record if _is_stretch(record) and packets.st_size == record["bytes"] else None
        except (OSError, ValueError, RecursionError):
            return None

    def packets(self, number: int) -> Path:
        """Where a stretch's packets lie."""
        return self.path / f"{number:05}.packets"

    def unfinished(self, number: int) -> Path:
        """Where a stretch's packets are written until it is done."""
        return self.path / f"{number:05}{self._own}.part"

    def finish(self, number: int, record: Mapping[str, Any]) -> None:
        """Declare a stretch done; its packets must be on the disk."""
        try:
            part = self.unfinished(number)
            size = part.stat().st_size
            part.replace(self.packets(number))
        except OSError as error:
            raise unwritable(self.path, error) from error
        text = json.dumps({**record, "bytes": size}).encode()
        write_atomic(self.path / f"{number:05}.json", text, below=self.path)

    def remove(self) -> None:
        """Delete the folder: the film is whole."""
        self.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def release(self) -> None:
        """Give up the lock, keep the work."""
        if self._lock is not None:
            with suppress(OSError):
                self._lock.close()

    def _empty(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                entry.unlink()

    def _sweep(self) -> None:
        """Delete what a killed run left half done, or somebody else put there under such a name."""
        for entry in (*self.path.glob("*.part"), *self.path.glob("film.part*")):
            entry.unlink(missing_ok=True)


def slim(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run keeps in memory of a stretch: some numbers, however many faces it had."""
    return {key: value for key, value in record.items() if key not in _ON_THE_DISK}


def _is_stretch(record: object) -> bool:
    """Whether a value has the shape of a stretch's record: somebody else may have written it."""
    numbers = ("bytes", "frames", "repeated", "faces", "bridged", "duration", "until")
    if not isinstance(record, dict) or not all(isinstance(record.get(key), int) for key in numbers):
        return False
    tracks, problems = record.get("tracks"), record.get("problems", [])
    if not (isinstance(problems, list) and all(isinstance(line, str) for line in problems)):
        return False
    return isinstance(tracks, list) and all(isinstance(one, dict) and _is_track(one) for one in tracks)


def _is_track(entry: Mapping[str, Any]) -> bool:
    points = [entry.get(key) for key in ("box", "at", "end")]
    return all(isinstance(entry.get(key), int | float) for key in ("first", "last", "frames", "score", "size")) and all(
        isinstance(point, list) and len(point) >= 2 and all(isinstance(value, int | float) for value in point)
        for point in points
    )


def _stamp(folder: Path) -> str | None:
    """Return the fingerprint of the run whose work lies in a folder."""
    try:
        return str(json.loads(read_regular(folder / "work.json", _LARGEST))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
