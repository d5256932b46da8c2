"""A listener that remembers what a run says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Log:
    """A console that remembers."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.lines: list[str] = []

    def error(self, message: str) -> None:
        self.errors.append(message)

    def warning(self, message: str) -> None:
        self.lines.append(message)

    note = detail = warning

    def record(self, record: Any) -> None: ...

    @contextmanager
    def progress(self, total: int, unit: str = "picture") -> Iterator[Any]:
        yield self

    def update(self, n: float = 1) -> None: ...

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...
