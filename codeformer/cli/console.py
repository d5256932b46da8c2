"""Messages and progress on stderr, for every subcommand."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from codeformer.files.atomic import shown

if TYPE_CHECKING:
    from tqdm import tqdm


class Console:
    """Where a run speaks: errors always, notes unless ``quiet``, details only when ``verbose``.

    With ``json``, the report's record of each input is also one line on stdout.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.json = json

    def error(self, message: str) -> None:
        """Something failed."""
        self._write(f"codeformer: error: {_line(message)}")

    def warning(self, message: str) -> None:
        """Something that the user should know about a result."""
        if not self.quiet:
            self._write(f"codeformer: warning: {_line(message)}")

    def note(self, message: str) -> None:
        """Say what is going on."""
        if not self.quiet:
            self._write(f"codeformer: {_line(message)}")

    def detail(self, message: str) -> None:
        """Say what only a curious user wants."""
        if self.verbose and not self.quiet:
            self._write(f"codeformer: {_line(message)}")

    def record(self, record: Mapping[str, Any]) -> None:
        """Print what became of an input, if the user wants to read that by a program."""
        if self.json:
            print(json.dumps(record, separators=(",", ":")), flush=True)

    def traceback(self, error: BaseException) -> None:
        """Say where in the program an unexpected error came up."""
        import traceback

        for part in traceback.format_exception(error):
            for line in part.splitlines():
                self._write(line)

    @contextmanager
    def progress(self, total: int, unit: str = "picture") -> Iterator[tqdm]:
        """Yield a progress bar, silent when quiet or when stderr is not a terminal (a log does not want one)."""
        from tqdm import tqdm

        hidden = self.quiet or not sys.stderr.isatty()
        with tqdm(total=total, unit=unit, disable=hidden, file=sys.stderr, dynamic_ncols=True) as bar:
            yield bar

    def _write(self, message: str) -> None:
        message = shown(message)  # a file's name, or a server's answer, may hold what steers a terminal
        if "tqdm" in sys.modules:  # a bar may be on the screen: let it step aside
            from tqdm import tqdm

            tqdm.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr)


def _line(message: str) -> str:
    """One line, also with a file name that has several."""
    return " ".join(message.splitlines())


class _LogHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        (self._console.warning if record.levelno >= logging.WARNING else self._console.detail)(text)


@contextmanager
def library_messages(console: Console) -> Iterator[None]:
    """Yield what the library logs, which never prints by itself, goes to the console; its details only when verbose."""
    logger, handler = logging.getLogger("codeformer"), _LogHandler(console)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if console.verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
