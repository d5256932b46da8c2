"""What a pickled checkpoint would do when it is opened, found out by reading it and never by opening it.

A pickle is a program for a small machine: it names functions of any module and calls them. PyTorch's files need a
handful of those names; whatever else is named would run code of the file's choosing. The opcodes are read with the
standard library's pickletools, which executes nothing.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from codeformer.errors import WeightsError
from codeformer.files.atomic import reason, shown
from codeformer.files.opening import open_regular

_WIDTHS = {  # bytes of one number
    "torch.DoubleStorage": 8,
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
    "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16,
}
_TYPES = """float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 int64 int32 int16 int8 uint64 uint32 uint16 uint8
    bool complex64 complex128 Size device Tensor storage.UntypedStorage storage.TypedStorage nn.Parameter
    nn.parameter.Parameter serialization._get_layout _utils._rebuild_tensor _utils._rebuild_tensor_v2
    _utils._rebuild_parameter _utils._rebuild_parameter_with_state"""
#: What the weights of a network are made of. None of these runs anything but PyTorch's own constructors.
ALLOWED = frozenset(
    {
        *_WIDTHS,
        *(f"torch.{name}" for name in _TYPES.split()),
        *("collections.OrderedDict", "collections.Counter", "collections.defaultdict"),
        *("builtins.dict", "builtins.set", "builtins.bytearray"),
        "_codecs.encode",
    }
)
_LARGEST_PICKLE = 1 << 26  # bytes: a network of a hundred thousand tensors has a tenth of it
_SLACK = 1 << 20  # bytes that a file's parts may have together beyond its size
_MEMO_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_MEMO_GETS = ("GET", "BINGET", "LONG_BINGET")


def check_checkpoint(path: Path) -> None:
    """Check that a pickled checkpoint names nothing but tensors, and promises no more of them than its size allows.

    Args:
        path: a zip archive of `torch.save`, or one of the older formats: pickles one after the other, or a tar archive.

    Raises:
        WeightsError: the file would run code when opened, is not a checkpoint, is cut off, or would inflate.
    """
    name = shown(path)
    try:
        opened = open_regular(path)
    except OSError as error:
        raise WeightsError(f"{name}: the weights file cannot be read ({reason(error)})") from error
    try:
        with opened as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(4)
            file.seek(0)
            if head[:2] == b"PK":
                _check_zip(file, size, name)
            elif _is_tar(file):
                _check_tar(file, name)
            else:
                _check_stream(file, size, name)
    except (WeightsError, MemoryError):
        raise
    except Exception as error:  # a mutated archive makes zipfile and tarfile raise anything at all
        raise WeightsError(
            f"{name}: not a PyTorch checkpoint, or cut off ({_reason(error)}); fetch it again"
        ) from error


def globals_of(data: BinaryIO | bytes) -> Iterator[str]:
    """Yield ``module.name`` of everything that one pickle names, in the order of its opcodes.

    Args:
        data: the pickle's bytes, or a file at its beginning, which is left behind its end.

    Yields:
        The names. What cannot be read off without running it is ``(a name made up while it is read)``.

    Raises:
        ValueError: this is not a pickle, or it is cut off.
    """
    bounded: Any = _Bounded(data)
    memo: dict[int, object] = {}
    recent: list[object] = []  # what the latest opcodes pushed, texts as they are
    try:
        for opcode, argument, _ in pickletools.genops(bounded):
            name = opcode.name
            if name in ("GLOBAL", "INST"):
                yield _usual_name(*str(argument).split(" ", 1))
                recent.append(None)
            elif name == "STACK_GLOBAL":
                module, attribute = recent[-2:] if len(recent) > 1 else (None, None)
                known = isinstance(module, str) and isinstance(attribute, str)
                yield _usual_name(str(module), str(attribute)) if known else "(a name made up while it is read)"
                recent.append(None)
            elif name in ("EXT1", "EXT2", "EXT4"):
                yield f"(extension {argument})"
                recent.append(None)
            elif name in _MEMO_PUTS:
                memo[len(memo) if argument is None else int(argument)] = recent[-1] if recent else None
            elif name in _MEMO_GETS:
                recent.append(memo.get(int(argument or 0)))
            elif name not in ("PROTO", "FRAME", "MARK"):
                recent.append(argument if isinstance(argument, str) else None)
            del recent[:-2]
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError, struct.error) as error:
        raise ValueError(_reason(error)) from error


class _Bounded:
    """A file that asks for no more memory than it has bytes: a pickle may announce a text of any length."""

    def __init__(self, data: BinaryIO | bytes) -> None:
        self._file = io.BytesIO(data) if isinstance(data, bytes) else data
        here = self._file.tell()
        self._end = self._file.seek(0, os.SEEK_END)
        self._file.seek(here)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, max(0, self._end - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()


def _usual_name(module: str, name: str = "") -> str:
    """Return the name that people know: pickles say ``posix.system`` for ``os.system``."""
    usual = {"posix": "os", "nt": "os", "__builtin__": "builtins"}
    return f"{usual.get(module, module)}.{name}"


def refuse_code(data: BinaryIO | bytes, name: str) -> None:
    """Refuse a pickle that names anything but tensors.

    Args:
        data: as for `globals_of`.
        name: the file's, for the message.

    Raises:
        WeightsError: it would run code when opened, or it is not a pickle.
    """
    try:
        for found in globals_of(data):
            if found not in ALLOWED:
                raise WeightsError(
                    f"{name}: this file would run code when opened ({shown(found)[:80]}): refused; ask for the "
                    "network's tensors alone (a state_dict), as .safetensors or .pth"
                )
    except ValueError as error:
        raise WeightsError(f"{name}: not a PyTorch checkpoint, or cut off ({_reason(error)})") from error


def _check_zip(file: BinaryIO, size: int, name: str) -> None:
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        pickles = [part for part in parts if part.filename.endswith(".pkl")]
        # The names first: that a file is malicious is the more important news.
        for part in pickles:
            if part.file_size > _LARGEST_PICKLE:
                raise WeightsError(f"{name}: {shown(part.filename)} has {part.file_size} bytes: too many for weights")
            with archive.open(part) as inner:
                refuse_code(inner.read(_LARGEST_PICKLE), name)
        if any("/code/" in part.filename or part.filename.endswith("constants.pkl") for part in parts):
            raise WeightsError(f"{name}: a TorchScript program, not a network's weights: refused")
        if not any(part.filename.endswith("data.pkl") for part in pickles):
            raise WeightsError(f"{name}: a zip archive, but not a PyTorch checkpoint")
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or any(
            part.file_size > size for part in parts
        ):
            raise WeightsError(
                f"{name}: its parts are compressed, which PyTorch never does, and could fill the memory: refused"
            )
        if sum(part.file_size for part in parts) > size + _SLACK:
            raise WeightsError(f"{name}: its parts overlap and have more bytes than the file: refused")


def _check_tar(file: BinaryIO, name: str) -> None:
    """Check PyTorch's format of 2016, which is refused either way; what is malicious is named."""
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            inner = archive.extractfile(member) if member.isreg() else None
            if inner is not None and member.size <= _LARGEST_PICKLE:
                head = inner.read(2)
                if head[:1] == b"\x80":
                    refuse_code(head + inner.read(), name)
    raise WeightsError(f"{name}: a checkpoint in PyTorch's format of 2016; save it again with a newer PyTorch")


def _check_stream(file: BinaryIO, size: int, name: str) -> None:
    """Check the format before PyTorch 1.6: a magic number, a version, the system, the tensors, the storages' names."""
    for number in range(5):
        begin = file.tell()
        refuse_code(file, name)
        if number != 3:
            continue
        end = file.tell()
        if end - begin > _LARGEST_PICKLE:
            raise WeightsError(f"{name}: the list of its tensors has {end - begin} bytes: too many for weights")
        file.seek(begin)
        promised = _promised_bytes(file.read(end - begin))
        if promised > size:
            raise WeightsError(f"{name}: cut off: its tensors have {promised} bytes, the file {size}; fetch it again")


class _Inert:
    """Stands for whatever a checkpoint names, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass

    def add(self, value: object) -> None:
        pass


def _promised_bytes(data: bytes) -> int:
    """Return the bytes of all storages that a pickle mentions, counted without making any.

    Every name becomes an inert class here; `refuse_code` has passed the pickle already.
    """
    sizes: dict[str, int] = {}

    class Counting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return type(f"{module}.{name}", (_Inert,), {})

        def persistent_load(self, pid: Any) -> _Inert:
            # ('storage', FloatStorage, '94..', 'cpu', 4096, None)
            if isinstance(pid, tuple) and len(pid) >= 5 and isinstance(pid[4], int):
                sizes[str(pid[2])] = pid[4] * _WIDTHS.get(getattr(pid[1], "__name__", ""), 1)
            return _Inert()

    try:
        Counting(io.BytesIO(data)).load()
    except Exception:  # what torch makes of it will be said by torch
        return 0
    return sum(sizes.values())


def _is_tar(file: BinaryIO) -> bool:
    file.seek(257)
    magic = file.read(5)
    file.seek(0)
    return magic == b"ustar"


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
