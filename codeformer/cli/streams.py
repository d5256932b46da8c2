"""stdout and stderr that cannot stop the work: a reader that leaves, a full disk or a closed terminal costs messages.

Messages are lost in silence. Data is not: stdout remembers that it could not be written, and the exit code says so.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TextIO, cast

from codeformer.errors import OutputError
from codeformer.files.atomic import reason, shown


class Stream:
    """A text stream whose writes never raise.

    ``lost`` is why one of them failed, or None. A reader that closes its end has what it wanted, as ``head`` has: that
    ends the writing, but nothing is lost.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._ended = False
        self.lost: str | None = None

    def write(self, text: str) -> int:
        """Write, or not."""
        if not self._ended:
            try:
                self._stream.write(self._encodable(text))
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self._end(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        if not self._ended:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._end(error)

    def isatty(self) -> bool:
        """Whether somebody sits in front of it."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Return the descriptor. Raises io.UnsupportedOperation where the stream is closed, as one without any does."""
        try:
            return self._stream.fileno()
        except ValueError as error:  # which argparse of Python 3.14, asking for colours, does not expect
            raise io.UnsupportedOperation(str(error)) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        """Return the text, with what the stream's encoding lacks escaped."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding, getattr(self._stream, "errors", None) or "strict")
        except UnicodeEncodeError:
            return text.encode(encoding, "backslashreplace").decode(encoding)
        return text

    def _end(self, error: OSError | ValueError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.lost = reason(error)
        if isinstance(error, BlockingIOError):  # a pipe that is full for the moment: the next message may get through
            return
        self._ended = True
        # What Python has buffered, and what libraries write to the same descriptor, now goes nowhere without an error.
        if self._stream in (sys.__stdout__, sys.__stderr__):
            with suppress(OSError, ValueError):
                _redirect_to_null(self._stream.fileno())


@contextmanager
def safe_streams() -> Iterator[Stream]:
    """Guard ``sys.stdout`` and ``sys.stderr`` while the program runs; yields the guarded stdout."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    out, err = (Stream(stream if stream is not None else _closed()) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def emit(data: object = "") -> None:
    """Print data on stdout; on a terminal, whatever would steer it is escaped."""
    text = str(data)
    print("\n".join(map(shown, text.split("\n"))) if sys.stdout.isatty() else text)


@contextmanager
def stdout_for_data() -> Iterator[Callable[[bytes], None]]:
    """Keep stdout for bytes, which go where it leads; whatever else is printed in the block goes to stderr.

    Yields what writes them. It raises OutputError if not all can be written, also when the reader leaves: half a
    picture is none.
    """
    sys.stdout.flush()
    own = os.dup(1)
    before = sys.stdout
    try:
        os.dup2(2, 1)  # what libraries print by themselves
        sys.stdout = sys.stderr
        yield partial(_write_all, own)
    finally:
        sys.stdout = before
        os.dup2(own, 1)
        os.close(own)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise OutputError(f"stdout cannot be written ({reason(error)}): the result is lost") from error


def _closed() -> TextIO:
    """Return a stream that takes nothing."""
    stream = open(os.devnull, "w")  # noqa: SIM115, PTH123
    stream.close()
    return stream


def _open_standard_descriptors() -> None:
    """Give a closed descriptor 0, 1 or 2 a file: the next file that is opened would get its number and its messages."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                _redirect_to_null(descriptor)


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
