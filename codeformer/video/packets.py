"""Encoded frames on disk: the stretches of a film that are finished.

A stretch is encoded by an encoder of its own, so that it begins with a keyframe, depends on nothing before it, and is
the same whenever it is made. Its packets lie in a plain file of records, because no container keeps every codec's
packets with every timestamp as they are; ``mux`` puts them into one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av

from codeformer.arrays import Rgb
from codeformer.errors import InputError, OutputError
from codeformer.video.encoding import Encoding
from codeformer.video.pixels import from_rgb

_RECORD = struct.Struct("<q?I")  # pts, keyframe, bytes that follow


class SegmentWriter:
    """Encodes frames into a packet file. ``close`` finishes it; a file that was not closed is to be thrown away."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        self._encoding = encoding
        self._context: Any = av.CodecContext.create(encoding.codec, "w")
        encoding.configure(self._context)
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        self._path = path
        self.frames = 0

    def convert(self, rgb: Rgb) -> av.VideoFrame:
        """Return the encoder's pixels for an RGB frame: (H, W, 3) uint8 or uint16."""
        encoding = self._encoding
        return from_rgb(rgb, encoding.pix_fmt, encoding.colour, (encoding.width, encoding.height))

    def write(self, frame: av.VideoFrame, pts: int) -> None:
        """Encode one converted frame, shown from ``pts`` (ticks) on. The frame may be given again with another pts."""
        frame.pts = pts
        frame.time_base = self._encoding.time_base
        frame.pict_type = 0
        self._store(self._encoded(frame))
        self.frames += 1

    def close(self) -> None:
        """Flush the encoder and the file to the disk."""
        self._store(self._encoded(None) if self.frames else [])
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror})") from error

    def abandon(self) -> None:
        """Close without finishing."""
        with suppress(OSError):  # a full disk, which has been said
            self._file.close()

    def _encoded(self, frame: av.VideoFrame | None) -> Sequence[Any]:
        try:
            return list(self._context.encode(frame))
        except av.error.FFmpegError as error:
            raise OutputError(f"{self._path}: {self._encoding.codec} cannot encode the film ({error})") from error

    def _store(self, packets: Sequence[Any]) -> None:
        try:
            for packet in packets:
                data = bytes(packet)
                self._file.write(_RECORD.pack(packet.pts, packet.is_keyframe, len(data)) + data)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class StoredPacket:
    """A packet of a stretch; times in the film's ticks."""

    pts: int
    dts: int
    duration: int  # until the next frame is shown; 0 for the last one
    keyframe: bool
    data: bytes


def read_times(paths: Sequence[Path]) -> list[int]:
    """Return the pts of all packets, in the order of decoding."""
    times = []
    for path in paths:
        with path.open("rb") as file:
            while record := _next(file, path):
                times.append(record[0])
                file.seek(record[2], os.SEEK_CUR)
    return times


def read_packets(paths: Sequence[Path]) -> Iterator[StoredPacket]:
    """Yield the packets of several stretches as one film, with decoding times that fit together.

    Each encoder counts its own decoding times, which may overlap where stretches meet in a film of variable rate. A
    packet's decoding time is here the pts of the frame that many places earlier in the order shown, with the smallest
    such delay that lets every frame be decoded before it is shown.
    """
    decoded = read_times(paths)
    shown = sorted(decoded)
    rank = {pts: place for place, pts in enumerate(shown)}
    delay = max((place - rank[pts] for place, pts in enumerate(decoded)), default=0)
    step = max(1, (shown[-1] - shown[0]) // max(1, len(shown) - 1)) if shown else 1
    place = 0
    for path in paths:
        with path.open("rb") as file:
            while record := _next(file, path):
                pts, keyframe, size = record
                behind = place - delay
                dts = shown[behind] if behind >= 0 else shown[0] + behind * step
                here = rank[pts]
                duration = shown[here + 1] - pts if here + 1 < len(shown) else 0
                yield StoredPacket(pts, dts, duration, keyframe, file.read(size))
                place += 1


def _next(file: BinaryIO, path: Path) -> tuple[int, bool, int] | None:
    head = file.read(_RECORD.size)
    if not head:
        return None
    if len(head) < _RECORD.size:
        raise InputError(f"{path}: cut off; delete the folder it lies in and start again")
    pts, keyframe, size = _RECORD.unpack(head)
    return pts, keyframe, size
