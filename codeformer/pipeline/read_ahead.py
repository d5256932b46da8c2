"""Work in threads before it is wanted: a few results at most, so that memory is those few and nothing piles up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import TypeVar, cast

T = TypeVar("T")


def calls_ahead(
    calls: Iterable[Callable[[], T]],
    depth: int,
    *,
    threads: int = 1,
    is_full: Callable[[list[T]], bool] | None = None,
    keep: bool = False,
) -> Generator[T, None, None]:
    """Yield what the calls return, in order; threads make them, at most ``depth`` before they are wanted.

    The caller's own thread iterates ``calls``. What a call raises is raised here. Close the generator to stop: the
    calls that are being made are waited for, the others are dropped.

    Args:
        calls: what to do.
        depth: how many results are made in advance; 0 for no thread.
        threads: how many calls are made at a time.
        is_full: whether so many results wait that no call may begin, for the memory that they take; None: never.
        keep: when iterating ``calls`` raises, first yield what the calls before it return.
    """
    if not depth:
        for call in calls:
            yield call()
        return
    with ThreadPoolExecutor(threads, "codeformer-ahead") as pool:
        begun: deque[Future[T]] = deque()
        try:
            try:
                for call in calls:
                    begun.append(pool.submit(call))
                    while len(begun) > depth or (is_full is not None and is_full(_made(begun))):
                        yield _first(begun)
            except GeneratorExit:
                raise
            except BaseException:
                while keep and begun:
                    yield _first(begun)
                raise
            while begun:
                yield _first(begun)
        finally:  # also when the caller is not interested any more
            pool.shutdown(wait=False, cancel_futures=True)


def _first(begun: deque[Future[T]]) -> T:
    result = begun[0].result()
    begun.popleft()  # not before: an interruption of the waiting loses nothing
    return result


def _made(begun: Iterable[Future[T]]) -> list[T]:
    return [one.result() for one in begun if one.done() and one.exception() is None]


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
