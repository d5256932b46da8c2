"""HDR, wide gamut and linear films: faces are restored as sRGB, and come back in the film's own colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codeformer.cli.console import Console
from codeformer.errors import ExitCode
from codeformer.images.space import glance, in_space, in_srgb, space_in
from codeformer.video.encoding import plan_encoding
from codeformer.video.film import run_film
from codeformer.video.pixels import Colour, from_rgb, to_rgb
from codeformer.video.reader import open_film
from tests.video.clips import make_film
from tests.video.fakes import SquareDetector, engine_for, options_for, square_face

PQ, HLG, P3, LINEAR = Colour(9, 1, 9, 16), Colour(9, 1, 9, 18), Colour(1, 1, 12, 1), Colour(1, 1, 1, 8)
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


class Plain:
    """Wraps the fake restorer: what comes in goes out, and is kept for the test."""

    def __init__(self, inner: Any, change: float = 0.0) -> None:
        self._inner, self._change, self.seen = inner, change, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def decode(self, encoded: Any, codes: Any, *, w: float, adain: bool) -> list[np.ndarray]:
        faces = list(encoded.features["4"].numpy())
        self.seen += faces
        return [np.clip(face + np.float32(self._change), 0, 1) for face in faces]


class InSrgb(SquareDetector):
    """Fails where it gets other colours than those of the square."""

    def __call__(self, rgb: np.ndarray, threshold: float) -> list[Any]:
        assert rgb.dtype == np.uint8
        return super().__call__(rgb, threshold)


def coded(colour: Colour, index: int = 0) -> np.ndarray:
    """The square's frame in a film's colours: (120, 160, 3) uint16."""
    space = space_in(None, colour.code)
    assert space is not None
    return in_space(square_face(index), space, np.uint16)


def write(path: Path, colour: Colour, frames: int = 3) -> Path:
    with av.open(str(path), "w") as out:
        params = f"log-level=error:lossless=1:master-display={DISPLAY}:max-cll=1000,400"
        stream: Any = out.add_stream("libx265", rate=25, options={"x265-params": params})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv444p10le"
        context = stream.codec_context
        context.colorspace, context.color_range = colour.matrix, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        for index in range(frames):
            frame = from_rgb(coded(colour, index), "yuv444p10le", colour, (160, 120))
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def restore(source: Path, output: Path, change: float = 0.0, **more: Any) -> tuple[Plain, ExitCode]:
    model = source.with_name("any.safetensors")
    model.write_bytes(b"no weights")
    options = options_for(source, output, model, temporal="off", **more)
    engine = engine_for(options.work)
    plain = Plain(engine.restorer, change)
    object.__setattr__(engine, "restorer", plain)
    object.__setattr__(engine, "detector", InSrgb())
    return plain, run_film(options, Console(quiet=True), engine)


@pytest.mark.parametrize("colour", [PQ, HLG, P3, LINEAR], ids=["pq", "hlg", "p3", "linear"])
def test_the_network_sees_srgb_and_the_face_keeps_its_colour(tmp_path: Path, colour: Colour) -> None:
    source = write(tmp_path / "in.mkv", colour)
    plain, code = restore(source, tmp_path / "out.mkv", change=0.0, codec="ffv1", pix_fmt="yuv444p10le")
    assert code is ExitCode.OK
    assert len(plain.seen) == 3
    middle = plain.seen[0][20:24, 30:34].mean(axis=(0, 1))  # of the red square
    assert np.allclose(middle * 255, (240, 50, 50), atol=8)
    film = open_film(tmp_path / "out.mkv")
    assert film.info.colour == colour
    assert film.info.colour.code == colour.code
    for before, after in zip(open_film(source).frames(), film.frames(), strict=True):
        assert np.abs(before.rgb.astype(int) - after.rgb.astype(int)).mean() < 120  # of 65535


def test_what_changed_is_carried_into_the_films_light(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", PQ, 2)
    restore(source, tmp_path / "out.mkv", change=-0.2, codec="ffv1", pix_fmt="yuv444p10le")
    space = space_in(None, PQ.code)
    assert space is not None
    before, after = (next(iter(open_film(p).frames())).rgb for p in (source, tmp_path / "out.mkv"))
    face = (slice(45, 63), slice(24, 44))
    change = in_srgb(after, space, np.uint8)[face].astype(int) - in_srgb(before, space, np.uint8)[face]
    assert np.median(change[..., 0]) == pytest.approx(-51, abs=3)


@pytest.mark.parametrize("colour", [PQ, HLG, P3])
def test_light_that_srgb_has_not_comes_back(colour: Colour) -> None:
    space = space_in(None, colour.code)
    assert space is not None
    pixels = np.random.default_rng(1).random((40, 40, 3), dtype=np.float32) * 0.9
    back = space.from_srgb(space.to_srgb(pixels), space.beyond_srgb(pixels))
    assert np.abs(back - pixels).max() < 2e-3
    assert np.abs(space.from_srgb(space.to_srgb(pixels)) - pixels).max() > 0.01  # else there was nothing to carry


def test_a_glance_is_the_rendering(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for colour in (PQ, HLG, P3, LINEAR):
        space = space_in(None, colour.code)
        assert space is not None
        for dtype in (np.uint8, np.uint16):
            rgb = rng.integers(0, np.iinfo(dtype).max, (30, 30, 3), dtype=dtype, endpoint=True)
            assert np.abs(glance(rgb, space).astype(int) - in_srgb(rgb, space, np.uint8)).max() <= 1


def test_hdr_is_written_in_ten_bits_with_its_light(tmp_path: Path) -> None:
    source = write(tmp_path / "in.mkv", PQ)
    info = open_film(source).info
    assert info.light is not None
    assert info.light.levels == (1000, 400)
    assert info.light.for_x265() == [f"master-display={DISPLAY}", "max-cll=1000,400"]
    assert plan_encoding(info, ".webm").codec == "libsvtav1"
    restore(source, tmp_path / "out.mp4")
    out = open_film(tmp_path / "out.mp4").info
    assert (out.codec, out.pix_fmt, out.light) == ("hevc", "yuv420p10le", info.light)


def test_hdr_in_a_lesser_codec_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.mkv", PQ, 2)
    model = tmp_path / "any"
    model.write_bytes(b"-")
    options = options_for(source, tmp_path / "o.mp4", model, codec="h264")
    run_film(options, Console(), engine_for(options.work))
    said = capsys.readouterr().err
    assert "bands" in said
    assert "mastering display and light level are left out" in said


def test_untagged_films_are_as_they_were(tmp_path: Path) -> None:
    film = open_film(make_film(tmp_path / "f.mp4", 1))
    assert film.info.colour.code is None
    frame = next(iter(film.frames()))
    assert frame.code is None
    with av.open(str(tmp_path / "f.mp4")) as own:
        assert np.array_equal(to_rgb(next(own.decode(video=0)), film.info.colour), frame.rgb)


@pytest.mark.parametrize(
    ("matrix", "primaries", "transfer", "wide"), [(9, 2, 2, True), (1, 2, 2, False), (6, 5, 5, False)]
)
def test_what_nobody_says_is_guessed_as_players_do(matrix: int, primaries: int, transfer: int, wide: bool) -> None:
    assert (Colour(matrix, 1, primaries, transfer).code is not None) == wide
