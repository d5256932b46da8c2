"""Small films made with PyAV: every property that a test wants to see survive."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def pattern(index: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A coloured, moving, asymmetric picture: (height, width, 3) uint8. Its top left quarter is the brightest."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 60 + 50 * np.sin((x + 3 * index) / 17)
    green = 70 + 40 * np.cos((y - 2 * index) / 13)
    blue = 50 + 30 * np.sin((x + y) / 23)
    rgb = np.stack([red, green, blue], axis=-1)
    rgb[: height // 2, : width // 2] += 70
    return np.clip(rgb, 0, 255).astype(np.uint8)


def make_film(
    path: Path,
    pictures: Sequence[np.ndarray] | int = 12,
    *,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    crf: int = 12,
    aspect: Fraction | None = None,
    colour: tuple[int, int, int, int] | None = None,
    sounds: Sequence[Callable[[float], np.ndarray]] = (),
    sound_codec: str = "aac",
    subtitles: Sequence[tuple[float, float, str]] = (),
    chapters: Sequence[tuple[float, float, str]] = (),
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a film. ``colour`` is (matrix, range, primaries, transfer); ``sounds`` give mono samples for a duration."""
    frames = [pattern(i) for i in range(pictures)] if isinstance(pictures, int) else list(pictures)
    times = list(range(len(frames))) if pts is None else list(pts)
    seconds = float((times[-1] + 1) * time_base)
    with av.open(str(path), "w", container_options=container_options or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate, options={"crf": str(crf)} | (options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if colour:
            context = stream.codec_context
            context.colorspace, context.color_range, context.color_primaries, context.color_trc = colour
        tracks = []
        for number, sound in enumerate(sounds):
            track: Any = out.add_stream(sound_codec, rate=48000, layout="mono")
            track.metadata["language"] = ("eng", "fra", "deu")[number]
            tracks.append((track, sound(seconds)))
        words: Any = None
        if subtitles:
            words = out.add_stream("mov_text" if path.suffix in (".mp4", ".mov") else "srt")
            words.codec_context.subtitle_header = ASS_HEADER
            words.time_base = Fraction(1, 1000)
            words.metadata["language"] = "eng"
        out.metadata.update(metadata or {})
        if chapters:
            base = Fraction(1, 1000)
            out.set_chapters(
                [
                    {"id": i, "start": int(a * 1000), "end": int(b * 1000), "time_base": base, "metadata": {"title": t}}
                    for i, (a, b, t) in enumerate(chapters)
                ]
            )
        out.start_encoding()
        packets: list[tuple[float, Any]] = []
        for rgb, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24" if rgb.dtype == np.uint8 else "rgb48le")
            frame = frame.reformat(format=pix_fmt, dst_colorspace={1: 1, 9: 9}.get(colour[0], 5) if colour else 5)
            frame.pts, frame.time_base = time, time_base
            packets += [(float(p.dts * p.time_base), p) for p in stream.encode(frame)]
        packets += [(float(p.dts * p.time_base), p) for p in stream.encode(None)]
        for track, samples in tracks:
            packets += _sound_packets(track, samples)
        for begin, end, text in subtitles:
            data = text.encode()
            packet = av.Packet(len(data).to_bytes(2, "big") + data if path.suffix in (".mp4", ".mov") else data)
            packet.pts = packet.dts = int(begin * 1000)
            packet.duration, packet.time_base, packet.stream = int((end - begin) * 1000), Fraction(1, 1000), words
            packets.append((begin, packet))
        for _, packet in sorted(packets, key=lambda entry: entry[0]):
            out.mux_one(packet)
    return path


def _sound_packets(track: Any, samples: np.ndarray) -> list[tuple[float, Any]]:
    result = []
    size = 1024
    for start in range(0, len(samples), size):
        block = samples[start : start + size].astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        result += track.encode(frame)
    result += track.encode(None)
    return [(float((p.dts or 0) * p.time_base), p) for p in result]


def clicks(seconds: float) -> np.ndarray:
    """A quiet tone with a loud click of 10 ms at every tenth of a second that is not a whole one."""
    time = np.arange(round(seconds * 48000)) / 48000
    tone = 0.02 * np.sin(2 * np.pi * 220 * time)
    phase = (time + 1e-9) % 0.2
    burst = (phase >= 0.1) & (phase < 0.11)
    return tone + 0.8 * np.sin(2 * np.pi * 3000 * time) * burst


def tone(seconds: float) -> np.ndarray:
    """A quiet tone."""
    return 0.05 * np.sin(2 * np.pi * 330 * np.arange(round(seconds * 48000)) / 48000)


def rotated(path: Path, target: Path, quarter_turns: int) -> Path:
    """The MP4 with a display matrix that turns it clockwise: written into the track header, as phones do."""
    data = bytearray(path.read_bytes())
    header = data.find(b"tkhd")
    matrix = header + 8 + (20 if data[header + 4] == 0 else 32) + 16
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns]
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", a * one, b * one, 0, -b * one, a * one, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def decode(path: Path) -> list[np.ndarray]:
    """All frames as RGB."""
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as film:
        return [frame.pts * frame.time_base for frame in film.decode(video=0)]


def hear(path: Path, track: int = 0) -> tuple[np.ndarray, float]:
    """Mono samples at 48 kHz, and the time of the first."""
    with av.open(str(path)) as film:
        resampler = av.AudioResampler("fltp", "mono", 48000)
        start: float | None = None
        parts = []
        for frame in film.decode(audio=track):
            if start is None:
                start = float(frame.pts * frame.time_base)
            parts += [out.to_ndarray()[0] for out in resampler.resample(frame)]
    return np.concatenate(parts), start or 0.0


def click_times(path: Path, track: int = 0) -> np.ndarray:
    """When the clicks begin, in seconds."""
    samples, start = hear(path, track)
    loud = np.flatnonzero(np.abs(samples) > 0.3)
    first = loud[np.flatnonzero(np.diff(loud, prepend=-10000) > 2000)]
    return first / 48000 + start
