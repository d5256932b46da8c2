"""A picture as a value: its pixels, and what its file says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from codeformer.images.space import Space, in_srgb, space_in


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what its file carries besides the colours.

    ``rgb`` is (H, W, 3) uint8 or uint16 in display order (EXIF orientation applied), in the colour space of ``icc``
    (sRGB where that is None). ``alpha`` is (H, W) of the same dtype, not premultiplied. ``exif`` begins with the TIFF
    header and says orientation 1. ``grey`` tells that the file had one colour channel. ``format`` is Pillow's name of
    the format the file really has. ``xmp`` and ``iptc`` are these blocks as bytes, ``text`` pairs of keyword and text
    (PNG's texts, comments), ``dpi`` pixels per inch, x and y, of the picture as it is. ``cicp`` are four code points of
    ITU-T H.273 for HDR colours, which no profile describes; then ``icc`` is None.

    Raises:
        ValueError: arrays of another shape or dtype.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    grey: bool = False
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None
    cicp: bytes | None = None

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"rgb must be (H, W, 3) uint8 or uint16, not {self.rgb.shape} {self.rgb.dtype}")
        if 0 in self.rgb.shape:
            raise ValueError("a picture has at least one pixel")
        if self.alpha is not None and (self.alpha.shape != self.rgb.shape[:2] or self.alpha.dtype != self.rgb.dtype):
            raise ValueError("alpha must have the height, width and dtype of rgb")

    @cached_property
    def space(self) -> Space | None:
        """The way from the picture's colours to sRGB and back; None where they are sRGB."""
        return space_in(self.icc, self.cicp)


def replace_rgb(picture: Picture, rgb: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    """Return the picture with other pixels, of any size and depth.

    Its own alpha is resized to fit if none is given, and its resolution changes with its size, so that a print of it
    keeps its size.
    """
    if alpha is None and picture.alpha is not None:
        alpha = picture.alpha
        if alpha.shape != rgb.shape[:2]:
            shrinks = alpha.shape[0] > rgb.shape[0]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            alpha = cv2.resize(alpha, (rgb.shape[1], rgb.shape[0]), interpolation=method)
    if alpha is not None and alpha.dtype != rgb.dtype:
        alpha = to_uint16(alpha) if rgb.dtype == np.uint16 else to_uint8(alpha)
    dpi = picture.dpi
    if dpi is not None:
        (old_height, old_width), (height, width) = picture.rgb.shape[:2], rgb.shape[:2]
        dpi = (dpi[0] * width / old_width, dpi[1] * height / old_height)
    return replace(picture, rgb=rgb, alpha=alpha, dpi=dpi)


def described_as(picture: Picture, source: Picture) -> Picture:
    """Return ``picture`` with what ``source`` says of itself: the same picture, of another size."""
    same = replace_rgb(replace(source, alpha=None), picture.rgb)
    return replace(picture, exif=same.exif, xmp=same.xmp, iptc=same.iptc, text=same.text, dpi=same.dpi)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 to uint8, rounded to nearest."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_uint16(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 to uint16; 255 becomes 65535."""
    return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)


def as_srgb(picture: Picture) -> Picture:
    """Return the picture in sRGB and without a profile; the same one where it is sRGB and says nothing else."""
    if picture.space is None:
        return picture if picture.icc is None and picture.cicp is None else replace(picture, icc=None, cicp=None)
    rgb = in_srgb(picture.rgb, picture.space, picture.rgb.dtype.type)
    return replace(picture, rgb=rgb, icc=None, cicp=None)
