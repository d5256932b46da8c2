"""Requests of all clients in one queue: those that want the same are done together and share the network's batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from codeformer.errors import CodeFormerError

_TOGETHER = 16  # requests that one client waits for at most before its own is done


class BusyError(CodeFormerError):
    """As many requests wait as may."""


#: Does a group of jobs, and yields a result for each, in order.
Do = Callable[[Sequence[Any]], Iterator[Any]]


@dataclass(eq=False)
class _Ticket:
    key: Hashable
    job: Any
    do: Do
    future: Future[Any] = field(default_factory=Future)


class Batches:
    """A thread that works on what waits, the oldest first."""

    def __init__(self, longest: int) -> None:
        """Start the thread; ``longest`` requests may wait."""
        self._longest = longest
        self._waiting: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._open = True
        self.groups: deque[int] = deque(maxlen=1000)  # how many requests were done together, for those who measure
        self._thread = threading.Thread(target=self._run, name="codeformer-batches", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, job: Any, do: Do) -> Future[Any]:
        """Put a job into the queue; one that is cancelled before its turn is left out.

        Args:
            key: jobs of equal keys may be done together.
            job: what ``do`` gets.
            do: does a group; the first job's is called. What it raises is every job's error.

        Raises:
            BusyError: the queue is full.
        """
        with self._changed:
            self._waiting = deque(one for one in self._waiting if not one.future.cancelled())
            if not self._open:
                raise BusyError("the server is ending; try again later")
            if len(self._waiting) >= self._longest:
                raise BusyError(f"{len(self._waiting)} requests wait already; try again later")
            ticket = _Ticket(key, job, do)
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket.future

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def close(self, seconds: float = 60.0) -> None:
        """End when the group at hand is done, or when a time is over; what waits is cancelled."""
        with self._changed:
            self._open = False
            for ticket in self._waiting:
                ticket.future.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while group := self._next():
            self.groups.append(len(group))
            results: Any = iter(())
            try:
                results = group[0].do([one.job for one in group])
                with closing(results):
                    for ticket, result in zip(group, results, strict=True):
                        ticket.future.set_result(result)
            except Exception as error:
                for ticket in group:
                    if not ticket.future.done():
                        ticket.future.set_exception(error)

    def _next(self) -> list[_Ticket]:
        with self._changed:
            while True:
                while not self._waiting and self._open:
                    self._changed.wait()
                if not self._waiting:
                    return []
                key = self._waiting[0].key
                group: list[_Ticket] = []
                rest: deque[_Ticket] = deque()
                for ticket in self._waiting:
                    if ticket.key != key or len(group) >= _TOGETHER:
                        rest.append(ticket)
                    elif ticket.future.set_running_or_notify_cancel():
                        group.append(ticket)
                self._waiting = rest
                if group:
                    return group
