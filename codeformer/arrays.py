"""One alias for each kind of array, so that a signature says what is in it.

The aliases are for the reader: they all are NumPy arrays. Coordinates are (x, y) with the centre of the first pixel at
(0, 0). A task's mask, its hole and a face's region are explained in :mod:`codeformer.tasks.inpainting`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[Any]
"""A picture's pixels, (H, W, 3) uint8 or uint16, RGB as in the file."""

Pixels = NDArray[Any]
"""Integer samples with any number of channels, (H, W) or (H, W, C) uint8 or uint16: a picture, its alpha, or both."""

Samples = NDArray[np.float32]
"""Samples of a picture as float32, (H, W) or (..., C), in [0, 1]: colour in floating point, a tile."""

Crop = NDArray[np.float32]
"""A face's aligned crop, (S, S, 3) float32 RGB in [0, 1]: what the network gets and gives."""

Mask = NDArray[np.float32]
"""How much of each pixel counts, (H, W) float32 in [0, 1]. Never a picture."""

Bits = NDArray[np.uint8]
"""Which pixels are meant, (H, W) uint8, 0 or 1: as OpenCV's morphology takes it."""

Where = NDArray[np.bool_]
"""Which pixels are meant, (H, W) bool: as an index takes it."""

Plane = NDArray[np.float32]
"""One number for each pixel, (H, W) float32, in any unit: a distance, a difference."""

Labels = NDArray[np.integer[Any]]
"""What each pixel belongs to, (H, W) or (B, H, W) label numbers."""

Matrix = NDArray[np.float64]
"""A transform, (2, 3) float64. It maps the picture to the crop where nothing else is said."""

Points = NDArray[np.floating[Any]]
"""Places or vectors, (..., 2) in pixels (x, y)."""

Landmarks = NDArray[np.floating[Any]]
"""A face's five points, (5, 2): eye at the viewer's left, eye right, nose, mouth corner left, right."""

Floats = NDArray[np.floating[Any]]
"""Numbers that are not a picture: boxes, scores, a network's raw output."""
