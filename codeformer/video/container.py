"""A film's container: opening it, choosing the film among its streams, its clock, and a survey of what is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av

from codeformer.errors import InputError, UsageError
from codeformer.files.atomic import reason
from codeformer.files.opening import require_regular
from codeformer.video.alpha import is_transparent
from codeformer.video.decoded import collected, side_data_of
from codeformer.video.fields import CombFinder

_ATTACHED_PICTURE, _TIMED_THUMBNAILS, _DEFAULT = 0x400, 0x800, 0x1  # AV_DISPOSITION_...
#: Containers that are a bare stream: nothing in them says when a frame is shown.
CLOCKLESS = frozenset({"mjpeg", "h264", "hevc", "m4v", "mpegvideo", "obu", "vvc", "cavsvideo", "dirac", "rawvideo"})
_COUNTED = 300  # packets that are looked at to tell a film from a thumbnail, and its rate
_WHOLE = 300  # a film of fewer packets is decoded whole to see what changes midway
_PLACES = 8  # places in a longer one at which a few frames are decoded
_THERE = 4
_LASTS = 0.2  # share of the film from which on a size lasts
_HIGHEST_RATE = 130  # frames per second that are believed without a look at the clock
_USUAL_RATES = tuple(Fraction(n) for n in (10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 100, 120)) + tuple(
    Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)
)

# What becomes of tags that are not UTF-8: PyAV 19 keeps their bytes by itself, and has no such option any more.
_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_container(path: Path, rate: Fraction | None = None) -> Any:
    """Return PyAV's input container for a file.

    Args:
        path: a file's name, never an address: ``Take2:final.mp4`` is a file too.
        rate: frames per second of a stream without a clock (:data:`CLOCKLESS`).

    Raises:
        InputError: it is not a film; the message has one line.
    """
    try:
        require_regular(path)  # FFmpeg would wait at a pipe, and read a device for ever
    except (FileNotFoundError, NotADirectoryError) as error:
        if re.match(r"^(?!file:)[a-z][a-z0-9+.-]+:/+", str(path), re.IGNORECASE):
            raise InputError(f"{path}: is an address, not a file; download it first, then give the file") from error
        raise InputError(f"{path}: no such file") from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it") from error
    except OSError as error:
        raise InputError(f"{path}: {reason(error)}; save the film into a file first") from error
    options = {} if rate is None else {"framerate": f"{rate.numerator}/{rate.denominator}"}
    try:
        return av.open(f"file:{path}", options=options, **_TAGS)
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty") from error
        raise InputError(
            f"{path}: not a film that can be opened, or cut off before its index ({reason_of(error)})"
        ) from error


def film_streams(container: Any) -> list[Any]:
    """Return the video streams that are not cover art, in the file's order."""
    still = _ATTACHED_PICTURE | _TIMED_THUMBNAILS
    return [stream for stream in container.streams.video if not disposition_of(stream) & still]


def video_stream(container: Any, path: Path, number: int | None = None) -> Any:
    """Return the stream that is the film.

    Of several it is the one that moves, is marked as the default, has the most frames, and the most pixels, in this
    order; a thumbnail in the first place is not taken for the film.

    Args:
        container: an open input.
        path: its file, for messages.
        number: the user's choice among :func:`film_streams`, from 1.

    Raises:
        InputError: a video stream, or its decoder, is missing.
        UsageError: there is none of that number.
    """
    streams = film_streams(container)
    if not streams:
        raise InputError(f"{path}: holds no video stream")
    if number is not None:
        if not 1 <= number <= len(streams):
            count = "one video stream" if len(streams) == 1 else f"{len(streams)} video streams"
            raise UsageError(f"--stream {number}: {path} has {count}")
        return _known(streams[number - 1], path)
    if len(streams) == 1:
        return _known(streams[0], path)
    frames = _frames_of(path, tuple(stream.index for stream in streams))

    def merit(stream: Any) -> tuple[bool, bool, int, int, int]:
        context = stream.codec_context
        pixels = 0 if context is None else context.width * context.height
        count = frames[stream.index]
        return count > 1, bool(disposition_of(stream) & _DEFAULT), min(count, _COUNTED), pixels, -stream.index

    return _known(max(streams, key=merit), path)


def _known(stream: Any, path: Path) -> Any:
    """Return the stream. Raises InputError if its decoder is missing."""
    if stream.codec_context is None:
        raise InputError(
            f"{path}: its picture is coded in a way that is not known here; convert it with a program that plays it"
        )
    return stream


def _frames_of(path: Path, indices: tuple[int, ...]) -> Counter[int]:
    """Return how many packets of each stream come before one of them has shown that it is a film."""
    counts: Counter[int] = Counter()
    with open_container(path) as container, suppress(av.error.FFmpegError, OSError):
        for packet in container.demux(*(container.streams[index] for index in indices)):
            if packet.size:
                counts[packet.stream_index] += 1
            if sum(counts.values()) >= _COUNTED * len(indices):
                break
    return counts


def disposition_of(stream: Any) -> int:
    """Return the stream's disposition flags (AV_DISPOSITION_...); older PyAV gives a Flag that is not an integer."""
    flags = stream.disposition
    return int(getattr(flags, "value", flags))


def start_of(container: Any) -> Fraction:
    """Return the second of the container's clock at which the film begins: all times are counted from there."""
    return Fraction(container.start_time or 0, 1_000_000)


def duration_of(container: Any, stream: Any) -> Fraction | None:
    """Return the seconds of the picture, from the film's start; None where nothing says."""
    if stream.duration is not None:
        ticks = Fraction((stream.start_time or 0) + stream.duration)
        return ticks * Fraction(stream.time_base) - start_of(container)
    for key, value in stream.metadata.items():
        if key.upper().startswith("DURATION"):  # Matroska's tag, hh:mm:ss.nnnnnnnnn
            hours, minutes, seconds = value.split(":")
            until = Fraction(hours) * 3600 + Fraction(minutes) * 60 + Fraction(seconds)
            return max(Fraction(0), until - start_of(container))
    if container.duration is None:
        return None
    duration = Fraction(container.duration, 1_000_000)
    if "matroska" in container.format.name:  # there it is the clock's at the end
        duration = max(Fraction(0), duration - start_of(container))
    return duration


def starts_anew(before: int, now: int, time_base: Fraction) -> bool:
    """Return whether a clock, in ticks of ``time_base`` seconds, jumped back by a second or more: a new recording."""
    return (before - now) * time_base >= 1


def clock_restarts(path: Path) -> bool:
    """Return whether a film is made of recordings joined byte by byte, in which seeking finds the wrong one."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return _clock_restarts(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _clock_restarts(path: Path, size: int, changed: int) -> bool:
    with open_container(path) as container:
        if container.format.name not in ("mpegts", "mpeg"):  # others have one clock, or an index
            return False
        stream = video_stream(container, path)
        last: Any = None
        with suppress(av.error.FFmpegError, OSError):
            for packet in container.demux(stream):
                if packet.dts is not None:
                    if last is not None and starts_anew(last, packet.dts, packet.time_base):
                        return True
                    last = packet.dts
    return False


def measured_duration(path: Path, start: Fraction = Fraction(0), number: int | None = None) -> Fraction:
    """Return the seconds from ``start`` to the end of a film that does not say how long it is, by its packets."""
    until = Fraction(0)
    with open_container(path) as container:
        stream = video_stream(container, path, number)
        with suppress(av.error.FFmpegError, OSError):
            for packet in container.demux(stream):
                if packet.pts is not None:
                    until = max(until, (packet.pts + (packet.duration or 0)) * packet.time_base)
        return max(Fraction(0), until - start_of(container) - start)


@dataclass(frozen=True)
class Shape:
    """Size and pixel aspect of a stored frame."""

    width: int
    height: int
    aspect: Fraction = Fraction(1)


@dataclass
class Survey:
    """What a quick look into a film found.

    Attributes:
        shapes: how many of the frames looked at have each shape.
        interlaced: how many of them say that they are interlaced.
        combed: how many of them show combs.
        transparent: how many of them have something transparent.
        captions: whether frames carry closed captions.
        rate: frames per second by the times of the first packets; None without a clock.
    """

    shapes: Counter[Shape] = field(default_factory=Counter)
    interlaced: int = 0
    combed: int = 0
    transparent: int = 0
    captions: bool = False
    rate: Fraction | None = None

    def lasting(self) -> Shape | None:
        """Return the largest shape that a good part of the film has."""
        total = sum(self.shapes.values())
        lasting = [shape for shape, count in self.shapes.items() if count >= _LASTS * total]
        return max(lasting, key=lambda shape: (shape.width * shape.height, self.shapes[shape]), default=None)


def survey(path: Path, number: int | None = None) -> Survey:
    """Look into a film: the times of its first packets, and frames at some places of it, or all of a short one."""
    result = Survey()
    with open_container(path) as container:
        stream = video_stream(container, path, number)
        times, count = [], 0
        with suppress(av.error.FFmpegError, OSError):
            for packet in container.demux(stream):
                count += packet.size > 0
                if packet.size and (time := packet.pts if packet.pts is not None else packet.dts) is not None:
                    times.append(time * packet.time_base)
                if count > _WHOLE:
                    break
        if container.format.name not in CLOCKLESS:
            result.rate = _rate_of(times)
        length = duration_of(container, stream)
    if count <= _WHOLE or length is None:
        _look_from(path, number, None, min(count, _WHOLE), result)
    else:
        for place in range(_PLACES):
            _look_from(path, number, length * (2 * place + 1) / (2 * _PLACES), _THERE, result)
    return result


def _look_from(path: Path, number: int | None, at: Fraction | None, frames: int, result: Survey) -> None:
    with open_container(path) as container, suppress(av.error.FFmpegError, OSError, EOFError):
        stream = video_stream(container, path, number)
        stream.thread_type = "AUTO"
        if at is not None:
            container.seek(int((at + start_of(container)) / stream.time_base), stream=stream, backward=True)
        combs, shapes = CombFinder(), Shapes(stream)
        for frame in islice(collected(_decodable(container, stream)), frames):
            result.shapes[shapes.of(frame)] += 1
            result.transparent += is_transparent(frame)
            result.interlaced += bool(frame.interlaced_frame)
            result.combed += combs.push(frame, Fraction(stream.time_base))
            result.captions |= any(name == "A53_CC" for name, _ in side_data_of(frame))
        result.combed += combs.flush()


def _decodable(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream, without those of packets that cannot be decoded."""
    for packet in container.demux(stream):
        with suppress(av.error.FFmpegError):
            yield from packet.decode()


class Shapes:
    """Tells the size and pixel aspect of one decoded frame after the other.

    The aspect is the container's where it has one for the whole film. In streams that may change midway it is the
    decoder's. That one runs ahead of the frames that come out, so a new aspect holds from the next keyframe on.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._aspect: Fraction | None = None

    def of(self, frame: Any) -> Shape:
        """Return the shape of the next frame."""
        own = self._stream.codec_context.sample_aspect_ratio
        aspect = Fraction((own if _changes_midway(self._stream) else self._stream.sample_aspect_ratio or own) or 1)
        if self._aspect is None or frame.key_frame:
            self._aspect = aspect if aspect > 0 else Fraction(1)
        return Shape(frame.width, frame.height, self._aspect)


def _changes_midway(stream: Any) -> bool:
    return stream.container.format.name in CLOCKLESS | {"mpegts", "mpeg"}


def _rate_of(times: list[Fraction]) -> Fraction | None:
    """Return the frames per second of presentation times, a usual rate where they come that near."""
    ordered = sorted(set(times))
    if len(ordered) < 3:
        return None
    steps = sorted(after - before for before, after in pairwise(ordered))
    usual = steps[len(steps) // 2]
    # A pause is not a slower rate: the mean of the steps that are about as long as the usual one
    near = [step for step in steps if step < 2 * usual]
    rate = len(near) / sum(near, Fraction(0))
    nearest = min(_USUAL_RATES, key=lambda known: abs(known - rate))
    return nearest if abs(nearest - rate) <= Fraction(15, 1000) * rate else rate.limit_denominator(1000)


def rate_of(container: Any, stream: Any, measured: Fraction | None) -> Fraction:
    """Return the frames per second of a stream: what its container knows, not what it guesses.

    A recording without a default duration, as browsers make them, is guessed at a thousand frames a second.
    """
    said = stream.average_rate or stream.guessed_rate or stream.base_rate
    if measured is not None and (not said or said > _HIGHEST_RATE or not stream.average_rate):
        return measured
    return Fraction(said or 25)


def reason_of(error: BaseException) -> str:
    """Return what FFmpeg says of an error, in a few words."""
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".") or type(error).__name__
