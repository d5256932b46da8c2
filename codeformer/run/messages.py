"""What a run needs of whoever listens to it; the command line's console is one such listener."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    """A progress bar: tqdm, or anything like it."""

    def update(self, n: float = 1) -> Any:
        """Move on by so many."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any:
        """Show a text behind the bar."""


class Messages(Protocol):
    """Where a run speaks."""

    def error(self, message: str) -> None:
        """Say what failed."""

    def warning(self, message: str) -> None:
        """Say what the user should know about a result."""

    def note(self, message: str) -> None:
        """Say what is going on."""

    def detail(self, message: str) -> None:
        """Say what only a curious user wants."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Take what became of one input, as the report has it."""

    def progress(self, total: int, unit: str = "picture") -> AbstractContextManager[Bar]:
        """Show a progress bar for the block."""


class NoBar:
    """A progress bar that shows nothing."""

    def update(self, n: float = 1) -> None:
        """Move on by so many."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Show a text behind the bar."""


class Kept:
    """A listener that keeps what is said, for a console in another process.

    Attributes:
        lines: each with its kind: error, warning, note or detail.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def error(self, message: str) -> None:
        """Keep what failed."""
        self.lines.append(("error", message))

    def warning(self, message: str) -> None:
        """Keep what the user should know about a result."""
        self.lines.append(("warning", message))

    def note(self, message: str) -> None:
        """Keep what is going on."""
        self.lines.append(("note", message))

    def detail(self, message: str) -> None:
        """Keep what only a curious user wants."""
        self.lines.append(("detail", message))

    def record(self, record: Mapping[str, Any]) -> None:
        """Keep nothing: records go their own way."""

    @contextmanager
    def progress(self, total: int, unit: str = "picture") -> Iterator[Bar]:
        """Show nothing."""
        yield NoBar()
