"""Films as people have them: thumbnails before the film, woven fields, guessed clocks, names like addresses."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codeformer.errors import InputError, UsageError
from codeformer.options import CanvasOptions, FaceWork
from codeformer.video.container import open_container, survey, video_stream
from codeformer.video.encoding import hard_to_play, plan_encoding
from codeformer.video.mux import Clip, mux
from codeformer.video.options import FilmOptions, films_in, output_file
from codeformer.video.packets import SegmentWriter
from codeformer.video.reader import open_film
from tests.video.clips import decode, hear, make_film, pattern, tone


def _copied(source: Path, target: Path) -> list[str]:
    """Copy a film frame by frame through our reader and muxer; returns what is said of it."""
    film = open_film(source)
    encoding = plan_encoding(film.info, target.suffix)
    part = target.with_suffix(".packets")
    writer = SegmentWriter(part, encoding)
    last = 0
    for frame in film.frames():
        writer.write(writer.convert(frame.rgb), frame.pts)
        last = frame.duration
    writer.close()
    return mux(target, encoding, [part], suffix=target.suffix, source=source, clip=Clip(), last_duration=last)


def _two_streams(path: Path, first: list[np.ndarray], second: list[np.ndarray]) -> Path:
    """A film of two video streams, of which the first is marked as the default."""
    with av.open(str(path), "w") as out:
        streams: list[Any] = []
        for pictures in (first, second):
            stream: Any = out.add_stream("libx264", rate=25, options={"crf": "12"})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.disposition = 1 if not streams else 0
            streams.append(stream)
        for stream, pictures in zip(streams, (first, second), strict=True):
            for rgb in pictures:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb)))
            out.mux(stream.encode(None))
    return path


def test_a_thumbnail_in_the_first_place_is_not_the_film(tmp_path: Path) -> None:
    path = _two_streams(tmp_path / "a.mkv", [pattern(0, 80, 60)], [pattern(i) for i in range(9)])
    film = open_film(path)
    assert (film.info.width, film.info.stream) == (160, 2) and len(list(film.frames())) == 9
    assert "video stream 2 of 2" in film.info.notes[0] and "--stream N" in film.info.notes[0]
    assert open_film(path, stream=1).info.width == 80
    with pytest.raises(UsageError, match="2 video streams"):
        open_film(path, stream=3)


def test_of_two_films_the_default_one_is_taken(tmp_path: Path) -> None:
    path = _two_streams(tmp_path / "a.mkv", [pattern(i, 80, 60) for i in range(9)], [pattern(i) for i in range(9)])
    with open_container(path) as container:
        assert video_stream(container, path).index == 0


@pytest.mark.parametrize("codec", ["pcm_s16le", "mp2"])
def test_mp4_gets_sound_that_players_take(tmp_path: Path, codec: str) -> None:
    source = make_film(tmp_path / "a.mkv", 25, sounds=[tone], sound_codec=codec)
    notes = _copied(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as result:
        assert result.streams.audio[0].codec_context.name == "aac"
    assert any("encoded as aac" in note for note in notes)
    assert np.abs(hear(tmp_path / "b.mp4")[0]).mean() == pytest.approx(np.abs(hear(source)[0]).mean(), rel=0.1)


def test_mov_keeps_pcm(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mkv", 12, sounds=[tone], sound_codec="pcm_s16le")
    assert _copied(source, tmp_path / "b.mov") == []
    with av.open(str(tmp_path / "b.mov")) as result:
        assert result.streams.audio[0].codec_context.name == "pcm_s16le"


def test_a_name_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_film(tmp_path / "a.mp4", 3).rename(tmp_path / "Take2:final.mp4")
    assert len(list(open_film(Path("Take2:final.mp4")).frames())) == 3
    for address in ("http://example.invalid/a.mp4", "rtsp://example.invalid/a"):
        with pytest.raises(InputError, match="is an address, not a file"):
            open_film(Path(address))


def test_brackets_of_a_name_stay_and_long_names_are_shortened(tmp_path: Path) -> None:
    film = make_film(tmp_path / "Walk [dQw4w9WgXcQ].mp4", 2)
    assert output_file(FilmOptions(film, tmp_path / "out")).name == "Walk [dQw4w9WgXcQ].mp4"
    long = film.rename(tmp_path / ("ひ" * 78 + ".mp4"))
    name = output_file(FilmOptions(long, tmp_path / "out")).name
    assert len(f"{name}.codeformer-work".encode()) < 255 and name.startswith("ひひ")


def test_a_part_of_a_film_has_a_folder_of_its_own(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", 2)
    whole = output_file(FilmOptions(film))
    part = output_file(FilmOptions(film, start=Fraction(1, 2), end=Fraction(3)))
    assert whole.parent.name == "a_0.5" and part.parent.name == "a_0.5_0.5-3s"


def test_a_folder_of_films_is_each_of_them(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mkv"):
        make_film(tmp_path / name, 2)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "frames").mkdir()
    assert films_in([tmp_path, tmp_path / "frames"]) == [tmp_path / "a.mkv", tmp_path / "b.mp4", tmp_path / "frames"]


def test_a_bare_stream_takes_the_rate_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.mjpeg"
    with av.open(str(path), "w", format="mjpeg") as out:
        stream: Any = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p"
        for i in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(i))))
        out.mux(stream.encode(None))
    film = open_film(path)
    assert film.info.rate == 25 and "no clock" in film.info.notes[0] and "--fps" in film.info.notes[0]
    slow = open_film(path, clock=Fraction(10))
    assert slow.info.rate == 10 and slow.info.notes == ()
    assert [float(f.pts * slow.info.time_base) for f in slow.frames()] == pytest.approx([i / 10 for i in range(10)])
    with pytest.raises(UsageError, match="clock of its own"):
        open_film(make_film(tmp_path / "b.mp4", 2), clock=Fraction(10))


def test_a_rate_that_the_container_guesses_is_measured(tmp_path: Path) -> None:
    """A browser's recording: Matroska without a default duration, times in milliseconds that jitter."""
    times = [round(1000 * i / 24 + 7 * np.sin(3 * i)) for i in range(40)]
    path = make_film(
        tmp_path / "a.webm", 40, codec="libvpx-vp9", pts=times, time_base=Fraction(1, 1000), rate=Fraction(1000)
    )
    assert survey(path).rate == 24
    info = open_film(path).info
    assert info.rate == 24
    assert plan_encoding(info, ".mp4").rate == 24


def test_avi_frames_are_shown_in_their_order(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.avi", 20, options={"bf": "2"})
    film = open_film(source)
    assert [f.pts for f in film.frames()] == list(range(20)) and film.problems == []


def _woven(index: int) -> np.ndarray:
    """A bar that moves sixteen pixels a frame, half of it between a frame's two fields."""
    fields = []
    for half in (0, 1):
        rgb = np.full((120, 160, 3), 60, np.uint8)
        left = (16 * index + 8 * half) % 120
        rgb[20:100, left : left + 40] = 200
        fields.append(rgb)
    frame = fields[0].copy()
    frame[1::2] = fields[1][1::2]
    return frame


@pytest.mark.parametrize("flagged", [True, False])
def test_fields_become_frames(tmp_path: Path, flagged: bool) -> None:
    options = {"x264-params": "interlaced=1:tff=1"} if flagged else {}
    path = make_film(tmp_path / "a.mkv", [_woven(i) for i in range(14)], options=options, crf=8)
    film = open_film(path)
    frames = list(film.frames())
    assert film.info.rate == 50 and 26 <= len(frames) <= 28
    assert "twice as many" in film.info.notes[0]
    for frame in frames[4:-4]:
        rows = frame.rgb[30:90, :, 0].astype(int)
        assert np.abs(rows[1:] - rows[:-1]).max(axis=1).mean() < 60  # woven, every second row differs by 140
    off = open_film(path, deinterlace="off")
    assert off.info.rate == 25 and len(list(off.frames())) == 14


def test_a_progressive_film_keeps_its_frames(tmp_path: Path) -> None:
    film = open_film(make_film(tmp_path / "a.mp4", 20))
    assert film.info.rate == 25 and len(list(film.frames())) == 20 and film.info.notes == ()


def _joined(tmp_path: Path, name: str, **second: Any) -> Path:
    first = make_film(tmp_path / "1.ts", 6, **second.pop("first", {}))
    after = make_film(tmp_path / "2.ts", [pattern(i) for i in range(6, 14)], pts=range(6, 14), **second)
    path = tmp_path / name
    path.write_bytes(first.read_bytes() + after.read_bytes())
    return path


def test_each_frame_has_the_pixel_aspect_that_its_own_part_says(tmp_path: Path) -> None:
    film = open_film(_joined(tmp_path, "a.ts", first={"aspect": Fraction(1)}, aspect=Fraction(4, 3)))
    frames = list(film.frames())
    assert film.info.sample_aspect_ratio == Fraction(4, 3)
    assert all(f.rgb[:, :18].max() < 20 for f in frames[:6])  # three quarters as wide, black beside
    assert all(f.rgb[:, :18].max() > 60 for f in frames[6:])
    assert any("pixel aspect midway: 6 frames" in line for line in film.problems)


def test_each_frame_has_the_colours_that_its_own_part_says(tmp_path: Path) -> None:
    red = [np.full((120, 160, 3), (192, 48, 32), np.uint8)] * 4
    first = make_film(tmp_path / "1.ts", red, colour=(1, 1, 1, 1))
    second = make_film(tmp_path / "2.ts", red, colour=(6, 1, 6, 6), pts=range(4, 8))
    (tmp_path / "a.ts").write_bytes(first.read_bytes() + second.read_bytes())
    film = open_film(tmp_path / "a.ts")
    for frame in film.frames():
        assert np.abs(frame.rgb.reshape(-1, 3).mean(0) - (192, 48, 32)).max() < 4
    assert any("matrix, range or colours midway: 4 frames" in line for line in film.problems)


def test_fonts_go_from_matroska_to_matroska_and_are_named_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        out.add_attachment("font.ttf", "application/x-truetype-font", b"0123456789")
        for i in range(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(i))))
        out.mux(stream.encode(None))
    assert _copied(source, tmp_path / "b.mkv") == []
    with av.open(str(tmp_path / "b.mkv")) as result:
        (font,) = (s for s in result.streams if s.type == "attachment")
        assert bytes(font.data) == b"0123456789" and font.metadata["filename"] == "font.ttf"
    assert any("font.ttf is left out" in note for note in _copied(source, tmp_path / "b.mp4"))


def test_a_timecode_is_carried(tmp_path: Path) -> None:
    source = tmp_path / "a.mov"
    with av.open(str(source), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.metadata["timecode"] = "01:02:03:04"
        for i in range(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(i))))
        out.mux(stream.encode(None))
    _copied(source, tmp_path / "b.mov")
    with av.open(str(tmp_path / "b.mov")) as result:
        assert any(s.metadata.get("timecode") == "01:02:03:04" for s in result.streams)
    _copied(source, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as result:
        assert "01:02:03:04" in {**result.metadata, **result.streams.video[0].metadata}.values()
    assert len(decode(tmp_path / "b.mkv")) == 4


def test_a_size_that_hardware_does_not_decode_is_said(tmp_path: Path) -> None:
    info = open_film(make_film(tmp_path / "a.mp4", 2)).info
    assert hard_to_play(plan_encoding(info, ".mp4", scale=2)) == ""
    assert "--codec hevc" in hard_to_play(plan_encoding(info, ".mp4", scale=26))
    assert hard_to_play(plan_encoding(info, ".mp4", scale=26, codec="hevc")) == ""


def test_the_scale_of_films_is_1_unless_an_upsampler_is_asked_for() -> None:
    from codeformer.cli.asked import face_work
    from codeformer.cli.parser import build_parser

    parser = build_parser()
    assert face_work(parser.parse_args(["video", "-i", "a.mp4"])).canvas.upscale == 1
    assert face_work(parser.parse_args(["video", "-i", "a.mp4", "--bg_upsampler", "realesrgan"])).canvas.upscale == 2
    assert face_work(parser.parse_args(["video", "-i", "a.mp4", "-s", "3"])) == FaceWork(canvas=CanvasOptions(3.0))
