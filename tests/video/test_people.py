"""Who the faces of a film are: over cuts, over the borders of stretches, and over an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codeformer.arrays import Floats
from codeformer.cli.console import Console
from codeformer.errors import ExitCode
from codeformer.faces.face import Face
from codeformer.faces.person import Person
from codeformer.options import FaceOptions
from codeformer.video.film import run_film
from codeformer.video.people import People, entries_of, numbered
from codeformer.video.segment import MODES, Seen, distinct, with_tracks
from codeformer.video.source import Frame
from tests.video.clips import make_film
from tests.video.fakes import POINTS, engine_for, options_for
from tests.video.test_tracking import face

WIDTH, HEIGHT, SIDE = 200, 120, 48


class Colours:
    """Describes a face by its mean colour: 128 numbers of which three say something."""

    def __init__(self) -> None:
        self.faces = 0

    def describe(self, crops: list[np.ndarray]) -> Floats:
        self.faces += len(crops)
        result = np.zeros((len(crops), 128), np.float32)
        for row, crop in zip(result, crops, strict=True):
            row[:3] = 2 * crop[200:320, 200:320].mean((0, 1))
        return result


class Squares:
    """Finds the red and the blue square of a frame."""

    name = "squares"

    def __call__(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        found = []
        for one in (0, 2):
            lit = rgb[..., one].astype(int) - rgb[..., 2 - one] > 90
            ys, xs = np.nonzero(lit)
            if len(xs) > 200:
                x0, x1, y0, y1 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
                points = np.array([x0, y0]) + POINTS * [x1 - x0, y1 - y0]
                found.append(Face((float(x0), float(y0), float(x1), float(y1)), 0.9, points.astype(np.float32)))
        return found


RED = Person(np.pad(2 * np.array([[240, 40, 40]], np.float32) / 255, ((0, 0), (0, 125))), 0.6)


def frame_of(index: int, *, red: int | None = None, blue: int | None = None, grey: int = 90) -> np.ndarray:
    rng = np.random.default_rng(index)
    rgb = rng.integers(grey - 10, grey + 10, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for x, colour in ((red, (240, 40, 40)), (blue, (40, 40, 240))):
        if x is not None:
            rgb[40 : 40 + SIDE, x : x + SIDE] = colour
    return rgb


def two_scenes(folder: Path) -> Path:
    """Red and blue beside each other, a cut, and red where blue was and blue where red was."""
    frames = [frame_of(i, red=20 + i % 3, blue=130) for i in range(12)]
    frames += [frame_of(i, red=130, blue=20 + i % 3, grey=170) for i in range(12, 24)]
    return make_film(folder / "scenes.mp4", frames, crf=1, pix_fmt="yuv444p")


def engine_of(options: Any) -> Any:
    person = RED if options.work.faces.person else None
    return replace(engine_for(options.work), detector=Squares(), recogniser=Colours(), person=person)


def options_of(source: Path, output: Path, *, person: bool = True, **more: Any) -> Any:
    photo = source.with_name("photo.jpg")
    photo.write_bytes(b"red")
    options = options_for(source, output, source, **{"temporal": "codes", **more})
    return replace(options, work=replace(options.work, faces=FaceOptions(person=(photo,) if person else ())))


def pixels(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_one_person_is_restored_on_both_sides_of_a_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = two_scenes(tmp_path)
    options = options_of(source, tmp_path / "out.mkv", codec="ffv1")
    assert run_film(options, Console(), engine_of(options)) is ExitCode.OK
    for index, rgb in enumerate(pixels(tmp_path / "out.mkv")):
        red_at, blue_at = (44, 154) if index < 12 else (154, 44)
        red, blue = rgb[64, red_at].astype(int), rgb[64, blue_at].astype(int)
        assert red[0] < 200, f"frame {index}: the red face is restored, that is inverted"
        assert blue[2] > 200 and blue[0] < 80, f"frame {index}: the blue one is left alone"
    report = json.loads((tmp_path / "out.mkv.json").read_text())
    assert [(t["person"], t["restored"], t["first_frame"]) for t in report["tracks"]] == [
        (1, True, 0),
        (2, False, 0),
        (2, False, 12),
        (1, True, 12),
    ]
    assert all((track["distance"] < 0.6) == track["restored"] for track in report["tracks"])
    assert report["faces"] == 24
    assert "2 of 4 faces that were followed are other people's" in capsys.readouterr().err


def test_without_a_person_tracks_are_numbered_and_all_are_restored(tmp_path: Path) -> None:
    options = options_of(two_scenes(tmp_path), tmp_path / "out.mp4", person=False)
    engine = engine_of(options)
    assert run_film(options, Console(quiet=True), engine) is ExitCode.OK
    report = json.loads((tmp_path / "out.mp4.json").read_text())
    assert [track["person"] for track in report["tracks"]] == [1, 2, 2, 1]
    assert all(track["restored"] and track["distance"] is None for track in report["tracks"])
    assert report["faces"] == 48
    assert engine.recogniser.faces == 4 * 3, "of 12 frames a track is described in the frames 0, 2 and 5"


def test_a_film_without_the_person_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_film(tmp_path / "blue.mp4", [frame_of(i, blue=60) for i in range(8)], pix_fmt="yuv444p")
    options = options_of(source, tmp_path / "out.mp4")
    assert run_film(options, Console(), engine_of(options)) is ExitCode.OK
    said = capsys.readouterr().err
    assert "none of the 1 faces that were followed is the person's (nearest distance" in said
    assert "no face was found in the whole film" not in said


def test_stretches_and_a_resumed_run_give_the_same_film(tmp_path: Path) -> None:
    """What a stretch knows comes from the record of the one before, never from the memory of the run."""
    source = two_scenes(tmp_path)
    whole = options_of(source, tmp_path / "whole.mkv", codec="ffv1", stretch=5, temporal="landmarks")
    run_film(whole, Console(quiet=True), engine_of(whole))
    options = options_of(source, tmp_path / "parts.mkv", codec="ffv1", stretch=5, temporal="landmarks")

    class Stops(Colours):
        def describe(self, crops: list[np.ndarray]) -> Floats:
            if self.faces > 6:
                raise KeyboardInterrupt
            return super().describe(crops)

    stopped = replace(engine_of(options), recogniser=Stops())
    assert run_film(options, Console(quiet=True), stopped) is ExitCode.INTERRUPTED
    assert run_film(options, Console(quiet=True), engine_of(options)) is ExitCode.OK
    for a, b in zip(pixels(tmp_path / "whole.mkv"), pixels(tmp_path / "parts.mkv"), strict=True):
        np.testing.assert_array_equal(a, b)
    reports = [json.loads((tmp_path / name).read_text()) for name in ("whole.mkv.json", "parts.mkv.json")]
    assert reports[0]["tracks"] == reports[1]["tracks"]
    assert [track["person"] for track in reports[0]["tracks"]] == [1, 2, 2, 1]


class Script:
    """Describes the faces of the frames by numbers written down beforehand."""

    def __init__(self, *distances: float) -> None:
        self.distances = list(distances)

    def describe(self, crops: list[np.ndarray]) -> Floats:
        result = np.zeros((len(crops), 128), np.float32)
        for row in result:
            row[0] = self.distances.pop(0)
        return result


def _looked(people: People, frames: range, at: float = 200) -> None:
    for i in frames:
        seen = Seen(Frame(i, i, 1, np.full((300, 400, 3), 90, np.uint8)), (face(at, 150),))
        (item,) = list(with_tracks(distinct([seen]), MODES["off"]))
        people.look(item.seen.frame, i, item.tracked)


def _people(recogniser: Any, first: int, last: int, carried: list[dict[str, Any]] | None = None) -> People:
    return People(recogniser, Person(np.zeros((1, 128), np.float32), 0.6), carried or [], first, last)


def test_one_odd_frame_does_not_change_who_a_track_is() -> None:
    people = _people(Script(0.3, 0.4, 0.9, 1.2), 0, 40)
    _looked(people, range(3))
    assert people.wanted(1)
    _looked(people, range(3, 6))
    assert people.wanted(1), "0.3, 0.4 and 0.9 are 0.53 together"
    _looked(people, range(6, 13))
    assert not people.wanted(1), "but four looks of which two are far are 0.7, and that is beyond the margin"
    assert not people.wanted(2), "nothing is known of it"


def test_a_profile_at_a_border_stays_who_it_was() -> None:
    """The next stretch would see a stranger in its first frames; it knows better from the stretch before."""
    before = _people(Script(*[0.3] * 6), 0, 30)
    _looked(before, range(40))
    (entry,) = before.at_end()
    assert entry["frame"] == 29 and entry["seen"] == 30, "what is known when the stretch's last frame was looked at"
    carried = entries_of(json.loads(json.dumps({"people": [entry]})))
    after = _people(Script(0.9, 0.9), 30, 60, carried)
    _looked(after, range(14, 50))
    assert after.wanted(1)
    fresh = _people(Script(0.9, 0.9, 0.9, 0.9), 30, 60)
    _looked(fresh, range(14, 50))
    assert not fresh.wanted(1)
    elsewhere = _people(Script(0.9, 0.9, 0.9, 0.9), 30, 60, carried)
    _looked(elsewhere, range(14, 50), at=40)
    assert not elsewhere.wanted(1), "a face in another place is not that track"
    cut = _people(Script(0.9, 0.9, 0.9, 0.9), 30, 60, carried)
    cut.new_scene(30)
    _looked(cut, range(30, 50))
    assert not cut.wanted(1), "nor is one after a cut"


@pytest.mark.parametrize("broken", [None, [3], [{"track": 1}], [{"track": 1, "mean": ["x"] * 128}], {"a": 1}])
def test_a_record_of_another_shape_knows_nobody(broken: object) -> None:
    assert entries_of({"people": broken}) == []


def test_tracks_that_are_seen_together_are_two_people_however_alike() -> None:
    same = [0.0] * 128
    other = [1.0, *same[1:]]

    def track(first: int, last: int, mean: list[float]) -> dict[str, Any]:
        return {"first": first, "last": last, "mean": mean, "count": 3}

    tracks = [track(0, 9, same), track(5, 9, same), track(10, 20, other), track(10, 20, same), {"first": 0, "last": 9}]
    assert numbered(tracks) == [1, 2, 3, 1, None]
