"""Films as frames: decoding with PyAV, tolerant of damage, exact in time, upright."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from codeformer.errors import InputError
from codeformer.video.pixels import Orientation, bits_of, colour_of, fit, orientation_of, to_rgb
from codeformer.video.source import Film, FilmInfo, Frame, FrameFolder, find_frames

_ATTACHED_PICTURE = 1024  # AV_DISPOSITION_ATTACHED_PIC: cover art is no film
_LEADING = 8  # frames
_FOLDER_RATE = Fraction(24)  # what the original assumes too


def open_film(
    path: Path, *, start: Fraction | None = None, end: Fraction | None = None, rate: Fraction | None = None
) -> Film:
    """A film from a file, or from a folder or pattern of pictures.

    ``start`` and ``end`` are seconds from the film's beginning; frames shown before ``start`` or from ``end`` on are
    left out. ``rate``: for pictures, their frames per second; a film is resampled to it, each tick showing the frame
    that is on the screen then, so that the sound stays in step. Raises InputError naming the file.
    """
    pictures = find_frames(path)
    film: Film
    if pictures is not None:
        film = FrameFolder(_between(pictures, start, end, rate or _FOLDER_RATE), path, rate or _FOLDER_RATE)
        return film
    film = FilmFile(path, start=start or Fraction(0), end=end)
    return Resampled(film, rate) if rate is not None else film


def _between(pictures: list[Path], start: Fraction | None, end: Fraction | None, rate: Fraction) -> list[Path]:
    first = -((-(start or 0) * rate) // 1)
    last = len(pictures) if end is None else -((-end * rate) // 1)
    return pictures[int(first) : int(last)]


def open_container(path: Path) -> Any:
    """PyAV's input container. Raises InputError in one line for what is no film."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        return av.open(str(path), metadata_errors="replace")
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty") from error
        raise InputError(
            f"{path}: not a film that can be opened, or cut off before its index ({_why(error)})"
        ) from error


def video_stream(container: Any, path: Path) -> Any:
    """The film's picture: the first video stream that is not cover art. Raises InputError if there is none."""
    for stream in container.streams.video:
        if not disposition_of(stream) & _ATTACHED_PICTURE:
            return stream
    raise InputError(f"{path}: holds no video stream")


def disposition_of(stream: Any) -> int:
    """The stream's disposition flags (AV_DISPOSITION_...); older PyAV gives a Flag that is no integer."""
    flags = stream.disposition
    return int(getattr(flags, "value", flags))


def start_of(container: Any) -> Fraction:
    """Seconds on the container's clock at which the film begins: every stream's times are counted from there."""
    return Fraction(container.start_time or 0, 1_000_000)


class FilmFile:
    """A film in a file."""

    def __init__(self, path: Path, *, start: Fraction = Fraction(0), end: Fraction | None = None) -> None:
        self.start, self.end = start, end
        self._path = path
        self.problems: list[str] = []
        self.ended_early: float | None = None
        self.info, self._orientation = self._probe()

    def files(self) -> list[Path]:
        """The one file."""
        return [self._path]

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """The frames from index ``first`` on; the ones before are decoded (a film's frames depend on each other)
        but not converted. ``problems`` and ``ended_early`` are set when it ends."""
        self.problems = []
        self.ended_early = None
        may_seek = self.start and not clock_restarts(self._path)
        for back in (0, 2, 10, None) if may_seek else (None,):
            with open_container(self._path) as container:
                stream = video_stream(container, self._path)
                stream.thread_type = "AUTO"
                if back is not None and not self._seek(container, stream, back):
                    continue
                reading = _Reading()
                decoded = _decode(container, stream, reading)
                origin = round((start_of(container) + self.start) / stream.time_base)
                if back is not None:
                    # Some containers seek to where no keyframe is, some frames have no time, and after a keyframe a
                    # few may be missing that refer to what is before it
                    one = next(decoded, None)
                    margin = round(_LEADING / (self.info.rate * stream.time_base))
                    if one is None or one.pts is None or one.pts > origin - margin:
                        continue
                    reading.broken = 0  # what refers to before the place is no damage
                    decoded = chain([one], decoded)
                timed = self._timed(decoded, origin, stream.time_base, reading)
                yield from self._converted(timed, first, reading)
                self._conclude(reading)
                return

    def _probe(self) -> tuple[FilmInfo, Orientation]:
        with open_container(self._path) as container:
            stream = video_stream(container, self._path)
            frame = next(_decode(container, stream, _Reading()), None)
            if frame is None:
                raise InputError(f"{self._path}: holds no frame that can be decoded")
            orientation = orientation_of(frame)
            height, width = frame.height, frame.width
            aspect = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
            if orientation.transpose:
                height, width, aspect = width, height, 1 / aspect
            rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
            duration = _duration(container, stream)
            self._length = duration
            frames = stream.frames or None
            if self.start or self.end is not None:
                until = min(x for x in (self.end, duration) if x is not None) if self.end or duration else None
                duration = None if until is None else max(Fraction(0), until - self.start)
                frames = None
            if frames is None and duration is not None:
                frames = max(1, round(duration * rate))
            notes = []
            others = [
                s for s in container.streams.video if s is not stream and not disposition_of(s) & _ATTACHED_PICTURE
            ]
            if others:
                notes.append(f"only the first of {len(others) + 1} video streams is worked on; the others are left out")
            if frame.interlaced_frame:
                notes.append("the film is interlaced: its fields are restored as whole frames (deinterlace it first)")
            info = FilmInfo(
                path=self._path,
                width=width,
                height=height,
                time_base=stream.time_base,
                rate=Fraction(rate),
                frames=frames,
                duration=duration,
                sample_aspect_ratio=aspect if aspect > 0 else Fraction(1),
                colour=colour_of(frame, stream.codec_context),
                bits=bits_of(frame),
                codec=stream.codec_context.name,
                pix_fmt=frame.format.name,
                notes=tuple(notes),
            )
            return info, orientation

    def _seek(self, container: Any, stream: Any, back: int) -> bool:
        """To the keyframe before ``start``, or ``back`` seconds earlier still; False if this film cannot seek."""
        target = int((max(Fraction(0), self.start - back) + start_of(container)) / stream.time_base)
        try:
            container.seek(target, stream=stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def _timed(
        self, frames: Iterator[Any], origin: int, base: Fraction, reading: _Reading
    ) -> Iterator[tuple[Any, int, int]]:
        """Frames within start and end, with strictly increasing pts from ``start`` (``origin``) and durations in ticks.

        A clock that starts anew, as where recordings were joined, goes on.
        """
        end = None if self.end is None else round((self.end - self.start) / base)
        step = max(1, round(1 / (self.info.rate * base)))
        clock: int | None = None  # the last frame's time, also before --start
        last = -1
        held: tuple[Any, int, int] | None = None  # a frame's duration is only sure when the next one's time is known
        for frame in frames:
            if frame.pts is None:
                pts = clock + step if clock is not None else -round(self.start / base)
            else:
                pts = frame.pts - origin
                if clock is not None and starts_anew(clock, pts, base):
                    reading.restarts += 1
                    shift = clock + step - pts
                    origin, pts = origin - shift, pts + shift
            clock = pts
            own = int(frame.duration or step)
            if pts < 0 and (self.start or last >= 0):
                continue  # before --start
            if end is not None and pts >= end:
                reading.ended = float(end * base)
                break
            if pts <= last:
                reading.retimed += 1
                pts = last + 1
            if held is not None:
                reading.intervals[pts - held[1]] += 1
                yield held[0], held[1], pts - held[1]
            held, last = (frame, pts, own), pts
            if frame.is_corrupt:
                reading.corrupt += 1
        if held is not None:
            duration = held[2] if end is None else max(1, min(held[2], end - held[1]))
            reading.ended = max(reading.ended or 0.0, float((held[1] + duration) * base))
            yield held[0], held[1], duration

    def _converted(self, timed: Iterator[tuple[Any, int, int]], first: int, reading: _Reading) -> Iterator[Frame]:
        size = (self.info.width, self.info.height)
        before: Any = None
        for index, (frame, pts, duration) in enumerate(timed):
            if index < first - 1:
                continue
            rgb = self._orientation.apply(to_rgb(frame, self.info.colour))
            if (rgb.shape[1], rgb.shape[0]) != size:
                reading.resized += 1
                rgb = fit(rgb, size)
            if self.info.bits > 8 and rgb.dtype == np.uint8:
                rgb = rgb.astype(np.uint16) * 257
            elif self.info.bits <= 8 and rgb.dtype != np.uint8:
                rgb = (rgb >> 8).astype(np.uint8)
            same = before is not None and np.array_equal(before, rgb)
            if same:
                rgb = before
            before = rgb
            if index >= first:
                yield Frame(index, pts, duration, rgb, same)

    def _conclude(self, reading: _Reading) -> None:
        """Put what went wrong into words."""
        if reading.broken:
            self.problems.append(f"{reading.broken} broken packets could not be decoded and were left out")
        if reading.corrupt:
            self.problems.append(f"{reading.corrupt} frames were damaged; the decoder filled in what it could")
        if lacking := reading.missing():
            self.problems.append(
                f"{lacking} frames of a steady rate are missing in the middle; the frame before each gap stands still"
            )
        if reading.resized:
            size = f"{self.info.width}x{self.info.height}"
            self.problems.append(f"the film changes its size midway: {reading.resized} frames were fitted into {size}")
        if reading.retimed:
            self.problems.append(f"{reading.retimed} frames had timestamps out of order and were moved by a tick")
        if reading.restarts:
            self.problems.append(f"its clock starts anew {reading.restarts} times; the parts follow each other now")
        if reading.ended is None or self._length is None or self.info.duration is None:
            if reading.error:
                self.ended_early = reading.ended or 0.0
            return
        tolerance = max(0.25, 3 / float(self.info.rate))
        missing = float(self.info.duration) - reading.ended
        if reading.error or (
            missing > tolerance and reading.furthest(self.start) < float(self.info.duration) - tolerance
        ):
            self.ended_early = reading.ended


class _Reading:
    """What one pass over a film met."""

    def __init__(self) -> None:
        self.broken = self.corrupt = self.resized = self.retimed = self.restarts = 0
        self.intervals: Counter[int] = Counter()  # ticks from one frame to the next, and how often
        self.error: str | None = None
        self.ended: float | None = None  # seconds, end of the last frame
        self.last_packet = 0.0  # seconds, end of the last packet of any stream

    def missing(self) -> int:
        """Frames that lack between the others, where nearly all come at a steady rate (a container's clock may round):
        a demuxer that finds its way again after broken bytes says nothing of what it passed over."""
        ticks = sorted(self.intervals.elements())
        if not ticks:
            return 0
        usual = ticks[len(ticks) // 2]
        gaps = [tick for tick in ticks if tick > 1.5 * usual]
        odd = len(gaps) + sum(tick < 0.5 * usual for tick in ticks)
        return sum(round(tick / usual) - 1 for tick in gaps) if odd <= 0.1 * len(ticks) else 0

    def furthest(self, start: Fraction) -> float:
        return max(self.ended or 0.0, self.last_packet - float(start))


def _decode(container: Any, stream: Any, reading: _Reading) -> Iterator[Any]:
    """Decoded frames; packets that cannot be decoded are counted and passed over."""
    origin = start_of(container)
    streams = [s for s in container.streams if s.type in ("video", "audio")]
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:  # the container itself is broken here: nothing can follow
            reading.error = _why(error)
            packet = None
        if packet is None:
            break
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base - origin
            reading.last_packet = max(reading.last_packet, float(end))
        if packet.stream_index != stream.index or (packet.size == 0 and packet.pts is None):
            continue
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            reading.broken += 1
    with suppress(av.error.FFmpegError, EOFError):
        yield from stream.codec_context.decode(None)


def _duration(container: Any, stream: Any) -> Fraction | None:
    """Seconds of the picture, from the film's start."""
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
    """Whether a clock, in ticks of ``time_base`` seconds, jumped back too far for frames out of order: a second."""
    return (before - now) * time_base >= 1


def clock_restarts(path: Path) -> bool:
    """Whether a film is of recordings joined byte by byte, in which seeking finds the wrong one."""
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


def measured_duration(path: Path, start: Fraction = Fraction(0)) -> Fraction:
    """Seconds from ``start`` to the end of a film that does not say how long it is: by its packets, undecoded."""
    until = Fraction(0)
    with open_container(path) as container:
        stream = video_stream(container, path)
        with suppress(av.error.FFmpegError, OSError):
            for packet in container.demux(stream):
                if packet.pts is not None:
                    until = max(until, (packet.pts + (packet.duration or 0)) * packet.time_base)
        return max(Fraction(0), until - start_of(container) - start)


def _why(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".") or type(error).__name__


class Resampled:
    """A film at a constant rate: at each tick the frame that is on the screen then."""

    def __init__(self, film: Film, rate: Fraction) -> None:
        self._film, self._rate = film, rate
        duration = film.info.duration
        count = None if duration is None else max(1, round(duration * rate))
        self.info = replace(film.info, time_base=1 / rate, rate=rate, frames=count)

    @property
    def problems(self) -> list[str]:
        """As the film's."""
        return self._film.problems

    @property
    def ended_early(self) -> float | None:
        """As the film's."""
        return self._film.ended_early

    def files(self) -> list[Path]:
        """As the film's."""
        return self._film.files()

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """The frames from tick ``first`` on."""
        ratio = self._film.info.time_base * self._rate  # ticks of ours per tick of the film
        tick = 0
        before: Any = None
        for frame in self._film.frames():
            end = (frame.pts + frame.duration) * ratio
            while tick + Fraction(1, 2) <= end:  # the frame shown at the middle of the tick
                if tick >= first:  # an equal frame brings the same array
                    yield Frame(tick, tick, 1, frame.rgb, frame.rgb is before)
                before = frame.rgb
                tick += 1
