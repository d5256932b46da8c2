"""The Huffman codes of a baseline JPEG's compressed data, walked through to see whether they make sense.

A code says how many bits of a number follow it, so only the walk itself tells where the next code begins, and that is
plain Python. It looks at 12 bits at a time and steps over every symbol (a code with its number) that begins there. What
needs no walk is done with NumPy for all places at once: the 12 bits at each of them, and the blocks' first numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_WIDTH = 12  # bits that one step looks at: with 16, a table takes 16 times as long to build, and a walk no less
_PIECE = 1 << 17  # bytes whose windows are in memory at a time; states stay below 2**30, where Python is quickest
_LONGEST = 248  # bytes of a block: 16 + 11 bits for the first number, 16 + 15 for each of the 63 others

# A state is a position in bits * 256 + flags + how many of a block's 64 numbers are known. A step is added to a state
_FULL = 64  # this flag is the count itself: all 64 numbers are known, or it is one too many
_ENDED = 128  # the code that ends a block was read
_FLAGS = _FULL | _ENDED


class Block(NamedTuple):
    """A block of a unit: what it belongs to, and how it is coded.

    Attributes:
        component: the number of its component.
        first: the table of its first number as it stands in the file, 16 bytes of counts and then the symbols.
        others: the table of its other 63 numbers.
        limit: the largest first number that it can have.
    """

    component: int
    first: bytes
    others: bytes
    limit: int


def sound_units(parts: list[bytes], blocks: list[Block], restart: int, total: int) -> tuple[int, bool]:
    """Return how many units of blocks are sound, and whether nothing unsound follows them.

    Args:
        parts: the compressed data from one restart to the next, without the zeros that are stuffed after 0xFF.
        blocks: the blocks of one unit, at least one.
        restart: units from one restart to the next; 0 if all are in one part.
        total: units of the picture.
    """
    data = b"".join(parts) + b"\xff" * (_LONGEST + 8)  # a block that takes bits of these ends beyond its part: unsound
    order = [
        (_steps(one.others, one.first), _steps(one.others), (_codes(one.first), _codes(one.others))) for one in blocks
    ]
    starts: list[np.ndarray] = []
    base = position = end = done = 0  # the position and the end count from the base
    sound, piece, windows = True, b"", memoryview(b"")
    for part in parts:
        position, end = end, end + 8 * len(part)
        wanted = min(restart or total, total - done)
        while wanted and sound:
            if not windows or position >= 8 * _PIECE:
                whole = position >> 3
                base, position, end = base + whole, position - 8 * whole, end - 8 * whole
                piece = data[base : base + _PIECE + _LONGEST * len(blocks) + 8]
                windows = _windows(piece)
            good, position, found = _walk(piece, windows, order, position, end, wanted)
            starts.append(np.array(found[: good * len(blocks)], np.int64) + 8 * base)
            done, wanted, sound = done + good, wanted - good, position >= 0
        if not sound or end - position >= 16:
            sound = False
            break
    beyond = _beyond(data, np.concatenate([np.zeros(0, np.int64), *starts]), blocks, restart)
    return (done, sound) if beyond is None else (beyond, False)


def _walk(
    data: bytes,
    windows: memoryview,
    order: list[tuple[list[int], list[int], tuple[np.ndarray, np.ndarray]]],
    position: int,
    end: int,
    wanted: int,
) -> tuple[int, int, list[int]]:
    """Return how many units are sound, at most ``wanted``, the position after them, and where their blocks begin.

    The position is -1 if the next unit is not sound. The walk stops, too, where the windows at hand may not suffice.
    """
    starts: list[int] = []
    add = starts.append
    last, flags, ended = 8 * _PIECE, _FLAGS, _ENDED  # Python looks up local names sooner
    for unit in range(wanted):
        if position >= last:
            return unit, position, starts
        for first, others, codes in order:
            add(position)
            step = first[windows[position]]
            state = (position << 8) + step
            while True:
                while not state & flags:
                    step = others[windows[state >> 8]]
                    state += step
                if state & flags == ended or state & 255 == _FULL:
                    break
                # No code within 12 bits, or more numbers than the block has: they may be the next block's
                state = _one_symbol(data, state - step, codes)
                if state < 0:
                    return unit, -1, starts
            position = state >> 8
            if position > end:
                return unit, -1, starts
    return wanted, position, starts


def _one_symbol(data: bytes, state: int, codes: tuple[np.ndarray, np.ndarray]) -> int:
    """Return the state after one symbol; -1 if it is impossible."""
    position, known = state >> 8, state & 255
    window = int.from_bytes(data[position >> 3 : (position >> 3) + 3], "big") >> 8 - (position & 7) & 0xFFFF
    length, symbol = divmod(int(codes[known > 0][window]), 256)
    if known:
        step = (length + (symbol & 15)) << 8 | ((symbol >> 4) + 1 if symbol else _ENDED)
    else:
        step = (length + symbol) << 8 | 1
    too_large = symbol > 11 if known == 0 else known + (step & 127) > 64
    return -1 if length == 0 or too_large else state + step


def _windows(data: bytes) -> memoryview:
    """Return the 12 bits that begin at every bit, without those of the last two bytes."""
    one = np.frombuffer(data, np.uint8).astype(np.uint32)
    three = one[:-2] << 16 | one[1:-1] << 8 | one[2:]
    windows = np.empty((len(three), 8), np.uint16)
    for bit in range(8):
        windows[:, bit] = three >> (24 - _WIDTH - bit)
    windows &= (1 << _WIDTH) - 1
    return windows.reshape(-1).data  # Python reads items of a memoryview faster than an array's


def _beyond(data: bytes, starts: np.ndarray, blocks: list[Block], restart: int) -> int | None:
    """Return the first unit with a block whose first number is beyond its limit, of those that begin at ``starts``."""
    starts = starts.reshape(-1, len(blocks))
    units = len(starts)
    if units == 0:
        return None
    since = np.arange(units) // (restart or units) * (restart or units)  # the unit after the last restart
    beyond = np.zeros(units, bool)
    for component in {one.component for one in blocks}:
        columns = [i for i, one in enumerate(blocks) if one.component == component]
        block = blocks[columns[0]]
        change = _first_numbers(data, starts[:, columns], _codes(block.first))
        before = np.concatenate([[0], change.sum(axis=1).cumsum()])
        number = change.cumsum(axis=1) + (before[:-1] - before[since])[:, None]
        beyond |= (np.abs(number) > block.limit).any(axis=1)
    return int(beyond.argmax()) if beyond.any() else None


def _first_numbers(data: bytes, starts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the first numbers of the blocks at ``starts``, each as what it adds to the one before."""
    eight = np.ndarray((len(data) - 7,), ">u8", data, strides=(1,))  # the 8 bytes from every byte on
    bits = (eight[starts >> 3] >> 8).astype(np.int64)
    shift = 56 - (starts & 7)
    entry = codes[bits >> shift - 16 & 0xFFFF].astype(np.int64)
    size = entry & 255
    number = bits >> shift - (entry >> 8) - size & (1 << size) - 1
    return np.where(number >> np.maximum(size, 1) - 1, number, number - (1 << size) + 1)


# --- tables --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _codes(table: bytes) -> np.ndarray:
    """Return (65536,) uint16: for every 16 bits the code's length * 256 + its symbol, or 0 if no code begins so."""
    symbols = np.frombuffer(table[16:], np.uint8).astype(np.uint16)
    lengths = np.repeat(np.arange(1, 17), np.frombuffer(table[:16], np.uint8))[: len(symbols)]
    codes = np.repeat(lengths.astype(np.uint16) << 8 | symbols, 1 << 16 - lengths)[:65536]
    return np.pad(codes, (0, 65536 - len(codes)))


@lru_cache(maxsize=16)  # most cameras and programs use the tables that the standard gives as an example
def _steps(others: bytes, first: bytes | None = None) -> list[int]:
    """Return for every 12 bits the step over the symbols of one block whose codes they hold, as many as possible.

    Where they hold none, the step leads to more than 64 numbers.

    Args:
        others: the table of the symbols.
        first: the table of the first one, at the beginning of a block.
    """
    window = np.arange(1 << _WIDTH, dtype=np.int64) << 16 - _WIDTH
    used, known, flag = np.zeros((3, window.size), np.int64)
    live = np.arange(window.size)
    leading = first is not None
    while live.size:
        entry = _codes(others if first is None or not leading else first)[window[live] << used[live] & 0xFFFF]
        length, symbol = np.divmod(entry.astype(np.int64), 256)
        more = np.where((symbol > 0) | leading, (0 if leading else symbol >> 4) + 1, 0)
        fits = (length > 0) & (used[live] + length <= _WIDTH) & (known[live] + more < 64)
        fits &= (symbol <= 11) | (not leading)
        live, length, symbol, more = live[fits], length[fits], symbol[fits], more[fits]
        used[live] += length + (symbol if leading else symbol & 15)
        known[live] += more
        flag[live] = np.where((symbol > 0) | leading, 0, _ENDED)
        live = live[(used[live] < _WIDTH) & (flag[live] == 0)]
        leading = False
    steps: list[int] = np.where(used > 0, used << 8 | flag | known, _FULL + (first is not None)).tolist()
    return steps
