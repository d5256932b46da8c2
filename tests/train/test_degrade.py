"""Degradations: what they must do to any face, whatever the draw."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.errors import UsageError
from codeformer.faces.align import TEMPLATE_512
from codeformer.images.colour import LUMA, to_grey
from codeformer.train.degrade import (
    DEGRADATIONS,
    HEAVY,
    MEDIUM,
    Degradation,
    degrade,
    degrade_small,
    for_task,
    gaussian_blur,
    jpeg,
    motion_blur,
    parse_degradation,
)
from codeformer.train.holes import paint_white, random_mask
from codeformer.train.metrics import psnr

SEEDS = st.integers(0, 2**32 - 1)


def pattern(size: int = 128) -> np.ndarray:
    """A coloured picture with edges and smooth parts, (size, size, 3) float32 in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    face = np.stack([0.5 + 0.4 * np.sin(9 * x), y, 0.3 + 0.5 * (np.hypot(x - 0.5, y - 0.5) < 0.3)], axis=2)
    return np.clip(face, 0, 1).astype(np.float32)


FACE = pattern()


@given(SEEDS, st.sampled_from(sorted(DEGRADATIONS)), st.sampled_from([64, 128]))
@settings(max_examples=25, deadline=None)
def test_a_degraded_face_is_a_face_of_the_same_size(seed: int, name: str, size: int) -> None:
    face = pattern(size)
    low = degrade(face, DEGRADATIONS[name], np.random.default_rng(seed))
    assert low.shape == face.shape and low.dtype == np.float32
    assert np.isfinite(low).all() and low.min() >= 0 and low.max() <= 1
    assert np.array_equal(face, pattern(size)), "the sharp face is left as it was"


@given(SEEDS, st.sampled_from(["restore", "colorize", "inpaint"]))
@settings(max_examples=20, deadline=None)
def test_a_sample_depends_on_its_seed_alone(seed: int, task: str) -> None:
    np.random.seed(1)
    one = for_task(task, FACE, HEAVY, np.random.default_rng(seed))
    np.random.seed(2)
    two = for_task(task, FACE, HEAVY, np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    other = for_task(task, FACE, HEAVY, np.random.default_rng((seed, 1)))
    assert not np.array_equal(one[0], other[0])


def test_heavier_is_worse() -> None:
    means = {
        name: np.mean([psnr(degrade(FACE, d, np.random.default_rng(i)), FACE) for i in range(40)])
        for name, d in DEGRADATIONS.items()
    }
    assert means["heavy"] + 1 < means["medium"] < 40


@given(SEEDS, st.floats(1, 16))
@settings(max_examples=20, deadline=None)
def test_downsampling_is_by_the_factor_that_was_asked_for(seed: int, scale: float) -> None:
    only = Degradation(sigma=(0, 0), scale=(scale, scale), noise=(0, 0), quality=(95, 95))
    small = degrade_small(FACE, only, np.random.default_rng(seed))
    assert small.shape == (round(128 / scale), round(128 / scale), 3)


def test_ranges_of_stage_two_and_three_are_the_papers() -> None:
    assert (HEAVY.sigma, HEAVY.scale, HEAVY.noise, HEAVY.quality) == ((1, 15), (4, 30), (0, 20), (30, 80))
    assert (MEDIUM.sigma, MEDIUM.scale, MEDIUM.noise, MEDIUM.quality) == ((0.1, 10), (1, 12), (0, 15), (60, 100))


def test_noise_has_the_standard_deviation_that_was_asked_for() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    only = Degradation(sigma=(0, 0), scale=(1, 1), noise=(20, 20), quality=(100, 100))
    low = degrade(grey, only, np.random.default_rng(0))
    # JPEG halves the resolution of the colours, so the brightness is what tells.
    assert float((low @ LUMA).std()) * 255 == pytest.approx(20 * np.linalg.norm(LUMA), rel=0.05)
    assert abs(float(low.mean()) - 0.5) < 0.01


def test_the_same_blur_at_any_size_of_the_picture() -> None:
    """Ranges are for 512 pixels: a face of a quarter of the size is blurred by a quarter of the pixels."""
    blur = Degradation(sigma=(8, 8), scale=(1, 1), noise=(0, 0), quality=(100, 100), anisotropic=0)
    small = degrade(pattern(128), blur, np.random.default_rng(0))
    large = degrade(pattern(512), blur, np.random.default_rng(0))
    assert psnr(cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA), small) > 35


@given(st.floats(0.2, 12), st.floats(0.2, 12), st.floats(0, np.pi))
@settings(max_examples=25, deadline=None)
def test_blur_keeps_flat_pictures_and_the_mean(sigma_x: float, sigma_y: float, angle: float) -> None:
    flat = np.full((64, 64, 3), 0.3, np.float32)
    assert np.allclose(gaussian_blur(flat, sigma_x, sigma_y, angle), flat, atol=1e-5)
    point = np.zeros((129, 129, 3), np.float32)
    point[60:68, 60:68] = 1
    assert gaussian_blur(point, sigma_x, sigma_y, angle).sum() == pytest.approx(point.sum(), rel=0.02)


def test_an_elongated_blur_is_wider_along_its_angle() -> None:
    point = np.zeros((65, 65, 3), np.float32)
    point[32, 32] = 1
    y, x = np.mgrid[-32:33, -32:33]
    for angle in (0.0, np.pi / 2):
        spot = gaussian_blur(point, 5.0, 1.0, angle)[..., 0]
        wide_x, wide_y = (float((spot * axis**2).sum()) for axis in (x, y))
        assert (wide_x > 4 * wide_y) == (angle == 0.0)
    streak = motion_blur(point, length=20, angle=0.0)[..., 0]
    assert np.count_nonzero(streak.sum(0) > 1e-4) >= 19 and np.count_nonzero(streak.sum(1) > 1e-4) <= 3


def test_lower_jpeg_quality_is_farther_from_the_picture() -> None:
    grain = np.random.default_rng(0).standard_normal((128, 128, 1))
    noisy = np.clip(FACE + 0.1 * grain, 0, 1).astype(np.float32)
    distances = [psnr(jpeg(noisy, quality), noisy) for quality in (10, 50, 95)]
    assert distances == sorted(distances) and distances[0] + 3 < distances[2]


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_mask_is_a_mask(seed: int) -> None:
    mask = random_mask(np.random.default_rng(seed), 128)
    assert mask.shape == (128, 128) and mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}, "something is to be filled, and something to be kept"
    painted = paint_white(FACE, mask)
    assert np.array_equal(painted[mask == 0], FACE[mask == 0]) and (painted[mask == 1] == 1).all()


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_mask_that_shall_cover_a_feature_does_and_is_else_the_same(seed: int) -> None:
    plain, covering = (random_mask(np.random.default_rng(seed), 512, cover) for cover in (0.0, 1.0))
    features = np.array([*TEMPLATE_512[:3], TEMPLATE_512[3:].mean(axis=0)])
    assert any(covering[round(y), round(x)] for x, y in features)
    assert (covering >= plain).all()
    added = np.argwhere(covering > plain)
    assert not added.size or np.ptp(added, axis=0).max() <= 0.28 * 512 + 2, "one ellipse"


def test_masks_cover_a_plausible_part_of_the_face() -> None:
    areas = [float(random_mask(np.random.default_rng(i), 128).mean()) for i in range(200)]
    assert 0.05 < np.median(areas) < 0.3 and max(areas) < 0.8 and np.std(areas) > 0.03


def test_each_task_sees_what_it_is_for() -> None:
    rng = np.random.default_rng(3)
    low, sharp, mask = for_task("colorize", FACE, MEDIUM, rng)
    assert np.allclose(low[..., 0], low[..., 1], atol=2e-2), "no colour is left"
    assert np.array_equal(sharp, FACE) and not mask.any()
    low, sharp, mask = for_task("inpaint", FACE, MEDIUM, rng)
    assert mask.any() and np.array_equal(low[mask == 0], sharp[mask == 0])
    low, sharp, mask = for_task("restore", FACE, Degradation((0, 1), (1, 2), (0, 5), (60, 90), grey=1.0), rng)
    assert np.allclose(sharp, to_grey(FACE)) and np.allclose(low[..., 0], low[..., 2]) and not mask.any()
    with pytest.raises(ValueError, match="unknown task"):
        for_task("paint", FACE, MEDIUM, rng)


def test_ranges_from_a_table_and_what_is_no_range() -> None:
    table = {"sigma": [0, 2], "scale": [1, 4], "noise": [0, 5], "quality": [50, 90], "motion": 0.5}
    assert parse_degradation(table) == Degradation((0, 2), (1, 4), (0, 5), (50, 90), motion=0.5)
    assert parse_degradation("heavy") is HEAVY
    for wrong in ("fierce", {"sigma": [0, 2]}, {**table, "blur": 3}, {**table, "noise": [5, 1]}):
        with pytest.raises(UsageError, match="degradations"):
            parse_degradation(wrong)
