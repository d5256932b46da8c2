"""Groups of pictures or frames whose faces fill a batch of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_LAST = 8  # pictures or frames at the end that are not halved any more


def in_batches(
    items: Iterable[T],
    faces: Callable[[T], int],
    wanted: int,
    is_full: Callable[[list[T]], bool],
    first: int | None = None,
    ends: Callable[[], bool] | None = None,
) -> Iterator[list[T]]:
    """Yield the items in groups, in order.

    A group has at least ``wanted`` faces unless it is full before, or the items end. Items without faces wait for
    nobody.

    Args:
        items: pictures or frames.
        faces: how many faces of an item go through the network.
        wanted: faces of a full batch.
        is_full: whether a group must not grow any more, for the memory that it takes.
        first: faces of the first batch, after which each has twice as many until it is full, so that the network begins
            while others are still being read; None for full batches from the beginning.
        ends: asked when the items are over: whether the last group is halved again and again, so that little is left to
            do when the network has ended. A full group then waits for the next item, since it may be the last. None: it
            is not.
    """
    group: list[T] = []
    size = wanted if first is None else min(first, wanted)
    held = False
    for item in items:
        if held:
            yield group
            group, held = [], False
        group.append(item)
        count = sum(faces(one) for one in group)
        if count == 0 or count >= size or is_full(group):
            size = min(2 * size, wanted) if count else size
            if ends is not None and count:
                held = True
                continue
            yield group
            group = []
    if ends is not None and ends():
        while len(group) > _LAST:
            half = (len(group) + 1) // 2
            yield group[:half]
            group = group[half:]
    if group:
        yield group
