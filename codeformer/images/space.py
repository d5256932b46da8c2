"""Colour spaces: networks get sRGB, and what they give goes back into the picture's own colours.

Only what goes through a network is converted; every other pixel stays as it is in the file. All is computed in floating
point, so that 16 bits stay 16 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import BinaryIO

import cv2
import numpy as np

from codeformer.arrays import Rgb, Samples
from codeformer.images.profile import POINTS, SRGB_TO_XYZ, Description, Numbers, described_by, made_of, to_xyz

_STRIP = 1 << 20  # pixels converted at a time: bounds the memory beside the picture
# A profile that differs by less than this anywhere is sRGB under another name.
_SAME = 1.5 / 255
_GLANCE = 16384  # levels of light that a quick rendering tells apart
_REFERENCE_WHITE = 203.0  # cd/m², of the white of a page in an HDR picture (ITU-R BT.2408)

_D65 = (0.3127, 0.3290)
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
#: By ITU-T H.273's number: red, green and blue as x, y; white.
_PRIMARIES = {
    1: (_BT709, _D65),
    4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), (0.310, 0.316)),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), _D65),
    6: ((0.63, 0.34, 0.31, 0.595, 0.155, 0.07), _D65),
    7: ((0.63, 0.34, 0.31, 0.595, 0.155, 0.07), _D65),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), _D65),
    11: (_P3, (0.314, 0.351)),
    12: (_P3, _D65),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
#: By H.273's number, as `profile.made_of` takes it.
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    **{4: (2.2,), 5: (2.8,), 8: (1.0,), 13: _SRGB_CURVE},
}
_LINEAR, _PQ, _HLG = 8, 16, 18


@dataclass(frozen=True, eq=False)
class Space:
    """A picture's colours as the way to sRGB and back.

    ``curves`` are three arrays (POINTS,), the light for each coded value; ``matrix`` (3, 3) turns this light into
    linear sRGB.
    """

    curves: tuple[Numbers, ...]
    matrix: Numbers

    @cached_property
    def _back(self) -> Numbers:
        return np.asarray(np.linalg.inv(self.matrix), np.float64)

    def to_srgb(self, pixels: Samples) -> Samples:
        """Return colours (..., 3) in [0, 1] of this space in sRGB; what lies outside of sRGB is cut off."""
        light = np.stack([_looked_up(curve, pixels[..., c]) for c, curve in enumerate(self.curves)], axis=-1)
        return _encoded(np.clip(light @ self.matrix.T, 0, 1)).astype(np.float32)

    def beyond_srgb(self, pixels: Samples) -> Samples:
        """Return what `to_srgb` cuts off of colours (..., 3): linear light, sRGB's white being 1."""
        light = np.stack([_looked_up(curve, pixels[..., c]) for c, curve in enumerate(self.curves)], axis=-1)
        light = light @ self.matrix.T
        return np.asarray(light - np.clip(light, 0, 1), np.float32)

    def from_srgb(self, pixels: Samples, beyond: Samples | None = None) -> Samples:
        """Return sRGB colours (..., 3) in [0, 1] in this space, with the light ``beyond`` sRGB added."""
        srgb = _decoded(np.clip(pixels, 0, 1).astype(np.float64))
        if beyond is not None:
            srgb += beyond
        light = np.maximum(srgb @ self._back.T, 0)
        x = np.linspace(0, 1, POINTS)
        coded = [np.interp(light[..., c], curve, x) for c, curve in enumerate(self.curves)]
        return np.stack(coded, axis=-1).astype(np.float32)


def _looked_up(curve: Numbers, values: Samples) -> Numbers:
    """Linear interpolation in a table of evenly spaced points."""
    place = np.clip(values.astype(np.float64), 0, 1) * (POINTS - 1)
    low = np.minimum(place.astype(np.int64), POINTS - 2)
    return np.asarray(curve[low] + (curve[low + 1] - curve[low]) * (place - low))


def _decoded(coded: Numbers) -> Numbers:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def _encoded(light: Numbers) -> Numbers:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def space_in(icc: bytes | None, cicp: bytes | None = None) -> Space | None:
    """Return the space of a picture with this profile or these code points of H.273; None for sRGB."""
    if cicp is not None:
        return _space_of_code(cicp)
    return None if icc is None else _space_of(described_by(icc))


@lru_cache(maxsize=8)
def _space_of_code(cicp: bytes) -> Space | None:
    return _space_of(_described_by_code(cicp))


def _space_of(description: Description | None) -> Space | None:
    if description is None:
        return None
    matrix = SRGB_TO_XYZ if description.matrix is None else description.matrix
    curves = description.curves * 3 if len(description.curves) == 1 else description.curves
    space = Space(curves, np.linalg.inv(SRGB_TO_XYZ) @ matrix)
    levels = np.linspace(0, 1, 9, dtype=np.float32)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    if description.matrix is None:
        grid = np.repeat(np.linspace(0, 1, 256, dtype=np.float32)[:, None], 3, axis=1)
    return None if float(np.abs(space.to_srgb(grid) - grid).max()) < _SAME else space


def _described_by_code(cicp: bytes) -> Description | None:
    primaries, transfer = cicp[0], cicp[1]
    if primaries not in _PRIMARIES:
        return None
    x = np.linspace(0, 1, POINTS)
    matrix = to_xyz(*_PRIMARIES[primaries])
    if transfer == _LINEAR:
        return Description((x,), matrix)
    if transfer not in (_PQ, _HLG):  # shown as sRGB is, whatever curve the camera had
        return Description((_decoded(x),), matrix)
    if transfer == _PQ:
        power = x ** (1 / 78.84375)
        light = 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    else:
        scene = np.where(x <= 0.5, x**2 / 3, (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = 1000 * scene**1.2
    return Description((light / _REFERENCE_WHITE,), matrix)


def is_hdr(cicp: bytes) -> bool:
    """Whether code points of H.273 say that white is not the brightest that there is."""
    return cicp[1] in (_PQ, _HLG) and cicp[0] in _PRIMARIES


def profile_of_code(cicp: bytes) -> bytes | None:
    """Return a profile for code points of H.273; None for sRGB, HDR and what is unknown."""
    primaries, transfer = cicp[0], cicp[1]
    if primaries not in _PRIMARIES or transfer not in _CURVES or (primaries, transfer) == (1, 13):
        return None
    return made_of(f"H.273 {primaries}/{transfer}", _CURVES[transfer], to_xyz(*_PRIMARIES[primaries]))


def profile_of_png(gamma: int | None, chromaticities: tuple[int, ...] | None, *, grey: bool) -> bytes | None:
    """Return a profile for PNG's gAMA and cHRM; None where they describe sRGB, or nothing that can be.

    Args:
        gamma: gAMA's number, 100,000 times the exponent of coding.
        chromaticities: cHRM's eight, 100,000 times x and y of white, red, green and blue.
        grey: whether the picture has one channel of colour.
    """
    srgb = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    same = chromaticities is None or grey or all(abs(a - b) <= 100 for a, b in zip(chromaticities, srgb, strict=True))
    if same and (gamma is None or abs(gamma - 45455) <= 500):
        return None
    if gamma is not None and not 5000 <= gamma <= 1_000_000:
        return None
    curve = _SRGB_CURVE if gamma is None else (100000 / gamma,)
    points = tuple(value / 100000 for value in (chromaticities or srgb))
    try:
        matrix = None if grey else to_xyz(points[2:], (points[0], points[1]))
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    if matrix is not None and not (np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-4):
        return None
    return made_of("PNG gAMA and cHRM", curve, matrix)


def colours_of_png(file: BinaryIO, *, grey: bool) -> tuple[bytes | None, bytes | None]:
    """Return what a PNG file says of its colours otherwise than by a profile: a profile made of that, or HDR's code.

    The order is the format's own: cICP, then iCCP, then sRGB, then gAMA and cHRM.
    """
    found: dict[bytes, bytes] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if head[4:] in (b"cICP", b"gAMA", b"cHRM") and length <= 32:
            found[head[4:]] = file.read(length)
            length = 0
        elif head[4:] in (b"iCCP", b"sRGB"):
            found[head[4:]] = b""
        file.seek(length + 4, 1)
    code = found.get(b"cICP", b"")
    if len(code) == 4 and is_hdr(code):
        return None, code
    if len(code) == 4 and code[0] in _PRIMARIES and code[1] in _CURVES:
        return profile_of_code(code), None
    if b"iCCP" in found or b"sRGB" in found:
        return None, None
    gamma, points = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    exponent = int.from_bytes(gamma, "big") if len(gamma) == 4 else None
    chromaticities = struct.unpack(">8I", points) if len(points) == 32 else None
    return profile_of_png(exponent, chromaticities, grey=grey), None


def in_srgb(rgb: Rgb, space: Space, dtype: type = np.uint16) -> Rgb:
    """Return a picture's colours (H, W, 3) in sRGB, as ``dtype`` (uint8 or uint16)."""
    return _in_strips(rgb, space.to_srgb, dtype)


def glance(rgb: Rgb, space: Space) -> Rgb:
    """Return a picture's colours (H, W, 3) in sRGB as uint8, by tables: quick enough for each frame of a film.

    At most one level away from :func:`in_srgb`.
    """
    step = (POINTS - 1) // np.iinfo(rgb.dtype).max
    tables = [np.ascontiguousarray(curve[::step], np.float32) for curve in space.curves]
    light = np.stack([table[rgb[..., c]] for c, table in enumerate(tables)], axis=-1)
    light = np.asarray(cv2.transform(light, space.matrix.astype(np.float32)), np.float32)
    coded = np.rint(_encoded(np.linspace(0, 1, _GLANCE + 1)) * 255).astype(np.uint8)
    return coded[np.rint(np.clip(light, 0, 1) * _GLANCE).astype(np.uint16)]


def in_space(rgb: Rgb, space: Space, dtype: type) -> Rgb:
    """Return sRGB colours (H, W, 3) in a picture's own, as ``dtype`` (uint8 or uint16)."""
    return _in_strips(rgb, space.from_srgb, dtype)


def _in_strips(rgb: Rgb, convert: Callable[[Samples], Samples], dtype: type) -> Rgb:
    height, width = rgb.shape[:2]
    out: Rgb = np.empty(rgb.shape, dtype)
    unit, top = np.float32(1 / np.iinfo(rgb.dtype).max), np.float32(np.iinfo(dtype).max)
    rows = max(1, _STRIP // width)
    for first in range(0, height, rows):
        part = slice(first, first + rows)
        out[part] = np.rint(convert(rgb[part].astype(np.float32) * unit) * top)
    return out
