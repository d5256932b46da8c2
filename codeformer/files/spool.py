"""Collections for a run over very many inputs: a few lie in memory, many in a temporary file that nobody else sees.

SQLite's private databases do this: each has a cache of a few megabytes, spills into a file without a name in the
system's folder for temporary files, and is gone when it is closed or the process ends, even if that is killed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from itertools import islice
from typing import Generic, TypeVar, overload

T = TypeVar("T")

_CACHE = 8192  # KiB of memory that a database may use before it spills
_AT_A_TIME = 1000  # rows that an iteration holds


def private_database(schema: str) -> sqlite3.Connection:
    """Return an empty database with these tables, which only this process sees and nothing outlasts."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for line in (f"PRAGMA cache_size=-{_CACHE}", "PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", schema):
        database.execute(line)
    return database


class SeenSet:
    """A set of byte strings that only grows."""

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._database = private_database("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        for key in keys:
            self.add(key)

    def add(self, key: bytes) -> bool:
        """Add a key, and return whether it is new."""
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1

    def __contains__(self, key: bytes) -> bool:
        return self._database.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() is not None


class Spool(Sequence[T], Generic[T]):
    """A sequence that is added to and read in order; its items are kept as byte strings.

    Args:
        pack: makes a byte string of an item.
        unpack: makes the item again.
        items: the first ones.
    """

    def __init__(self, pack: Callable[[T], bytes], unpack: Callable[[bytes], T], items: Iterable[T] = ()) -> None:
        self._pack, self._unpack = pack, unpack
        self._database = private_database("CREATE TABLE items (place INTEGER PRIMARY KEY, item BLOB)")
        self._count = 0
        for item in items:
            self.append(item)

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._database.execute("INSERT INTO items VALUES (?, ?)", (self._count, self._pack(item)))
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for start in range(0, self._count, _AT_A_TIME):
            rows = self._database.execute(
                "SELECT item FROM items WHERE place >= ? AND place < ? ORDER BY place", (start, start + _AT_A_TIME)
            ).fetchall()
            for (item,) in rows:
                yield self._unpack(item)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """Return one item, or a list of several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        place = index + self._count if index < 0 else index
        row = self._database.execute("SELECT item FROM items WHERE place = ?", (place,)).fetchone()
        if row is None:
            raise IndexError(index)
        return self._unpack(row[0])


class Table(MutableMapping[str, str]):
    """Texts by texts."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._database = private_database("CREATE TABLE pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        for key, value in pairs:
            self[key] = value

    def __getitem__(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM pairs WHERE key = ?", (packed_text(key),)).fetchone()
        if row is None:
            raise KeyError(key)
        return unpacked_text(row[0])

    def __setitem__(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (packed_text(key), packed_text(value)))

    def __delitem__(self, key: str) -> None:
        if self._database.execute("DELETE FROM pairs WHERE key = ?", (packed_text(key),)).rowcount == 0:
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        last = b""
        query = "SELECT key FROM pairs WHERE key > ? ORDER BY key LIMIT ?"
        while rows := self._database.execute(query, (last, _AT_A_TIME)).fetchall():
            last = rows[-1][0]
            for (key,) in rows:
                yield unpacked_text(key)

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM pairs").fetchone()[0])


def packed_text(text: str) -> bytes:
    """Return a text as bytes, also a path whose bytes are no text."""
    return text.encode("utf-8", "surrogatepass")


def unpacked_text(data: bytes) -> str:
    """Return the text again."""
    return data.decode("utf-8", "surrogatepass")


def in_order(names: Iterable[str], most: int = 50_000) -> Iterator[str]:
    """Return file names, all taken at once, in order; above ``most`` of them they are sorted on the disk."""
    names = iter(names)
    held = list(islice(names, most))
    if len(held) < most:
        return iter(sorted(held))
    database = private_database("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
    rows = ((packed_text(name),) for source in (held, names) for name in source)
    database.executemany("INSERT OR IGNORE INTO names VALUES (?)", rows)
    return _stored_names(database)


def _stored_names(database: sqlite3.Connection) -> Iterator[str]:
    last = b""
    query = "SELECT name FROM names WHERE name > ? ORDER BY name LIMIT ?"
    while rows := database.execute(query, (last, _AT_A_TIME)).fetchall():
        last = rows[-1][0]
        for (name,) in rows:
            yield unpacked_text(name)
