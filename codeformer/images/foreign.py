"""Formats that other libraries than Pillow decode: camera raw by rawpy; DPX and OpenEXR by FFmpeg; deep JPEG 2000, PPM.

Each function takes the file's bytes and returns pixels; what the file says besides is not for here.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np

from codeformer.arrays import Rgb, Samples
from codeformer.errors import InputError
from codeformer.images.png import decode_deep, split_deep

_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: its start and its size
_FILM_LOG = (1, 3)  # DPX's codes for printing density and logarithmic


class Pixels(NamedTuple):
    """RGB (H, W, 3) and alpha (H, W) of one dtype, uint8 or uint16; whether it was grey; lines for the user."""

    rgb: Rgb
    alpha: Rgb | None = None
    grey: bool = False
    notes: tuple[str, ...] = ()


def size_of(kind: str, data: bytes) -> tuple[int, int] | None:
    """Return the width and height that a DPX or EXR file announces; None where it cannot be told."""
    try:
        if kind == "DPX":
            return struct.unpack_from(">II" if data[:4] == b"SDPX" else "<II", data, 772)
        left, top, right, bottom = struct.unpack_from("<4i", data, data.index(b"dataWindow\0box2i\0") + 21)
    except (struct.error, ValueError):
        return None
    return right - left + 1, bottom - top + 1


def read_raw(data: bytes, max_pixels: int) -> Pixels:
    """Develop a camera's raw file: sRGB, 16 bits, upright, with the camera's white balance."""
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        check_size(raw.sizes.width, raw.sizes.height, max_pixels)
        rgb = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=(2.4, 12.92), output_color=rawpy.ColorSpace.sRGB)
    return Pixels(np.ascontiguousarray(rgb), notes=("is developed from camera raw with the camera's white balance",))


def read_by_ffmpeg(kind: str, data: bytes) -> Pixels:
    """Read a DPX or OpenEXR file."""
    import av

    codec: Any = av.CodecContext.create(kind.lower(), "r")
    frames = [*codec.decode(av.Packet(data)), *codec.decode(None)]
    if not frames:
        raise ValueError("it cannot be decoded")
    frame = frames[0]
    name = frame.format.name
    if "f32" in name or "f16" in name:
        return in_light(np.asarray(frame.to_ndarray(), np.float32))
    alpha = "a" in name.split("le")[0].replace("gray", "")
    pixels = frame.reformat(format="rgba64le" if alpha else "rgb48le").to_ndarray()
    notes: tuple[str, ...] = ()
    if kind == "DPX" and len(data) > 801 and data[801] in _FILM_LOG:
        notes = ("is coded logarithmically as film is, and is taken as it is; convert it for right colours",)
    rgb = np.ascontiguousarray(pixels[..., :3])
    return Pixels(rgb, np.ascontiguousarray(pixels[..., 3]) if alpha else None, notes=notes)


def in_light(values: Samples) -> Pixels:
    """Return linear light (H, W) or (H, W, 1, 3 or 4), where white is 1, as sRGB with 16 bits."""
    values = np.nan_to_num(values.reshape(*values.shape[:2], -1), nan=0.0, posinf=1.0, neginf=0.0)
    colours = values[..., : 3 if values.shape[2] >= 3 else 1]
    bright = float((colours > 1).any(axis=2).mean())
    light = np.clip(colours, 0, 1)
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    rgb = np.rint(coded * 65535).astype(np.uint16)
    grey = rgb.shape[2] == 1
    notes = (f"{bright:.0%} of its pixels are brighter than white and are cut off",) if bright >= 0.005 else ()
    alpha = np.rint(np.clip(values[..., 3], 0, 1) * 65535).astype(np.uint16) if values.shape[2] == 4 else None
    return Pixels(np.repeat(rgb, 3, axis=2) if grey else rgb, alpha, grey, notes)


def depth_of_jpeg2000(data: bytes) -> int:
    """Return the bits of a sample of a JPEG 2000 file; 8 where it cannot be told."""
    start = data.find(_CODESTREAM)
    return (data[start + 42] & 0x7F) + 1 if 0 <= start < len(data) - 42 else 8


def read_deep_jpeg2000(data: bytes) -> Pixels:
    """Read a JPEG 2000 file of 9 to 16 bits a sample, which Pillow reads as 8."""
    bits = depth_of_jpeg2000(data)
    pixels = decode_deep(data)
    if bits < 16:
        pixels = np.rint(pixels.astype(np.float32) * np.float32(65535 / (2**bits - 1))).astype(np.uint16)
    return Pixels(*split_deep(pixels))


_PPM = re.compile(rb"P6(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")


def is_deep_ppm(head: bytes) -> bool:
    """Whether a file is a binary PPM in colour of more than 8 bits, which Pillow reads as 8."""
    found = _PPM.match(head)
    return found is not None and int(found[3]) > 255


def read_deep_ppm(data: bytes) -> Pixels:
    """Read such a file. Raises ValueError if it is cut off."""
    found = _PPM.match(data)
    assert found is not None
    width, height, most = (int(number) for number in found.groups())
    values = np.frombuffer(data, ">u2", width * height * 3, found.end()).reshape(height, width, 3)
    if most == 65535:
        return Pixels(values.astype(np.uint16))
    return Pixels(np.rint(np.minimum(values, most).astype(np.float32) * np.float32(65535 / most)).astype(np.uint16))


_BINARY = re.compile(rb"(P[56fF])(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(-?[\d.]+)\s")


def length_of_portable(data: bytes) -> int:
    """Return how many bytes a binary PGM, PPM or PFM file has when it is whole. Raises ValueError for other kinds."""
    found = _BINARY.match(data)
    if found is None:
        raise ValueError("it has no fixed length")
    deep = float(found[4]) > 255
    size = {b"P5": 1 + deep, b"P6": 3 * (1 + deep), b"Pf": 4, b"PF": 12}[found[1]]
    return found.end() + int(found[2]) * int(found[3]) * size


def read_pfm(data: bytes) -> Pixels:
    """Read a PFM file: linear light in floating point. Raises ValueError if it is cut off."""
    if len(data) < length_of_portable(data):
        raise ValueError("it ends too early")
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.float32:
        raise ValueError("it cannot be decoded")
    return in_light(pixels if pixels.ndim == 2 else pixels[..., ::-1])


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise InputError for a picture that is too large."""
    if width * height > max_pixels:
        raise InputError(
            f"{width}x{height} pixels are more than the limit of {max_pixels}; shrink it first, or raise --max_pixels "
            "if the memory suffices"
        )
