"""Tracks, landmarks and codes over time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.faces.align import TEMPLATE_512
from codeformer.faces.find import Face
from codeformer.video.segment import MODES, Seen, distinct, with_tracks
from codeformer.video.source import Frame
from codeformer.video.summary import join_tracks
from codeformer.video.temporal import Look, Vote, alikeness, average_logits, steady_crop
from codeformer.video.tracking import associate, follow, smooth_landmarks

SHAPE = (TEMPLATE_512 - TEMPLATE_512.mean(axis=0)) / 4


def face(x: float, y: float, noise: np.ndarray | float = 0.0) -> Face:
    points = SHAPE + np.array([x, y]) + noise
    return Face((x - 50, y - 60, x + 50, y + 60), 0.9, points.astype(np.float32))


def seen(index: int, faces: list[Face], shade: int = 90) -> Seen:
    return Seen(Frame(index, index, 1, np.full((36, 64, 3), shade, np.uint8)), tuple(faces))


def test_two_faces_that_move_keep_their_tracks() -> None:
    frames = [
        seen(i, sorted([face(100 + 6 * i, 100), face(500 - 5 * i, 120)], key=lambda f: f.centre)) for i in range(30)
    ]
    items = list(with_tracks(distinct(frames), MODES["auto"]))
    by_side = {(t.track, bool(t.face.centre[1] < 110)) for item in items for t in item.tracked}
    assert by_side == {(1, True), (2, False)}
    assert all(len(item.tracked) == 2 for item in items)


def test_short_gaps_are_bridged_on_the_way_and_long_ones_are_not() -> None:
    missing = {10, 11, 12, *range(20, 28)}
    frames = [seen(i, [] if i in missing else [face(100 + 4 * i, 100)]) for i in range(36)]
    items = list(with_tracks(distinct(frames), MODES["auto"]))
    assert [bool(item.tracked) for item in items] == [i not in range(20, 28) for i in range(36)]
    for i in (10, 11, 12):
        assert items[i].tracked[0].found is None
        assert np.allclose(items[i].tracked[0].face.landmarks.mean(axis=0), (100 + 4 * i, 100), atol=0.5)
    assert items[15].tracked[0].track == items[5].tracked[0].track != items[30].tracked[0].track


def test_a_cut_ends_a_track_also_where_the_next_face_has_the_same_place() -> None:
    frames = [seen(i, [face(200, 100)], shade=60 if i < 12 else 200) for i in range(24)]
    items = list(with_tracks(distinct(frames), MODES["auto"]))
    assert [item.tracked[0].track for item in items] == [1] * 12 + [2] * 12


def test_off_leaves_what_was_detected() -> None:
    rng = np.random.default_rng(0)
    faces = [face(200, 100, rng.normal(0, 2, (5, 2))) for _ in range(10)]
    items = list(with_tracks(distinct([seen(i, [f]) for i, f in enumerate(faces)]), MODES["off"]))
    assert all(
        np.array_equal(item.tracked[0].face.landmarks, f.landmarks) for item, f in zip(items, faces, strict=True)
    )


def test_equal_frames_become_one() -> None:
    frames = [seen(i, []) for i in range(6)]
    doubled = [
        Seen(Frame(s.frame.index, s.frame.pts, 1, s.frame.rgb, same=i % 2 == 1), ()) for i, s in enumerate(frames)
    ]
    items = list(distinct(doubled))
    assert [len(item.repeats) for item in items] == [1, 1, 1]


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.floats(-50, 50)] * 2),
    st.tuples(*[st.floats(-8, 8)] * 2),
    st.tuples(*[st.floats(-1, 1)] * 2),
    st.integers(0, 12),
)
def test_smoothing_has_no_lag(
    place: tuple[float, ...], speed: tuple[float, ...], bend: tuple[float, ...], at: int
) -> None:
    time = np.arange(13)
    path = np.array(place) + time[:, None] * speed + 0.5 * time[:, None] ** 2 * np.array(bend)
    points = SHAPE[None] + path[:, None]
    assert np.abs(smooth_landmarks(points, time, at, 6) - points[at]).max() < 1e-3 * max(
        1.0, float(np.abs(points).max())
    )


def test_smoothing_halves_the_jitter_and_ignores_an_outlier() -> None:
    rng = np.random.default_rng(1)
    clean = SHAPE[None] + np.stack([np.linspace(0, 40, 60), np.zeros(60)], axis=1)[:, None]
    noisy = clean + rng.normal(0, 1, clean.shape)
    noisy[30] += 25
    time = np.arange(60)
    smooth = np.stack([smooth_landmarks(noisy, time, t, 6) for t in time])
    inner = np.r_[6:27, 34:54]
    assert (smooth - clean)[inner].std() < 0.55
    assert np.abs(smooth[30] - clean[30]).max() < 3


def test_a_face_goes_to_the_nearest_trail_only() -> None:
    trails = [follow(None, 1, face(100, 100), 0), follow(None, 2, face(160, 100), 0)]
    assert associate(trails, [face(155, 100), face(104, 100)], 1) == {0: 1, 1: 0}
    assert associate(trails, [face(400, 100)], 1) == {}


def _noisy_crops(size: int = 256, sigma: float = 0.04) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.random((size, size, 3)).astype(np.float32), (0, 0), 5)
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return picture, [np.clip(picture + rng.normal(0, sigma, picture.shape), 0, 1).astype(np.float32) for _ in range(5)]


def _steady(crop: np.ndarray, neighbours: list[np.ndarray]) -> np.ndarray:
    return steady_crop(Look(crop), [Look(one) for one in neighbours])


def test_neighbours_take_the_noise_away() -> None:
    clean, noisy = _noisy_crops()
    before = np.square(noisy[0] - clean).mean()
    after = np.square(_steady(noisy[0], noisy[1:]) - clean).mean()
    assert after < 0.35 * before  # a fifth would be the mean of five


def test_a_moved_neighbour_is_laid_over() -> None:
    clean, noisy = _noisy_crops()
    shift = np.float32([[1, 0, 2.6], [0, 1, -1.8]])
    others = [cv2.warpAffine(n, shift, (256, 256), borderMode=cv2.BORDER_REFLECT) for n in noisy[1:]]
    before = np.square(noisy[0] - clean)[30:-30, 30:-30].mean()
    assert np.square(_steady(noisy[0], others) - clean)[30:-30, 30:-30].mean() < 0.6 * before


def test_what_changes_stays_sharp() -> None:
    clean, noisy = _noisy_crops(sigma=0.02)
    others = [n.copy() for n in noisy[1:]]
    for other in others:
        other[100:140, 60:180] = 0.05  # eyes that are closed in all the neighbours
    result = _steady(noisy[0], others)
    assert np.abs(result - clean)[105:135, 65:175].mean() < 0.03


def test_codes_are_the_likeliest_over_time() -> None:
    logits = torch.zeros(5, 4, 8)
    logits[:, :, 3] = 2.0
    logits[2, :, 6] = 3.0  # one frame thinks otherwise
    average = average_logits([Vote(one) for one in logits], [1.0] * 5)
    assert average.argmax(-1).tolist() == [3] * 4
    assert average_logits([Vote(logits[2])], [1.0]).argmax(-1).tolist() == [6] * 4


def test_codes_of_another_looking_face_count_little() -> None:
    _, noisy = _noisy_crops()
    one, alike, other = Look(noisy[0]), Look(noisy[1]), Look(1 - noisy[0])
    assert alikeness(one, alike) > 0.9 > 0.2 > alikeness(one, other)


def test_tracks_are_joined_across_stretches() -> None:
    def entry(track: int, first: int, last: int, x: float) -> dict[str, object]:
        return {
            "track": track, "first": first, "last": last, "frames": last - first + 1, "score": 0.9 * (last - first + 1),
            "box": [x - 20, 0, x + 20, 40], "at": [x, 20], "end": [x + 2, 20], "size": 40,
        }  # fmt: skip

    stretches = [
        {"frames": 10, "tracks": [entry(1, 0, 9, 50), entry(2, 3, 6, 200)]},
        {"frames": 10, "tracks": [entry(1, 10, 19, 54), entry(2, 10, 12, 300)]},
    ]
    joined = join_tracks(stretches)
    assert [(t["track"], t["first_frame"], t["last_frame"], t["frames"]) for t in joined] == [
        (1, 0, 19, 20),
        (2, 3, 6, 4),
        (3, 10, 12, 3),
    ]
    assert joined[0]["mean_score"] == pytest.approx(0.9)
