"""Films as frames: decoding with PyAV, tolerant of damage, exact in time, upright."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from codeformer.arrays import Pixels, Rgb
from codeformer.errors import InputError, UsageError
from codeformer.images.value import to_uint8, to_uint16
from codeformer.video.alpha import alpha_decoder, alpha_of
from codeformer.video.animation import AnimatedWebp, is_animated_webp
from codeformer.video.container import (
    CLOCKLESS,
    Shape,
    Shapes,
    clock_restarts,
    duration_of,
    film_streams,
    open_container,
    rate_of,
    reason_of,
    start_of,
    starts_anew,
    survey,
    video_stream,
)
from codeformer.video.decoded import Orientations, orientation_of
from codeformer.video.fields import clock_after, filtered, filters_for, rate_after
from codeformer.video.light import light_of, unkept
from codeformer.video.numbers import filled
from codeformer.video.pixels import bits_of, colour_of, fit, fit_alpha, in_colours_of, resize, to_rgb
from codeformer.video.resampled import Resampled
from codeformer.video.source import Film, FilmInfo, Frame, FrameFolder, find_frames

_Seen = tuple[Any, Shape]  # a decoded frame, and its shape at that moment

_LEADING = 8  # frames
_WOVEN = 0.2  # share of the frames looked at that show combs, from which on a film is interlaced whatever it says
_FOLDER_RATE = Fraction(24)  # what the original assumes too


def open_film(
    path: Path,
    *,
    start: Fraction | None = None,
    end: Fraction | None = None,
    rate: Fraction | None = None,
    clock: Fraction | None = None,
    stream: int | None = None,
    deinterlace: str = "auto",
) -> Film:
    """Return a film from a file, or from a folder or pattern of pictures.

    Args:
        path: the file, folder or pattern.
        start: seconds from the film's beginning; frames shown before it are left out.
        end: seconds from the film's beginning; frames shown before ``start`` or from ``end`` on are left out.
        rate: for pictures, their frames per second; a film is resampled to it, each tick showing the frame that is on
            the screen then, so that the sound stays in step.
        clock: frames per second of what has no clock: pictures, and bare streams such as .mjpeg and .h264.
        stream: which video stream, from 1; None for the one with the most merit.
        deinterlace: one of :data:`codeformer.video.options.DEINTERLACE`.

    Raises:
        InputError: it is not a film; the message names the file.
        UsageError: there is no such stream, or the film has a clock of its own.
    """
    pictures = find_frames(path)
    film: Film
    if pictures is not None:
        own = clock or rate or _FOLDER_RATE
        held, notes = filled(pictures)
        film = FrameFolder(_between(held, start, end, own), path, own, notes)
        return Resampled(film, rate) if clock is not None and rate not in (None, clock) else film
    if is_animated_webp(path):
        film = AnimatedWebp(path, start or Fraction(0), end)
        return Resampled(film, rate) if rate is not None else film
    film = FilmFile(path, start or Fraction(0), end, clock=clock, number=stream, deinterlace=deinterlace)
    return Resampled(film, rate) if rate is not None else film


def _between(pictures: list[Path], start: Fraction | None, end: Fraction | None, rate: Fraction) -> list[Path]:
    first = -((-(start or 0) * rate) // 1)
    last = len(pictures) if end is None else -((-end * rate) // 1)
    return pictures[int(first) : int(last)]


class FilmFile:
    """A film in a file; the arguments are those of :func:`open_film`."""

    def __init__(
        self,
        path: Path,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        *,
        clock: Fraction | None = None,
        number: int | None = None,
        deinterlace: str = "off",
    ) -> None:
        self.start, self.end = start, end
        self._path, self._clock, self._number = path, clock, number
        self.problems: list[str] = []
        self.ended_early: float | None = None
        self._survey = survey(path, number)
        mode = deinterlace
        total = max(1, sum(self._survey.shapes.values()))
        self._filters = filters_for(mode, self._survey.interlaced > 0, self._survey.combed > _WOVEN * total)
        self.info = self._probe()

    def files(self) -> list[Path]:
        """Return the one file."""
        return [self._path]

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames from index ``first`` on.

        The ones before are decoded, since a film's frames depend on each other, but not converted. ``problems`` and
        ``ended_early`` are set when it ends.
        """
        self.problems = []
        self.ended_early = None
        may_seek = self.start and not clock_restarts(self._path)
        for back in (0, 2, 10, None) if may_seek else (None,):
            with open_container(self._path, self._clock) as container:
                stream = video_stream(container, self._path, self._number)
                stream.thread_type = "AUTO"
                if back is not None and not self._seek(container, stream, back):
                    continue
                reading = _Reading()
                decoded = _decode(container, stream, reading)
                base = Fraction(stream.time_base)
                if self._filters:
                    rate = self.info.rate / rate_after(self._filters)
                    decoded = filtered(decoded, base, self._filters, rate)
                    base /= clock_after(self._filters)
                origin = round((start_of(container) + self.start) / base)
                if back is not None:
                    # Some containers seek to where no keyframe is, some frames have no time, and after a keyframe a
                    # few may be missing that refer to what is before it
                    one = next(decoded, None)
                    margin = round(_LEADING / (self.info.rate * base))
                    if one is None or one.pts is None or one.pts > origin - margin:
                        continue
                    reading.broken = 0  # what refers to before the place is not damage
                    decoded = chain([one], decoded)
                shapes = Shapes(stream)
                seen = ((frame, shapes.of(frame)) for frame in decoded)
                timed = self._timed(seen, origin, base, reading)
                yield from self._converted(timed, stream, first, reading)
                self._conclude(reading)
                return

    def _probe(self) -> FilmInfo:
        with open_container(self._path, self._clock) as container:
            stream = video_stream(container, self._path, self._number)
            frame = next(_decode(container, stream, _Reading()), None)
            if frame is None:
                raise InputError(f"{self._path}: holds no frame that can be decoded")
            if self._clock is not None and container.format.name not in CLOCKLESS:
                raise UsageError(
                    f"--fps: {self._path} has a clock of its own; --save_video_fps resamples it to another rate"
                )
            shape = self._survey.lasting() or Shapes(stream).of(frame)
            height, width, aspect = shape.height, shape.width, shape.aspect
            if orientation_of(frame).transpose:
                height, width, aspect = width, height, 1 / aspect
            rate = self._clock or rate_of(container, stream, self._survey.rate)
            self._length = duration = duration_of(container, stream)
            frames = stream.frames or None
            if self.start or self.end is not None:
                until = min(x for x in (self.end, duration) if x is not None) if self.end or duration else None
                duration = None if until is None else max(Fraction(0), until - self.start)
                frames = None
            if self._filters:
                rate, frames = rate * rate_after(self._filters), None
            if frames is None and duration is not None:
                frames = max(1, round(duration * rate))
            return FilmInfo(
                path=self._path,
                width=width,
                height=height,
                time_base=Fraction(stream.time_base) / clock_after(self._filters),
                rate=Fraction(rate),
                frames=frames,
                duration=duration,
                sample_aspect_ratio=aspect,
                colour=colour_of(frame, stream.codec_context),
                light=light_of(frame),
                bits=bits_of(frame),
                alpha=self._survey.transparent > 0 or alpha_decoder(stream) is not None,
                codec=stream.codec_context.name,
                pix_fmt=frame.format.name,
                notes=(*self._notes(container, stream), *unkept(frame)),
                stream=film_streams(container).index(stream) + 1,
            )

    def _notes(self, container: Any, stream: Any) -> Iterator[str]:
        """Yield what the user should know of the film before the work begins."""
        streams = film_streams(container)
        if len(streams) > 1:
            context = stream.codec_context
            yield (
                f"video stream {streams.index(stream) + 1} of {len(streams)} is the film ({context.width}x"
                f"{context.height}); the others are left out (--stream N takes another)"
            )
        if container.format.name in CLOCKLESS and self._clock is None:
            yield f"has no clock: {float(stream.average_rate or 25):g} frames a second are assumed (--fps N sets them)"
        if len({(shape.width, shape.height) for shape in self._survey.shapes}) > 1:
            sizes = " and ".join(
                f"{width}x{height}" for width, height in sorted({(s.width, s.height) for s in self._survey.shapes})
            )
            yield f"changes its size midway ({sizes}): the largest that lasts is the film's"
        if self._filters and "decimate" not in self._filters:
            yield "is interlaced: its fields become whole frames, twice as many (--deinterlace off leaves them woven)"
        elif not self._filters and self._survey.interlaced:
            yield "is interlaced: its fields are restored as whole frames (--deinterlace auto makes frames of them)"
        if self._survey.captions:
            yield "its closed captions are left out"

    def _seek(self, container: Any, stream: Any, back: int) -> bool:
        """To the keyframe before ``start``, or ``back`` seconds earlier still; False if this film cannot seek."""
        target = int((max(Fraction(0), self.start - back) + start_of(container)) / stream.time_base)
        try:
            container.seek(target, stream=stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def _timed(
        self, frames: Iterator[_Seen], origin: int, base: Fraction, reading: _Reading
    ) -> Iterator[tuple[_Seen, int, int]]:
        """Frames within start and end, with strictly increasing pts from ``start`` (``origin``) and durations in ticks.

        A clock that starts anew, as where recordings were joined, goes on.
        """
        end = None if self.end is None else round((self.end - self.start) / base)
        step = max(1, round(1 / (self.info.rate * base)))
        clock: int | None = None  # the last frame's time, also before --start
        last = -1
        held: tuple[_Seen, int, int] | None = None  # a frame's duration is only sure when the next one's time is known
        for seen in frames:
            frame = seen[0]
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
            held, last = (seen, pts, own), pts
            if frame.is_corrupt:
                reading.corrupt += 1
        if held is not None:
            duration = held[2] if end is None else max(1, min(held[2], end - held[1]))
            reading.ended = max(reading.ended or 0.0, float((held[1] + duration) * base))
            yield held[0], held[1], duration

    def _converted(
        self, timed: Iterator[tuple[_Seen, int, int]], stream: Any, first: int, reading: _Reading
    ) -> Iterator[Frame]:
        """Yield frames in RGB, each by its own tags, which may change midway."""
        size = (self.info.width, self.info.height)
        before: Any = None
        orientations = Orientations()
        for index, ((frame, shape), pts, duration) in enumerate(timed):
            colour = colour_of(frame, stream.codec_context)
            film = self.info.colour
            reading.recoloured += (colour.matrix, colour.range, colour.code) != (film.matrix, film.range, film.code)
            orientation = orientations.of(frame)
            # Pixels of another aspect become the film's
            stretch = (1 / shape.aspect if orientation.transpose else shape.aspect) / self.info.sample_aspect_ratio
            own = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
            resized = own != size or (stretch != 1 and len(self._survey.shapes) > 1)
            reading.resized += resized  # also before the first: what is said of a film is the same wherever one begins
            if index < first - 1:
                continue
            rgb = orientation.apply(to_rgb(frame, colour))
            if colour.code != film.code:
                rgb = in_colours_of(rgb, colour, film)
            if resized:
                if stretch != 1:
                    rgb = resize(rgb, (max(1, round(rgb.shape[1] * stretch)), rgb.shape[0]))
                rgb = fit(rgb, size)
            if self.info.bits > 8 and rgb.dtype == np.uint8:
                rgb = rgb.astype(np.uint16) * 257
            elif self.info.bits <= 8 and rgb.dtype != np.uint8:
                rgb = (rgb >> 8).astype(np.uint8)
            alpha = self._alpha(frame, orientation, rgb) if self.info.alpha else None
            same = before is not None and np.array_equal(before, rgb) and alpha is None
            if same:
                rgb = before
            before = rgb
            if index >= first:
                yield Frame(index, pts, duration, rgb, same, alpha, self.info.colour.code)

    def _alpha(self, frame: Any, orientation: Any, rgb: Rgb) -> Pixels | None:
        """Return a frame's opacity, upright and of the size and depth of ``rgb``."""
        alpha = alpha_of(frame)
        if alpha is None:
            return None
        alpha = orientation.apply(alpha[..., None])[..., 0]
        if alpha.dtype != rgb.dtype:
            alpha = to_uint16(alpha) if rgb.dtype == np.uint16 else to_uint8(alpha)
        return alpha if alpha.shape == rgb.shape[:2] else fit_alpha(alpha, (rgb.shape[1], rgb.shape[0]))

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
            self.problems.append(
                f"the film changes its size or pixel aspect midway: {reading.resized} frames were fitted into {size}"
            )
        if reading.recoloured:
            self.problems.append(
                f"the film changes its matrix, range or colours midway: {reading.recoloured} frames were converted"
            )
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
        self.broken = self.corrupt = self.resized = self.retimed = self.restarts = self.recoloured = 0
        self.intervals: Counter[int] = Counter()  # ticks from one frame to the next, and how often
        self.error: str | None = None
        self.ended: float | None = None  # seconds, end of the last frame
        self.last_packet = 0.0  # seconds, end of the last packet of any stream

    def missing(self) -> int:
        """Return how many frames are missing between the others, where nearly all come at a steady rate.

        A container's clock may round, and a demuxer that finds its way again after broken bytes says nothing of what
        it passed over.
        """
        steps, count = sorted(self.intervals.items()), self.intervals.total()
        below = list(accumulate(times for _, times in steps))
        usual = next((tick for (tick, _), until in zip(steps, below, strict=True) if until > count // 2), 1)
        gaps = [(tick, times) for tick, times in steps if tick > 1.5 * usual]
        odd = sum(times for tick, times in steps if tick > 1.5 * usual or tick < 0.5 * usual)
        return sum(times * (round(tick / usual) - 1) for tick, times in gaps) if odd <= 0.1 * count else 0

    def furthest(self, start: Fraction) -> float:
        return max(self.ended or 0.0, self.last_packet - float(start))


def _decode(container: Any, stream: Any, reading: _Reading) -> Iterator[Any]:
    """Yield decoded frames; packets that cannot be decoded are counted and passed over."""
    origin = start_of(container)
    streams = [s for s in container.streams if s.type in ("video", "audio")]
    packets = container.demux(*streams)
    # AVI knows when a packet is decoded, not when its frame is shown: frames, which come in the order shown, take these
    # times in turn
    in_order = container.format.name == "avi"
    own = alpha_decoder(stream)
    due: list[int] = []

    def shown(frame: Any) -> Any:
        if in_order and due:
            frame.pts = heapq.heappop(due)
        return frame

    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:  # the container itself is broken here: nothing can follow
            reading.error = reason_of(error)
            packet = None
        if packet is None:
            break
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base - origin
            reading.last_packet = max(reading.last_packet, float(end))
        if packet.stream_index != stream.index or (packet.size == 0 and packet.pts is None):
            continue
        if in_order and packet.dts is not None and packet.size:
            heapq.heappush(due, packet.dts)
        try:
            yield from map(shown, own.decode(packet) if own is not None else packet.decode())
        except av.error.FFmpegError:
            reading.broken += 1
    with suppress(av.error.FFmpegError, EOFError):
        yield from map(shown, (own or stream.codec_context).decode(None))
