"""The similarity to the template, and sampling in both directions."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.errors import InputError
from codeformer.faces.align import (
    TEMPLATE_512,
    _rectangle,
    crop_face,
    crop_mask,
    crop_scaled,
    face_transform,
    inverse,
    mean_scale,
    scaled,
    transform_points,
    warp,
)
from codeformer.images.blend import reflected

IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
ANGLE = st.floats(-3.1, 3.1)
SCALE = st.floats(0.02, 50)
SHIFT = st.floats(-20_000, 20_000)


def similarity(angle: float, scale: float, dx: float, dy: float) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, dx], [s, c, dy]])


def smooth_picture(height: int, width: int, wave: float = 40.0, dtype: type = np.uint8) -> np.ndarray:
    """A picture that is known between its pixels too: sums of slow sines."""
    y, x = np.mgrid[0:height, 0:width]
    value = np.stack([smooth_value(x, y, wave, k) for k in range(3)], axis=-1)
    return np.rint(value * np.iinfo(dtype).max).astype(dtype)


def smooth_value(x: np.ndarray, y: np.ndarray, wave: float, channel: int) -> np.ndarray:
    return 0.5 + 0.2 * np.sin(2 * np.pi * (x / wave + channel / 3)) + 0.2 * np.cos(2 * np.pi * (y / wave - channel / 5))


# ------------------------------------------------------------------------------------------------- the transform


@given(ANGLE, SCALE, SHIFT, SHIFT)
def test_a_moved_template_is_brought_back_exactly(angle: float, scale: float, dx: float, dy: float) -> None:
    moved = transform_points(TEMPLATE_512, similarity(angle, scale, dx, dy))
    np.testing.assert_allclose(transform_points(moved, face_transform(moved)), TEMPLATE_512, atol=2e-3)


@given(ANGLE, SCALE, SHIFT, SHIFT, st.integers(0, 2**32 - 1))
def test_the_crop_does_not_depend_on_where_how_large_and_how_turned_the_face_is(
    angle: float, scale: float, dx: float, dy: float, seed: int
) -> None:
    landmarks = TEMPLATE_512 + np.random.default_rng(seed).normal(0, 6, (5, 2))
    moving = similarity(angle, scale, dx, dy)
    here, there = face_transform(landmarks), face_transform(transform_points(landmarks, moving))
    grid = np.array([[0.0, 0], [511, 0], [0, 511], [511, 511], [256, 256]])
    in_crop = transform_points(grid, here)
    # Least median of squares may choose otherwise at a tie: the two choices are both within the noise
    np.testing.assert_allclose(transform_points(transform_points(grid, moving), there), in_crop, atol=30)


def test_one_wild_landmark_does_not_tilt_the_face() -> None:
    landmarks = TEMPLATE_512.copy()
    landmarks[2] += (60, -40)
    np.testing.assert_allclose(face_transform(landmarks), IDENTITY, atol=1e-2)


def test_least_squares_takes_over_where_lmeds_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = TEMPLATE_512 * 0.3 + 50 + np.random.default_rng(3).normal(0, 1, (5, 2))
    expected = face_transform(noisy)
    monkeypatch.setattr(cv2, "estimateAffinePartial2D", lambda *a, **k: (None, None))
    found = face_transform(noisy)
    # A similarity, near the other one, and no worse than any neighbour in the sum of squares
    assert found[0, 0] == pytest.approx(found[1, 1]) and found[0, 1] == pytest.approx(-found[1, 0])
    np.testing.assert_allclose(transform_points(noisy, found), transform_points(noisy, expected), atol=15)
    best = np.sum((transform_points(noisy, found) - TEMPLATE_512) ** 2)
    for step in (1e-3, -1e-3):
        for a, b in ((step, 0), (0, step)):
            near = found + np.array([[a, -b, 0], [b, a, 0]])
            assert np.sum((transform_points(noisy, near) - TEMPLATE_512) ** 2) > best


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 7.0),
        np.zeros((5, 2)),
        np.where(np.eye(5, 2) > 0, np.nan, TEMPLATE_512),
        np.where(np.eye(5, 2) > 0, np.inf, TEMPLATE_512),
        TEMPLATE_512[:4],
        np.full((5, 2), 1e30) + np.eye(5, 2),
    ],
)
def test_landmarks_of_no_face_are_refused_in_one_line(landmarks: np.ndarray) -> None:
    with pytest.raises(InputError) as refusal:
        face_transform(landmarks)
    assert "\n" not in str(refusal.value)


@given(st.integers(64, 1024))
def test_another_crop_size_is_the_same_crop_resized(size: int) -> None:
    landmarks = TEMPLATE_512 * 0.7 + 31
    np.testing.assert_allclose(
        face_transform(landmarks, size), crop_scaled(face_transform(landmarks), size / 512), atol=1e-9
    )


@given(ANGLE, st.floats(0.1, 10), SHIFT, SHIFT, st.floats(0.3, 5), st.floats(0.3, 5))
def test_scaled_follows_pixel_centres(angle: float, s: float, dx: float, dy: float, fx: float, fy: float) -> None:
    matrix = similarity(angle, s, dx, dy)
    points = np.array([[0.0, 0.0], [100.0, 30.0], [-5.0, 77.0]])
    resized = (points + 0.5) * (fx, fy) - 0.5
    np.testing.assert_allclose(
        transform_points(resized, scaled(matrix, (fx, fy))), transform_points(points, matrix), rtol=1e-9, atol=1e-6
    )
    np.testing.assert_allclose(scaled(matrix, fx), scaled(matrix, (fx, fx)))


@given(ANGLE, SCALE, SHIFT, SHIFT)
def test_inverse_undoes(angle: float, scale: float, dx: float, dy: float) -> None:
    matrix = similarity(angle, scale, dx, dy)
    points = np.array([[0.0, 0.0], [512.0, 0.0], [13.0, 400.0]])
    np.testing.assert_allclose(transform_points(transform_points(points, matrix), inverse(matrix)), points, atol=1e-6)
    assert mean_scale([matrix])[0] == pytest.approx(scale)


# -------------------------------------------------------------------------------------------------- the sampling


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_whole_shift_copies_pixels(dtype: type) -> None:
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (70, 90, 3), dtype=dtype, endpoint=True)
    crop = crop_face(picture, np.array([[1.0, 0, -13], [0, 1.0, -5]]), 48)
    assert crop.shape == (48, 48, 3) and crop.dtype == np.float32
    np.testing.assert_array_equal(np.rint(crop * np.iinfo(dtype).max), picture[5:53, 13:61])


@settings(deadline=None, max_examples=40)
@given(ANGLE, st.floats(0.15, 12), st.floats(20, 80), st.floats(20, 80))
def test_the_crop_shows_what_is_there_at_every_scale(angle: float, scale: float, x: float, y: float) -> None:
    """On a picture that is known everywhere the crop's values are the ones of the places that the matrix names."""
    wave, size, (height, width) = 60.0, 32, (300, 320)
    picture = smooth_picture(height, width, wave, np.uint16)
    matrix = similarity(angle, scale, 0, 0)
    matrix[:, 2] = size / 2 - matrix[:, :2] @ (x + 100, y + 80)
    crop = crop_face(picture, matrix, size)
    ys, xs = np.mgrid[0:size, 0:size]
    places = transform_points(np.stack([xs.ravel(), ys.ravel()], axis=1), inverse(matrix))
    inside = np.all((places > 12) & (places < (width - 13, height - 13)), axis=1)
    expected = np.stack([smooth_value(places[:, 0], places[:, 1], wave, k) for k in range(3)], axis=-1)
    # Shrinking averages: at 1/0.15 pixels of a wave of 60 that costs some of the amplitude
    tolerance = 0.004 if scale > 0.5 else 0.04
    assert np.abs(crop.reshape(-1, 3) - expected)[inside].max(initial=0.0) < tolerance


@pytest.mark.parametrize("scale", [0.51, 0.5, 0.34, 0.2, 0.07])
def test_shrinking_does_not_alias(scale: float) -> None:
    """Stripes finer than a crop's pixel become grey, not a moiré."""
    stripes = np.where(np.arange(1200) // max(1, round(0.5 / scale)) % 2, 255, 0).astype(np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(stripes[None, :, None], (1200, 1200, 3)))
    turned = similarity(0.3, scale, 0, 0)
    turned[:, 2] = 30 - turned[:, :2] @ (600, 600)
    crop = crop_face(picture, turned, 60)
    assert crop.std() < 0.03  # nearest or bilinear sampling gives 0.3
    assert crop.mean() == pytest.approx(0.5, abs=0.02)


def test_outside_the_frame_is_the_reflection() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    crop = crop_face(picture, np.array([[1.0, 0, 100], [0, 1.0, 70]]), 256)
    expected = np.pad(picture, ((70, 256 - 70 - 40), (100, 256 - 100 - 50), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(np.rint(crop * 255), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (3, 5)])
@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_a_face_larger_than_its_picture(shape: tuple[int, int], scale: float) -> None:
    picture = np.full((*shape, 3), 77, dtype=np.uint8)
    crop = crop_face(picture, similarity(0.4, scale, -5, 9), 64)
    np.testing.assert_allclose(crop, 77 / 255, atol=1e-5)


def test_landmarks_that_span_an_absurd_area_are_refused() -> None:
    with pytest.raises(InputError):
        crop_face(np.zeros((10, 10, 3), np.uint8), similarity(0, 1e-4, 0, 0), 512)
    with pytest.raises(InputError):
        crop_face(np.zeros((10, 10, 3), np.uint8), np.full((2, 3), np.nan), 512)


def test_a_large_picture_is_not_converted_whole() -> None:
    """A picture of 90 million pixels that is only an index into 9000 bytes: converting it would take a gigabyte."""
    import tracemalloc

    row = np.random.default_rng(2).integers(0, 256, (9000, 3), dtype=np.uint8)
    picture = np.broadcast_to(row, (10_000, 9000, 3))
    tracemalloc.start()
    crop_face(picture, similarity(0.2, 2.0, -9000, -9000), 512)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000


def test_a_mask_is_nothing_outside_the_frame_and_keeps_its_range() -> None:
    shift = np.array([[1.0, 0, 20], [0, 1.0, 10]])
    for mask in (np.ones((30, 40), bool), np.full((30, 40), 255, np.uint8), np.ones((30, 40), np.float32)):
        found = crop_mask(mask, shift, 64)
        assert found.shape == (64, 64) and found.dtype == np.float32
        np.testing.assert_allclose(found[10:40, 20:60], 1.0)
        assert found.sum() == pytest.approx(30 * 40)
    soft = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(64, 0)
    np.testing.assert_allclose(crop_mask(soft, IDENTITY, 64), soft, atol=1e-6)


def test_enlarging_is_even_between_pixels() -> None:
    """A ramp stays a ramp: no steps of the interpolation's table, at ten pixels for one."""
    ramp = np.broadcast_to(np.arange(0, 65_000, 1000, dtype=np.uint16)[None, :, None], (65, 65, 3))
    crop = warp(np.ascontiguousarray(ramp), similarity(0, 10.0, -200, -200), (200, 200)) * 65_535
    steps = np.diff(crop[100, :, 0])
    assert steps.min() > 90 and steps.max() < 110


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.sampled_from([np.uint8, np.uint16, np.float32, np.bool_]),
    st.booleans(),
)
def test_a_rectangle_may_stick_out_of_the_picture_by_any_length(
    shape: tuple[int, int], origin: tuple[int, int], size: tuple[int, int], dtype: type, reflect: bool
) -> None:
    (height, width), (x, y), (columns, rows) = shape, origin, size
    source = (
        np.random.default_rng(height * width).integers(0, 2 if dtype is np.bool_ else 99, (*shape, 3)).astype(dtype)
    )
    down, across = np.arange(y, y + rows), np.arange(x, x + columns)
    expected = source[reflected(down, height)[:, None], reflected(across, width)]
    if not reflect:
        expected[(down < 0) | (down >= height)] = 0
        expected[:, (across < 0) | (across >= width)] = 0
    found = _rectangle(source, origin, size, reflect)
    np.testing.assert_array_equal(found, expected)
    inside = min(x, y) >= 0 and x + columns <= width and y + rows <= height
    assert np.shares_memory(found, source) == inside, "only what sticks out is copied"
