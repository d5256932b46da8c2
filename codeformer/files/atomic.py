"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from codeformer.errors import OutputError
from codeformer.files.lock import lock


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, a crash or a kill sees the old file or the new one, never a part.

    Folders on the way are made. Raises OutputError naming the path; the temporary file is then gone. Its name depends
    on ``path`` alone, so what a killed process left behind is taken over by the next one that writes the same path.
    """
    path = Path(path)
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _write_and_replace(target, data)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: BaseException) -> OutputError:
    """The error for a path that cannot be written, with the reason and the way out."""
    return OutputError(f"{shown(path)}: cannot be written ({reason(error)}); {_way_out(error)}")


def shown(path: Path | str) -> str:
    """The path in one printable line, whatever bytes its name is made of."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def reason(error: BaseException) -> str:
    """What an error says, in one line without the path and without the number."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def _write_and_replace(target: Path, data: bytes) -> None:
    # Not the name itself: that may be as long as names can be.
    stem = "." + hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    temporary, descriptor = _claim(target.parent, stem)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.truncate()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # an open file cannot be renamed there; elsewhere closing would give up the lock too early
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Make a new name in this folder outlast a power cut, on systems that can."""
    with suppress(OSError, AttributeError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _claim(folder: Path, stem: str) -> tuple[Path, int]:
    """A temporary file that no other writer uses: ``stem`` itself, or a unique one while somebody else holds that."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    temporary = folder / f"{stem}.tmp"
    with suppress(OSError):
        descriptor = os.open(temporary, flags, 0o666)
        try:
            ours = lock(descriptor)
            # Between our open and our lock another writer may have renamed this very file into its place.
            if ours and os.path.samestat(os.fstat(descriptor), temporary.stat()):
                return temporary, descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if ours is None:  # nobody can lock it, so nobody uses it
            temporary.unlink()
    unique = folder / f"{stem}-{os.getpid()}-{threading.get_ident()}.tmp"
    return unique, os.open(unique, flags, 0o666)


def _way_out(error: BaseException) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "free some space or choose another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to"
    if code == errno.ENAMETOOLONG:
        return "choose a shorter name"
    return "choose another path"
