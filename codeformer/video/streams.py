"""Sound and subtitle streams on their way into another container: copied if it takes them, else encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np

from codeformer.video.container import disposition_of

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_PATIENCE = 0.1  # seconds that sound may be early or late before it is put right
_SAMPLES = {"flt": np.float32, "dbl": np.float64, "s16": np.int16, "s32": np.int32}
# Statistics that Matroska's muxer writes about the streams of one file, and marks of one container
_STALE_TAGS = ("duration", "bps", "number_of_", "_statistics", "encoder", "vendor_id")
_AUDIO_CODEC = {"webm": "libopus"}
# What players take from the container, which is less than the container can hold: PCM in .mp4 plays hardly anywhere
_PLAYED = {"mp4": frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus", "flac"})}
_TEXT_SUBTITLES = {"mp4": "mov_text", "mov": "mov_text", "matroska": "srt", "webm": "webvtt"}
_PLAIN_TEXT = ("srt", "subrip", "text", "mov_text")
# An encoder of text subtitles wants a style sheet; players use their own
_ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


class Carrier(Protocol):
    """One stream on its way; packets come with their times already on the film's clock."""

    index: int
    source: Any

    def carry(self, packet: Any) -> Iterator[Any]:
        """Yield what goes into the output for one packet of the input."""

    def flush(self) -> Iterator[Any]:
        """Yield what is left at the end."""


def carriers(
    origin: Any, out: Any, container: str, *, audio: bool, copy: bool = True
) -> tuple[list[Carrier], list[str]]:
    """Return a carrier for every sound and subtitle stream that ``out`` can hold, and a line for each that it cannot.

    Without ``copy`` all sound is encoded anew.
    """
    result: list[Carrier] = []
    notes: list[str] = []
    for stream in origin.streams:
        if stream.type == "audio" and audio:
            carrier, note = _audio(stream, out, container, copy)
        elif stream.type == "subtitle":
            carrier, note = _subtitle(stream, out, container)
        else:
            continue
        if carrier is not None:
            result.append(carrier)
        if note:
            notes.append(note)
    return result, notes


def _audio(stream: Any, out: Any, container: str, copy: bool) -> tuple[Carrier | None, str]:
    if stream.codec_context is None:
        return None, f"sound stream {stream.index} has an unknown codec and is left out"
    if copy and _takes(out, stream) and _plays(container, stream):
        with suppress(ValueError, av.error.FFmpegError):
            return Copied(stream, _described(out.add_stream_from_template(stream, opaque=True), stream)), ""
    codec = _AUDIO_CODEC.get(container, "aac")
    name = stream.codec_context.name
    try:
        return Encoded(
            stream, out, codec
        ), f"sound stream {stream.index}: players take no {name} from {container}; encoded as {codec}"
    except (ValueError, av.error.FFmpegError) as error:
        return None, f"sound stream {stream.index} ({name}) is left out: {error}"


def _subtitle(stream: Any, out: Any, container: str) -> tuple[Carrier | None, str]:
    if stream.codec_context is not None:
        name = stream.codec_context.codec.name
        if _takes(out, stream):
            with suppress(ValueError, av.error.FFmpegError):
                return Copied(stream, _described(out.add_stream_from_template(stream, opaque=True), stream)), ""
        if name in _PLAIN_TEXT:
            with suppress(ValueError, av.error.FFmpegError):
                return Retold(stream, out, _TEXT_SUBTITLES[container]), ""
    else:
        name = "unknown"
    return None, f"subtitle stream {stream.index} ({name}) is left out: {container} cannot hold it; use -o NAME.mkv"


def _takes(out: Any, stream: Any) -> bool:
    context = stream.codec_context
    return bool({context.name, context.codec.name, context.codec.canonical_name} & out.supported_codecs)


def _plays(container: str, stream: Any) -> bool:
    played = _PLAYED.get(container)
    return played is None or stream.codec_context.name in played


def carry_others(origin: Any, out: Any, container: str, film: Any) -> list[str]:
    """Give the output what is neither picture, sound nor subtitles; return a line for each thing that it cannot hold.

    Fonts and other attachments go from Matroska to Matroska. A timecode is kept as the picture's tag, from which .mov
    and .mp4 make their timecode track anew.
    """
    notes = []
    for stream in origin.streams:
        if stream.type == "attachment":
            name = stream.metadata.get("filename", "without a name")
            if container == "matroska":
                kind = stream.metadata.get("mimetype", "application/octet-stream")
                out.add_attachment(name, kind, bytes(stream.data or b""))
            else:
                notes.append(f"the attachment {name} is left out: {container} cannot hold it; use -o NAME.mkv")
        elif stream.type == "data" and "timecode" not in stream.metadata and not _is_of_chapters(stream, origin):
            kind = stream.metadata.get("handler_name", "unknown")
            notes.append(f"the data stream {stream.index} ({kind}) is left out")
    if timecode := timecode_of(origin, film):
        if container == "webm":
            notes.append(f"the timecode {timecode} is left out: webm cannot hold it; use -o NAME.mkv")
        else:
            film_tags = out.streams.video[0].metadata if container in ("mp4", "mov") else out.metadata
            film_tags["timecode"] = timecode
    return notes


def _is_of_chapters(stream: Any, origin: Any) -> bool:
    """Return whether a data stream is how QuickTime and MP4 tell their chapters, which are kept as chapters."""
    return hasattr(origin, "chapters") and bool(origin.chapters()) and stream.name in ("bin_data", None)


def timecode_of(origin: Any, film: Any) -> str:
    """Return the time of the first frame on the film's own clock, ``HH:MM:SS:FF``; empty if it has none."""
    places = [film, origin, *(stream for stream in origin.streams if stream.type == "data")]
    found = (value for place in places for key, value in place.metadata.items() if key.lower() == "timecode")
    return next(found, "")


def _described(target: Any, source: Any) -> Any:
    for key, value in source.metadata.items():
        if not key.lower().startswith(_STALE_TAGS):
            target.metadata[key] = value
    target.disposition = disposition_of(source)
    return target


class _Steady:
    """Keeps a stream's decoding times increasing, as every container demands."""

    def __init__(self) -> None:
        self._last: int | None = None

    def fixed(self, packet: Any) -> Any:
        if self._last is not None and packet.dts <= self._last:
            packet.dts = self._last + 1
        if packet.pts < packet.dts:
            packet.pts = packet.dts
        self._last = packet.dts
        return packet


class Copied:
    """Packets as they are."""

    def __init__(self, source: Any, target: Any) -> None:
        self.index, self.source = source.index, source
        self._target = target
        self._steady = _Steady()

    def carry(self, packet: Any) -> Iterator[Any]:
        """Yield the packet."""
        packet.stream = self._target
        yield self._steady.fixed(packet)

    def flush(self) -> Iterator[Any]:
        """Nothing."""
        yield from ()


def _rate_near(rate: int) -> int:
    """Return the smallest sampling rate that AAC has and that loses nothing of ``rate``."""
    return min((known for known in _AAC_RATES if known >= rate), default=_AAC_RATES[-1])


def _layout_for(codec: str, rate: int, layout: Any) -> str:
    """Return the film's own channels where the encoder takes them, else 5.1 or stereo, into which they are mixed.

    Encoders are only refused when they are opened, which in a film is after all the work.
    """
    for name in (layout.name, "5.1" if layout.nb_channels > 2 else "stereo", "stereo"):
        trial: Any = av.CodecContext.create(codec, "w")
        trial.sample_rate, trial.time_base, trial.format = rate, Fraction(1, rate), trial.codec.audio_formats[0]
        with suppress(av.error.FFmpegError, ValueError):
            trial.layout = name
            trial.open(strict=False)
            return str(name)
    raise ValueError(f"{codec} takes neither {layout.name} nor stereo at {rate} Hz")


class Encoded:
    """Sound that the container cannot hold: decoded, and encoded with a codec that it can."""

    def __init__(self, source: Any, out: Any, codec: str) -> None:
        self.index, self.source = source.index, source
        context = source.codec_context
        rate = 48000 if codec == "libopus" else _rate_near(int(context.sample_rate or 48000))
        layout = _layout_for(codec, rate, context.layout)
        self._target = _described(out.add_stream(codec, rate=rate), source)
        encoder = self._target.codec_context
        encoder.layout = layout
        encoder.time_base = Fraction(1, rate)
        encoder.bit_rate = 96000 * encoder.layout.nb_channels
        self._rate = rate
        self._due: Fraction | None = None  # where the next sample belongs, by those that were decoded
        self._fifo = av.AudioFifo()
        self._resampler: Any = None
        self._steady = _Steady()
        self._kind: tuple[str, str, int] | None = None  # of the sound that was decoded
        self._next: int | None = None

    def carry(self, packet: Any) -> Iterator[Any]:
        """Yield the packets that its sound fills; damaged sound is passed over."""
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return
        yield from self._encode(frames)

    def flush(self) -> Iterator[Any]:
        """Yield what the decoder, the resampler and the encoder still hold."""
        with suppress(av.error.FFmpegError, EOFError):
            yield from self._encode(self.source.codec_context.decode(None))
        if self._resampler is not None:
            yield from self._send(self._resampler.resample(None), partial=True)
        yield from self._stamped(self._target.codec_context.encode(None))

    def _encode(self, frames: list[Any]) -> Iterator[Any]:
        encoder = self._target.codec_context
        for frame in frames:
            if self._resampler is None:
                encoder.open(strict=False)
                self._resampler = self._new_resampler()
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if self._kind not in (None, kind):  # joined recordings
                yield from self._begin_anew()
            self._kind = kind
            known = frame.pts is not None and frame.time_base is not None
            place = round(frame.pts * frame.time_base * self._rate) if known else None
            if self._next is None or self._due is None:  # sound keeps the place where it begins
                self._next = place or 0
                self._due = Fraction(self._next)
            elif place is not None and abs(place - self._due) > _PATIENCE * self._rate:
                if place < self._due:
                    continue  # heard already
                yield from self._begin_anew()
                yield from self._silence(round(place - self._due))
                self._due = Fraction(place)
            self._due += Fraction(frame.samples * self._rate, frame.sample_rate)
            frame.pts = None
            yield from self._send(self._resampler.resample(frame))

    def _new_resampler(self) -> Any:
        encoder = self._target.codec_context
        return av.AudioResampler(encoder.format, encoder.layout, self._rate)

    def _begin_anew(self) -> Iterator[Any]:
        """Before a gap, or sound of another kind: what the resampler still holds comes first."""
        yield from self._send(self._resampler.resample(None))
        self._resampler = self._new_resampler()

    def _silence(self, samples: int) -> Iterator[Any]:
        """So that what follows a gap keeps its time."""
        encoder = self._target.codec_context
        while samples > 0:
            count = min(samples, self._rate)
            shape = (
                (encoder.layout.nb_channels, count)
                if encoder.format.is_planar
                else (1, count * encoder.layout.nb_channels)
            )
            frame = av.AudioFrame.from_ndarray(
                np.zeros(shape, _SAMPLES[encoder.format.packed.name]),
                format=encoder.format.name,
                layout=encoder.layout.name,
            )
            frame.sample_rate = self._rate
            yield from self._send([frame])
            samples -= count

    def _send(self, frames: list[Any], partial: bool = False) -> Iterator[Any]:
        encoder = self._target.codec_context
        for frame in frames:
            frame.pts = None
            self._fifo.write(frame)
        size = encoder.frame_size or 1024
        while (ready := self._fifo.read(size)) or (partial and (ready := self._fifo.read(size, partial=True))):
            ready.pts = self._next
            ready.time_base = Fraction(1, self._rate)
            self._next = (self._next or 0) + ready.samples
            yield from self._stamped(encoder.encode(ready))

    def _stamped(self, packets: list[Any]) -> Iterator[Any]:
        for packet in packets:
            packet.stream = self._target
            if packet.dts is None:
                packet.dts = packet.pts
            yield self._steady.fixed(packet)


class Retold:
    """Plain text subtitles in the output's own kind: MP4's begin with their length, the others are bare text."""

    def __init__(self, source: Any, out: Any, codec: str) -> None:
        self.index, self.source = source.index, source
        target = out.add_stream(codec)
        target.codec_context.subtitle_header = _ASS_HEADER
        target.time_base = Fraction(1, 1000)
        self._target = _described(target, source)
        self._from_mov = source.codec_context.codec.name == "mov_text"
        self._to_mov = codec == "mov_text"
        self._steady = _Steady()

    def carry(self, packet: Any) -> Iterator[Any]:
        """Yield the same words; MP4's empty packets, which only end the one before, have no place elsewhere."""
        data = bytes(packet)
        if self._from_mov:
            data = data[2 : 2 + int.from_bytes(data[:2], "big")]
        if not data:
            return
        if self._to_mov:
            data = len(data).to_bytes(2, "big") + data
        told: Any = av.Packet(data)
        told.pts, told.dts, told.duration = packet.pts, packet.dts, packet.duration
        told.time_base = packet.time_base
        told.stream = self._target
        yield self._steady.fixed(told)

    def flush(self) -> Iterator[Any]:
        """Nothing."""
        yield from ()
