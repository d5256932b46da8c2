"""The journals of a folder's report: one for an ordinary run, and one for each shard of a run in several processes.

Whoever writes has the lock on its own journal, and first makes sure that nobody holds one that excludes it: an ordinary
run all others, a shard the ordinary run and the shards of another division.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from codeformer.errors import OutputError
from codeformer.files.atomic import unwritable
from codeformer.files.lock import is_held, lock
from codeformer.files.opening import is_name_below, open_own, open_regular
from codeformer.files.spool import Table
from codeformer.options import Shard
from codeformer.run.inputs import Input, NamedInput, name_inputs, spool_of_names


def journal_name(name: str, shard: Shard | None = None) -> str:
    """Return the name of a report's journal: ``results.jsonl``, or ``results.0-of-4.jsonl`` of a shard."""
    stem = name.removesuffix(".json")
    return f"{stem}.jsonl" if shard is None else f"{stem}.{shard.index}-of-{shard.count}.jsonl"


def journals_of(root: Path, name: str) -> list[str]:
    """Return the names of a report's journals that lie in the folder, the oldest first."""
    pattern = re.compile(re.escape(name.removesuffix(".json")) + r"(\.\d+-of-\d+)?\.jsonl")
    found = []
    with suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name):
                with suppress(OSError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    return [own for _, own in sorted(found)]


def written(path: Path) -> str:
    """Return when a file was last written, as reports write times; "" if there is none."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        return ""


def require_alone(root: Path, name: str, shard: Shard | None) -> None:
    """Raise OutputError if another process writes what this run would write. The own journal must be locked already."""
    own = journal_name(name, shard)
    beside = re.compile(r".*\.\d+-of-" + str(shard.count) + r"\.jsonl") if shard else None
    for other in journals_of(root, name):
        if other != own and not (beside and beside.fullmatch(other)) and is_held(root / other):
            raise busy(root, other)


def busy(root: Path, journal: str) -> OutputError:
    """Return the error for a folder in which another process holds a journal."""
    return OutputError(
        f"{root}: another codeformer is writing here ({journal}); wait for it, or choose another --output_path"
    )


def shared_names(
    root: Path, name: str, inputs: Iterable[Input], taken: Mapping[str, str], shard: Shard
) -> Sequence[NamedInput]:
    """Return a shard's inputs with their names, as all shards of the folder know them.

    The names stand in ``results.names.jsonl``. Each shard adds those of inputs that are new, one shard after the
    other, so that no two give the same name to different inputs, even if the inputs change between their starts.

    Raises:
        OutputError: the file is a link, or cannot be written.
    """
    path = root / names_file(name)
    try:
        with os.fdopen(open_own(path, os.O_RDWR | os.O_APPEND), "ab") as file:
            lock(file, wait=lambda: None)
            names = Table(taken.items())
            names.update(_names_in(path))
            own = spool_of_names()
            for item in name_inputs(inputs, names):
                if item.key not in names:
                    line = json.dumps({"key": item.key, "name": item.stem}, separators=(",", ":"))
                    file.write(b"\n" + line.encode("ascii"))
                if shard.takes(item.key):
                    own.append(item)
    except OSError as error:
        raise unwritable(path, error) from error
    return own


def names_file(name: str) -> str:
    """Return the name of the file in which shards agree on names."""
    return f"{name.removesuffix('.json')}.names.jsonl"


def _names_in(path: Path) -> Iterator[tuple[str, str]]:
    with suppress(OSError), open_regular(path) as file:
        for line in file:
            with suppress(ValueError, RecursionError):
                value = json.loads(line) if line.strip() else None
                if isinstance(value, dict) and isinstance(value.get("key"), str) and is_name_below(value.get("name")):
                    yield value["key"], value["name"]
