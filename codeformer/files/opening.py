"""Opening files so that nothing but a regular file is read, and nothing but a file of our own is written.

A path that a user gives may lead to a device that never ends, to a pipe that nobody writes to, or to the kernel's own
files. A name in an output folder may be a link that somebody planted there. Both are an OSError here, with a reason
that can be shown, and never a wait.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

_QUIET = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_KERNEL = ("/proc", "/sys")  # their files look regular, but reading some of them waits, and others never end

#: Whether the system can name a file by an open folder and a name, which no link planted meanwhile can redirect.
HAS_FOLDER_DESCRIPTORS = {os.open, os.mkdir, os.stat, os.unlink, os.rename} <= os.supports_dir_fd


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Raises:
        OSError: it cannot be opened, or is a folder, a device, a pipe, a socket or one of the kernel's own files.
    """
    require_regular(path)  # before it is opened: opening some devices does something
    descriptor = os.open(path, os.O_RDONLY | _QUIET | _BINARY)
    try:
        _require(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(path: Path) -> None:
    """Raise the OSError of `open_regular`, for files that a library opens by their names."""
    _require(os.stat(path), path)  # noqa: PTH116


def read_regular(path: Path, most: int) -> bytes:
    """Return what a regular file holds.

    Args:
        path: the file; links are followed.
        most: bytes that such a file may have.

    Raises:
        OSError: see `open_regular`; or the file is larger than ``most``.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"has more than {most} bytes", str(path))
    return data


def open_own(path: Path, flags: int, folder: int | None = None) -> int:
    """Open a file of our own in a folder of ours, and return its descriptor.

    Args:
        path: the file. It is made if need be; its folder must be there.
        flags: of `os.open`, such as ``os.O_RDWR | os.O_APPEND``.
        folder: the descriptor of the open folder that ``path`` starts from, if any.

    Raises:
        OSError: it cannot be opened, or what lies there is a link, no regular file, or a file with a second name.
    """
    descriptor = os.open(path, flags | os.O_CREAT | _NOFOLLOW | _QUIET | _BINARY, 0o666, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        _require(status, path)
        if status.st_nlink > 1:
            raise OSError(errno.EMLINK, "is a second name of another file", str(path))
        if not _NOFOLLOW and path.is_symlink():
            raise OSError(errno.ELOOP, "is a link", str(path))
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def is_name_below(name: object) -> bool:
    """Whether ``name`` is the relative path of a file below a folder, on every system: no ``..``, no root, no drive."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    windows = PureWindowsPath(name) if os.name == "nt" else PurePosixPath(name)
    return not (windows.is_absolute() or windows.drive or windows.root or ".." in windows.parts or not windows.parts)


@contextmanager
def folder_below(root: Path, path: Path, *, make: bool = False) -> Iterator[int | None]:
    """Open the folder of ``path`` on the way down from ``root``, following no link below the root.

    Args:
        root: a folder; it may be a link itself.
        path: a file below it.
        make: whether folders that are missing are made.

    Yields:
        The folder's descriptor, or None on systems without them (then links were looked for, and there are none).

    Raises:
        OSError: a folder is missing, is a link or cannot be opened; or ``path`` does not lie below ``root``.
    """
    inner = path.relative_to(root) if path.is_relative_to(root) else Path()
    if not inner.parts or not is_name_below(str(inner)):
        raise OSError(errno.EPERM, f"does not lie below {root}", str(path))
    if make:
        root.mkdir(parents=True, exist_ok=True)
    if not HAS_FOLDER_DESCRIPTORS:
        _walk_by_names(root, inner, make)
        yield None
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | _QUIET
    descriptor = os.open(root, flags)
    try:
        for part in inner.parts[:-1]:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            try:
                deeper = os.open(part, flags | _NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                if stat.S_ISLNK(os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, f"the folder {part} is a link", str(path)) from error
                raise
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def status_below(root: Path, name: str) -> os.stat_result:
    """Return the status of a regular file below ``root``, reached without following a link.

    Raises:
        OSError: there is none; see `folder_below`.
    """
    path = root / name
    with folder_below(root, path) as folder:
        status = os.stat(path if folder is None else path.name, dir_fd=folder, follow_symlinks=False)
    _require(status, path)
    return status


def remove_below(root: Path, name: str) -> None:
    """Remove a file below ``root``, reached without following a link.

    Raises:
        OSError: there is none, or it cannot be removed; see `folder_below`.
    """
    path = root / name
    with folder_below(root, path) as folder:
        os.unlink(path if folder is None else path.name, dir_fd=folder)


def _walk_by_names(root: Path, inner: Path, make: bool) -> None:
    folder = root
    for part in inner.parts[:-1]:
        folder /= part
        if folder.is_symlink() or (os.path.exists(folder) and not _is_itself(folder)):  # noqa: PTH110
            raise OSError(errno.ELOOP, f"the folder {part} is a link", str(folder))
        if make:
            folder.mkdir(exist_ok=True)


def _is_itself(folder: Path) -> bool:
    """Whether a folder is not a junction: a kind of link that Windows has besides."""
    return not getattr(os.path, "isjunction", lambda _: False)(folder)


def _require(status: os.stat_result, path: Path) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        if status.st_dev in _kernel_devices():
            raise OSError(errno.EINVAL, "is one of the kernel's own files", str(path))
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))


def _kernel_devices() -> set[int]:
    found = set()
    for folder in _KERNEL:
        with suppress(OSError):
            found.add(os.stat(folder).st_dev)  # noqa: PTH116
    # Where one of them is not mounted, its folder lies on the disk like any other.
    with suppress(OSError):
        found.discard(os.stat("/").st_dev)  # noqa: PTH116
    return found
