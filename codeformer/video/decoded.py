"""PyAV's decoded frames: what they carry beside their pixels, and what they cost by default.

A frame whose side data were looked at and these refer to each other, so that Python's garbage collector alone frees
it, with its pixels. The collector counts objects and not bytes: of 1920 x 1080 pixels, 200 frames waited for it.
"""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from codeformer.arrays import Pixels

_UNCOLLECTED = 64_000_000  # bytes of frames that may wait for the garbage collector
_LOOK_AGAIN, _DROPPED = 25, 8  # frames until a keyframe is looked at again, and until nobody uses it any more
# From version 17 on PyAV lets every frame start as many threads as there are cores for its conversion, and keep them
_IN_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


def reformatted(frame: Any, pix_fmt: str, **how: Any) -> Any:
    """Return a frame in another pixel format, by libswscale in this thread; the frame itself if it has it already.

    Args:
        frame: PyAV's.
        pix_fmt: FFmpeg's name of the format.
        how: further arguments of PyAV's ``VideoFrame.reformat``.
    """
    return frame.reformat(format=pix_fmt, **how, **_IN_ONE_THREAD)


def side_data_of(frame: Any) -> list[tuple[str, bytes]]:
    """Return what a frame carries beside its pixels: names as FFmpeg has them, such as ``DISPLAYMATRIX``, and bytes."""
    side_data: Any = frame.side_data
    # Iterating gives the entries until PyAV 18, and their types, which are the keys, since PyAV 19.
    entries = [one if hasattr(one, "type") else side_data[one] for one in side_data]
    return [(entry.type.name, bytes(memoryview(entry))) for entry in entries]


def collected(frames: Iterator[Any]) -> Iterator[Any]:
    """Yield the frames, of which the caller looks at all side data; those that it has dropped are freed in time."""
    waiting = 0
    for frame in frames:
        waiting += 3 * frame.width * frame.height
        yield frame
        del frame
        if waiting >= _UNCOLLECTED:
            gc.collect(1)
            waiting = 0


# --- orientation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Orientation:
    """What brings a stored frame upright: first swap rows and columns, then flip. From the display matrix."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, rgb: Pixels) -> Pixels:
        """Return (H, W, C) as stored -> upright, contiguous."""
        if self.transpose:
            rgb = rgb.transpose(1, 0, 2)
        return np.ascontiguousarray(rgb[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def orientation_of(frame: Any) -> Orientation:
    """Return the multiple of 90 degrees, maybe mirrored, that the frame's display matrix asks for."""
    for name, data in side_data_of(frame):
        if name != "DISPLAYMATRIX":
            continue
        a, b, _, c, d = struct.unpack("=5i", data[:20])  # x' = ax + cy, y' = bx + dy
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Orientation(False, a < 0, d < 0)
        return Orientation(True, c < 0, b < 0)
    return Orientation()


class Orientations:
    """Tells the orientation of one decoded frame after the other, and looks at the side data of few.

    A turn that a frame's angle or size tells is seen at once. Mirroring alone is seen at the first keyframe that is 25
    frames or more from the last look.
    """

    def __init__(self) -> None:
        self._known = Orientation()
        self._kind: tuple[int, int, int] | None = None
        self._since = 0

    def of(self, frame: Any) -> Orientation:
        """Return the next frame's orientation."""
        kind = (frame.rotation, frame.width, frame.height)
        self._since += 1
        if self._since == _DROPPED:  # not sooner: what is still in use would be passed on to the rare collections
            gc.collect(1)
        if kind != self._kind or (frame.key_frame and self._since >= _LOOK_AGAIN):
            self._known, self._kind, self._since = orientation_of(frame), kind, 0
        return self._known
