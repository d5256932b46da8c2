"""Files as disks, networks and strangers change them: cut off, flipped, with pieces moved, dropped or zeroed."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

# What is done, where, to how many bytes, and a number that it is done with
Fault = tuple[str, int, int, int]

_EXTREMES = (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x10000)  # what sizes and offsets are overwritten with


def faults(size: int, head: int = 200) -> st.SearchStrategy[list[Fault]]:
    """Return what may happen to a file of ``size`` bytes; half of it happens among its first ``head`` bytes."""
    places = st.integers(0, min(head, size)) | st.integers(0, size)
    kinds = st.sampled_from(("flip", "little", "big", "cut", "drop", "splice", "zeros"))
    return st.lists(st.tuples(kinds, places, st.integers(1, 64), st.integers(0, size)), min_size=1, max_size=4)


def mutate(data: bytes, found: Iterable[Fault]) -> bytes:
    """Return a file's bytes with faults of `faults`."""
    content = bytearray(data)
    for kind, place, length, number in found:
        place = min(place, max(0, len(content) - 1))
        if kind == "flip" and content:
            content[place] ^= number % 255 + 1
        elif kind in ("little", "big"):
            content[place : place + 4] = _EXTREMES[number % len(_EXTREMES)].to_bytes(4, kind)  # type: ignore[arg-type]
        elif kind == "cut":
            del content[place:]
        elif kind == "drop":
            del content[place : place + length]
        elif kind == "splice":
            content[place:place] = content[number : number + length]
        elif kind == "zeros":
            content[place : place + length] = bytes(min(length, len(content) - place))
    return bytes(content)
