"""Films come in as frames: in time, upright, in the right colours, whatever is wrong with the file."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from codeformer.errors import InputError
from codeformer.images.picture import Picture, write_picture
from codeformer.video.container import measured_duration
from codeformer.video.decoded import Orientation, Orientations
from codeformer.video.reader import open_film
from tests.video.clips import clicks, decode, make_film, pattern, rotated


def test_frames_come_with_their_times_durations_and_pixels(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", 10)
    film = open_film(path)
    frames = list(film.frames())
    base = film.info.time_base
    assert (film.info.width, film.info.height, film.info.frames) == (160, 120, 10)
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.pts * base for frame in frames] == [Fraction(i, 25) for i in range(10)]
    assert {frame.duration * base for frame in frames} == {Fraction(1, 25)}
    assert all(np.abs(f.rgb.astype(int) - pattern(i)).mean() < 3 for i, f in enumerate(frames))
    assert film.problems == [] and film.ended_early is None


def test_variable_rate_keeps_every_timestamp(tmp_path: Path) -> None:
    pts = [0, 3003, 6006, 7000, 9009, 12012, 40000, 43003]
    path = make_film(tmp_path / "a.mp4", 8, pts=pts, time_base=Fraction(1, 90000), rate=Fraction(30))
    film = open_film(path)
    frames = list(film.frames())
    assert [frame.pts * film.info.time_base for frame in frames] == [Fraction(p, 90000) for p in pts]
    assert [f.duration * film.info.time_base for f in frames[:-1]] == [Fraction(b - a, 90000) for a, b in pairwise(pts)]


def test_reading_from_an_index_gives_the_same_frames(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mkv", 14)
    whole = list(open_film(path).frames())
    tail = list(open_film(path).frames(first=9))
    assert [(f.index, f.pts, f.same) for f in tail] == [(f.index, f.pts, f.same) for f in whole[9:]]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(tail, whole[9:], strict=True))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_is_applied(tmp_path: Path, turns: int) -> None:
    plain = make_film(tmp_path / "a.mp4", 3)
    film = open_film(rotated(plain, tmp_path / "turned.mp4", turns))
    frame = next(iter(film.frames()))
    expected = np.rot90(decode(plain)[0], -turns)
    assert frame.rgb.shape == expected.shape == (film.info.height, film.info.width, 3)
    assert np.abs(frame.rgb.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("matrix", "full"), [(1, 1), (6, 1), (1, 2), (9, 1)])
def test_colours_follow_the_films_own_matrix_and_range(tmp_path: Path, matrix: int, full: int) -> None:
    flat = np.empty((48, 64, 3), np.uint8)
    flat[:] = (200, 60, 90)
    path = tmp_path / "a.mp4"
    kr, kb = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    red, green, blue = 200 / 255, 60 / 255, 90 / 255
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = ((blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr))
    values = (
        (luma * 255, *(c * 255 + 128 for c in chroma))
        if full == 2
        else (luma * 219 + 16, *(c * 224 + 128 for c in chroma))
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, full
        frame = av.VideoFrame(64, 48, "yuv420p")
        for plane, value in zip(frame.planes, values, strict=True):
            plane.update(bytes([round(value)]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, full
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    film = open_film(path)
    assert (film.info.colour.matrix, film.info.colour.range) == (matrix, full)
    assert np.abs(next(iter(film.frames())).rgb.astype(int) - flat).max() <= 2


def test_ten_bits_stay_more_than_eight(tmp_path: Path) -> None:
    ramp = np.linspace(20000, 24000, 320).astype(np.uint16)
    picture = np.repeat(np.repeat(ramp[None, :, None], 64, axis=0), 3, axis=2)
    path = make_film(tmp_path / "a.mp4", [picture] * 2, pix_fmt="yuv420p10le", crf=0)
    film = open_film(path)
    frame = next(iter(film.frames()))
    assert film.info.bits == 10 and frame.rgb.dtype == np.uint16
    assert len(np.unique(frame.rgb[32, :, 1])) > 40  # in 8 bits the ramp has 16 steps


def test_equal_frames_are_marked(tmp_path: Path) -> None:
    pictures = [pattern(0)] * 3 + [pattern(9)] * 2
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, rgb in enumerate(pictures):
        write_picture(Picture(rgb), folder / f"f{i}.png")
    frames = list(open_film(folder).frames())
    assert [frame.same for frame in frames] == [False, True, True, False, True]
    assert frames[1].rgb is frames[0].rgb  # and take no memory


def test_folders_and_patterns_are_sorted_by_number(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        write_picture(Picture(pattern(i)), tmp_path / f"frame{i}.png")
    write_picture(Picture(pattern(50)), tmp_path / "other.png")
    film = open_film(tmp_path / "frame%d.png", rate=Fraction(10))
    frames = list(film.frames())
    assert film.info.rate == 10 and film.info.duration == Fraction(3, 10)
    assert [int(np.array_equal(f.rgb, pattern(i))) for f, i in zip(frames, (1, 2, 10), strict=True)] == [1, 1, 1]
    assert len(list(open_film(tmp_path / "frame*.png").frames())) == 3
    assert len(list(open_film(tmp_path).frames())) == 4


def test_start_and_end(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", 30, options={"g": "7"})
    film = open_film(path, start=Fraction(2, 5), end=Fraction(4, 5))
    frames = list(film.frames())
    assert [frame.pts * film.info.time_base for frame in frames] == [Fraction(i, 25) for i in range(10)]
    assert np.abs(frames[0].rgb.astype(int) - pattern(10)).mean() < 3
    assert film.info.frames == 10


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.avi", "a.mkv", "a.mp4"])
@pytest.mark.parametrize("begin", [7, 26, 44])
def test_a_start_within_any_container_loses_no_frame(tmp_path: Path, name: str, begin: int) -> None:
    codec = {"a.mpg": "mpeg2video", "a.avi": "mpeg4"}.get(name, "libx264")
    path = make_film(tmp_path / name, 60, codec=codec, options={"g": "25", "bf": "0" if name == "a.avi" else "2"})
    film = open_film(path, start=Fraction(begin, 25))
    frames = list(film.frames())
    assert len(frames) == 60 - begin and film.problems == []
    assert abs(frames[0].pts * film.info.time_base) <= Fraction(1, 25)
    nearest = min(range(60), key=lambda i: np.abs(frames[0].rgb.astype(int) - pattern(i)).mean())
    assert abs(nearest - begin) <= (name == "a.avi")  # whose codec is coarse


def test_a_clock_that_starts_anew_goes_on(tmp_path: Path) -> None:
    """Recordings that were joined byte by byte."""
    parts = [make_film(tmp_path / f"{i}.ts", 50, sounds=[clicks], sound_codec="mp2").read_bytes() for i in range(2)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    film = open_film(tmp_path / "joined.ts")
    shown = [float(frame.pts * film.info.time_base) for frame in film.frames()]
    assert len(shown) == 100 and np.allclose(np.diff(shown), 1 / 25, atol=0.002)
    assert any("starts anew 1 times" in line for line in film.problems) and film.ended_early is None


@pytest.mark.parametrize("begin", [10, 38, 60, 90])
def test_a_start_in_joined_recordings_counts_from_the_first(tmp_path: Path, begin: int) -> None:
    pictures = [pattern(i) for i in range(100)]
    parts = [make_film(tmp_path / f"{i}.ts", pictures[50 * i : 50 * i + 50]).read_bytes() for i in range(2)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    frames = list(open_film(tmp_path / "joined.ts", start=Fraction(begin, 25)).frames())
    assert len(frames) == 100 - begin
    assert min(range(100), key=lambda i: np.abs(frames[0].rgb.astype(int) - pictures[i]).mean()) == begin


def test_an_end_within_a_film_that_is_cut_off_says_so(tmp_path: Path) -> None:
    whole = make_film(tmp_path / "a.mkv", 100, sounds=[clicks])
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    for path, end, early in ((whole, 3, False), (whole, 50, False), (cut, 1, False), (cut, 3, True), (cut, 50, True)):
        film = open_film(path, start=Fraction(1, 5), end=Fraction(end))
        frames = list(film.frames())
        assert (film.ended_early is not None) == early, (path.name, end)
        if early:
            assert film.ended_early == pytest.approx(len(frames) / 25, abs=0.2)


def test_a_matroska_film_that_begins_late_is_whole(tmp_path: Path) -> None:
    film = open_film(make_film(tmp_path / "a.mkv", 50, pts=range(1500, 1550)))
    assert len(list(film.frames())) == 50
    assert film.ended_early is None and film.info.duration == pytest.approx(2, abs=0.1)
    assert measured_duration(tmp_path / "a.mkv") == pytest.approx(2, abs=0.1)
    assert measured_duration(tmp_path / "a.mkv", Fraction(1, 2)) == pytest.approx(1.5, abs=0.1)


def test_resampling_keeps_the_duration(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", 25)
    assert len(list(open_film(path, rate=Fraction(50)).frames())) == 50
    slower = list(open_film(path, rate=Fraction(10)).frames())
    assert len(slower) == 10 and not any(frame.same for frame in slower)
    assert sum(f.same for f in open_film(path, rate=Fraction(50)).frames()) == 25


@pytest.mark.parametrize("name", ["a.gif", "a.webm", "a.avi", "a.mov", "a.mkv"])
def test_other_containers(tmp_path: Path, name: str) -> None:
    codec = {"a.gif": "gif", "a.webm": "libvpx-vp9", "a.avi": "mpeg4"}.get(name, "libx264")
    pix_fmt = "rgb8" if name == "a.gif" else "yuv420p"
    if name == "a.gif":
        with av.open(str(tmp_path / name), "w") as out:
            stream = out.add_stream("gif", rate=10)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "rgb8"
            for i in range(6):
                frame = av.VideoFrame.from_ndarray(pattern(i)).reformat(format="rgb8")
                frame.pts = i
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    else:
        make_film(tmp_path / name, 6, codec=codec, pix_fmt=pix_fmt)
    film = open_film(tmp_path / name)
    frames = list(film.frames())
    assert len(frames) == 6 and film.problems == [] and film.ended_early is None
    assert np.abs(frames[2].rgb.astype(int) - pattern(2)).mean() < (20 if name == "a.gif" else 6)


def test_a_film_cut_off_in_the_middle_says_where(tmp_path: Path) -> None:
    whole = make_film(tmp_path / "a.mkv", 100, sounds=[clicks])
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    film = open_film(cut)
    frames = list(film.frames())
    assert 10 < len(frames) < 90
    assert film.ended_early == pytest.approx(len(frames) / 25, abs=0.2)


def test_a_fast_start_mp4_cut_off_says_where(tmp_path: Path) -> None:
    whole = make_film(tmp_path / "a.mp4", 100, sounds=[clicks], container_options={"movflags": "+faststart"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    film = open_film(cut)
    frames = list(film.frames())
    assert 10 < len(frames) < 95
    assert film.ended_early is not None and 0.5 < film.ended_early < 3.9


def test_broken_packets_are_passed_over_and_counted(tmp_path: Path) -> None:
    """The packets of half a second hold no picture any more, the container around them is whole."""
    whole = make_film(tmp_path / "a.mkv", 60, options={"g": "10"})
    with av.open(str(whole)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)][25:37]
    data = whole.read_bytes()
    for packet in packets:
        assert packet in data
        data = data.replace(packet, b"\xff" * len(packet))
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data)
    film = open_film(broken)
    frames = list(film.frames())
    assert 30 < len(frames) < 60
    assert any("broken packets" in line for line in film.problems)
    assert [f.pts for f in frames] == sorted({f.pts for f in frames})


def test_frames_that_a_broken_container_swallowed_are_counted(tmp_path: Path) -> None:
    """Where the container itself is broken its reader looks for the next piece that it knows and reports nothing."""
    whole = make_film(tmp_path / "a.mkv", 60, options={"g": "10"})
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(data)
    film = open_film(broken)
    frames = list(film.frames())
    lost = 60 - len(frames)
    assert 3 < lost < 30
    assert f"{lost} frames of a steady rate are missing" in "\n".join(film.problems)


@pytest.mark.parametrize("pts", [range(0, 60, 3), [0, 1, 2, 5, 6, 9, 10, 11, 15, 16, 20], [0, 40, 41, 42, 80, 81]])
def test_a_film_of_uneven_times_lacks_nothing(tmp_path: Path, pts: Sequence[int]) -> None:
    film = open_film(make_film(tmp_path / "a.mkv", len(pts), pts=list(pts)))
    assert len(list(film.frames())) == len(pts) and film.problems == []


def test_a_film_that_changes_its_size_is_fitted(tmp_path: Path) -> None:
    small, large = make_film(tmp_path / "a.ts", 5), tmp_path / "b.ts"
    make_film(large, [pattern(i, 240, 120) for i in range(5)], pts=range(5, 10))
    joined = tmp_path / "c.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    film = open_film(joined)
    frames = list(film.frames())
    assert len(frames) == 10 and {f.rgb.shape for f in frames} == {(120, 240, 3)}  # the larger one loses nothing
    assert any("changes its size" in line for line in film.problems) and "240x120" in film.info.notes[0]
    said = film.problems
    assert len(list(film.frames(len(frames) - 1))) == 1 and film.problems == said, "wherever the reading begins"
    assert frames[0].rgb[:, :30].max() < 20 and frames[0].rgb[60, 120].max() > 60  # black beside, the picture between
    assert np.abs(frames[-1].rgb.astype(int) - pattern(4, 240, 120)).mean() < 6


def _no_film(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "x.mp4"
    if kind == "text":
        path.write_text("this is not a film\n" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "headless":
        whole = make_film(tmp_path / "w.mp4", 20).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])  # the index lies at the end
    elif kind == "sound":
        with av.open(str(path), "w") as out:
            track = out.add_stream("aac", rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48000
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "headless", "sound", "missing"])
def test_what_is_no_film_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = _no_film(tmp_path, kind)
    with pytest.raises(InputError, match=r"x\.mp4") as caught:
        open_film(path)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        open_film(tmp_path)


def test_frames_with_a_profile_become_srgb(tmp_path: Path) -> None:
    """A film has no profile, so frames in wide colours would come out pale."""
    from codeformer.images.picture import Picture, write_picture
    from codeformer.images.profile import made_of, to_xyz
    from codeformer.images.space import in_space, space_in
    from codeformer.video.source import FrameFolder

    icc = made_of("wide", (1.8,), to_xyz((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585)))
    space = space_in(icc)
    assert space is not None
    rgb = np.full((16, 16, 3), (200, 120, 90), np.uint8)
    write_picture(Picture(in_space(rgb, space, np.uint16), icc=icc), tmp_path / "f_00001.png")
    film = FrameFolder([tmp_path / "f_00001.png"], tmp_path, Fraction(24))
    (frame,) = film.frames()
    assert np.abs(frame.rgb / 257 - rgb).max() < 1


# --- what frames cost ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's garbage collector comes by itself no more."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])  # the second has keyframes alone
def test_frames_do_not_wait_for_the_garbage_collector(tmp_path: Path, codec: str) -> None:
    """A frame whose side data were looked at is freed by the collector alone, and would fill the memory."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    film = open_film(make_film(tmp_path / "film.mkv", 120, codec=codec, pix_fmt=pix_fmt))
    gc.collect()
    alive = []
    for _ in film.frames():
        names = [type(one).__name__ for one in gc.get_objects()]
        alive.append(names.count("SideDataContainer"))
    assert len(alive) == 120 and max(alive) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.usefixtures("no_collector")
def test_converting_frames_starts_no_threads(tmp_path: Path) -> None:
    """By default PyAV would give each frame as many threads as the machine has cores, which end with the frame."""
    film = open_film(make_film(tmp_path / "film.mp4", 40))
    kept, counts = [], []
    for frame in film.frames():
        kept.append(frame)
        counts.append(len(list(Path("/proc/self/task").iterdir())))
    assert len(kept) == 40 and len(set(counts[5:])) == 1


def test_a_frame_that_is_turned_midway_is_seen() -> None:
    """At once where its angle tells, else at the next keyframe."""

    class Turned:
        width, height = 8, 6

        def __init__(self, angle: int, key: bool, matrix: Orientation) -> None:
            self.rotation, self.key_frame, self.matrix = angle, key, matrix

    upright, upside_down, mirrored = Orientation(), Orientation(False, True, True), Orientation(False, False, True)
    frames = [
        *[Turned(0, i == 0, upright) for i in range(30)],
        *[Turned(180, False, upside_down) for _ in range(2)],
        *[Turned(0, i == 0, mirrored) for i in range(30)],
        *[Turned(0, i == 0, upright) for i in range(2)],
    ]
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("codeformer.video.decoded.orientation_of", lambda frame: frame.matrix)
        seen = Orientations()
        assert [seen.of(frame) for frame in frames] == [frame.matrix for frame in frames]
