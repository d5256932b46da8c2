"""Films with transparency: kept where codec and container can, laid on black with a line where they cannot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from codeformer.cli.console import Console
from codeformer.errors import ExitCode, UsageError
from codeformer.video.alpha import alpha_of, packed, with_alpha
from codeformer.video.film import run_film
from codeformer.video.reader import open_film
from tests.video.clips import make_film
from tests.video.fakes import engine_for, options_for, square_face

HIDDEN = (0, 255, 0)  # what lies under the transparent pixels


def cut_out(index: int) -> tuple[np.ndarray, np.ndarray]:
    """The square's frame with its right third transparent, over green."""
    rgb = square_face(index)
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[:, 112:] = 0
    rgb[:, 112:] = HIDDEN
    return rgb, alpha


def write(path: Path, frames: int = 4) -> Path:
    if path.suffix in (".apng", ".gif", ".webp"):
        pictures = [Image.fromarray(np.dstack(cut_out(i))) for i in range(frames)]
        kind = {".apng": "PNG", ".gif": "GIF", ".webp": "WEBP"}[path.suffix]
        more: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        pictures[0].save(
            path, kind, save_all=True, append_images=pictures[1:], duration=[40, 80, 40, 40], loop=0, **more
        )
        return path
    codec, pix_fmt = {
        ".mov": ("prores_ks", "yuva444p10le"),
        ".webm": ("libvpx-vp9", "yuva420p"),
        ".mkv": ("ffv1", "yuva420p"),
    }[path.suffix]
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25, options={"auto-alt-ref": "0", "crf": "10", "b": "0"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, pix_fmt
        if codec == "libvpx-vp9":
            stream.metadata["alpha_mode"] = "1"
        for index in range(frames):
            rgb, alpha = cut_out(index)
            plain = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt.replace("yuva", "yuv"))
            frame = with_alpha(plain, pix_fmt, alpha)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def restore(source: Path, output: Path, **more: Any) -> ExitCode:
    model = source.with_name("any.safetensors")
    model.write_bytes(b"no weights")
    options = options_for(source, output, model, temporal="off", **more)
    return run_film(options, Console(), engine_for(options.work))


@pytest.mark.parametrize("ending", [".mov", ".webm", ".mkv", ".apng", ".webp"])
def test_transparency_is_kept(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / f"in{ending}")
    assert restore(source, tmp_path / f"out{ending}", stretch=2) is ExitCode.OK
    assert "its transparency" not in capsys.readouterr().err
    film = open_film(tmp_path / f"out{ending}")
    assert film.info.alpha
    frames = list(film.frames())
    before = list(open_film(source).frames())
    assert [f.pts * film.info.time_base for f in frames] == [f.pts * open_film(source).info.time_base for f in before]
    for frame, old in zip(frames, before, strict=True):
        assert frame.alpha is not None
        top = np.iinfo(frame.alpha.dtype).max
        assert frame.alpha[:, :110].min() > 0.97 * top
        assert frame.alpha[:, 115:].max() < 0.03 * top
        changed = np.abs(frame.rgb.astype(float) - old.rgb)[35:70, 15:50].mean() / np.iinfo(frame.rgb.dtype).max
        assert changed > 0.1  # the face was restored


@pytest.mark.parametrize("ending", [".mov", ".webm", ".apng", ".webp", ".gif"])
def test_where_it_cannot_be_kept_nothing_hidden_shows(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert restore(write(tmp_path / f"in{ending}"), tmp_path / "out.mp4") is ExitCode.OK
    assert "its transparency is lost" in capsys.readouterr().err
    frames = list(open_film(tmp_path / "out.mp4").frames())
    assert len(frames) == 4
    for frame in frames:
        assert frame.rgb[:, 120:].max() < 24
        assert frame.rgb[:, :100].max() > 90


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
def test_any_film_becomes_an_animation(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.video.clips import tone

    source = make_film(tmp_path / "in.mp4", [square_face(i) for i in range(4)], sounds=[tone])
    restore(source, tmp_path / f"out{ending}")
    assert f"sound left out: {ending} holds pictures only" in capsys.readouterr().err
    with Image.open(tmp_path / f"out{ending}") as image:
        assert (image.n_frames, image.size, image.info.get("loop", 0)) == (4, (160, 120), 0)
        image.seek(3)
        last = np.asarray(image.convert("RGB")).astype(int)
        assert image.info["duration"] == 40
    reference = tmp_path / "out.mkv"
    restore(source, reference, codec="ffv1")
    assert np.abs(last - list(open_film(reference).frames())[3].rgb).mean() < 8


def test_a_part_of_an_animated_webp(tmp_path: Path) -> None:
    source = write(tmp_path / "in.webp")
    whole = list(open_film(source).frames())
    assert [(f.pts, f.duration) for f in whole] == [(0, 40), (40, 80), (120, 40), (160, 40)]
    film = open_film(source, start=Fraction(4, 100), end=Fraction(12, 100))
    part = list(film.frames())
    assert [(f.pts, f.duration) for f in part] == [(0, 80)]
    assert np.array_equal(part[0].rgb, whole[1].rgb)
    assert film.info.duration == Fraction(8, 100)


def test_an_opaque_film_in_a_transparent_format_stays_as_it_is(tmp_path: Path) -> None:
    pictures = [Image.fromarray(square_face(i)) for i in range(3)]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=40)
    assert not open_film(tmp_path / "in.gif").info.alpha


def test_an_animation_takes_no_codec(tmp_path: Path) -> None:
    source = make_film(tmp_path / "in.mp4", 2)
    with pytest.raises(UsageError, match=r"\.gif holds no --codec h264"):
        restore(source, tmp_path / "out.gif", codec="h264")


@pytest.mark.parametrize("pix_fmt", ["yuva420p", "yuva444p10le", "rgba", "gbrap12le"])
def test_opacity_passes_through_frames(pix_fmt: str) -> None:
    alpha = np.arange(64 * 48, dtype=np.uint32).reshape(48, 64) % 256
    rgb = np.zeros((48, 64, 3), np.uint8)
    if pix_fmt == "rgba":
        frame = packed(rgb, alpha.astype(np.uint8), pix_fmt)
    else:
        plain = av.VideoFrame.from_ndarray(rgb, "rgb24")
        plain = plain.reformat(format=pix_fmt.replace("yuva", "yuv").replace("gbrap", "gbrp"))
        frame = with_alpha(plain, pix_fmt, alpha.astype(np.uint8))
    back = alpha_of(frame)
    assert back is not None
    assert np.abs(back / np.iinfo(back.dtype).max * 255 - alpha).max() < 0.6
