"""What a run needs of whoever listens to it; the command line's console is one such listener."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Bar(Protocol):
    """A progress bar: tqdm, or anything like it."""

    def update(self, n: float = 1) -> Any: ...
    def set_postfix_str(self, s: str = "", refresh: bool = True) -> Any: ...


class Messages(Protocol):
    """Where a run speaks: errors, warnings about a result, notes about the run, details, its progress, and what became
    of each input, as the report has it.
    """

    def error(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def note(self, message: str) -> None: ...
    def detail(self, message: str) -> None: ...
    def record(self, record: Mapping[str, Any]) -> None: ...
    def progress(self, total: int, unit: str = "picture") -> AbstractContextManager[Bar]: ...
