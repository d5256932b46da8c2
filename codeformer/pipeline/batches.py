"""Groups of pictures or frames whose faces fill a batch of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def in_batches(
    items: Iterable[T],
    faces: Callable[[T], int],
    wanted: int,
    is_full: Callable[[list[T]], bool],
    first: int | None = None,
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
    """
    group: list[T] = []
    size = wanted if first is None else min(first, wanted)
    for item in items:
        group.append(item)
        count = sum(faces(one) for one in group)
        if count == 0 or count >= size or is_full(group):
            yield group
            group = []
            size = min(2 * size, wanted) if count else size
    if group:
        yield group
