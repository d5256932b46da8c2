"""Films with transparency: reading it, writing it, and laying a film on black where it cannot stay."""

from __future__ import annotations

from typing import Any

import av
import numpy as np

from codeformer.arrays import Pixels, Rgb
from codeformer.video.decoded import reformatted

_WITH_ALPHA = ("yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya8", "ya16", "pal8")
# FFmpeg's own decoders of VP8 and VP9 pass over the second picture that holds the transparency; these do not
_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def has_alpha(pix_fmt: str) -> bool:
    """Whether a pixel format has a channel for transparency."""
    return pix_fmt.startswith(_WITH_ALPHA)


def alpha_decoder(stream: Any) -> Any:
    """Return a decoder for a stream of VP8 or VP9 that says it is transparent; None for all others."""
    name = _DECODERS.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) != "1":
        return None
    context = av.CodecContext.create(name, "r")
    context.extradata = stream.codec_context.extradata
    return context


def alpha_of(frame: Any) -> Pixels | None:
    """Return a decoded frame's opacity (H, W), uint8 or, above 8 bits, uint16; None where its format has none."""
    name = frame.format.name
    if not has_alpha(name):
        return None
    bits = max((component.bits for component in frame.format.components), default=8)
    if not name.startswith(("yuva", "gbrap")) or name.endswith("be"):
        return reformatted(frame, "rgba" if bits <= 8 else "rgba64le").to_ndarray()[..., 3].copy()
    values = _plane(frame)
    if bits <= 8:
        return values.copy()
    return np.asarray(values.astype(np.uint32) * 65535 // ((1 << bits) - 1), np.uint16)


def is_transparent(frame: Any) -> bool:
    """Whether something of a decoded frame is transparent."""
    alpha = alpha_of(frame)
    return alpha is not None and bool((alpha < np.iinfo(alpha.dtype).max).any())


def without_alpha(pix_fmt: str) -> str:
    """Return the planar pixel format that is the same but for the transparency."""
    return pix_fmt.replace("yuva", "yuv", 1).replace("gbrap", "gbrp", 1)


def with_alpha(frame: Any, pix_fmt: str, alpha: Pixels | None) -> Any:
    """Return a frame of :func:`without_alpha`'s format as one of ``pix_fmt``; ``alpha`` None is opaque."""
    result = av.VideoFrame(frame.width, frame.height, pix_fmt)
    for index in range(3):
        source, target = frame.planes[index], result.planes[index]
        rows, used = source.height, min(source.line_size, target.line_size)
        theirs = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)[:rows, :used] = theirs[:rows, :used]
    bits = max(component.bits for component in result.format.components)
    top = (1 << bits) - 1
    plane = _plane(result)
    if alpha is None:
        plane[:] = top
    else:
        plane[:] = np.rint(alpha.astype(np.float32) * np.float32(top / np.iinfo(alpha.dtype).max)).astype(plane.dtype)
    return result


def packed(rgb: Rgb, alpha: Pixels | None, pix_fmt: str) -> Any:
    """Return a frame of a packed format with transparency, such as rgba: ``rgb`` (H, W, 3), ``alpha`` (H, W)."""
    top = np.iinfo(rgb.dtype).max
    channel = np.full(rgb.shape[:2], top, rgb.dtype) if alpha is None else alpha
    layout = "rgba" if rgb.dtype == np.uint8 else "rgba64le"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.dstack([rgb, channel])), format=layout)
    return frame if pix_fmt == layout else reformatted(frame, pix_fmt)


def on_black(rgb: Rgb, alpha: Pixels | None) -> Rgb:
    """Return a frame (H, W, 3) laid on black, so that no colour shows that was hidden."""
    if alpha is None:
        return rgb
    share = alpha.astype(np.float32)[..., None] / np.iinfo(alpha.dtype).max
    return np.asarray(np.rint(rgb * share), rgb.dtype)


def _plane(frame: Any) -> Any:
    """Return a view of a planar frame's fourth plane."""
    plane = frame.planes[3]
    bits = max(component.bits for component in frame.format.components)
    values = np.frombuffer(memoryview(plane), np.uint8 if bits <= 8 else np.uint16)
    return values.reshape(-1, plane.line_size // values.itemsize)[: frame.height, : frame.width]
