"""Between a film's pixels and RGB: colour matrix, range, bit depth, orientation. Pure functions around libswscale.

The numbers of matrices, ranges, primaries and transfer curves are those of ITU-T H.273, which FFmpeg uses too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

UNSPECIFIED = 2
LIMITED, FULL = 1, 2
# H.273 matrix -> libswscale's name for its coefficients; others (YCgCo, ICtCp...) are not conversions it offers
_SWS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601 = 1, 6
# Without these chroma is interpolated by dropping samples and rounded down: every pass would darken the film
_QUALITY = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


@dataclass(frozen=True)
class Colour:
    """How a film's numbers mean colours (H.273): never unspecified in matrix and range, maybe in the others."""

    matrix: int = _BT709
    range: int = LIMITED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class Orientation:
    """What brings a stored frame upright: first swap rows and columns, then flip. From the display matrix."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def is_identity(self) -> bool:
        return not (self.transpose or self.flip_x or self.flip_y)

    def apply(self, rgb: Pixels) -> Pixels:
        """(H, W, 3) as stored -> upright, contiguous."""
        if self.transpose:
            rgb = rgb.transpose(1, 0, 2)
        return np.ascontiguousarray(rgb[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def colour_of(frame: av.VideoFrame) -> Colour:
    """A decoded frame's colour description, gaps filled by what players assume.

    An untagged film is BT.601 up to standard definition and BT.709 above; RGB frames (GIF, PNG) become BT.709.
    """
    name = frame.format.name
    if frame.format.is_rgb or name.startswith("pal8"):
        return Colour(_BT709, LIMITED, 1, 1)
    matrix = int(frame.colorspace)
    if matrix not in _SWS:
        matrix = _BT709 if frame.height >= 720 or frame.width > 1024 else _BT601
    full = int(frame.color_range) == FULL or name.startswith("yuvj")
    if name.startswith("gray") and int(frame.color_range) != LIMITED:
        full = True
    return Colour(matrix, FULL if full else LIMITED, int(frame.color_primaries), int(frame.color_trc))


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The multiple of 90 degrees, maybe mirrored, that the frame's display matrix asks for."""
    for index in range(len(frame.side_data)):
        data = frame.side_data[index]
        if data.type.name != "DISPLAYMATRIX":
            continue
        a, b, _, c, d = struct.unpack("=5i", bytes(memoryview(data))[:20])  # x' = ax + cy, y' = bx + dy
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Orientation(False, a < 0, d < 0)
        return Orientation(True, c < 0, b < 0)
    return Orientation()


def bits_of(frame: av.VideoFrame) -> int:
    """Bits of one colour component."""
    return max((component.bits for component in frame.format.components), default=8)


def to_rgb(frame: av.VideoFrame, colour: Colour) -> Pixels:
    """A decoded frame as (H, W, 3) full range RGB: uint8, or uint16 when it has more than 8 bits."""
    target = "rgb24" if bits_of(frame) <= 8 else "rgb48le"
    if frame.format.is_rgb or frame.format.name.startswith("pal8"):
        converted = frame.reformat(format=target, interpolation=_QUALITY)
    else:
        converted = frame.reformat(
            format=target,
            interpolation=_QUALITY,
            src_colorspace=_SWS[colour.matrix],
            src_color_range=colour.range,
        )
    return converted.to_ndarray()


def from_rgb(rgb: Pixels, pix_fmt: str, colour: Colour, size: tuple[int, int]) -> av.VideoFrame:
    """(H, W, 3) RGB as a frame of ``size`` (width, height), tagged with ``colour``.

    From 16 bits to 8 libswscale dithers, so that a smooth sky does not fall into bands.
    """
    if (rgb.shape[1], rgb.shape[0]) != size:
        rgb = resize(rgb, size)
    source = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(rgb), format="rgb24" if rgb.dtype == np.uint8 else "rgb48le"
    )
    source.color_range = FULL
    if pix_fmt.startswith(("gbr", "rgb", "bgr")):
        frame = source.reformat(format=pix_fmt, interpolation=_QUALITY)
    else:
        frame = source.reformat(
            format=pix_fmt,
            interpolation=_QUALITY,
            src_color_range=FULL,
            dst_colorspace=_SWS[colour.matrix],
            dst_color_range=colour.range,
        )
        frame.colorspace = colour.matrix
    frame.color_range = colour.range
    frame.color_primaries = colour.primaries
    frame.color_trc = colour.transfer
    return frame


def resize(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """To ``size`` (width, height): Lanczos up, area down."""
    down = size[0] < rgb.shape[1]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if down else cv2.INTER_LANCZOS4)


def fit(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    """Into ``size`` (width, height) with its aspect kept, black beside it: for a film that changes its size midway."""
    height, width = rgb.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    result = np.zeros((size[1], size[0], 3), dtype=rgb.dtype)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    result[top : top + inner[1], left : left + inner[0]] = resize(rgb, inner)
    return result
