"""Pasting crops back: nothing outside the mask changes, no seam at its edge, no aliasing, a defined order."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.faces.align import (
    TEMPLATE_512,
    crop_face,
    crop_scaled,
    face_transform,
    inverse,
    scaled,
    transform_points,
    warp,
)
from codeformer.faces.paste import blended, border_ramp, geometric_mask, paste_faces

MASK = geometric_mask(TEMPLATE_512 / 4, 128)  # for crops of 128 pixels


def similarity(angle: float, scale: float, dx: float, dy: float) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, dx], [s, c, dy]])


def placed(angle: float, scale: float, at: tuple[float, float], size: int = 128) -> np.ndarray:
    """Picture -> crop, with the crop's middle at ``at`` and ``scale`` crop pixels for a picture pixel."""
    matrix = similarity(angle, scale, 0, 0)
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ at
    return matrix


def noise(height: int, width: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype, endpoint=True)


def texture(height: int, width: int) -> np.ndarray:
    """Something like gravel: noise with a grain of a few pixels."""
    grain = cv2.GaussianBlur(noise(height, width, seed=5).astype(np.float32), (0, 0), 1.5)
    return np.clip((grain - grain.mean()) * 3 + 128, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- what stays as it is


@settings(deadline=None, max_examples=30)
@given(
    st.floats(-3.1, 3.1),
    st.floats(0.3, 8),
    st.floats(-40, 200),
    st.floats(-40, 160),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_outside_the_mask_the_picture_is_untouched(angle: float, scale: float, x: float, y: float, dtype: type) -> None:
    rgb = noise(120, 160, dtype)
    before = rgb.copy()
    matrix = placed(angle, scale, (x, y))
    out = paste_faces(rgb, [np.zeros((128, 128, 3), np.float32)], [matrix], [MASK])
    assert out.dtype == dtype and out.shape == rgb.shape
    np.testing.assert_array_equal(rgb, before)
    # Further from the mask's support than a pixel of the coarser grid
    support = cv2.dilate((MASK > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    touched = warp(support.astype(np.float32), inverse(matrix), (160, 120), reflect=False, cubic=False)
    touched = cv2.dilate((touched > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    np.testing.assert_array_equal(out[~touched], rgb[~touched])


def test_no_faces_and_empty_masks_change_nothing() -> None:
    rgb = noise(30, 40, np.uint16)
    for out in (
        paste_faces(rgb, [], [], []),
        paste_faces(rgb, [np.ones((64, 64, 3))], [similarity(0, 1, 0, 0)], [np.zeros((64, 64))]),
        paste_faces(rgb, [np.ones((64, 64, 3))], [similarity(0, 1, 9000, 0)], [np.ones((64, 64))]),
    ):
        np.testing.assert_array_equal(out, rgb)
        assert out is not rgb and not np.shares_memory(out, rgb)


def test_lists_of_different_lengths_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="as many"):
        paste_faces(noise(9, 9), [np.ones((8, 8, 3))], [], [])


# --------------------------------------------------------------------------------------------------- what is pasted


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [0.25, 0.7, 1.0, 1.9, 4.0])
def test_there_and_back(dtype: type, scale: float) -> None:
    """A crop cut from a smooth picture and pasted back unchanged gives the picture, at every size of face."""
    y, x = np.mgrid[0:300, 0:300]
    smooth = 0.5 + 0.3 * np.sin(x / 25) * np.cos(y / 30)
    top = np.iinfo(dtype).max
    rgb = np.rint(np.stack([smooth, 1 - smooth, smooth**2], axis=-1) * top).astype(dtype)
    matrix = placed(0.3, scale, (150.0, 140.0))
    out = paste_faces(rgb, [crop_face(rgb, matrix, 128)], [matrix], [MASK])
    # At the frame the reflection has a crease, which is smoothed where the crop is coarser than the picture
    assert np.abs(out.astype(float) - rgb)[12:-12, 12:-12].max() / top < 0.012


def test_a_face_that_keeps_its_size_and_place_is_copied() -> None:
    rgb, crop = noise(200, 200), noise(128, 128, seed=1)
    out = paste_faces(rgb, [crop / 255.0], [np.array([[1.0, 0, -40], [0, 1.0, -30]])], [np.ones((128, 128))])
    np.testing.assert_array_equal(out[30:158, 40:168], crop)


def test_sixteen_bits_are_kept() -> None:
    rgb = np.full((100, 100, 3), 30_000, np.uint16)
    crop = np.full((64, 64, 3), 30_123 / 65_535, np.float32)
    out = paste_faces(rgb, [crop], [np.array([[1.0, 0, -20], [0, 1.0, -20]])], [np.ones((64, 64), np.float32)])
    assert set(np.unique(out)) == {30_000, 30_123}


def test_values_beyond_the_range_are_cut_not_wrapped() -> None:
    crop = np.full((64, 64, 3), 1.5, np.float32)
    crop[:32] = -0.5
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    out = paste_faces(np.full((64, 64, 3), 100, np.uint8), [crop], [matrix], [np.ones((64, 64))])
    assert out[:30].max() == 0 and out[34:].min() == 255


def test_a_crop_that_shrinks_does_not_alias() -> None:
    """A checkerboard of single pixels, pasted at a third of its size, is grey."""
    crop = np.indices((128, 128)).sum(axis=0) % 2
    crop = np.repeat(crop[..., None], 3, axis=2).astype(np.float32)
    out = paste_faces(np.full((90, 90, 3), 128, np.uint8), [crop], [placed(0.2, 3.3, (45.0, 45.0))], [MASK])
    assert np.abs(out.astype(int) - 128).max() <= 5


def test_larger_crops_and_smaller_masks_fall_on_the_same_place() -> None:
    """A crop upsampled to twice its size, with the mask of the original, is pasted where the original would be."""
    y, x = np.mgrid[0:128, 0:128]
    crop = np.repeat((0.5 + 0.4 * np.sin(x / 9) * np.sin(y / 7))[..., None], 3, axis=2).astype(np.float32)
    large = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_CUBIC)
    rgb, matrix = texture(200, 220), placed(-0.4, 0.9, (110.0, 100.0))
    plain = paste_faces(rgb, [crop], [matrix], [MASK])
    doubled = paste_faces(rgb, [large], [crop_scaled(matrix, 2)], [MASK])
    assert np.abs(plain.astype(int) - doubled).max() <= 4


def test_tiles_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, crop = texture(260, 300), noise(64, 64, seed=2) / 255.0
    mask, matrix = geometric_mask(TEMPLATE_512 / 8, 64), placed(0.5, 0.3, (150.0, 130.0), 64)
    whole = paste_faces(rgb, [crop], [matrix], [mask])
    monkeypatch.setattr("codeformer.faces.paste._TILE", 37)
    np.testing.assert_allclose(paste_faces(rgb, [crop], [matrix], [mask]).astype(int), whole.astype(int), atol=3)


# -------------------------------------------------------------------------------------------------- several faces


def test_the_larger_face_lies_on_top_whatever_the_order() -> None:
    rgb = np.full((200, 300, 3), 128, np.uint8)
    small, large = placed(0, 1.6, (170.0, 100.0)), placed(0, 0.8, (110.0, 100.0))
    black, white = np.zeros((128, 128, 3), np.float32), np.ones((128, 128, 3), np.float32)
    one = paste_faces(rgb, [white, black], [large, small], [MASK, MASK])
    other = paste_faces(rgb, [black, white], [small, large], [MASK, MASK])
    np.testing.assert_array_equal(one, other)
    # Where both masks are full the large one's white is seen, and the small one's black further right
    assert one[100, 145].min() > 240 and one[100, 195].max() < 60


def test_of_equal_faces_the_later_lies_on_top() -> None:
    rgb, matrix = np.full((200, 200, 3), 128, np.uint8), placed(0, 1.0, (100.0, 100.0))
    black, white = np.zeros((128, 128, 3), np.float32), np.ones((128, 128, 3), np.float32)
    assert paste_faces(rgb, [black, white], [matrix, matrix], [MASK, MASK])[100, 100].min() == 255
    assert paste_faces(rgb, [white, black], [matrix, matrix], [MASK, MASK])[100, 100].max() == 0


def test_a_size_is_the_face_in_the_picture_not_the_crop() -> None:
    """An upsampled crop has more pixels, but its face is not larger."""
    rgb = np.full((200, 200, 3), 128, np.uint8)
    matrix = placed(0, 1.0, (100.0, 100.0))
    upsampled = crop_scaled(placed(0, 1.2, (100.0, 100.0)), 2)  # the smaller face in the larger crop
    black, white = np.zeros((128, 128, 3), np.float32), np.ones((256, 256, 3), np.float32)
    assert paste_faces(rgb, [black, white], [matrix, upsampled], [MASK, MASK])[100, 100].max() == 0


def test_what_the_crop_showed_outside_the_frame_does_not_come_in() -> None:
    """Half of the face is outside: its pixels there, the frame's reflection, have no place in the picture."""
    rgb = np.full((100, 100, 3), 90, np.uint8)
    crop = np.full((128, 128, 3), 90 / 255, np.float32)
    crop[:, :60] = 1.0  # left of the frame
    out = paste_faces(rgb, [crop], [np.array([[1.0, 0, 64], [0, 1.0, 10]])], [np.ones((128, 128))])
    np.testing.assert_array_equal(out, rgb)


# ----------------------------------------------------------------------------------------------- the geometric mask


@pytest.mark.parametrize("size", [64, 128, 512, 513])
def test_the_mask_covers_the_face_and_ends_before_the_border(size: int) -> None:
    points = (TEMPLATE_512 + 0.5) * size / 512 - 0.5
    mask = geometric_mask(points, size)
    assert mask.shape == (size, size) and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() == pytest.approx(1, abs=1e-6)
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() == 0
    for x, y in points:
        assert mask[round(y), round(x)] > 0.97
    chin = round(450 * size / 512)
    assert mask[chin, size // 2] > 0.5


@pytest.mark.parametrize(("x", "y"), [(256, 280), (60, 200), (420, 390), (256, 470), (100, 450), (300, 45)])
def test_the_mask_is_an_egg_around_the_template(x: int, y: int) -> None:
    """Its formula in float64, at single places: what float32 makes of it is nearer than 2e-6."""
    across, along = (x - 256) / 214, (y - 280) / (250 if y < 280 else 238)
    across *= 1 + 0.6 * max(along, 0) ** 2
    t = min(max((1 - float(np.hypot(across, along))) / 0.42, 0), 1)
    ramp = [min(min(at, 511 - at) / 32, 1) for at in (x, y)]
    step = [v**3 * (v * (v * 6 - 15) + 10) for v in (t, *ramp)]
    assert geometric_mask(TEMPLATE_512, 512)[y, x] == pytest.approx(step[0] * step[1] * step[2], abs=2e-6)


def test_the_mask_follows_the_landmarks() -> None:
    turned = transform_points(TEMPLATE_512, similarity(0.2, 0.8, 90, -10))
    plain, moved = geometric_mask(TEMPLATE_512, 512), geometric_mask(turned, 512)
    expected = warp(plain, similarity(0.2, 0.8, 90, -10), (512, 512), reflect=False)
    inner = border_ramp(512) == 1
    assert np.abs(moved - expected)[inner].max() < 0.06


def test_the_mask_has_no_steep_place() -> None:
    """From 0 to 1 it needs a seventh of the crop (its steepest place is 1.875 times the mean): a step is a seam."""
    mask = geometric_mask(TEMPLATE_512, 512)
    gy, gx = np.gradient(mask.astype(np.float64))
    assert np.hypot(gx, gy).max() < 1.875 / (512 / 7)
    # And no corner: the second difference stays small too, as for the box that a border's cut would leave
    assert np.abs(np.diff(mask, 2, axis=0)).max() < 0.002 and np.abs(np.diff(mask, 2, axis=1)).max() < 0.002


@pytest.mark.parametrize("change", ["brighter", "softer"])
def test_no_step_across_the_masks_edge_on_a_texture(change: str) -> None:
    """The step along the mask's contours, against the same measure across contours of the same shape elsewhere.

    A hard-edged paste of the same crop fails both bounds by far, which the last lines show.
    """
    rgb = texture(700, 700)
    matrix = np.array([[1.0, 0, -94], [0, 1.0, -94]])
    crop = crop_face(rgb, matrix)
    altered = crop + 0.06 if change == "brighter" else cv2.GaussianBlur(crop, (0, 0), 2)
    mask = geometric_mask(TEMPLATE_512, 512)
    hard = (mask > 0.5).astype(np.float32)
    soft_step = max(_step(paste_faces(rgb, [altered], [matrix], [mask]), rgb, mask, level) for level in (0.1, 0.5, 0.9))
    hard_step = _step(paste_faces(rgb, [altered], [matrix], [hard]), rgb, mask, 0.5)
    assert soft_step < 0.25 * hard_step


def _step(out: np.ndarray, rgb: np.ndarray, mask: np.ndarray, level: float) -> float:
    """How much the change differs between the two sides of a contour, bands of five pixels, in 8-bit values."""
    change = out[94:606, 94:606].astype(np.float64).mean(axis=2) - rgb[94:606, 94:606].astype(np.float64).mean(axis=2)
    distance = cv2.distanceTransform((mask > level).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance -= cv2.distanceTransform((mask <= level).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside, outside = (distance > 0) & (distance <= 5), (distance < 0) & (distance >= -5)
    brightness = abs(change[inside].mean() - change[outside].mean())
    texture_step = abs(np.abs(change[inside]).mean() - np.abs(change[outside]).mean())
    return float(max(brightness, texture_step))


def test_the_whole_way_on_an_enlarged_picture() -> None:
    """Landmarks of a small picture, its crop, and the paste into the picture enlarged 2.5 times: nothing moves."""
    y, x = np.mgrid[0:160, 0:200]
    blob = np.exp(-((x - 97.3) ** 2 + (y - 81.8) ** 2) / (2 * 9.0**2))
    rgb = np.repeat((40 + 160 * blob)[..., None], 3, axis=2).astype(np.uint8)
    landmarks = (TEMPLATE_512 - 256) / 5 + (97.3, 75.0)
    matrix = face_transform(landmarks)
    crop = crop_face(rgb, matrix)
    large = cv2.resize(rgb, (500, 400), interpolation=cv2.INTER_CUBIC)
    out = paste_faces(large, [crop], [scaled(matrix, 2.5)], [geometric_mask(TEMPLATE_512, 512)])
    assert np.abs(out.astype(int) - large).max() <= 3


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1), st.sampled_from([np.uint8, np.uint16]))
def test_a_blend_is_the_rounded_mean_with_its_ends_exact(strength: float, dtype: type) -> None:
    before, after = noise(300, 5, dtype, seed=1), noise(300, 5, dtype, seed=2)
    after[:40] = before[:40]
    got = blended(before, after, strength)
    exact = before * (1 - strength) + after * strength
    assert got.dtype == dtype and np.abs(got - exact).max() <= 0.51
    assert (got[:40] == before[:40]).all()
    assert (blended(before, after, 0.0) == before).all() and (blended(before, after, 1.0) == after).all()
