"""PNG files: their chunks, pictures with 16 bits a channel, which Pillow reads and writes in grey only, and quick ones.

Reading is OpenCV's, after everything that could make it change the pixels (gamma, orientation, animation) is taken
out of the file. Writing is done here, so that the ICC profile and the EXIF block travel along. With 8 bits Pillow
writes what is to be small; here is what is to be quick.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FAST = 2  # the highest level of compression that packs rows by runs alone
_PIECE = 1 << 20  # bytes of compressed rows in a chunk, at least
_TRIED, _MUCH = 16, 1.25  # rows that tell how to pack all, and how many times larger packing by runs may make them
_ROWS = 256  # rows filtered at a time: bounds the memory beside the picture


def png_is_deep(head: bytes) -> bool:
    """Whether the PNG file that begins with ``head`` (at least 25 bytes) stores 16 bits a channel."""
    return len(head) > 24 and head[24] == 16


def read_png(data: bytes) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """RGB (H, W, 3) uint16, alpha (H, W) uint16 or None, and whether it was grey. Raises ValueError if damaged."""
    kept = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    chunks = list(chunks_of(data))
    if not chunks or chunks[-1][0] != b"IEND":
        raise ValueError("the file is cut off")
    plain = SIGNATURE + b"".join(chunk(kind, body) for kind, body in chunks if kind in kept)
    rgb, alpha, grey = split_deep(decode_deep(plain))
    grey = grey or chunks[0][1][9] in (0, 4)
    key = next((body for kind, body in chunks if kind == b"tRNS"), b"")
    if alpha is None and len(key) in (2, 6):  # one colour is transparent
        colour = np.frombuffer(key, ">u2")
        alpha = np.where((rgb == colour).all(axis=2), 0, 65535).astype(np.uint16)
    return rgb, alpha, grey


def decode_deep(data: bytes) -> np.ndarray:
    """Return the pixels of a file with 16 bits a channel, as OpenCV gives them. Raises ValueError for any other."""
    pixels = decode(data, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16:
        raise ValueError("it cannot be decoded")
    return pixels


def decode(data: bytes, flags: int) -> np.ndarray:
    """Return the pixels that OpenCV reads. Raises ValueError if it cannot."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # its complaints name no file; ours will
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError("it cannot be decoded") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ValueError("it cannot be decoded")
    return pixels


def split_deep(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """OpenCV's (H, W) or (H, W, 3 or 4) BGR(A) as RGB, alpha, grey."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2), None, True
    rgb = np.ascontiguousarray(pixels[..., 2::-1])
    return rgb, np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None, False


def chunks_of(data: bytes, *, damaged: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (kind, body) of every chunk up to the end or to where the file is cut off.

    Args:
        data: a PNG file.
        damaged: go on behind chunks that are damaged, leaving them out, but for picture data, which are yielded as
            they are; and yield what there is of the last one.

    Raises:
        ValueError: a chunk is damaged.
    """
    position = len(SIGNATURE)
    while position + 12 <= len(data) or (damaged and position + 8 < len(data)):
        (length,) = struct.unpack_from(">I", data, position)
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if position + 12 + length > len(data):
            if damaged and kind == b"IDAT":
                yield kind, body
            return
        if zlib.crc32(kind + body) == struct.unpack_from(">I", data, position + 8 + length)[0]:
            yield kind, body
        elif not damaged:
            raise ValueError(f"its {kind.decode('latin-1')} part is damaged")
        elif kind == b"IDAT":
            yield kind, body
        if kind == b"IEND":
            return
        position += 12 + length


def unpacked(data: bytes, most: int) -> bytes:
    """Return what can be unpacked of a zlib stream, up to ``most`` bytes, before it ends or stops making sense."""
    squeeze = zlib.decompressobj()
    out = []
    left = most
    step = 4096
    position = 0
    while position < len(data) and left > 0:
        before = squeeze.copy()
        try:
            piece = squeeze.decompress(data[position : position + step], left)
        except zlib.error:
            if step == 1:
                break
            squeeze, step = before, 1  # once more, byte by byte, up to the very place
            continue
        out.append(piece)
        left -= len(piece)
        position += step
    return b"".join(out)


def encode_png(pixels: np.ndarray, icc: bytes | None, exif: bytes | None, level: int) -> bytes:
    """Return a PNG file.

    Args:
        pixels: (H, W, 1 to 4) uint8 or uint16: grey, grey and alpha, RGB, or RGBA.
        icc: its profile.
        exif: its EXIF block.
        level: of compression, 0 to 9. Up to :data:`FAST` the rows of photographs are packed by runs, which takes half
            of the time of zlib's usual search, and gives files of about the same size as its level 2. Drawings, text
            and halftones, which repeat themselves, are told by a few rows in the middle, and searched.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [SIGNATURE, chunk(b"IHDR", header)]
    if icc:
        parts.append(chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if exif:
        parts.append(chunk(b"eXIf", exif))
    parts += [chunk(b"IDAT", piece) for piece in _png_rows(pixels, level)]
    parts.append(chunk(b"IEND", b""))
    return b"".join(parts)


def _png_rows(pixels: np.ndarray, level: int) -> Iterator[bytes]:
    """Yield the compressed rows in pieces, of a megabyte and more but for the last one."""
    height, width, channels = pixels.shape
    step = pixels.itemsize * channels
    above = np.zeros((1, width * step), np.uint8)
    middle = _bytes_of(pixels[height // 2 : height // 2 + _TRIED])
    by_runs = level <= FAST and _smaller_by_runs(middle, step, level)
    filtered, squeeze = (_averaged if by_runs else _sub_or_up), _packer(level, by_runs)
    out: list[bytes] = []
    for top in range(0, height, _ROWS):
        band = _bytes_of(pixels[top : top + _ROWS])
        out.append(squeeze.compress(filtered(band, np.vstack([above, band[:-1]]), step).data))
        above = band[-1:]
        if sum(map(len, out)) >= _PIECE:
            yield b"".join(out)
            out.clear()
    yield b"".join([*out, squeeze.flush()])


def _bytes_of(rows: np.ndarray) -> np.ndarray:
    """Return rows (N, W, C) as a file has them: (N, bytes) uint8."""
    return np.ascontiguousarray(rows, rows.dtype.newbyteorder(">")).view(np.uint8).reshape(len(rows), -1)


def _packer(level: int, by_runs: bool) -> Any:
    strategy = zlib.Z_RLE if by_runs else zlib.Z_DEFAULT_STRATEGY
    return zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)


def _smaller_by_runs(rows: np.ndarray, step: int, level: int) -> bool:
    """Whether these rows are hardly larger when they are packed by runs than when repetitions are searched for."""
    up = np.vstack([rows[:1], rows[:-1]])
    sizes = []
    for by_runs, filtered in ((True, _averaged), (False, _sub_or_up)):
        packer = _packer(level, by_runs)
        sizes.append(len(packer.compress(filtered(rows, up, step).data) + packer.flush()))
    return sizes[0] <= _MUCH * sizes[1]


def _averaged(band: np.ndarray, up: np.ndarray, step: int) -> np.ndarray:
    """Return rows (N, bytes) by the filter Average, each with the filter's number before it.

    Args:
        band: (N, bytes) uint8.
        up: the rows above them.
        step: bytes of a pixel.
    """
    rows = np.empty((len(band), band.shape[1] + 1), np.uint8)
    rows[:, 0] = 3
    first, left = up[:, :step], band[:, :-step]
    np.subtract(band[:, :step], first >> 1, out=rows[:, 1 : 1 + step])
    mean = left ^ up[:, step:]
    mean >>= 1
    mean += left & up[:, step:]  # the mean of both, rounded down, without a ninth bit
    np.subtract(band[:, step:], mean, out=rows[:, 1 + step :])
    return rows


def _sub_or_up(band: np.ndarray, up: np.ndarray, step: int) -> np.ndarray:
    """Return each row by the filter, Sub or Up, with the smaller sum of differences; see :func:`_averaged`."""
    left = np.zeros_like(band)
    left[:, step:] = band[:, :-step]
    candidates = (band - left, band - up)
    costs = [np.abs(c.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for c in candidates]
    lower = costs[1] < costs[0]
    rows = np.where(lower[:, None], candidates[1], candidates[0])
    return np.hstack([(lower + 1).astype(np.uint8)[:, None], rows])


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG file: its length, kind, body and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
