"""How long each step takes. The steps are read, mend, find, align, restore, upsample, parse, paste and write."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Seconds by step. A step inside of another one counts for itself alone.

    Several threads may use one clock. What they do at the same time is added up.

    Attributes:
        seconds: what each step took so far.
        step: the step that was begun last; after an error, the one that it happened in.
    """

    def __init__(self) -> None:
        """Begin without any step."""
        self.seconds: dict[str, float] = {}
        self.step = ""
        self._lock = threading.Lock()
        self._thread = threading.local()  # .inside: seconds of the steps within the step that runs in this thread

    def add(self, step: str, seconds: float) -> None:
        """Add time to a step."""
        with self._lock:
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the block's time to the step, less that of the steps inside of it."""
        before, self._thread.inside = getattr(self._thread, "inside", 0.0), 0.0
        self.step = step
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.add(step, spent - self._thread.inside)
            self._thread.inside = before + spent

    def over(self, step: str, items: Iterator[T]) -> Generator[T, None, None]:
        """Yield the same items; the time that the source takes for them counts for the step."""
        while True:
            with self.timed(step):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
