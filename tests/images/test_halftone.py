"""Prints in dots are known by their spectrum, and photographs, blocks of JPEG and bricks are none."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from codeformer.images.halftone import halftone_of


def screened(rgb: np.ndarray, period: float, angle: float) -> np.ndarray:
    """A photograph as a press prints it: dots of one size each, and a scanner's blur."""
    y = np.asarray(Image.fromarray(rgb).convert("L"), np.float32) / 255
    rows, columns = np.mgrid[0 : y.shape[0], 0 : y.shape[1]] * 2 * np.pi / period
    u = columns * np.cos(angle) + rows * np.sin(angle)
    v = rows * np.cos(angle) - columns * np.sin(angle)
    dots = np.clip((y - (np.cos(u) + np.cos(v)) / 4 - 0.5) * 4 + 0.5, 0, 1) * 255
    return np.repeat(cv2.GaussianBlur(dots.astype(np.float32), (0, 0), 0.7)[..., None], 3, axis=2).astype(np.uint8)


def as_jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.mark.parametrize("period", [3.0, 4.2, 6.0, 6.7])
@pytest.mark.parametrize("angle", [0.26, np.pi / 4, 1.3])
def test_screens_are_found(astronaut: np.ndarray, period: float, angle: float) -> None:
    print_ = screened(astronaut, period, angle)
    assert halftone_of(print_) == pytest.approx(period, rel=0.1)
    assert halftone_of(as_jpeg(print_, 75)) == pytest.approx(period, rel=0.1)
    assert halftone_of(print_.astype(np.uint16) * 257) == pytest.approx(period, rel=0.1)
    assert halftone_of(print_[:200, :200]) is not None


def test_photographs_are_none(astronaut: np.ndarray) -> None:
    from skimage import data

    for rgb in (astronaut, data.chelsea(), data.coffee(), data.rocket()):
        for quality in (95, 40, 10):
            assert halftone_of(as_jpeg(rgb, quality)) is None
    for grey in (data.brick(), data.grass(), data.gravel(), data.camera(), data.text()):
        assert halftone_of(np.repeat(grey[..., None], 3, axis=2)) is None
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    assert halftone_of(noise) is None
    assert halftone_of(np.zeros((10, 10, 3), np.uint8)) is None
    assert halftone_of(np.zeros((100, 100, 3), np.uint8)) is None
    assert halftone_of(np.repeat(astronaut, 8, axis=0)[::2].repeat(4, axis=1)) is None, "enlarged pixels"
