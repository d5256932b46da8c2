"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from codeformer.errors import OutputError
from codeformer.files.lock import lock
from codeformer.files.opening import folder_below, open_own


def write_atomic(path: Path, data: bytes, *, below: Path | None = None) -> None:
    """Put ``data`` at ``path`` so that a reader, a crash or a kill sees the old file or the new one, never a part.

    Folders on the way are made. The temporary file's name depends on ``path`` alone, so what a killed process left
    behind is taken over by the next one that writes the same path.

    Args:
        path: the file. A link there is followed, because the user named it.
        data: its new content.
        below: a folder that ``path`` lies in. No folder on the way down from there may be a link, and a link at
            ``path`` is replaced, so that what somebody planted there leads nowhere.

    Raises:
        OutputError: it cannot be written, naming the path; the temporary file is then gone.
    """
    path = Path(path)
    try:
        if below is not None:
            with folder_below(below, path, make=True) as folder:
                _write_and_replace(path, data, folder)
            return
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _write_and_replace(target, data)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: BaseException) -> OutputError:
    """Return the error for a path that cannot be written, with the reason and the way out."""
    refusal = OutputError(f"{shown(path)}: cannot be written ({reason(error)}); {_way_out(error)}")
    refusal.path = path
    return refusal


def can_write_in(folder: Path) -> bool:
    """Return whether a new file can be made in the folder, by making one and removing it again."""
    probe = folder / f".codeformer-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        descriptor = open_own(probe, os.O_WRONLY | os.O_EXCL, None)
        try:
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)
            probe.unlink()
    except OSError:
        return False
    return True


def why_closed(folder: Path) -> OSError | None:
    """Return why files cannot be made in a folder, which need not be there; None where the permissions allow it.

    Nothing is tried or written, so a full disk is not noticed.
    """
    above = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(one))
    if not above.is_dir():
        return OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return None if os.access(above, os.W_OK | os.X_OK) else OSError(errno.EACCES, os.strerror(errno.EACCES))


def shown(path: Path | str) -> str:
    """Return the path, or a message with one, in one printable line, whatever bytes the name is made of.

    What steers a terminal or turns the direction of the text is escaped. Spaces of every script stay, and so do the
    joiners that Persian, the languages of India and emoji are written with.
    """
    return "".join(c if _is_shown(c) else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def _is_shown(c: str) -> bool:
    return c.isprintable() or c in "\u200c\u200d" or unicodedata.category(c) == "Zs"


def reason(error: BaseException) -> str:
    """Return what an error says, in one line without the path and without the number."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


@contextmanager
def replacing(path: Path, *, below: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` when the block ends, and goes if the block fails.

    Args:
        path: the file; see `write_atomic`.
        below: see `write_atomic`.

    Raises:
        OSError: it cannot be written.
    """
    with folder_below(below, path, make=True) as folder, _replacing(path, folder) as file:
        yield file


def _write_and_replace(target: Path, data: bytes, folder: int | None = None) -> None:
    with _replacing(target, folder) as file:
        file.write(data)


@contextmanager
def _replacing(target: Path, folder: int | None) -> Iterator[BinaryIO]:
    """Open a file beside the target. With a ``folder``'s descriptor the target's name counts from there."""
    # Not the name itself: that may be as long as names can be.
    stem = "." + hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    temporary, descriptor = _claim(target.parent if folder is None else Path(), stem, folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.truncate()
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # an open file cannot be renamed there; elsewhere closing would give up the lock too early
            goal = target if folder is None else target.name
            os.replace(temporary, goal, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    if folder is None:
        sync_folder(target.parent)
    else:
        with suppress(OSError):
            os.fsync(folder)


def sync_folder(path: Path) -> None:
    """Make a new name in this folder outlast a power cut, on systems that can."""
    with suppress(OSError, AttributeError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _claim(parent: Path, stem: str, folder: int | None) -> tuple[Path, int]:
    """Return a temporary file of our own: ``stem`` itself, or a unique one while somebody else holds that."""
    temporary = parent / f"{stem}.tmp"
    with suppress(OSError):  # also for a link, a pipe or a second name of another file, which somebody planted there
        descriptor = open_own(temporary, os.O_WRONLY, folder)
        try:
            ours = lock(descriptor)
            # Between our open and our lock another writer may have renamed this very file into its place.
            there = os.stat(temporary, dir_fd=folder, follow_symlinks=False)
            if ours and os.path.samestat(os.fstat(descriptor), there):
                return temporary, descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if ours is None:  # nobody can lock it, so nobody uses it
            os.unlink(temporary, dir_fd=folder)
    unique = parent / f"{stem}-{os.getpid()}-{threading.get_ident()}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(unique, dir_fd=folder)
    return unique, open_own(unique, os.O_WRONLY | os.O_EXCL, folder)


def _way_out(error: BaseException) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "free some space or choose another folder"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to"
    if code == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if code == errno.ELOOP:
        return "remove the link or choose another folder"
    return "choose another path"
