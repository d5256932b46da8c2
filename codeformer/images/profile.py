"""ICC profiles as bytes: what colours they describe, and profiles made of what other files say of their colours.

Only profiles of curves and a matrix are understood here, as nearly all profiles of pictures are; those of scanners
and printers, with tables, are LittleCMS's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: Linear sRGB to XYZ under D50, as ICC counts: (3, 3).
SRGB_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
#: Points of a curve: every value of 16 bits.
POINTS = 65536


@dataclass(frozen=True, eq=False)
class Description:
    """The colours of a profile.

    ``curves`` are one or three arrays (POINTS,): the light for each coded value, both in [0, 1]. ``matrix`` (3, 3)
    turns light into XYZ under D50; None for grey.
    """

    curves: tuple[Numbers, ...]
    matrix: Numbers | None


def space_of(icc: bytes) -> str | None:
    """Return the colour space that a profile says it describes, such as ``RGB ``; None if it is not a profile."""
    return icc[16:20].decode("latin-1") if len(icc) >= 128 and icc[36:40] == b"acsp" else None


def described_by(icc: bytes) -> Description | None:
    """Return the colours of an RGB or grey profile of curves and a matrix; None for any other, and for damaged ones."""
    try:
        tags = _tags(icc)
        if space_of(icc) == "GRAY":
            curve = _curve(tags["kTRC"])
            return Description((_luminance(curve) if icc[20:24] == b"Lab " else curve,), None)
        if space_of(icc) != "RGB " or icc[20:24] != b"XYZ ":
            return None
        matrix = np.stack([_xyz(tags[f"{c}XYZ"]) for c in "rgb"], axis=1)
        curves = tuple(_curve(tags[f"{c}TRC"]) for c in "rgb")
    except (KeyError, struct.error, ValueError, IndexError):
        return None
    good = abs(np.linalg.det(matrix)) > 1e-4 and all(np.isfinite(curve).all() for curve in curves)
    return Description(curves, matrix) if good else None


def _tags(icc: bytes) -> dict[str, bytes]:
    (count,) = struct.unpack_from(">I", icc, 128)
    tags = {}
    for i in range(min(count, 200)):
        name, start, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        tags[name.decode("latin-1")] = icc[start : start + size]
    return tags


def _xyz(tag: bytes) -> Numbers:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> Numbers:
    """Return the light for each of POINTS coded values."""
    x = np.linspace(0.0, 1.0, POINTS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return x
        if count == 1:
            return x ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        return np.maximum.accumulate(np.interp(x, np.linspace(0, 1, count), table))
    if tag[:4] != b"para":
        raise ValueError("an unknown kind of curve")
    kind = struct.unpack_from(">H", tag, 8)[0]
    numbers = [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
    gamma, a, b, c, d, e, f = numbers + [0.0] * (7 - len(numbers))
    if kind == 0:
        return x**gamma
    power = np.maximum(a * x + b, 0) ** gamma
    if kind < 3:  # below -b / a there is nothing, or a constant
        return np.clip(np.where(x >= -b / a, power, 0) + (c if kind == 2 else 0), 0, 1)
    return np.clip(np.where(x >= d, power + e, c * x + f), 0, 1)


def _luminance(lightness: Numbers) -> Numbers:
    """CIE lightness in [0, 1] as light."""
    t = (lightness * 100 + 16) / 116
    return np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29))


# --- making profiles -----------------------------------------------------------------------------------------------


def to_xyz(primaries: tuple[float, ...], white: tuple[float, float]) -> Numbers:
    """Return the matrix (3, 3) from light to XYZ under D50 for primaries (x, y of red, green, blue) and white."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)]).T
    light = np.array([white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1]])
    matrix = columns * np.linalg.solve(columns, light)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ light))
    return np.asarray(np.linalg.inv(_BRADFORD) @ cones @ _BRADFORD @ matrix)


def made_of(name: str, curve: tuple[float, ...], matrix: Numbers | None) -> bytes:
    """Return a profile (ICC 4.3).

    Args:
        name: its description, in ASCII.
        curve: an exponent; or exponent, a, b, c, d of ICC's third parametric curve.
        matrix: see `to_xyz`; None for a grey profile.
    """
    kind = 0 if len(curve) == 1 else 3
    para = b"para" + struct.pack(f">4xHH{len(curve)}i", kind, 0, *(round(v * 65536) for v in curve))
    tags = {
        b"desc": _text(name),
        b"cprt": _text("none"),
        b"wtpt": _as_xyz(_D50),
    }
    if matrix is None:
        tags[b"kTRC"] = para
    else:
        tags |= {name: _as_xyz(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), para)
    table, body, places = [], b"", {}
    start = 132 + 12 * len(tags)
    for tag, value in tags.items():
        if value not in places:
            places[value] = start + len(body)
            body += value + b"\0" * (-len(value) % 4)
        table.append(struct.pack(">4sII", tag, places[value], len(value)))
    head = struct.pack(
        ">I4sI4s4s4s12s4s4sIIIQI3i4s44x",
        *(start + len(body), b"", 0x04300000, b"mntr", b"GRAY" if matrix is None else b"RGB ", b"XYZ "),
        *(struct.pack(">6H", 2000, 1, 1, 0, 0, 0), b"acsp", b"", 0, 0, 0, 0, 0),
        *(round(v * 65536) for v in _D50),
        b"",
    )
    return head + struct.pack(">I", len(tags)) + b"".join(table) + body


def _text(value: str) -> bytes:
    raw = value.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(raw), 28) + raw


def _as_xyz(values: Numbers) -> bytes:
    return b"XYZ " + struct.pack(">4x3i", *(round(float(v) * 65536) for v in values))
