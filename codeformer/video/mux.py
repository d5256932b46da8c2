"""Joins finished stretches with the input's sound, subtitles, chapters and metadata into the film."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from codeformer.errors import OutputError
from codeformer.video.alpha import has_alpha
from codeformer.video.container import disposition_of, open_container, start_of, starts_anew, video_stream
from codeformer.video.encoding import CONTAINERS, Encoding, is_hevc
from codeformer.video.packets import read_packets
from codeformer.video.streams import Carrier, carriers, carry_others

_OF_THE_DISK = (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
# What describes the input's file, not the film
_FILE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")


@dataclass(frozen=True)
class Clip:
    """What of the input belongs to the output: seconds from the input's beginning."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None


def mux(
    output: Path,
    encoding: Encoding,
    stretches: Sequence[Path],
    *,
    suffix: str,
    source: Path | None = None,
    stream: int | None = None,
    clip: Clip | None = None,
    last_duration: int = 0,
    audio: bool = True,
) -> list[str]:
    """Write the film in the container for ``suffix``.

    Packets are copied where players take their codec from the container; else sound is encoded as AAC (Opus in WebM)
    and text subtitles in the container's own kind. Some containers refuse sound that they know only while they are
    written. The picture is not lost for that: then all sound is encoded, and if that is refused too, it is left out.

    Args:
        output: the file that is written.
        encoding: what the stretches were encoded with.
        stretches: their packet files, in order.
        suffix: ending that chooses the container.
        source: the input file whose sound, subtitles, attachments, chapters and metadata are kept; None for none.
        stream: which of its video streams is the film; None for the one with the most merit.
        clip: what of the input belongs to the output.
        last_duration: ticks for which the last frame is shown.
        audio: whether sound is kept.

    Returns:
        one line for each thing that is encoded anew or left out.

    Raises:
        OutputError: the film cannot be written.
    """
    clip = clip or Clip()
    tries = [(True, True), (True, False)] if audio else []
    for with_audio, copy in (*tries, (False, False)):
        try:
            notes = _mux(output, encoding, stretches, suffix, source, stream, clip, last_duration, with_audio, copy)
            return notes if with_audio == audio else [*notes, f"the sound is left out: {suffix} refused it"]
        except (av.error.FFmpegError, OSError, ValueError) as error:
            failure = error
            if source is None or getattr(error, "errno", None) in _OF_THE_DISK:
                break
    raise OutputError(f"{output}: the film cannot be written ({failure})") from failure


def silenced(source: Path, suffix: str) -> list[str]:
    """Return a line of what an animation, which holds pictures only, lacks of its source."""
    with open_container(source) as origin:
        kinds = {"audio": "sound", "subtitle": "subtitles", "data": "data"}
        lost = sorted({kinds[stream.type] for stream in origin.streams if stream.type in kinds})
    return [f"{' and '.join(lost)} left out: {suffix} holds pictures only"] if lost else []


def _mux(
    output: Path,
    encoding: Encoding,
    stretches: Sequence[Path],
    suffix: str,
    source: Path | None,
    stream: int | None,
    clip: Clip,
    last_duration: int,
    audio: bool,
    copy: bool,
) -> list[str]:
    container_name = CONTAINERS[suffix.lower()][0]
    options = {"movflags": "+faststart"} if container_name in ("mp4", "mov") else {}
    if container_name in ("mp4", "mov"):
        options["video_track_timescale"] = str(encoding.time_base.denominator)
    notes: list[str] = []
    origin: Any = None if source is None else open_container(source)
    try:
        with av.open(str(output), "w", format=container_name, container_options=options) as out:
            video = out.add_stream(encoding.codec, rate=encoding.rate)
            encoding.configure(video.codec_context)
            video.time_base = encoding.time_base
            if (
                container_name in ("webm", "matroska")
                and encoding.codec.startswith("libvpx")
                and has_alpha(encoding.pix_fmt)
            ):
                video.metadata["alpha_mode"] = "1"
            if is_hevc(encoding.codec) and container_name in ("mp4", "mov"):
                video.codec_context.codec_tag = "hvc1"  # Apple's players open no other
            carried: list[Carrier] = []
            if origin is not None:
                film = video_stream(origin, source or Path(), stream)
                _describe(out, video, origin, film, clip)
                carried, notes = carriers(origin, out, container_name, audio=audio, copy=copy)
                notes += carry_others(origin, out, container_name, film)
            out.start_encoding()
            films = _film_packets(stretches, video, encoding, last_duration)
            others = _carried_packets(origin, carried, clip, notes)
            for _, _, packet in heapq.merge(films, others, key=lambda entry: entry[:2]):
                out.mux_one(packet)
    finally:
        if origin is not None:
            origin.close()
    return notes


def _describe(out: Any, video: Any, origin: Any, first: Any, clip: Clip) -> None:
    """Metadata and chapters of the input's file, and what it says of its picture."""
    for key, value in origin.metadata.items():
        if key.lower() not in _FILE_TAGS:
            out.metadata[key] = value
    video.metadata.update(
        {k: v for k, v in first.metadata.items() if k.lower() in ("language", "title", "handler_name")}
    )
    video.disposition = disposition_of(first)
    if hasattr(origin, "chapters"):
        kept = [c for c in (_clipped(chapter, origin, clip) for chapter in origin.chapters()) if c is not None]
        if kept:
            out.set_chapters(kept)


def _clipped(chapter: dict[str, Any], origin: Any, clip: Clip) -> dict[str, Any] | None:
    base = Fraction(chapter["time_base"])
    shift = round((start_of(origin) + clip.start) / base)
    start, end = max(0, chapter["start"] - shift), chapter["end"] - shift
    if clip.end is not None:
        end = min(end, round((clip.end - clip.start) / base))
    return {**chapter, "start": start, "end": end} if end > start else None


def _film_packets(
    stretches: Sequence[Path], stream: Any, encoding: Encoding, last_duration: int
) -> Iterator[tuple[float, int, Any]]:
    base = encoding.time_base
    for stored in read_packets(stretches):
        packet = stored.packet()
        packet.pts, packet.dts, packet.time_base = stored.pts, stored.dts, base
        packet.duration = stored.duration or last_duration
        packet.stream = stream
        yield float(stored.dts * base), 0, packet


@dataclass
class _Jump:
    """A stream's clock: its last packet's time, where the next one belongs, and by how much both were moved."""

    last: int | None = None
    due: int = 0
    shift: int = 0


def _go_on(packet: Any, jump: _Jump) -> None:
    """Let a clock that starts anew go on, as the picture's does."""
    time = packet.dts if packet.dts is not None else packet.pts
    if jump.last is not None and starts_anew(jump.last, time + jump.shift, packet.time_base):
        jump.shift = jump.due - time
    jump.last = time + jump.shift
    jump.due = jump.last + (packet.duration or 0)
    packet.pts = None if packet.pts is None else packet.pts + jump.shift
    packet.dts = None if packet.dts is None else packet.dts + jump.shift


def _carried_packets(
    origin: Any, carried: Sequence[Carrier], clip: Clip, notes: list[str]
) -> Iterator[tuple[float, int, Any]]:
    """Yield the other streams' packets with their times on the film's clock, in the file's order."""
    if not carried:
        return
    by_index = {carrier.index: carrier for carrier in carried}
    order = {index: place + 1 for place, index in enumerate(by_index)}
    begin = start_of(origin) + clip.start
    jumps: dict[int, _Jump] = {}
    packets = origin.demux(*(carrier.source for carrier in carried))
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            notes.append(f"the sound ends where the input is damaged ({error})")
            break
        if packet is None:
            break
        index = packet.stream_index
        if packet.pts is None and packet.dts is None:
            continue  # the end of a stream; its carrier is flushed below
        base = packet.time_base
        _go_on(packet, jumps.setdefault(index, _Jump()))
        pts = packet.pts if packet.pts is not None else packet.dts
        shown = pts * base - begin
        if clip.start and shown < 0:
            continue
        if clip.end is not None and shown >= clip.end - clip.start:
            continue
        shift = round(begin / base)
        packet.pts = pts - shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        for ready in by_index[index].carry(packet):
            yield float(ready.dts * ready.time_base), order[index], ready
    for index, carrier in by_index.items():
        for ready in carrier.flush():
            yield float(ready.dts * ready.time_base), order[index], ready
