"""Brightness and colour apart: identities that must hold for every picture."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codeformer.images import colour

pictures = arrays(np.float32, (8, 8, 3), elements=st.floats(0, 1, width=32))
few = settings(max_examples=50, deadline=None)


def portrait(size: int = 128, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture (size, size, 3) float32 whose colour does not follow its brightness."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (6, 6, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)


def sepia(rgb: np.ndarray) -> np.ndarray:
    return np.clip(colour.to_grey(rgb) * np.array([1.07, 0.9, 0.7], np.float32), 0, 1)


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", np.round(rgb[..., ::-1] * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


def test_luma_of_the_primaries_is_bt601():
    assert np.allclose(colour.luma(np.eye(3, dtype=np.float32)[None]), [[0.299, 0.587, 0.114]])
    assert np.allclose(colour.to_ycc(np.array([[[0, 0, 1.0]]], np.float32))[0, 0], [0.114, 0.5, -0.0813124], atol=1e-6)


@few
@given(pictures)
def test_luma_and_chroma_are_bt601s(rgb):
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    assert np.allclose(colour.to_ycc(rgb), rgb @ matrix.T, atol=2e-6)


@few
@given(pictures, pictures)
def test_keep_luma_keeps_the_brightness_and_stays_a_picture(original, coloured):
    kept = colour.keep_luma(original, coloured)
    assert np.abs(colour.luma(kept) - colour.luma(original)).max() < 1e-5
    assert kept.min() >= 0 and kept.max() <= 1 and kept.dtype == np.float32


@few
@given(pictures, pictures)
def test_keep_luma_never_turns_the_hue(original, coloured):
    kept, wanted = colour.to_ycc(colour.keep_luma(original, coloured))[..., 1:], colour.to_ycc(coloured)[..., 1:]
    cross = kept[..., 0] * wanted[..., 1] - kept[..., 1] * wanted[..., 0]
    assert np.abs(cross).max() < 1e-5
    assert (np.linalg.norm(kept, axis=-1) <= np.linalg.norm(wanted, axis=-1) + 1e-5).all()


def test_keep_luma_of_itself_changes_nothing():
    rgb = portrait()
    assert np.allclose(colour.keep_luma(rgb, rgb), rgb, atol=1e-5)


@few
@given(pictures)
def test_grey_has_three_equal_channels(rgb):
    grey = colour.to_grey(rgb)
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 1] == grey[..., 2]).all()
    assert np.allclose(grey[..., 0], colour.luma(rgb))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_keep_luma_of_changes_touches_nothing_else(dtype):
    top = np.iinfo(dtype).max
    before, after = (np.round(portrait(40, seed) * top).astype(dtype) for seed in (5, 6))
    after[:10], after[:, 30:] = before[:10], before[:, 30:]
    kept = colour.keep_luma_of_changes(before, after)
    assert (
        kept.dtype == dtype and np.array_equal(kept[:10], before[:10]) and np.array_equal(kept[:, 30:], before[:, 30:])
    )
    old, new = (colour.luma(one.astype(np.float32) / top) for one in (before, kept))
    assert np.abs(old - new).max() < 1.0 / top
    assert (kept[10:, :30] != before[10:, :30]).any(axis=-1).mean() > 0.9
    assert colour.keep_luma_of_changes(before, before) is before


def test_strength_goes_from_the_pictures_own_colour_to_all_of_the_new_one():
    original, coloured = sepia(portrait(seed=1)), 0.25 + 0.5 * portrait(seed=2)
    assert colour.mix_chroma(original, coloured, 1.0) is coloured
    none = colour.to_ycc(colour.mix_chroma(colour.to_grey(original), coloured, 0.0))
    assert np.abs(none[..., 1:]).max() < 1e-6
    assert np.allclose(none[..., 0], colour.luma(coloured), atol=1e-5)
    amounts = [
        np.linalg.norm(colour.to_ycc(colour.mix_chroma(colour.to_grey(original), coloured, s))[..., 1:], axis=-1).mean()
        for s in (0.0, 0.25, 0.5, 1.0)
    ]
    assert np.allclose(np.array(amounts) / amounts[-1], [0, 0.25, 0.5, 1], atol=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_kinds_of_pictures(seed):
    rgb = portrait(seed=seed)
    grey = colour.to_grey(rgb)
    noise = np.random.default_rng(seed).normal(0, 0.03, rgb.shape).astype(np.float32)
    assert colour.kind_of(rgb) == "colour"
    assert colour.kind_of(jpeg(rgb, 40)) == "colour"
    assert colour.kind_of(0.5 * rgb + 0.5 * grey) == "colour"
    assert colour.kind_of(np.round(rgb * 255).astype(np.uint8)) == "colour"
    assert colour.kind_of(np.round(sepia(rgb) * 65535).astype(np.uint16)) == "toned"
    assert colour.kind_of(grey) == "grey" and colour.is_grey(jpeg(grey, 30))
    assert colour.kind_of(sepia(rgb)) == "toned"
    assert colour.kind_of(np.clip(sepia(rgb) + noise, 0, 1)) == "toned"


@few
@given(pictures)
def test_the_network_always_sees_grey(rgb):
    seen = colour.before_colorizing(rgb)
    assert seen.shape == rgb.shape and seen.dtype == np.float32
    assert seen.min() >= 0 and seen.max() <= 1
    assert np.ptp(seen, axis=-1).max() == 0


def test_a_faded_picture_is_spread_and_comes_back_as_faded():
    faded = 0.2 + 0.6 * portrait()
    seen = colour.before_colorizing(faded)
    assert np.percentile(seen, 1) < 0.1 and np.percentile(seen, 99) > 0.9
    back = colour.after_colorizing(faded, seen)
    inside = (seen > 0) & (seen < 1)
    assert np.allclose(back[inside], colour.to_grey(faded)[inside], atol=1e-5)


def test_a_full_range_picture_is_left_as_bright_as_it_is():
    rgb = portrait()
    assert np.array_equal(colour.before_colorizing(rgb), colour.to_grey(rgb))
    assert np.array_equal(colour.after_colorizing(rgb, rgb), rgb)


def test_a_flat_picture_is_not_blown_up():
    flat = np.full((16, 16, 3), 0.5, np.float32)
    flat[::2] += 0.01
    assert np.ptp(colour.before_colorizing(flat)) < 0.04


def test_after_colorizing_with_the_crops_luma():
    crop, result = colour.to_grey(portrait(seed=3)), portrait(seed=4)
    kept = colour.after_colorizing(crop, result, luma_of_crop=True)
    assert np.allclose(colour.luma(kept), crop[..., 0], atol=1e-5)
    weak = colour.after_colorizing(crop, result, luma_of_crop=True, strength=0.0)
    assert np.allclose(weak, crop, atol=1e-5)
