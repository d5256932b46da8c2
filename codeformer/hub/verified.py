"""SHA-256 of weights files that were hashed before: a cache of this user's own, which proves nothing by lying about.

It lies in the user's cache folder, wherever the weights lie, and is not believed if somebody else owns it or may write
it. An entry holds for one file as it was: its path, size, times, and number on the disk. The time of its last change of
any kind cannot be set by those who can write the file, so that other bytes under old times are noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from codeformer.errors import OutputError
from codeformer.files.atomic import write_atomic
from codeformer.files.digest import sha256_of
from codeformer.files.opening import open_regular

_NAME = "verified.json"
_LARGEST = 1 << 20  # bytes
_JUST_NOW = 2.0  # seconds: a file changed this recently may change again without its time telling


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; it is hashed once for each change. Raises OSError."""
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
    key = str(path.resolve())
    known = _read()
    entry = known.get(key)
    if isinstance(entry, list) and entry[:-1] == stamp and _is_digest(entry[-1]):
        return str(entry[-1])
    digest = sha256_of(path)
    if time.time() - status.st_mtime > _JUST_NOW:
        _write({**known, key: [*stamp, digest]})
    return digest


def _place() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("codeformer", appauthor=False)) / _NAME


def _read() -> dict[str, object]:
    path = _place()
    try:
        if path.is_symlink():
            return {}
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            if os.name == "posix" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
                return {}
            known = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(known: dict[str, object]) -> None:
    path = _place()
    with suppress(OutputError):  # hashing again next time is all that it costs
        write_atomic(path, json.dumps(known, indent=0, sort_keys=True).encode(), below=path.parent)
        if os.name == "posix":
            with suppress(OSError):
                path.chmod(0o600)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 2 * hashlib.sha256().digest_size
