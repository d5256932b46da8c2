"""Grey films: the tagged range is obeyed both ways."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codeformer.video.pixels import FULL, LIMITED, Colour, from_rgb, to_rgb
from codeformer.video.reader import open_film


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("span", [LIMITED, FULL])
def test_levels_of_grey(bits: int, span: int) -> None:
    name = "gray" if bits == 8 else f"gray{bits}le"
    low, high = (16 << (bits - 8), 235 << (bits - 8)) if span == LIMITED else (0, (1 << bits) - 1)
    frame = av.VideoFrame(16, 4, name)
    plane = np.frombuffer(memoryview(frame.planes[0]), np.uint8 if bits == 8 else np.uint16)
    values = np.rint(np.linspace(low, high, 16)).astype(plane.dtype)
    rows = plane.reshape(4, -1)[:, :16]
    rows[:] = values
    rgb = to_rgb(frame, Colour(6, span))
    top = np.iinfo(rgb.dtype).max
    assert np.abs(rgb[..., 1] / top * 255 - np.linspace(0, 255, 16)).max() < 0.7
    assert np.array_equal(rgb[..., 0], rgb[..., 2])
    back = from_rgb(rgb, name, Colour(6, span), (16, 4))
    written = np.frombuffer(memoryview(back.planes[0]), plane.dtype).reshape(4, -1)[:, :16]
    assert np.abs(written.astype(int) - values).max() <= 1


def test_a_grey_film_of_limited_range(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        stream.codec_context.color_range = LIMITED
        frame = av.VideoFrame(16, 16, "gray")
        np.frombuffer(memoryview(frame.planes[0]), np.uint8)[:] = 16
        frame.pts, frame.time_base, frame.color_range = 0, Fraction(1, 25), LIMITED
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    film = open_film(tmp_path / "in.mkv")
    assert film.info.colour.range == LIMITED
    assert next(iter(film.frames())).rgb.max() == 0  # black, not dark grey
