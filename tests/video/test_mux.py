"""What goes into the output file: frames in time, sound in step, subtitles, chapters, metadata, colours, sizes."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codeformer.errors import UsageError
from codeformer.video.encoding import check_encoding, plan_encoding
from codeformer.video.mux import Clip, mux
from codeformer.video.packets import SegmentWriter, read_packets
from codeformer.video.reader import open_film
from tests.video.clips import click_times, clicks, decode, make_film, pattern, rotated, times, tone
from tests.video.fakes import square_face


def copy_film(
    source: Path, output: Path, *, stretch: int = 5, scale: float = 1.0, audio: bool = True, **settings: Any
) -> list[str]:
    """The film through reader, encoder and muxer, nothing restored."""
    start, end = settings.pop("start", None), settings.pop("end", None)
    film = open_film(source, start=start, end=end)
    encoding = plan_encoding(film.info, output.suffix, scale=scale, **settings)
    parts: list[Path] = []
    writer: SegmentWriter | None = None
    duration = 0
    for frame in film.frames():
        if frame.index % stretch == 0:
            if writer:
                writer.close()
            parts.append(output.with_name(f"{output.name}.{frame.index}"))
            writer = SegmentWriter(parts[-1], encoding)
        assert writer is not None
        writer.write(writer.convert(frame.rgb), frame.pts)
        duration = frame.duration
    assert writer is not None
    writer.close()
    return mux(
        output,
        encoding,
        parts,
        suffix=output.suffix,
        source=source,
        clip=Clip(start or Fraction(0), end),
        last_duration=duration,
        audio=audio,
    )


def test_variable_timestamps_and_the_last_duration_survive(tmp_path: Path) -> None:
    pts = [0, 3003, 6006, 7000, 9009, 12012, 40000, 43003, 70000, 70100, 70200, 90000]
    source = make_film(tmp_path / "a.mp4", 12, pts=pts, time_base=Fraction(1, 90000), rate=Fraction(30))
    copy_film(source, tmp_path / "b.mp4", stretch=3)
    assert times(tmp_path / "b.mp4") == times(source)
    regular = make_film(tmp_path / "c.mp4", 12)
    copy_film(regular, tmp_path / "d.mp4", stretch=5)
    with av.open(str(tmp_path / "d.mp4")) as film:
        assert film.streams.video[0].duration * film.streams.video[0].time_base == Fraction(12, 25)


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9"])
def test_stretches_of_every_codec_fit_together(tmp_path: Path, codec: str) -> None:
    source = make_film(tmp_path / "a.mp4", 24)
    copy_film(source, tmp_path / "b.mp4", stretch=7, codec=codec)
    assert times(tmp_path / "b.mp4") == times(source)
    assert (
        max(np.abs(a.astype(int) - b).mean() for a, b in zip(decode(source), decode(tmp_path / "b.mp4"), strict=True))
        < 4
    )


def test_decoding_times_increase_and_never_pass_the_showing(tmp_path: Path) -> None:
    pts = [0, 1, 2, 3, 100, 101, 102, 103, 500, 900, 901, 902, 903, 904]
    source = make_film(tmp_path / "a.mp4", 14, pts=pts, time_base=Fraction(1, 1000))
    film = open_film(source)
    encoding = plan_encoding(film.info, ".mp4")
    for part in (0, 1):
        writer = SegmentWriter(tmp_path / f"p{part}", encoding)
        for frame in list(film.frames())[part * 8 : part * 8 + 8]:
            writer.write(writer.convert(frame.rgb), frame.pts)
        writer.close()
    packets = list(read_packets([tmp_path / "p0", tmp_path / "p1"]))
    assert sorted(p.pts for p in packets) == [16 * t for t in pts] or sorted(p.pts for p in packets) == sorted(
        f.pts for f in film.frames()
    )
    assert all(a.dts < b.dts for a, b in pairwise(packets))
    assert all(p.dts <= p.pts for p in packets)
    assert [i for i, p in enumerate(packets) if p.keyframe] == [0, 8]


def test_sound_is_copied_packet_for_packet_and_stays_in_step(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mp4", 50, sounds=[clicks, tone])
    assert copy_film(source, tmp_path / "b.mp4") == []
    with av.open(str(source)) as a, av.open(str(tmp_path / "b.mp4")) as b:
        assert [s.metadata["language"] for s in b.streams.audio] == ["eng", "fra"]
        for track in (0, 1):
            before = [bytes(p) for p in a.demux(a.streams.audio[track]) if p.size]
            after = [bytes(p) for p in b.demux(b.streams.audio[track]) if p.size]
            assert before == after and len(before) > 50
            a.seek(0)
            b.seek(0)
    assert np.allclose(click_times(tmp_path / "b.mp4"), 0.1 + 0.2 * np.arange(10), atol=0.003)


def test_sound_that_the_container_cannot_hold_is_encoded_in_step(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mkv", 50, sounds=[clicks], sound_codec="pcm_s16le")
    notes = copy_film(source, tmp_path / "b.webm")
    assert len(notes) == 1 and "libopus" in notes[0]
    assert np.allclose(click_times(tmp_path / "b.webm"), 0.1 + 0.2 * np.arange(10), atol=0.01)


def test_aac_stands_in_for_what_mp4_does_not_take(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mkv", 50, sounds=[clicks], sound_codec="wavpack")
    notes = copy_film(source, tmp_path / "b.mp4")
    assert len(notes) == 1 and "aac" in notes[0]
    assert np.allclose(click_times(tmp_path / "b.mp4"), 0.1 + 0.2 * np.arange(10), atol=0.01)


def test_sound_of_joined_recordings_stays_in_step(tmp_path: Path) -> None:
    parts = [make_film(tmp_path / f"{i}.ts", 50, sounds=[clicks], sound_codec="mp2").read_bytes() for i in range(2)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    copy_film(tmp_path / "joined.ts", tmp_path / "b.mkv")
    shown = times(tmp_path / "b.mkv")
    assert len(shown) == 100 and float(shown[-1] - shown[0]) == pytest.approx(99 / 25, abs=0.01)
    heard = click_times(tmp_path / "b.mkv") - float(shown[0])
    assert np.allclose(heard, 0.1 + 0.2 * np.arange(20), atol=0.06)


def test_a_pause_in_sound_that_is_encoded_anew_stays_a_pause(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mkv", 75, sounds=[clicks], sound_codec="wavpack")
    with av.open(str(source)) as film, av.open(str(tmp_path / "gap.mkv"), "w") as out:
        streams = {s.index: out.add_stream_from_template(s, opaque=True) for s in film.streams}
        for packet in film.demux():
            if not packet.size:
                continue
            audio = packet.stream.type == "audio"
            if audio and 0.9 < float(packet.pts * packet.time_base) < 2.0:
                continue
            packet.stream = streams[packet.stream_index]
            out.mux(packet)
    for name in ("b.mp4", "b.webm"):
        copy_film(tmp_path / "gap.mkv", tmp_path / name)
        heard = click_times(tmp_path / name)
        late = heard[heard > 1.0]
        assert len(late) >= 4 and np.allclose(late, 0.1 + 0.2 * np.round((late - 0.1) / 0.2), atol=0.012)
        assert late.min() > 1.95 and len(heard) < 12


@pytest.mark.parametrize("layout", ["5.1(side)", "quad(side)", "2.1", "7.1(wide)", "mono"])
def test_a_layout_that_the_encoder_refuses_is_mixed(tmp_path: Path, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        track = out.add_stream("pcm_s16le", rate=22254, layout=layout)
        for i in range(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray(pattern(i))))
        noise = (np.random.default_rng(0).uniform(-3000, 3000, (1, 22254 * channels))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout=layout)
        frame.sample_rate, frame.pts = 22254, 0
        out.mux(track.encode(frame))
        for stream in (video, track):
            out.mux(stream.encode(None))
    for name in ("b.webm", "b.mp4", "b.mov", "b.mkv"):
        notes = copy_film(source, tmp_path / name)
        assert len(notes) <= 1 and (name == "b.mkv") <= (not notes)
        with av.open(str(tmp_path / name)) as film:
            samples = sum(frame.samples / frame.sample_rate for frame in film.decode(audio=0))
        assert samples == pytest.approx(1, abs=0.1)


def test_sound_that_changes_its_kind_midway_is_encoded_all_the_same(tmp_path: Path) -> None:
    parts = []
    for layout, rate in (("stereo", 48000), ("mono", 44100)):
        path = tmp_path / f"{layout}.ts"
        with av.open(str(path), "w") as out:
            video = out.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            track = out.add_stream("mp2", rate=rate, layout=layout)
            for i in range(50):
                out.mux(video.encode(av.VideoFrame.from_ndarray(pattern(i))))
            channels = av.AudioLayout(layout).nb_channels
            for place in range(0, 2 * rate - 1152, 1152):
                block = np.random.default_rng(place).integers(-3000, 3000, (1, 1152 * channels)).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
                out.mux(track.encode(frame))
            for stream in (video, track):
                out.mux(stream.encode(None))
        parts.append(path.read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    notes = copy_film(tmp_path / "joined.ts", tmp_path / "b.webm")
    assert len(notes) == 1 and "encoded as libopus" in notes[0]
    with av.open(str(tmp_path / "b.webm")) as film:
        assert sum(frame.samples / 48000 for frame in film.decode(audio=0)) == pytest.approx(4, abs=0.2)
    assert len(times(tmp_path / "b.webm")) == 100


def test_no_audio(tmp_path: Path) -> None:
    copy_film(make_film(tmp_path / "a.mp4", 10, sounds=[tone]), tmp_path / "b.mp4", audio=False)
    with av.open(str(tmp_path / "b.mp4")) as film:
        assert not film.streams.audio and film.streams.video


def _words(path: Path) -> list[tuple[float, float, bytes]]:
    with av.open(str(path)) as film:
        mov = film.streams.subtitles[0].codec_context.codec.name == "mov_text"
        packets = [p for p in film.demux(film.streams.subtitles[0]) if p.size > 2 or (p.size and not mov)]
        return [
            (float(p.pts * p.time_base), float(p.duration * p.time_base), bytes(p)[2:] if mov else bytes(p))
            for p in packets
        ]


@pytest.mark.parametrize(("before", "after"), [("mp4", "mp4"), ("mkv", "mkv"), ("mkv", "mp4"), ("mp4", "mkv")])
def test_subtitles_and_chapters_and_metadata(tmp_path: Path, before: str, after: str) -> None:
    said = [(0.2, 0.6, "Hello"), (0.8, 1.4, "Grüße")]
    told = [(0.0, 1.0, "One"), (1.0, 2.0, "Two")]
    source = make_film(
        tmp_path / f"a.{before}", 50, subtitles=said, chapters=told, metadata={"title": "A film", "artist": "Someone"}
    )
    assert copy_film(source, tmp_path / f"b.{after}") == []
    words = _words(tmp_path / f"b.{after}")
    assert [w[2].decode() for w in words] == ["Hello", "Grüße"]
    assert np.allclose([w[:2] for w in words], [(0.2, 0.4), (0.8, 0.6)], atol=0.002)
    with av.open(str(tmp_path / f"b.{after}")) as film:
        assert [(float(c["start"] * c["time_base"]), c["metadata"]["title"]) for c in film.chapters()] == [
            (0.0, "One"),
            (1.0, "Two"),
        ]
        assert {k.lower(): v for k, v in film.metadata.items()}["title"] == "A film"
        assert {k.lower(): v for k, v in film.metadata.items()}["artist"] == "Someone"


def test_a_title_that_is_not_utf_8_does_not_stop_a_film(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mkv", 6, metadata={"title": "Grandmother"})
    source.write_bytes(source.read_bytes().replace(b"Grandmother", b"Gro\xdfmutter!"))
    assert copy_film(source, tmp_path / "b.mkv") == []
    assert len(decode(tmp_path / "b.mkv")) == 6
    written = (tmp_path / "b.mkv").read_bytes()
    assert b"Gro\xdfmutter!" in written or "Gro\ufffdmutter!".encode() in written


def test_subtitles_that_cannot_be_held_are_named(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a.mkv", 10, subtitles=[(0.0, 0.2, "x")])
    with av.open(str(source)) as film:
        assert film.streams.subtitles
    notes = copy_film(source, tmp_path / "b.webm")
    assert notes == [] or "subtitle" in notes[0]


def test_a_clip_keeps_picture_and_sound_together(tmp_path: Path) -> None:
    source = make_film(
        tmp_path / "a.mp4", 75, sounds=[clicks], chapters=[(0, 1, "One"), (1, 2, "Two"), (2, 3, "Three")]
    )
    copy_film(source, tmp_path / "b.mp4", start=Fraction(2, 5), end=Fraction(7, 5))
    assert times(tmp_path / "b.mp4") == [Fraction(i, 25) for i in range(25)]
    assert np.allclose(click_times(tmp_path / "b.mp4"), 0.1 + 0.2 * np.arange(5), atol=0.003)
    with av.open(str(tmp_path / "b.mp4")) as film:
        assert [c["metadata"]["title"] for c in film.chapters()] == ["One", "Two"]


def test_aspect_colour_and_rotation(tmp_path: Path) -> None:
    plain = make_film(tmp_path / "a.mp4", 4, aspect=Fraction(4, 3), colour=(9, 1, 9, 14), pix_fmt="yuv420p")
    copy_film(rotated(plain, tmp_path / "turned.mp4", 1), tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as film:
        frame = next(film.decode(video=0))
        stream = film.streams.video[0]
        assert (frame.width, frame.height, frame.rotation) == (120, 160, 0)
        assert stream.codec_context.sample_aspect_ratio == Fraction(3, 4)
        context = stream.codec_context
        assert (frame.colorspace, frame.color_range, context.color_primaries, context.color_trc) == (9, 1, 9, 14)


@pytest.mark.parametrize("full", [1, 2])
def test_copying_does_not_shift_colours(tmp_path: Path, full: int) -> None:
    source = make_film(tmp_path / "a.mp4", 4, colour=(1, full, 1, 1))
    copy_film(source, tmp_path / "b.mp4", crf=1)
    for before, after in zip(open_film(source).frames(), open_film(tmp_path / "b.mp4").frames(), strict=True):
        assert np.abs(before.rgb.mean(axis=(0, 1)) - after.rgb.mean(axis=(0, 1))).max() < 0.4


def test_odd_sizes_become_even_by_scaling(tmp_path: Path) -> None:
    odd = [pattern(i, 161, 121) for i in range(4)]
    source = make_film(tmp_path / "a.mkv", odd, codec="ffv1", pix_fmt="yuv444p")
    copy_film(source, tmp_path / "b.mp4")
    after = decode(tmp_path / "b.mp4")[0]
    assert after.shape == (122, 162, 3)
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # the corners are still the corners
        assert np.abs(after[y, x].astype(int) - odd[0][y, x]).max() < 25


def test_ten_bits_are_dithered_into_h264_and_kept_in_hevc(tmp_path: Path) -> None:
    ramp = np.linspace(20000, 22000, 320).astype(np.uint16)  # 8 steps of 8 bits over 320 pixels
    picture = np.repeat(np.repeat(ramp[None, :, None], 128, axis=0), 3, axis=2)
    source = make_film(tmp_path / "a.mkv", [picture] * 2, pix_fmt="yuv420p10le", codec="ffv1")
    copy_film(source, tmp_path / "b.mp4", crf=0)
    with av.open(str(tmp_path / "b.mp4")) as film:
        frame = next(film.decode(video=0))
        assert frame.format.name == "yuv420p"
        luma = frame.to_ndarray()[:128, :320].astype(float)
    with av.open(str(source)) as film:
        plane = next(film.decode(video=0)).planes[0]
        exact = np.frombuffer(memoryview(plane), np.uint16).reshape(-1, plane.line_size // 2)[:128, :320] / 4
    tiles = [plane.reshape(8, 16, 20, 16).mean(axis=(1, 3)) for plane in (luma, exact)]
    assert np.abs(tiles[0] - tiles[1]).max() < 0.15  # bands would be off by up to 0.5
    copy_film(source, tmp_path / "c.mp4", codec="hevc")
    with av.open(str(tmp_path / "c.mp4")) as film:
        assert next(film.decode(video=0)).format.name == "yuv420p10le"


def test_what_cannot_be_encoded_is_a_usage_error(tmp_path: Path) -> None:
    info = open_film(make_film(tmp_path / "a.mp4", 2)).info
    for suffix, settings in (
        (".txt", {}),
        (".mp4", {"codec": "nonsense"}),
        (".mp4", {"codec": "aac"}),
        (".mp4", {"pix_fmt": "rgb24"}),
        (".mp4", {"codec": "ffv1", "crf": 3}),
        (".webm", {"preset": "slow"}),
    ):
        with pytest.raises(UsageError):
            plan_encoding(info, suffix, **settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="preset"):
        check_encoding(plan_encoding(info, ".mp4", preset="nonsense"), "mp4")
    with pytest.raises(UsageError, match="webm"):
        check_encoding(plan_encoding(info, ".webm", codec="h264"), "webm")


def test_the_same_frames_give_the_same_packets(tmp_path: Path) -> None:
    """A film that goes on after a kill is the same, bit for bit, only if encoding it is. (x264's AVX-512 is not.)"""
    film = open_film(make_film(tmp_path / "a.mp4", [square_face(i) for i in range(5)]))
    encoding = plan_encoding(film.info, ".mp4")
    frames = list(film.frames())
    results = set()
    for number in range(6):
        writer = SegmentWriter(tmp_path / str(number), encoding)
        for frame in frames:
            writer.write(writer.convert(frame.rgb), frame.pts)
        writer.close()
        results.add((tmp_path / str(number)).read_bytes())
    assert len(results) == 1
