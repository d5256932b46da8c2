"""What lies under transparent pixels is never mixed into those that are to be seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.images.alpha import enlarged, visible
from codeformer.images.picture import Picture, to_uint16

SKIN = (220, 170, 140)


def cut_out(hidden: int = 0, *, deep: bool = False, soft: bool = True) -> Picture:
    """A disc of one colour, with a soft edge, on transparent pixels of another."""
    y, x = np.mgrid[0:48, 0:64]
    far = np.hypot(x - 31, y - 23)
    alpha = np.clip((18 - far) * (64 if soft else 1e6), 0, 255).astype(np.uint8)
    rgb = np.where((alpha > 0)[..., None], np.array(SKIN, np.uint8), np.uint8(hidden))
    return Picture(to_uint16(rgb), to_uint16(alpha)) if deep else Picture(rgb, alpha)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("factor", [0.5, 1.5, 2, 4])
def test_a_cut_out_gets_no_rim(deep: bool, soft: bool, factor: float) -> None:
    picture = enlarged(cut_out(deep=deep, soft=soft), round(64 * factor), round(48 * factor))
    assert picture.alpha is not None
    shown = picture.rgb[picture.alpha > 0].astype(int)
    wanted = np.array(SKIN) * (257 if deep else 1)
    assert np.abs(shown - wanted).max() <= (2 if not deep else 300), "each pixel that is to be seen has the one colour"


def test_what_is_hidden_stays_hidden_and_as_it_was() -> None:
    picture = enlarged(cut_out(hidden=77), 128, 96)
    assert picture.alpha is not None
    assert (picture.rgb[:20, :20] == 77).all() and (picture.alpha[:20, :20] == 0).all()


def test_an_opaque_picture_is_enlarged_as_ever() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    plain = enlarged(Picture(rgb), 60, 40)
    opaque = enlarged(Picture(rgb, np.full((20, 30), 255, np.uint8)), 60, 40)
    np.testing.assert_array_equal(plain.rgb, opaque.rgb)
    assert opaque.alpha is not None and (opaque.alpha == 255).all()
    assert enlarged(Picture(rgb), 30, 20).rgb is rgb
    assert visible(Picture(rgb)) is rgb


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(1, 1), (1, 9), (7, 1), (13, 17), (64, 48)]))
def test_what_is_seen_stays_bit_for_bit_and_the_rest_comes_from_it(seed: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(seed)
    rgb = generator.integers(100, 120, (*size, 3), dtype=np.uint8)
    alpha = generator.choice(np.array([0, 0, 0, 255], np.uint8), size)
    rgb[alpha == 0] = 0
    seen = visible(Picture(rgb, alpha))
    np.testing.assert_array_equal(seen[alpha == 255], rgb[alpha == 255])
    if (alpha == 255).any():
        assert seen.min() >= 99 and seen.max() <= 120, "made up from what is there"


def test_colours_reach_over_wide_transparency() -> None:
    rgb = np.zeros((200, 300, 3), np.uint8)
    alpha = np.zeros((200, 300), np.uint8)
    rgb[90:100, 100:110] = SKIN
    alpha[90:100, 100:110] = 255
    assert np.abs(visible(Picture(rgb, alpha)).astype(int) - SKIN).max() <= 2


def test_an_upsampler_sees_no_hidden_colours() -> None:
    from codeformer.upsampling.upsampler import upsample_picture

    def blurred(rgb: np.ndarray, factor: float, alpha: np.ndarray) -> np.ndarray:
        """As a network mixes what it sees around a pixel."""
        size = (round(rgb.shape[1] * factor), round(rgb.shape[0] * factor))
        large = cv2.GaussianBlur(cv2.resize(rgb, size), (0, 0), 3)
        return np.dstack([large, cv2.resize(alpha, size)])

    result = upsample_picture(cut_out(), blurred, 2)  # type: ignore[arg-type]
    assert result.alpha is not None
    assert np.abs(result.rgb[result.alpha > 0].astype(int) - SKIN).max() <= 2
