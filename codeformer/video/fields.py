"""Interlaced films: telling them by their flags and their combs, and making whole frames of their fields.

The work is libavfilter's, which PyAV carries: bwdif, and fieldmatch with decimate for telecined film.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from codeformer.arrays import Pixels
from codeformer.video.decoded import reformatted

# A pixel is part of a comb when it differs from the rows above and below by more than this,
_STEP = 20
_ALIKE = 10  # while those two, of one field, differ by less than this
_COMBED = 0.002  # share of such pixels from which on a frame has combs


class CombFinder:
    """Tells woven frames by their combs, whatever their flags say.

    libavfilter's idet compares fields over frames in a row. It is sure of itself in small noisy pictures too, so combs
    must be there to be seen as well.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._kind: tuple[int, int, str] | None = None
        self._before: Pixels | None = None

    def push(self, frame: Any, base: Fraction) -> int:
        """Return how many more of the frames pushed so far are woven; idet looks one frame ahead.

        Args:
            frame: the next decoded frame.
            base: seconds per tick of its time.
        """
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._kind:
            self._kind, self._graph = kind, _graph(frame, base, "idet", Fraction(25))
        self._graph.push(frame)
        return self._pulled()

    def flush(self) -> int:
        """Return how many of the last frames are woven."""
        if self._graph is None:
            return 0
        self._graph.push(None)
        return self._pulled()

    def _pulled(self) -> int:
        count = 0
        while True:
            try:
                seen = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return count
            luma = reformatted(seen, "gray").to_ndarray()
            before, self._before = self._before, luma
            woven = seen.metadata.get("lavfi.idet.multiple.current_frame") in ("tff", "bff")
            count += woven and before is not None and _has_combs(luma, before)


def _has_combs(luma: Pixels, before: Pixels) -> bool:
    """Return whether rows alternate where something moved since the frame before; both (H, W) of 8 bits."""
    if luma.shape != before.shape or min(luma.shape) < 3:
        return False
    rows = luma.astype(np.int16)
    first, second, third = rows[:-2], rows[1:-1], rows[2:]
    down, up = second - first, second - third
    comb = (np.abs(down) > _STEP) & (np.abs(up) > _STEP) & (np.sign(down) == np.sign(up))
    comb &= (np.abs(third - first) < _ALIKE) & (np.abs(second - before[1:-1].astype(np.int16)) > _ALIKE)
    return float(comb.mean()) > _COMBED


def filters_for(mode: str, flagged: bool, combed: bool) -> str:
    """Return the libavfilter chain that makes whole frames of a film's, empty for none.

    Args:
        mode: the user's choice, one of :data:`codeformer.video.options.DEINTERLACE`.
        flagged: frames say that they are interlaced.
        combed: frames show combs.
    """
    if mode == "off" or (mode == "auto" and not (flagged or combed)):
        return ""
    if mode == "telecine":
        return "fieldmatch=combmatch=full,bwdif=mode=send_frame:deint=interlaced,decimate"
    # Frames that are progressive pass as they are where the flags tell them apart
    return f"bwdif=mode=send_field:deint={'interlaced' if flagged and mode == 'auto' else 'all'}"


def rate_after(filters: str) -> Fraction:
    """Return by how much the chain of :func:`filters_for` changes the frames per second."""
    if "decimate" in filters:
        return Fraction(4, 5)
    return Fraction(2) if "send_field" in filters else Fraction(1)


def clock_after(filters: str) -> int:
    """Return how many of the chain's ticks are one of the film's."""
    return 2 if "send_field" in filters else 1


def filtered(frames: Iterator[Any], base: Fraction, filters: str, rate: Fraction) -> Iterator[Any]:
    """Pass decoded frames through the chain; their ``pts`` count ticks of ``base / clock_after(filters)``.

    The chain is made anew where the frames' size or format changes. A frame without a time gets none.
    """
    kind: tuple[int, int, str] | None = None
    graph: Any = None
    ticks = base / clock_after(filters)

    def drained(graph: Any) -> Iterator[Any]:
        while True:
            try:
                out = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if out.pts is not None and out.time_base is not None:
                out.pts = round(out.pts * out.time_base / ticks)
            yield out

    for frame in frames:
        if kind != (frame.width, frame.height, frame.format.name):
            if graph is not None:
                graph.push(None)
                yield from drained(graph)
            kind = (frame.width, frame.height, frame.format.name)
            graph = _graph(frame, base, filters, rate)
        frame.time_base = base
        graph.push(frame)
        yield from drained(graph)
    if graph is not None:
        graph.push(None)
        yield from drained(graph)


def _graph(frame: Any, base: Fraction, filters: str, rate: Fraction) -> Any:
    graph: Any = av.filter.Graph()
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={base.numerator}/"
        f"{base.denominator}:frame_rate={rate.numerator}/{rate.denominator}:pixel_aspect=1/1",
    )
    last = source
    for one in filters.split(","):
        name, _, arguments = one.partition("=")
        step = graph.add(name, arguments)
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph
