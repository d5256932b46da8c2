"""Colours that only LittleCMS understands, converted to sRGB on reading: CMYK, LAB, and profiles with tables."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from codeformer.arrays import Rgb
from codeformer.errors import InputError

# Steps along each side of the table that stands for a profile when a picture has 16 bits; LittleCMS itself works in 8
# bits here, and its own tables have 33 steps at most.
_STEPS = 33
_STRIP = 1 << 18  # pixels at a time


def from_cmyk_or_lab(image: Image.Image, name: str) -> Image.Image:
    """Return a CMYK or LAB picture in sRGB. Raises InputError for LAB that cannot be converted."""
    icc = image.info.get("icc_profile")
    if icc or image.mode == "LAB":
        with suppress(ImageCms.PyCMSError, OSError):
            source: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("LAB")
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    if image.mode == "LAB":
        raise InputError(f"{name}: LAB colours cannot be converted here; convert it to RGB first")
    return image.convert("RGB")


def from_tables(rgb: Rgb, icc: bytes) -> Rgb | None:
    """Return RGB colours (H, W, 3) of a profile with tables in sRGB, of the same dtype; None if it is damaged."""
    steps = np.round(np.linspace(0, 255, _STEPS)).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)  # (33, 33, 33, 3)
    pixels = rgb if rgb.dtype == np.uint8 else grid.reshape(_STEPS, -1, 3)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(Image.fromarray(pixels), source, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        return None
    if converted is None:
        return None
    if rgb.dtype == np.uint8:
        return np.array(converted)
    table = np.asarray(converted, np.float32).reshape(_STEPS, _STEPS, _STEPS, 3) / 255
    return _interpolated(rgb, table, steps.astype(np.float64) / 255)


def _interpolated(rgb: Rgb, table: np.ndarray, steps: np.ndarray) -> Rgb:
    """Trilinear interpolation in a table, (n, n, n, 3) float32 in [0, 1], whose sides lie at ``steps``."""
    out = np.empty_like(rgb)
    top = np.iinfo(rgb.dtype).max
    rows = max(1, _STRIP // rgb.shape[1])
    for first in range(0, rgb.shape[0], rows):
        part = slice(first, first + rows)
        values = rgb[part].astype(np.float64) / top
        low = np.clip(np.searchsorted(steps, values, side="right") - 1, 0, len(steps) - 2)
        share = (values - steps[low]) / (steps[low + 1] - steps[low])
        total = np.zeros(values.shape, np.float64)
        for corner in range(8):
            bits = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
            weight = np.where(bits, share, 1 - share).prod(axis=-1, keepdims=True)
            r, g, b = np.moveaxis(low + bits, -1, 0)
            total += weight * table[r, g, b]
        out[part] = np.rint(np.clip(total, 0, 1) * top).astype(rgb.dtype)
    return out
