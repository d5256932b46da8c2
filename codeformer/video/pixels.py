"""Between a film's pixels and RGB: colour matrix, range, bit depth. Pure functions around libswscale.

The numbers of matrices, ranges, primaries and transfer curves are those of ITU-T H.273, which FFmpeg uses too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from codeformer.arrays import Pixels, Rgb
from codeformer.images.space import in_space, in_srgb, space_in
from codeformer.video.alpha import has_alpha, on_black, packed, with_alpha, without_alpha
from codeformer.video.decoded import reformatted

UNSPECIFIED = 2
LIMITED, FULL = 1, 2
# H.273 matrix -> libswscale's name for its coefficients; others (YCgCo, ICtCp...) are not conversions it offers
_SWS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_GREY = ("gray", "ya8", "ya16")
_BT709, _BT601, _BT2020 = 1, 6, 9
_LINEAR, _HDR = 8, (16, 18)  # transfer curves; PQ and HLG
_WIDE = (4, 9, 11, 12)  # primaries: NTSC of 1953, BT.2020, P3 for cinemas and for screens
# What red and blue contribute to luma, by matrix
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
# libswscale's flags BICUBIC, FULL_CHR_H_INT and ACCURATE_RND, by number because PyAV names them from version 17 on.
# Without the last two chroma is interpolated by dropping samples and rounded down: every pass would darken the film.
_QUALITY = 0x4 | 0x2000 | 0x40000
# Before version 17 PyAV's conversions know BT.601 only; then they are left to the slower ones below
_CONVERTS = int(av.__version__.split(".")[0]) >= 17


@dataclass(frozen=True)
class Colour:
    """How a film's numbers mean colours (H.273): never unspecified in matrix and range, maybe in the others."""

    matrix: int = _BT709
    range: int = LIMITED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @property
    def code(self) -> bytes | None:
        """The code points of colours that are not shown as sRGB's are: wide gamut, HDR, linear; else None."""
        primaries = self.primaries
        if primaries == UNSPECIFIED:
            primaries = _BT2020 if self.matrix in (9, 10) or self.transfer in _HDR else _BT709
        if primaries not in _WIDE and self.transfer not in (_LINEAR, *_HDR):
            return None
        return bytes((primaries, self.transfer, 0, 1))

    @property
    def is_hdr(self) -> bool:
        """Whether white is not the brightest that there is (PQ, HLG)."""
        return self.transfer in _HDR


def colour_of(frame: av.VideoFrame, context: Any) -> Colour:
    """Return a decoded frame's colour description, gaps filled by what players assume. ``context``: its decoder.

    An untagged film is BT.601 up to standard definition and BT.709 above; RGB frames (GIF, PNG) become BT.709.
    """
    name = frame.format.name
    if frame.format.is_rgb or name.startswith("pal8"):
        return Colour(_BT709, LIMITED, 1, 1)
    matrix = int(frame.colorspace)
    if matrix not in _SWS:
        matrix = _BT709 if frame.height >= 720 or frame.width > 1024 else _BT601
    full = int(frame.color_range) == FULL or name.startswith("yuvj")
    if name.startswith(_GREY) and int(frame.color_range) != LIMITED:
        full = True
    primaries, transfer = (
        own if (own := int(getattr(frame, name, UNSPECIFIED))) not in (0, UNSPECIFIED) else int(getattr(context, name))
        for name in ("color_primaries", "color_trc")
    )
    return Colour(matrix, FULL if full else LIMITED, primaries, transfer)


def in_colours_of(rgb: Rgb, own: Colour, film: Colour) -> Rgb:
    """Return a frame (H, W, 3) of other primaries or another transfer in the film's; what sRGB has not is cut off."""
    theirs, ours = space_in(None, own.code), space_in(None, film.code)
    rgb = rgb if theirs is None else in_srgb(rgb, theirs, np.uint16)
    return rgb if ours is None else in_space(rgb, ours, np.uint16)


def bits_of(frame: av.VideoFrame) -> int:
    """Bits of one colour component."""
    return max((component.bits for component in frame.format.components), default=8)


def to_rgb(frame: av.VideoFrame, colour: Colour) -> Rgb:
    """Return a decoded frame as (H, W, 3) full range RGB: uint8, or uint16 when it has more than 8 bits."""
    bits = bits_of(frame)
    target = "rgb24" if bits <= 8 else "rgb48le"
    if frame.format.is_rgb or frame.format.name.startswith("pal8"):
        return reformatted(frame, target, interpolation=_QUALITY).to_ndarray()
    if frame.format.name.startswith(_GREY):
        return _grey_to_rgb(frame, colour, bits)
    if bits > 8 or not _CONVERTS:
        return _deep_to_rgb(frame, colour, bits)
    return reformatted(
        frame, target, interpolation=_QUALITY, src_colorspace=_SWS[colour.matrix], src_color_range=colour.range
    ).to_ndarray()


def from_rgb(
    rgb: Rgb, pix_fmt: str, colour: Colour, size: tuple[int, int], alpha: Pixels | None = None
) -> av.VideoFrame:
    """(H, W, 3) RGB as a frame of ``size`` (width, height), tagged with ``colour``.

    ``alpha`` (H, W) goes along where ``pix_fmt`` has it; else the frame is laid on black.
    From 16 bits to 8 libswscale dithers, so that a smooth sky does not fall into bands.
    """
    if (rgb.shape[1], rgb.shape[0]) != size:
        rgb = resize(rgb, size)
    if alpha is not None and alpha.shape != rgb.shape[:2]:
        alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)
    rgb = np.ascontiguousarray(rgb)
    if has_alpha(pix_fmt) and pix_fmt.startswith(("yuva", "gbrap")):
        frame = with_alpha(from_rgb(rgb, without_alpha(pix_fmt), colour, size), pix_fmt, alpha)
    elif has_alpha(pix_fmt):
        frame = packed(rgb, alpha, pix_fmt)
    elif alpha is not None:
        return from_rgb(on_black(rgb, alpha), pix_fmt, colour, size)
    elif pix_fmt.startswith(("gbr", "rgb", "bgr")):
        layout = "rgb24" if rgb.dtype == np.uint8 else "rgb48le"
        frame = reformatted(av.VideoFrame.from_ndarray(rgb, format=layout), pix_fmt, interpolation=_QUALITY)
    elif pix_fmt.startswith("gray"):
        frame = _grey_from_rgb(rgb, pix_fmt, colour)
    elif rgb.dtype == np.uint8 and colour.range == LIMITED and _CONVERTS:
        source = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        source.color_range = FULL
        frame = reformatted(
            source,
            pix_fmt,
            interpolation=_QUALITY,
            src_color_range=FULL,
            dst_colorspace=_SWS[colour.matrix],
            dst_color_range=LIMITED,
        )
    else:
        frame = _deep_from_rgb(rgb, pix_fmt, colour)
    if not frame.format.is_rgb:
        frame.colorspace = colour.matrix
    frame.color_range = colour.range
    if hasattr(frame, "color_primaries"):  # PyAV 17; before, the encoder's own settings have to do
        frame.color_primaries = colour.primaries
        frame.color_trc = colour.transfer
    return frame


# libswscale's own conversions with 16 bits or full range are off by up to half a step of 8 bits, each time. Its
# change of depth and of chroma's grid is not, so these two only leave that to it.


def _deep_to_rgb(frame: av.VideoFrame, colour: Colour, bits: int) -> Rgb:
    wide = _regrid(frame, "yuv444p16le", colour)
    yuv = np.stack(_planes(wide), axis=-1).astype(np.float32)
    if frame.format.name.startswith("yuvj") and not _CONVERTS:
        colour = replace(colour, range=LIMITED)  # older PyAV cannot keep libswscale from making it so
    offset, span = _levels(colour, bits)
    inverse = np.linalg.inv(_yuv_from_rgb(colour.matrix)) / span  # the spans divide its columns
    rgb = cv2.transform(yuv - offset, inverse.astype(np.float32))
    top = 65535 if bits > 8 else 255
    rgb *= top
    return np.clip(np.rint(rgb, out=rgb), 0, top).astype(np.uint16 if bits > 8 else np.uint8)


def _deep_from_rgb(rgb: Rgb, pix_fmt: str, colour: Colour) -> av.VideoFrame:
    bits = max(component.bits for component in av.VideoFormat(pix_fmt, 16, 16).components)
    offset, span = _levels(colour, bits)
    matrix = _yuv_from_rgb(colour.matrix) * span[:, None] / np.iinfo(rgb.dtype).max
    yuv = cv2.transform(rgb.astype(np.float32), matrix.astype(np.float32)) + offset
    values = np.clip(np.rint(yuv, out=yuv), 0, 65535).astype(np.uint16)
    wide = av.VideoFrame(rgb.shape[1], rgb.shape[0], "yuv444p16le")
    for plane, view in zip(_planes(wide), np.moveaxis(values, -1, 0), strict=True):
        plane[:] = view
    return _regrid(wide, pix_fmt, colour)


# libswscale takes grey for full range, whatever it is told: 16 to 235 would come out as 16 to 235.


def _grey_to_rgb(frame: av.VideoFrame, colour: Colour, bits: int) -> Rgb:
    target = "gray" if bits <= 8 else f"gray{bits}le"
    if frame.format.name != target:  # transparency, the other order of bytes
        frame = reformatted(frame, target, src_color_range=FULL, dst_color_range=FULL)
    values = _grey_plane(frame, bits).astype(np.float32)
    black, white = _grey_levels(colour, bits)
    top = 255 if bits <= 8 else 65535
    grey = np.clip(np.rint((values - black) * np.float32(top / (white - black))), 0, top)
    return np.repeat(grey.astype(np.uint8 if bits <= 8 else np.uint16)[..., None], 3, axis=-1)


def _grey_from_rgb(rgb: Rgb, pix_fmt: str, colour: Colour) -> av.VideoFrame:
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt.replace("be", "le"))
    bits = bits_of(frame)
    black, white = _grey_levels(colour, bits)
    luma = cv2.transform(rgb.astype(np.float32), _yuv_from_rgb(colour.matrix)[:1].astype(np.float32))
    values = luma.reshape(rgb.shape[:2]) * np.float32((white - black) / np.iinfo(rgb.dtype).max) + black
    plane = _grey_plane(frame, bits)
    plane[:] = np.rint(values).astype(plane.dtype)
    return frame if frame.format.name == pix_fmt else reformatted(frame, pix_fmt)


def _grey_levels(colour: Colour, bits: int) -> tuple[int, int]:
    """Return the values of black and white."""
    return (0, (1 << bits) - 1) if colour.range == FULL else (16 << (bits - 8), 235 << (bits - 8))


def _grey_plane(frame: av.VideoFrame, bits: int) -> npt.NDArray[Any]:
    values = np.frombuffer(memoryview(frame.planes[0]), np.uint8 if bits <= 8 else np.uint16)
    return values.reshape(-1, frame.planes[0].line_size // values.itemsize)[: frame.height, : frame.width]


def _regrid(frame: av.VideoFrame, pix_fmt: str, colour: Colour) -> av.VideoFrame:
    """Another depth and chroma grid, the same colours: both sides are called limited, so nothing is converted."""
    matrix = _SWS[colour.matrix]
    return reformatted(
        frame,
        pix_fmt,
        interpolation=_QUALITY,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=LIMITED,
        dst_color_range=LIMITED,
    )


def _planes(frame: av.VideoFrame) -> list[npt.NDArray[np.uint16]]:
    """Return views of a yuv444p16le frame's planes."""
    rows = [np.frombuffer(memoryview(plane), np.uint16).reshape(-1, plane.line_size // 2) for plane in frame.planes]
    return [plane[: frame.height, : frame.width] for plane in rows]


def _levels(colour: Colour, bits: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Of Y, Cb and Cr in 16 bits that hold ``bits`` shifted up: the value of 0, and the span of 1."""
    if colour.range == FULL:
        return np.array([0, 32768, 32768], np.float32), np.full(3, (2.0**bits - 1) * 2.0 ** (16 - bits))
    return np.array([4096, 32768, 32768], np.float32), np.array([219.0, 224.0, 224.0]) * 256


def _yuv_from_rgb(matrix: int) -> npt.NDArray[np.float64]:
    """(3, 3): Y in [0, 1], Cb and Cr in [-0.5, 0.5] from RGB in [0, 1] (H.273, equations 38 to 40)."""
    red, blue = _WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)])


def resize(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    """To ``size`` (width, height): Lanczos up, area down."""
    down = size[0] < rgb.shape[1]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if down else cv2.INTER_LANCZOS4)


def fit_alpha(alpha: Pixels, size: tuple[int, int]) -> Pixels:
    """As :func:`fit`, for opacity (H, W): what lies beside is opaque."""
    return np.ascontiguousarray(~fit(np.repeat(~alpha[..., None], 3, axis=-1), size)[..., 0])


def fit(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    """Into ``size`` (width, height) with its aspect kept, black beside it: for a film that changes its size midway."""
    height, width = rgb.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    result = np.zeros((size[1], size[0], 3), dtype=rgb.dtype)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    result[top : top + inner[1], left : left + inner[0]] = resize(rgb, inner)
    return result
