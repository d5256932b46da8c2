"""A tar file read from its beginning to its end, sample by sample, in little memory and with suspicion."""

from __future__ import annotations

import math
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

from codeformer.errors import InputError
from codeformer.files.atomic import reason
from codeformer.files.opening import is_name_below, open_regular
from codeformer.files.spool import SeenSet, packed_text
from codeformer.images.picture import SUFFIXES
from codeformer.tars.names import key_and_field

_BLOCK = 512
_IN_MEMORY = 1 << 20  # bytes of a sample's other members before they go to a file


@dataclass(eq=False)
class TarSample:
    """The members of one key.

    Attributes:
        key: what their names have in common.
        picture: the name of the member that is a picture; "" without one.
        path: where it lies now.
        modified: its time, seconds since 1970.
        others: the other members, which are carried along: name, bytes and time.
        notes: what is left out, as lines for the user.
        error: why it cannot be worked on.
    """

    key: str
    picture: str = ""
    path: Path | None = None
    modified: float = 0.0
    others: list[tuple[str, int, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: InputError | None = None
    _data: IO[bytes] | None = None

    def add(self, name: str, size: int, modified: float, data: IO[bytes]) -> None:
        """Keep another member."""
        if self._data is None:
            self._data = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  (closed by `close`)
        self.others.append((name, size, modified))
        _copy(data, self._data, size)

    def data(self) -> IO[bytes]:
        """Return what the other members hold, one behind the other, from its beginning."""
        if self._data is None:
            raise ValueError("the sample has no other members")
        self._data.seek(0)
        return self._data

    def close(self) -> None:
        """Let go of what is held."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if self._data is not None:
            self._data.close()


class DamagedError(InputError):
    """The file is not a tar file, or its end is missing. The samples before are whole; the same bytes fail again."""


def samples(path: Path, place: Callable[[str], Path]) -> Generator[TarSample, None, None]:
    """Yield the samples of a tar file, in its order. What a sample holds is the caller's to close.

    Args:
        path: the tar file.
        place: says where the picture of a member's name is to lie; its folders are made.

    Raises:
        InputError: it cannot be read.
        DamagedError: it is not a tar file, or its end is missing or damaged; the samples before that were yielded.
        OSError: a picture cannot be put to its place.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error
    with file:
        last, count = "", 0
        whole = _Watched(file, path)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, whole), mode="r|") as tar:
                for sample in _grouped(tar, place):
                    last, count = sample.key, count + 1
                    yield sample
        except (tarfile.TarError, EOFError) as error:
            if not count:
                raise DamagedError(
                    f"{path}: is not a tar file, or damaged from its beginning ({reason(error)})"
                ) from error
            raise _cut_off(path, last, count) from error
        if not whole.has_end:
            raise _cut_off(path, last, count)


def _cut_off(path: Path, last: str, count: int) -> DamagedError:
    behind = f"behind {last}, of which {count} samples are done" if count else "before its first sample ends"
    return DamagedError(f"{path}: is cut off or damaged {behind}; the rest is missing: pack it or fetch it again")


def _grouped(tar: tarfile.TarFile, place: Callable[[str], Path]) -> Iterator[TarSample]:
    """Yield the samples; a member that cannot be read whole ends them, and its sample is not among them."""
    seen, current = SeenSet(), None
    try:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it remembers them all
            if member.isdir():
                continue
            name = member.name.removeprefix("./")
            key, kind = key_and_field(name)
            if not key:  # .DS_Store and the like are left out, as in folders
                continue
            if current is not None and key != current.key:
                done, current = current, None
                yield done
            if current is None:
                current = TarSample(key)
                current.error = _refusal(name, key, seen)
            _take(current, tar, member, name, kind, place)
    except BaseException:
        if current is not None:
            current.close()
        raise
    if current is not None:
        yield current


def _refusal(name: str, key: str, seen: SeenSet) -> InputError | None:
    if not is_name_below(name):
        return InputError("a sample cannot have this name: pack it under a relative name such as 0001.png")
    if not seen.add(packed_text(key)):
        return InputError("its key was in the tar file before: members of one sample must stand together")
    return None


def _take(
    sample: TarSample, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, kind: str, place: Callable[[str], Path]
) -> None:
    """Read a member into its sample."""
    if not member.isreg() or member.issparse():
        sample.notes.append(f"{name} is left out: it is a link, a device or sparse, not a plain file")
        return
    data = tar.extractfile(member)
    if data is None:
        raise tarfile.ReadError("unexpected end of data")
    is_picture = f".{kind.lower()}" in SUFFIXES
    if sample.error is not None:
        sample.picture = sample.picture or name  # by which it is named; nothing is kept
    elif is_picture and sample.picture:
        sample.notes.append(f"{name} is left out: the picture of its sample is {sample.picture}")
    elif is_picture:
        path = place(name)
        sample.picture, sample.path, sample.modified = name, path, _time_of(member)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as target:
            _copy(data, target, member.size)
    else:
        sample.add(name, member.size, _time_of(member), data)


def _time_of(member: tarfile.TarInfo) -> float:
    """Return when a member was last changed, seconds since 1970; 0 where its header holds no number."""
    time = float(member.mtime)
    return time if math.isfinite(time) else 0.0


def _copy(data: IO[bytes], target: IO[bytes], size: int) -> None:
    before = target.tell()
    shutil.copyfileobj(data, target)
    if target.tell() - before != size:
        raise tarfile.ReadError("unexpected end of data")


class _Watched:
    """A file that is read to its end, and whether that is a tar file's: a block of zeros."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._tail, self._short = b"", False

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises InputError."""
        try:
            data = self._file.read(size)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read ({reason(error)})") from error
        self._short = self._short or len(data) < size
        self._tail = (self._tail + data[-_BLOCK:])[-_BLOCK:]
        return data

    @property
    def has_end(self) -> bool:
        """Whether the end was not reached, because tar found its mark before, or is such a mark."""
        return not self._short or not any(self._tail)
