"""What an HDR film says of its brightness: its screen and its brightest pixels (SMPTE ST 2086, CTA 861)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from codeformer.video.decoded import side_data_of

_COLOUR, _LUMINANCE = 50_000, 10_000  # steps in which encoders count a coordinate's 1, and a cd/m²
_LEFT_OUT = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
}


@dataclass(frozen=True)
class Light:
    """A film's static HDR metadata.

    Attributes:
        display: x and y of red, green, blue and white, then the darkest and brightest cd/m²; None if unknown.
        levels: the brightest pixel and the brightest frame's mean (MaxCLL, MaxFALL), cd/m²; None if unknown.
    """

    display: tuple[float, ...] | None = None
    levels: tuple[int, int] | None = None

    def for_x265(self) -> list[str]:
        """Return it as parameters of x265."""
        parameters = []
        if self.display is not None:
            r, g, b, white = ([round(v * _COLOUR) for v in self.display[i : i + 2]] for i in (0, 2, 4, 6))
            dark, bright = (round(v * _LUMINANCE) for v in self.display[8:])
            text = "".join(f"{name}({x},{y})" for name, (x, y) in zip("GBR", (g, b, r), strict=True))
            parameters.append(f"master-display={text}WP({white[0]},{white[1]})L({bright},{dark})")
        if self.levels is not None:
            parameters.append(f"max-cll={self.levels[0]},{self.levels[1]}")
        return parameters

    def for_svtav1(self) -> list[str]:
        """Return it as parameters of SVT-AV1."""
        parameters = []
        if self.display is not None:
            r, g, b, white = (f"({x:g},{y:g})" for x, y in (self.display[i : i + 2] for i in (0, 2, 4, 6)))
            parameters.append(f"mastering-display=G{g}B{b}R{r}WP{white}L({self.display[9]:g},{self.display[8]:g})")
        if self.levels is not None:
            parameters.append(f"content-light={self.levels[0]},{self.levels[1]}")
        return parameters


def light_of(frame: Any) -> Light | None:
    """Return what a decoded frame says; None where it says nothing."""
    display = levels = None
    for name, data in side_data_of(frame):
        if name == "MASTERING_DISPLAY_METADATA" and len(data) >= 88:
            numbers = struct.unpack("=22i", data[:88])
            if all(numbers[1:20:2]):
                values = tuple(numbers[i] / numbers[i + 1] for i in range(0, 20, 2))
                display = values if all(numbers[20:]) else None
        elif name == "CONTENT_LIGHT_LEVEL" and len(data) >= 8:
            levels = struct.unpack("=2I", data[:8])
    return Light(display, levels) if display or levels else None


def unkept(frame: Any) -> Iterator[str]:
    """Yield a line for each kind of a frame's HDR metadata that describes the brightness from frame to frame."""
    for words in sorted({_LEFT_OUT[name] for name, _ in side_data_of(frame) if name in _LEFT_OUT}):
        yield f"its {words} is left out: it describes the frames as they were"
