"""How a film is encoded: which codec with which settings, size, time base and colour."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2

from codeformer.errors import UsageError
from codeformer.video import hardware
from codeformer.video.alpha import has_alpha
from codeformer.video.pixels import Colour
from codeformer.video.source import FilmInfo

_AVX_512F = 13  # OpenCV's number for the processor's feature
_H264_BLOCKS = 36_864  # of 16 x 16 pixels in a frame at level 5.2 (ITU-T H.264, table A-1)
_GLOBAL_HEADER = 0x400000  # AV_CODEC_FLAG_GLOBAL_HEADER: the parameter sets go into the container, once

#: By the output's ending: FFmpeg's name of the container and the codec that every player of it takes.
CONTAINERS: dict[str, tuple[str, str]] = {
    ".mp4": ("mp4", "libx264"),
    ".m4v": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
    ".apng": ("apng", "png"),
    ".gif": ("gif", "png"),
    ".webp": ("webp", "png"),
}
# For films with transparency, where they keep it
_ALPHA = {".mov": "prores_ks", ".mkv": "ffv1", ".webm": "libvpx-vp9"}
#: Animated pictures by the output's ending: Pillow's name of the format.
ANIMATIONS: dict[str, str] = {".apng": "PNG", ".gif": "GIF", ".webp": "WEBP"}
_ALIASES = {
    "h264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "svtav1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
}
# Near transparent for each; their scales differ
_CRF = {"libx264": 16, "libx265": 18, "libvpx-vp9": 24, "libsvtav1": 22}
_PRESETS = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8"}
# Codecs whose 10 bits play where their 8 bits do. H.264's do not, so there 10 bits are dithered to 8.
_DEEP = {"libx265": "yuv420p10le", "libsvtav1": "yuv420p10le", "prores_ks": "yuv422p10le", "ffv1": "yuv420p10le"}


@dataclass(frozen=True)
class Encoding:
    """Everything that an encoder is opened with."""

    codec: str
    options: tuple[tuple[str, str], ...]
    pix_fmt: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    sample_aspect_ratio: Fraction
    colour: Colour

    def configure(self, context: Any) -> None:
        """Set up a closed codec context."""
        context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
        context.time_base, context.framerate = self.time_base, self.rate
        context.sample_aspect_ratio = self.sample_aspect_ratio
        context.colorspace, context.color_range = self.colour.matrix, self.colour.range
        context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
        context.options = dict(self.options)
        context.flags |= _GLOBAL_HEADER


def plan_encoding(
    info: FilmInfo,
    suffix: str,
    *,
    scale: float = 1.0,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
) -> Encoding:
    """How ``info``'s film is written to a file that ends with ``suffix``, enlarged by ``scale``.

    An odd side becomes even by scaling, never by cutting or padding. Raises UsageError for an ending, codec or pixel
    format that cannot be written.
    """
    if suffix.lower() not in CONTAINERS:
        endings = ", ".join(sorted(CONTAINERS))
        raise UsageError(f"--output_path: a film ends with {endings}, not {suffix or 'nothing'!r}")
    default = CONTAINERS[suffix.lower()][1]
    animated = suffix.lower() in ANIMATIONS
    if animated and (info.colour.code is not None or (codec or "png") != "png"):
        what = f"--codec {codec}" if codec else "HDR or wide gamut"
        raise UsageError(f"--output_path: {suffix} holds no {what}; write .mp4, .mov or .mkv")
    if info.alpha:
        default = _ALPHA.get(suffix.lower(), default)
    elif info.colour.is_hdr:  # 8 bits of PQ or HLG show bands
        default = "libsvtav1" if suffix.lower() == ".webm" else "libx265"
    name = _ALIASES.get(codec or default, codec or default)
    try:
        encoder = av.Codec(name, "w")
    except (ValueError, av.error.FFmpegError):
        raise UsageError(_no_encoder(name)) from None
    if encoder.type != "video":
        raise UsageError(f"--codec {codec}: encodes no film; use h264, hevc, vp9, av1, prores_ks or ffv1")
    offered = [entry.name for entry in encoder.video_formats or []]
    deep = _DEEP.get(name) if info.bits > 8 else None
    if animated:
        deep = "rgba" if info.alpha else "rgb24"
    elif info.alpha:
        deep = _with_alpha(offered, info.bits) or deep
    if hardware.kind_of(name):
        deep = hardware.pixel_format(offered, info.bits, name)
    chosen = pix_fmt or deep or ("yuv420p" if "yuv420p" in offered else offered[0])
    if offered and chosen not in offered:
        raise UsageError(f"--pix_fmt {chosen}: {name} writes {', '.join(offered)}")
    options: dict[str, str] = {}
    if hardware.kind_of(name):
        special = hardware.settings(name, crf, preset)
        if special is None:
            raise UsageError(f"--crf, --preset: {name} has no such setting; leave it out")
        options |= special
    elif name in _CRF:
        options["crf"] = str(_CRF[name] if crf is None else crf)
    elif crf is not None:
        raise UsageError(f"--crf: {name} has no such setting")
    if preset is not None and name not in _PRESETS and not hardware.kind_of(name):
        raise UsageError(f"--preset: {name} has no such setting")
    if name in _PRESETS:
        options["preset"] = preset or _PRESETS[name]
    if name == "libx264":
        options["threads"] = "4"  # their number is part of the result: a resumed film must not depend on the machine
        if cv2.checkHardwareSupport(_AVX_512F):
            # x264's AVX-512 code gives other bits from run to run (seen with the build in PyAV's wheels)
            options["x264-params"] = "asm=avx2"
    if name == "libvpx-vp9":
        options |= {"b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "4"}
    if name == "libx265":
        options["x265-params"] = ":".join(["log-level=error", *(info.light.for_x265() if info.light else [])])
    if name == "libsvtav1" and info.light is not None:
        options["svtav1-params"] = ":".join(info.light.for_svtav1())
    width, height = (round(side * scale) for side in (info.width, info.height))
    across, down = _grain(chosen)
    return Encoding(
        codec=name,
        options=tuple(sorted(options.items())),
        pix_fmt=chosen,
        width=-(-width // across) * across,
        height=-(-height // down) * down,
        time_base=info.time_base,
        rate=info.rate,
        sample_aspect_ratio=info.sample_aspect_ratio,
        colour=info.colour,
    )


def _with_alpha(offered: list[str], bits: int) -> str | None:
    """Return the plainest pixel format with transparency that an encoder offers, as deep as the film."""
    wanted = ("yuva420p", "yuva444p10le") if bits <= 8 else ("yuva444p12le", "yuva444p10le", "yuva420p")
    return next((name for name in wanted if name in offered), None)


def dimmed(encoding: Encoding, info: FilmInfo) -> list[str]:
    """Return what an HDR film loses in this encoding, a line each."""
    notes = []
    bits = max(component.bits for component in av.VideoFormat(encoding.pix_fmt, 16, 16).components)
    if info.alpha and not has_alpha(encoding.pix_fmt):
        notes.append(
            f"its transparency is lost, the picture lies on black: {encoding.codec} has none; write .mov, .webm, .mkv, "
            ".apng or .webp without --codec"
        )
    if info.colour.is_hdr and bits < 10:
        notes.append(
            f"HDR in 8 bits shows bands: {encoding.codec} writes {encoding.pix_fmt}; --codec hevc keeps 10 bits"
        )
    if info.light is not None and encoding.codec not in ("libx265", "libsvtav1"):
        notes.append(
            f"mastering display and light level are left out: only hevc and av1 keep them, not {encoding.codec}"
        )
    return notes


def hard_to_play(encoding: Encoding) -> str:
    """Return a warning where the picture is larger than hardware decodes, with the way out; else nothing."""
    size = f"{encoding.width}x{encoding.height}"
    blocks = -(-encoding.width // 16) * -(-encoding.height // 16)
    if encoding.codec.startswith(("libx264", "h264")) and (
        max(encoding.width, encoding.height) > 4096 or blocks > _H264_BLOCKS
    ):
        return f"{size} is beyond H.264's level 5.2, which most players decode: take -s 1, or --codec hevc"
    if max(encoding.width, encoding.height) > 8192:
        return f"{size} is more than players decode: take a smaller --upscale"
    return ""


def check_encoding(encoding: Encoding, container: str) -> None:
    """Open the encoder once, before any work. Raises UsageError when container or encoder refuse."""
    if f".{container}" not in ANIMATIONS and encoding.codec not in _muxable(container):
        raise UsageError(f"--codec {encoding.codec} does not go into {container}; choose another ending for -o")
    context = av.CodecContext.create(encoding.codec, "w")
    encoding.configure(context)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        settings = ", ".join(f"{key}={value}" for key, value in encoding.options)
        size = f"{encoding.width}x{encoding.height}"
        if hardware.kind_of(encoding.codec):
            raise UsageError(
                f"--codec {encoding.codec}: cannot be opened at {size} ({getattr(error, 'strerror', error)}); it needs "
                f"{hardware.needs(encoding.codec)}: use --codec {hardware.software(encoding.codec)}"
            ) from error
        raise UsageError(f"{encoding.codec} refuses {settings} at {size} {encoding.pix_fmt} ({error})") from error


def is_hevc(encoder: str) -> bool:
    """Whether an encoder writes HEVC."""
    return encoder == "libx265" or encoder.startswith("hevc")


def _no_encoder(name: str) -> str:
    if hardware.kind_of(name):
        return (
            f"--codec {name}: this PyAV has no such encoder; it needs {hardware.needs(name)}: "
            f"use --codec {hardware.software(name)}"
        )
    return (
        f"--codec {name}: no such encoder; use h264, hevc, vp9, av1, prores_ks or ffv1, or a card's, such as hevc_nvenc"
    )


def _grain(pix_fmt: str) -> tuple[int, int]:
    """Return the numbers that the sides must be multiples of."""
    layout = av.VideoFormat(pix_fmt, 16, 16)
    return 16 // layout.chroma_width(16), 16 // layout.chroma_height(16)


def _muxable(container: str) -> frozenset[str]:
    with av.open(io.BytesIO(), "w", format=container) as probe:
        return frozenset(probe.supported_codecs)
