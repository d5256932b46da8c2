"""Crops for the small network of the tests."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def crop(seed: int) -> bytes:
    """A PNG of 64 x 64 pixels, as the small network takes faces."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
