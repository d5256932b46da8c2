"""One lock for everything that only one process may write at a time: a report, a film, a download, a training run.

The lock is held on an open file. It goes when the file is closed or the process ends, even if that is killed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from codeformer.errors import OutputError
from codeformer.files.opening import open_own, open_regular


def lock(file: IO[Any] | int, wait: Callable[[], None] | None = None) -> bool | None:
    """Take the lock on an open file, and say whether this process has it.

    Args:
        file: an open file or its descriptor.
        wait: called once if another process has the lock; then this call waits until it is free. Without it, this call
            never waits.

    Returns:
        True if the lock is ours, False if another process has it, None where there are no locks: on Windows, and on
        some network file systems.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if wait is None:
            return False
        wait()
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return None
    return True


def hold(path: Path, busy: str) -> IO[bytes]:
    """Open a file that exists only to be locked, and return it locked; close it to give the lock up.

    Args:
        path: the file. It is made if need be, and stays.
        busy: what the user is told if another process has the lock.

    Raises:
        OutputError: another process has the lock; its text is ``busy``.
        OSError: the file cannot be opened, or is a link or no regular file.
    """
    file = os.fdopen(open_own(path, os.O_RDWR), "r+b")
    if lock(file) is False:
        file.close()
        raise OutputError(busy)
    return file


def is_held(path: Path) -> bool:
    """Return whether another process has the lock on a file; False where there are no locks, or no such file."""
    try:
        import fcntl

        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
