"""A store behind a URL, opened by fsspec, and what its errors mean to the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codeformer.errors import CodeFormerError, InputError, OutputError, UsageError
from codeformer.extras import require
from codeformer.files.atomic import reason

PACKAGES = "fsspec s3fs"
_WITH_FOLDERS = {"ftp", "sftp", "ssh", "smb", "hdfs", "webhdfs", "dbfs"}  # where a file needs its folder to be there
_IDENTITIES = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "crc32c")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")


@dataclass(frozen=True)
class Store:
    """The file system behind URLs of one scheme.

    Attributes:
        files: fsspec's file system. Its calls may be made from several threads.
        scheme: what stands before ``://``.
    """

    files: Any
    scheme: str

    def path(self, url: str) -> str:
        """Return a URL as the file system names it."""
        return self.files._strip_protocol(url)

    def get(self, url: str, target: Path) -> None:
        """Copy a file of the store to a path; none is left there if that fails. Raises what the store raises."""
        try:
            self.files.get_file(self.path(url), str(target))
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def put(self, source: Path, url: str) -> None:
        """Copy a file into the store, where it replaces another one. Raises what the store raises."""
        self._make_folder(url)
        self.files.put_file(str(source), self.path(url))

    def write(self, data: bytes, url: str) -> None:
        """Write a small file into the store. Raises what the store raises."""
        self._make_folder(url)
        self.files.pipe_file(self.path(url), data)

    def remove(self, url: str) -> None:
        """Remove a file from the store; one that is not there counts as removed. Raises what the store raises."""
        try:
            self.files.rm_file(self.path(url))
        except FileNotFoundError:
            return

    def info(self, url: str) -> Mapping[str, Any]:
        """Return what the store says of a file or folder. Raises what the store raises."""
        return self.files.info(self.path(url))

    def listed(self, url: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the names in a folder, in order, with what the store says of each; raises what the store raises."""
        top = self.path(url).rstrip("/")
        found = {}
        for info in self.files.ls(top, detail=True):
            name = str(info["name"]).rstrip("/")
            if name != top:  # some stores list the folder in itself
                found[name.rpartition("/")[2]] = info
        yield from sorted(found.items())

    def _make_folder(self, url: str) -> None:
        if self.scheme in _WITH_FOLDERS:
            self.files.makedirs(self.path(url).rpartition("/")[0], exist_ok=True)


def open_store(url: str) -> Store:
    """Return the store of a URL; nothing is asked of it yet.

    Raises:
        UsageError: fsspec is not installed, knows no such scheme, or lacks the scheme's package.
    """
    fsspec = require("fsspec", f"{url}: reading and writing URLs", PACKAGES)
    scheme = url.partition("://")[0]
    try:
        files = fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        raise UsageError(f"{url}: {scheme}:// needs a package that is not installed ({reason(error)})") from error
    except ValueError as error:
        raise UsageError(
            f"{url}: fsspec knows no {scheme}://; give s3://, gs://, another of its schemes, or a path"
        ) from error
    except Exception as error:  # credentials that are missing or contradict each other: the libraries' own classes
        raise UsageError(f"{url}: {scheme}:// cannot be opened ({reason(error)}); see docs/scale.md") from error
    return Store(files, scheme)


def is_folder(info: Mapping[str, Any]) -> bool:
    """Return whether the store says that a name is a folder."""
    return info.get("type") == "directory"


def version_of(info: Mapping[str, Any]) -> str:
    """Return what changes when a file of the store changes: its tag or checksum, else its size and time; "" if unknown.

    Nothing is read for that, so a million inputs that are done already are not fetched to find that out.
    """
    for name in _IDENTITIES:
        if info.get(name):
            return f"{name} {info[name]} {info.get('size')}"
    for name in _TIMES:
        if info.get(name):
            return f"{name} {info[name]} {info.get('size')}"
    return ""


def unreadable(url: str, error: BaseException) -> InputError:
    """Return the error for an input in a store, with the reason and the way out."""
    return InputError(f"{url}: {_what(error, 'read')}")


def unwritable(url: str, error: BaseException) -> OutputError:
    """Return the error for a result that a store does not take, with the reason and the way out."""
    return OutputError(f"{url}: {_what(error, 'written')}")


def refused(url: str, error: BaseException) -> CodeFormerError:
    """Return an error of ours as it is, and any other as that of an input."""
    return error if isinstance(error, CodeFormerError) else unreadable(url, error)


def _what(error: BaseException, done: str) -> str:
    name, why = type(error).__name__, reason(error)
    if isinstance(error, FileNotFoundError):
        return "no such bucket; make it, or give another one" if done == "written" else "no such file or bucket"
    if isinstance(error, PermissionError) or "Credentials" in name or "Credentials" in why:
        return f"may not be {done} ({why}); give the store's credentials, see docs/scale.md"
    return f"cannot be {done} ({why}); when the store can be reached, the same command goes on from here"
