"""What a run needs of whoever listens to it; the command line's console is one such listener."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
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
