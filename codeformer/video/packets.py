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
import numpy as np
from av.packet import PacketSideData

from codeformer.arrays import Pixels, Rgb
from codeformer.errors import InputError, OutputError
from codeformer.video.encoding import Encoding
from codeformer.video.pixels import from_rgb

_RECORD = struct.Struct("<qBI")  # pts, flags, bytes that follow
_KEYFRAME, _WITH_MORE = 1, 2  # flags; with the second, a length and that many bytes of side data come after the packet
_LENGTH = struct.Struct("<I")
_MORE_TYPE = 15  # FFmpeg's number of the following
_MORE = "matroska_block_additional"  # where VP9 has its transparency: the identifier of 8 bytes, and a picture


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

    def convert(self, rgb: Rgb, alpha: Pixels | None = None) -> av.VideoFrame:
        """Return the encoder's pixels for an RGB frame: (H, W, 3) uint8 or uint16, and its opacity (H, W)."""
        encoding = self._encoding
        return from_rgb(rgb, encoding.pix_fmt, encoding.colour, (encoding.width, encoding.height), alpha)

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
                data, more = bytes(packet), _side_data(packet)
                flags = _KEYFRAME * packet.is_keyframe + _WITH_MORE * bool(more)
                self._file.write(_RECORD.pack(packet.pts, flags, len(data)) + data)
                if more:
                    self._file.write(_LENGTH.pack(len(more)) + more)
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
    more: bytes = b""

    def packet(self) -> Any:
        """Return it as PyAV's packet, without times."""
        packet: Any = av.Packet(self.data)
        packet.is_keyframe = self.keyframe
        if self.more:
            side: Any = PacketSideData(_MORE_TYPE, len(self.more))  # type: ignore[call-arg]
            side.update(self.more)
            packet.set_sidedata(side)
        return packet


def _times(paths: Sequence[Path]) -> Iterator[int]:
    """Yield the pts of all packets, in the order of decoding."""
    for path in paths:
        with path.open("rb") as file:
            while record := _next(file, path):
                yield record[0]
                file.seek(record[2], os.SEEK_CUR)
                if record[1] & _WITH_MORE:
                    file.seek(_length(file, path), os.SEEK_CUR)


def read_packets(paths: Sequence[Path]) -> Iterator[StoredPacket]:
    """Yield the packets of several stretches as one film, with decoding times that fit together.

    Each encoder counts its own decoding times, which may overlap where stretches meet in a film of variable rate. A
    packet's decoding time is here the pts of the frame that many places earlier in the order shown, with the smallest
    such delay that lets every frame be decoded before it is shown.
    """
    decoded = np.fromiter(_times(paths), np.int64)  # a film of two hours has 180,000
    shown = np.sort(decoded)
    rank = np.searchsorted(shown, decoded, "right") - 1
    delay = int((np.arange(len(rank)) - rank).max(initial=0))
    step = max(1, int(shown[-1] - shown[0]) // max(1, len(shown) - 1)) if len(shown) else 1
    place = 0
    for path in paths:
        with path.open("rb") as file:
            while record := _next(file, path):
                pts, flags, size = record
                behind = place - delay
                dts = int(shown[behind] if behind >= 0 else shown[0] + behind * step)
                after = int(rank[place]) + 1
                duration = int(shown[after]) - pts if after < len(shown) else 0
                data = file.read(size)
                more = file.read(_length(file, path)) if flags & _WITH_MORE else b""
                yield StoredPacket(pts, dts, duration, bool(flags & _KEYFRAME), data, more)
                place += 1


def _side_data(packet: Any) -> bytes:
    return bytes(packet.get_sidedata(_MORE)) if packet.has_sidedata(_MORE) else b""


def _length(file: BinaryIO, path: Path) -> int:
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise InputError(f"{path}: cut off; delete the folder it lies in and start again")
    (length,) = _LENGTH.unpack(head)
    return int(length)


def _next(file: BinaryIO, path: Path) -> tuple[int, int, int] | None:
    head = file.read(_RECORD.size)
    if not head:
        return None
    if len(head) < _RECORD.size:
        raise InputError(f"{path}: cut off; delete the folder it lies in and start again")
    pts, flags, size = _RECORD.unpack(head)
    return pts, flags, size
