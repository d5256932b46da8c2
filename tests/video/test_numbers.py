"""Folders of frames: gaps in the numbers, sequences of DPX."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from codeformer.video.numbers import filled
from codeformer.video.reader import open_film
from tests.video.clips import pattern


def names(*numbers: int, form: str = "f_{:05}.png") -> list[Path]:
    return [Path(form.format(number)) for number in numbers]


def test_a_gap_holds_the_frame_before() -> None:
    paths, notes = filled(names(1, 2, 3, 4, 10, 11, 12, 14))
    assert paths == names(1, 2, 3, 4, 4, 4, 4, 4, 4, 10, 11, 12, 12, 14)
    assert notes == ("6 frames are missing (5 to 9, 13): the frame before each gap is held",)


@pytest.mark.parametrize(
    "paths",
    [
        names(1, 2, 3),
        names(0),
        [],
        names(0, 10, 20, 30),
        [Path("a.png"), Path("b.png")],
        [*names(1, 2), Path("x9.png")],
    ],
)
def test_what_has_no_gaps_stays(paths: list[Path]) -> None:
    assert filled(paths) == (paths, ())


def test_a_number_far_off_is_no_gap_to_fill() -> None:
    paths, notes = filled(names(1, 2, 3, 100_000))
    assert paths == names(1, 2, 3, 100_000)
    assert "99996 frames are missing (4 to 99999): more than are there" in notes[0]


def test_a_folder_with_a_gap_keeps_its_times(tmp_path: Path) -> None:
    for number in (0, 1, 4, 5):
        Image.fromarray(pattern(number)).save(tmp_path / f"f_{number}.png")
    film = open_film(tmp_path, clock=Fraction(10))
    frames = list(film.frames())
    assert film.info.notes == ("2 frames are missing (2 to 3): the frame before each gap is held",)
    assert (film.info.duration, len(film.files())) == (Fraction(6, 10), 4)
    assert [frame.same for frame in frames] == [False, False, True, True, False, False]
    assert np.array_equal(frames[4].rgb, pattern(4))
    part = list(open_film(tmp_path, clock=Fraction(10), start=Fraction(3, 10)).frames())
    assert np.array_equal(part[0].rgb, pattern(1))


def test_a_sequence_of_dpx(tmp_path: Path) -> None:
    for number in range(3):
        context: Any = av.CodecContext.create("dpx", "w")
        context.width, context.height, context.pix_fmt, context.time_base = 160, 120, "gbrp10le", Fraction(1, 24)
        frame = av.VideoFrame.from_ndarray(pattern(number), "rgb24").reformat(format="gbrp10le")
        frame.pts = 0
        data = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
        (tmp_path / f"f_{number:04}.dpx").write_bytes(data)
    frames = list(open_film(tmp_path / "f_%04d.dpx").frames())
    assert len(frames) == 3
    assert frames[0].rgb.dtype == np.uint16
    assert np.abs(frames[2].rgb / 257.0 - pattern(2)).mean() < 1
