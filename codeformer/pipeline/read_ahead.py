"""Work in a thread before it is wanted: a few results at most, so that memory is those few and nothing piles up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import TypeVar, cast

T = TypeVar("T")


def calls_ahead(calls: Iterable[Callable[[], T]], depth: int) -> Generator[T, None, None]:
    """Yield what the calls return, in order; one thread makes them, at most ``depth`` before they are wanted.

    The caller's own thread iterates ``calls``. What a call raises is raised here. Close the generator to stop: the call
    that is being made is waited for, the others are dropped.

    Args:
        calls: what to do.
        depth: how many results are made in advance; 0 for no thread.
    """
    if not depth:
        for call in calls:
            yield call()
        return
    with ThreadPoolExecutor(1, "codeformer-ahead") as thread:
        begun: deque[Future[T]] = deque()
        try:
            for call in calls:
                begun.append(thread.submit(call))
                if len(begun) > depth:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:  # also when the caller is not interested any more
            thread.shutdown(wait=False, cancel_futures=True)


def items_ahead(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield the same items, made in a thread of their own at most ``depth`` before they are wanted.

    What the source raises is raised here. When the generator is closed, so is the source.
    """
    end = object()
    results = calls_ahead(repeat(partial(next, cast("Iterator[object]", items), end)), depth)
    try:
        for item in results:
            if item is end:
                return
            yield cast("T", item)
            del item  # the last frame must not stay alive while the next one is waited for
    finally:
        results.close()
        close = getattr(items, "close", None)
        if close is not None:
            close()
