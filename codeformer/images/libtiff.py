"""What libtiff, beneath Pillow, has to say of a damaged file: by itself it writes raw lines to stderr."""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import PIL

_LINE = 500  # bytes of a line that are kept
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


@contextmanager
def collected_errors() -> Iterator[list[str]]:
    """Collect libtiff's error lines of this thread instead of letting them out to stderr.

    Yields:
        The lines so far. Where Pillow carries no libtiff of its own that can be reached (Windows), it stays empty.
    """
    here, _ = _installed()
    before = getattr(here, "lines", None)
    lines: list[str] = []
    here.lines = lines
    try:
        yield lines
    finally:
        here.lines = before


class _Listener(threading.local):
    """Where the errors of each thread go; None where nobody reads a file."""

    lines: list[str] | None = None


@functools.cache
def _installed() -> tuple[_Listener, list[object]]:
    """Take the place of libtiff's own handlers, once for the process; the second value keeps ours alive."""
    listener, handlers = _Listener(), list[object]()
    with suppress(OSError, AttributeError, IndexError):
        library = ctypes.CDLL(str(_libraries()[0]))
        c = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)

        def error(module: bytes | None, form: bytes | None, arguments: int | None) -> None:
            if listener.lines is not None:
                line = ctypes.create_string_buffer(_LINE)
                c.vsnprintf(line, ctypes.c_size_t(_LINE), form or b"", ctypes.c_void_p(arguments))
                parts = (part.decode("utf-8", "replace") for part in (module, line.value) if part)
                listener.lines.append(": ".join(parts).rstrip("."))

        def warning(module: bytes | None, form: bytes | None, arguments: int | None) -> None:
            """Unknown tags, mostly: they concern nobody."""

        for name, function in (("Error", error), ("Warning", warning)):
            handlers.append(_HANDLER(function))
            setter = getattr(library, f"TIFFSet{name}Handler")
            setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            setter(ctypes.cast(handlers[-1], ctypes.c_void_p))  # type: ignore[arg-type]
    return listener, handlers


def _libraries() -> list[Path]:
    """Return the file that Pillow has loaded: the one in its wheel, or else the system's."""
    package = Path(PIL.__file__).parent
    found = [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]
    with suppress(OSError):
        maps = Path("/proc/self/maps").read_text().split()
        found += [Path(word) for word in maps if word.startswith("/") and Path(word).name.startswith("libtiff")]
    return found
