"""A large picture through a network in tiles, and rows of it through a resize: memory by the tile, not the picture.

Pure functions on arrays. Tiles overlap; of each only the part that is far enough from its cut edges is used, and where
two usable parts meet they are mixed by a raised cosine, whose weights sum to one. Finished rows leave at once as
float32 strips, so nothing of the enlarged picture is held but the current strip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from codeformer.arrays import Pixels, Samples
from codeformer.images.blend import reflected

_LANCZOS_LOBES = 3


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the picture.

    The tile covers ``start`` .. ``start + size`` (beyond the frame: the picture's reflection). It contributes to
    ``low`` .. ``high``, rising over the first ``rise`` pixels of that and falling over the last ``fall``.
    """

    start: int
    size: int
    low: int
    high: int
    rise: int
    fall: int


def spans(length: int, tile: int, *, overlap: int, ramp: int, edge: int, multiple: int = 1) -> list[Span]:
    """Tiles of one size that cover 0 .. ``length`` with the least work.

    ``tile``: the largest size. ``overlap``: how much two neighbours share at least, ``ramp`` (<= overlap) of it is
    mixed, the rest left out. ``edge``: pixels of reflection around the picture. Sizes are multiples of ``multiple``.
    A tile too small for that gets less of all three, so that it still moves on by a quarter of itself; less than four
    times ``multiple`` is not a tile.
    """
    largest = max(tile // multiple, 4) * multiple
    ramp, edge = min(ramp, largest // 4), min(edge, largest // 4)
    overlap = max(min(overlap, largest // 2), ramp)
    # Also positions are multiples: a network that works on blocks of pixels must find the same blocks in every tile
    overlap, edge = _up(overlap, multiple), _up(edge, multiple)
    total = _up(length + 2 * edge, multiple)
    count = 1 if total <= largest else math.ceil((total - overlap) / (largest - overlap))
    size = min(_up(math.ceil((total + (count - 1) * overlap) / count), multiple), largest) if count > 1 else total
    free = (total - size) // multiple
    starts = [round(k * free / max(1, count - 1)) * multiple - edge for k in range(count)]

    spans = []
    low, rise = 0, 0
    for k, start in enumerate(starts):
        if k + 1 == count:
            spans.append(Span(start, size, low, length, rise, 0))
            break
        centre = (start + size + starts[k + 1]) // 2  # of what this tile and the next one share
        # Near a small picture's edge the mixing may not reach beyond the frame
        half = max(0, min(ramp // 2, centre - low - rise, length - centre))
        spans.append(Span(start, size, low, centre + half, rise, 2 * half))
        low, rise = centre - half, 2 * half
    return spans


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def raised_cosine(count: int) -> Samples:
    """``count`` weights from 0 to 1 at pixel centres; with their mirror image they sum to one."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(1, count))).astype(np.float32)


def _weights(span: Span, scale: int) -> Samples:
    weights = np.ones((span.high - span.low) * scale, np.float32)
    if span.rise:
        weights[: span.rise * scale] = raised_cosine(span.rise * scale)
    if span.fall:
        weights[-span.fall * scale :] = raised_cosine(span.fall * scale)[::-1]
    return weights


def upsampled_rows(
    picture: Pixels | Samples,
    rows: list[Span],
    columns: list[Span],
    scale: int,
    network: Callable[[Samples], Samples],
) -> Iterator[Samples]:
    """Yield the enlarged picture from top to bottom, in strips (n, W * scale, C) float32.

    ``picture``: (H, W, C) uint8, uint16, or float in [0, 1]. ``network``: (h, w, C) float32 in [0, 1] ->
    (h * scale, w * scale, C).
    """
    height, width, channels = picture.shape
    unit = np.float32(1.0 / np.iinfo(picture.dtype).max if np.issubdtype(picture.dtype, np.integer) else 1.0)
    carried: Samples | None = None  # the last rows of the strip above, where it mixes with this one
    for row in rows:
        strip = np.zeros(((row.high - row.low) * scale, width * scale, channels), np.float32)
        lines = picture[reflected(np.arange(row.start, row.start + row.size), height)]
        inner = slice((row.low - row.start) * scale, (row.high - row.start) * scale)
        for column in columns:
            across = reflected(np.arange(column.start, column.start + column.size), width)
            tile = lines[:, across].astype(np.float32) * unit
            part = network(tile)[inner, (column.low - column.start) * scale : (column.high - column.start) * scale]
            strip[:, column.low * scale : column.high * scale] += part * _weights(column, scale)[None, :, None]
        if carried is not None:
            weight = raised_cosine(row.rise * scale)[:, None, None]
            strip[: len(carried)] = carried + (strip[: len(carried)] - carried) * weight
        keep = row.fall * scale
        carried = strip[len(strip) - keep :] if keep else None
        yield strip[: len(strip) - keep]


def resized_rows(strips: Iterator[Samples], size: tuple[int, int], wanted: tuple[int, int]) -> Iterator[Samples]:
    """Lanczos from ``size`` to ``wanted`` (both (height, width)) of a picture that comes and goes in strips.

    Equal to resizing it whole (anti-aliased when it shrinks); holds only the rows that the filter still needs.
    """
    (height, width), (to_height, to_width) = size, wanted
    if size == wanted:
        yield from strips
        return
    step = height / to_height
    reach = _LANCZOS_LOBES * max(1.0, step) + 1
    buffer: Samples | None = None
    first = 0  # the picture's row that the buffer begins with
    done = 0
    for strip in strips:
        narrow = _lanczos(strip, (len(strip), to_width), (0.0, 0.0, float(width), float(len(strip))))
        buffer = narrow if buffer is None else np.concatenate([buffer, narrow])
        last = first + len(buffer)
        ready = to_height if last == height else min(to_height, math.floor((last - reach) / step - 0.5))
        if ready <= done:
            continue
        yield _lanczos(
            buffer, (ready - done, to_width), (0.0, done * step - first, float(to_width), ready * step - first)
        )
        done = ready
        spare = max(0, math.floor((done + 0.5) * step - reach) - 1 - first)
        buffer, first = buffer[spare:], first + spare


def _lanczos(pixels: Samples, size: tuple[int, int], box: tuple[float, float, float, float]) -> Samples:
    """Pillow's Lanczos of a box of (h, w, C) floats, channel by channel, not rounded and not clipped."""
    if box == (0.0, 0.0, float(size[1]), float(size[0])) and pixels.shape[:2] == size:
        return pixels
    # A last row that is 1e-12 outside is refused by Pillow
    box = (box[0], max(0.0, box[1]), box[2], min(float(pixels.shape[0]), box[3]))
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize(size[::-1], Image.Resampling.LANCZOS, box)
        )
        for c in range(pixels.shape[2])
    ]
    return np.stack(planes, axis=-1)
