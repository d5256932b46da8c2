"""Where the last record of every input stands, and what a later run asks of it: in bounded memory, for millions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass

from codeformer.files.spool import packed_text, private_database, unpacked_text
from codeformer.run.inputs import folded_name
from codeformer.run.stored import Known

_AT_A_TIME = 1000  # rows that an iteration holds
_SCHEMA = """CREATE TABLE known (
    key BLOB PRIMARY KEY, first INTEGER UNIQUE, began TEXT, source TEXT, place INTEGER, length INTEGER, folded BLOB,
    known TEXT
)"""

_PUT = """INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    began = excluded.began, source = excluded.source, place = excluded.place, length = excluded.length,
    folded = excluded.folded, known = excluded.known
    WHERE excluded.began >= known.began"""


@dataclass(frozen=True)
class Position:
    """Where a record stands.

    Attributes:
        source: the file's name in the folder; "" where the record has no line of its own.
        offset: of its line, bytes.
        length: of its line, bytes.
        began: when the run that wrote it began. Of two records of an input the one of the later run counts.
    """

    source: str = ""
    offset: int = 0
    length: int = 0
    began: str = ""


class Index(MutableMapping[str, Known]):
    """What is known of every input, by its key, in the order of first appearance."""

    def __init__(self) -> None:
        self._database = private_database(_SCHEMA)
        self._database.execute("CREATE INDEX by_name ON known (folded)")
        self._count = 0

    def put(self, key: str, known: Known, place: Position = Position()) -> None:
        """Note the newest record of an input; one of an earlier run than the one that is there is passed over."""
        self._count += 1
        row = (packed_text(key), self._count, place.began, place.source, place.offset, place.length)
        self._database.execute(_PUT, (*row, packed_text(folded_name(known.stem)), _packed(known)))

    def move(self, key: str, place: Position) -> None:
        """Note that an input's record stands elsewhere now."""
        self._database.execute(
            "UPDATE known SET source = ?, place = ?, length = ?, began = ? WHERE key = ?",
            (place.source, place.offset, place.length, place.began, packed_text(key)),
        )

    def place(self, key: str) -> Position | None:
        """Return where an input's record stands."""
        row = self._database.execute(
            "SELECT source, place, length, began FROM known WHERE key = ?", (packed_text(key),)
        ).fetchone()
        return None if row is None else Position(*row)

    def places(self) -> Iterator[tuple[str, Position]]:
        """Yield every input with the place of its record, in the order of first appearance."""
        for rows in self._pages("key, source, place, length, began"):
            for key, *place in rows:
                yield unpacked_text(key), Position(*place)

    def names(self) -> Mapping[str, str]:
        """Return the names of all inputs' results, by input: no other input may have them."""
        return _Names(self)

    def owner(self, stem: str) -> str | None:
        """Return the first input that has this name, upper and lower case alike."""
        row = self._database.execute(
            "SELECT key FROM known WHERE folded = ? ORDER BY first LIMIT 1", (packed_text(folded_name(stem)),)
        ).fetchone()
        return None if row is None else unpacked_text(row[0])

    def __getitem__(self, key: str) -> Known:
        row = self._database.execute("SELECT known FROM known WHERE key = ?", (packed_text(key),)).fetchone()
        if row is None:
            raise KeyError(key)
        return _unpacked(row[0])

    def __setitem__(self, key: str, known: Known) -> None:
        self.put(key, known, self.place(key) or Position())

    def __delitem__(self, key: str) -> None:
        if self._database.execute("DELETE FROM known WHERE key = ?", (packed_text(key),)).rowcount == 0:
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for rows in self._pages("key"):
            for (key,) in rows:
                yield unpacked_text(key)

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM known").fetchone()[0])

    def known_values(self) -> Iterator[Known]:
        """Yield what is known of every input, without asking for one after the other."""
        for rows in self._pages("known"):
            for (known,) in rows:
                yield _unpacked(known)

    def _pages(self, columns: str) -> Iterator[list[tuple]]:  # type: ignore[type-arg]
        last = -1
        while rows := self._database.execute(
            f"SELECT first, {columns} FROM known WHERE first > ? ORDER BY first LIMIT ?", (last, _AT_A_TIME)
        ).fetchall():
            last = rows[-1][0]
            yield [row[1:] for row in rows]


class _Names(Mapping[str, str]):
    """Names by input. Where two inputs have one name, which only somebody else wrote, the first one has it."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __getitem__(self, key: str) -> str:
        stem = self._index[key].stem
        if self._index.owner(stem) != key:
            raise KeyError(key)
        return stem

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._index if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def values(self) -> Iterator[str]:  # type: ignore[override]
        """Yield all names, those that two inputs have twice."""
        return (known.stem for known in self._index.known_values())


def _packed(known: Known) -> str:
    return json.dumps([known.fingerprint, known.stem, known.status, known.outputs, known.kept], separators=(",", ":"))


def _unpacked(text: str) -> Known:
    fingerprint, stem, status, *files = json.loads(text)
    outputs, kept = (tuple((name, size) for name, size in one) for one in files)
    return Known(fingerprint, stem, status, outputs, kept)
