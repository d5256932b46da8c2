"""What makes restored faces steady: neighbouring frames of one track, seen in the face's own coordinates.

Each frame of a film shows the same face with other noise, so frame by frame the encoder sees, and the Transformer
decides, something else each time. Two things are averaged over a track's neighbouring frames: the crops before the
network (each neighbour laid over the crop by optical flow, and weighted by how well it agrees there, so that a blink
or a turned head stays sharp), and the Transformer's code probabilities before the codes are chosen. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Crop, Plane

_FLOW_SIZE = 256
_AGREEMENT = 7  # pixels of 512 over which agreement is measured
_FALL = 3.0  # how many noise variances beyond the expected difference halve a neighbour's weight, about
_LEAST_NOISE = 1.5 / 255
_MOST_NOISE = 0.1


@dataclass(eq=False)
class Look:
    """An aligned crop, (S, S, 3), with the smaller versions in which it is compared with its neighbours in time.

    Each is made once, when it is wanted first: a crop is the neighbour of several others.
    """

    pixels: Crop

    @cached_property
    def grey(self) -> NDArray[np.uint8]:
        """What the optical flow is computed of."""
        return _grey(self.pixels)

    @cached_property
    def thumbnail(self) -> Crop:
        """The middle of the face, tiny."""
        small = cv2.resize(self.pixels, (32, 32), interpolation=cv2.INTER_AREA)
        return np.asarray(small[6:30, 6:26], np.float32)


def steady_crop(one: Look, neighbours: Sequence[Look]) -> Crop:
    """Return the crop with noise averaged away over its aligned ``neighbours`` in time, same shape.

    Where a neighbour shows something else its weight falls to nothing, so what moves stays as it is.
    """
    if not neighbours:
        return one.pixels
    # Plane by plane, which spares the arithmetic from a weight for each channel
    crop = _planes(one.pixels)
    laid = [_planes(_laid_over(one.grey, other)) for other in neighbours]
    differences = [_difference(crop, other) for other in laid]
    variance = _noise_variance(differences)
    total = [plane.copy() for plane in crop]
    weights = np.ones(crop[0].shape, dtype=np.float32)
    for other, difference in zip(laid, differences, strict=True):
        excess = np.maximum(difference - 2 * variance, 0)
        excess /= _FALL * variance
        weight = np.exp(np.negative(excess, out=excess), out=excess)
        for plane, into in zip(other, total, strict=True):
            plane *= weight  # its own by now
            into += plane
        weights += weight
    for plane in total:
        plane /= weights
    return np.asarray(cv2.merge(total), np.float32)


def _planes(image: Crop) -> list[Plane]:
    return [np.asarray(plane, np.float32) for plane in cv2.split(image)]


def _laid_over(grey: NDArray[np.uint8], other: Look) -> Crop:
    """Return ``other`` warped so that its content lies where the crop has it of which ``grey`` is the small version."""
    size, flow_size = other.pixels.shape[0], grey.shape[0]
    method: Any = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_FAST)
    flow = method.calc(grey, other.grey, None)
    places = cv2.resize(cv2.GaussianBlur(flow, (0, 0), 3), (size, size), interpolation=cv2.INTER_LINEAR)
    places *= size / flow_size
    along = np.arange(size, dtype=np.float32)
    places[..., 0] += along
    places[..., 1] += along[:, None]
    laid = cv2.remap(other.pixels, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(laid, np.float32)


def _grey(image: Crop) -> NDArray[np.uint8]:
    size = min(_FLOW_SIZE, image.shape[0])
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) * 255, 0, 255).astype(np.uint8)


def _difference(a: Sequence[Plane], b: Sequence[Plane]) -> Plane:
    """Return the mean squared difference of two pictures, three planes each, around each pixel."""
    squared = np.zeros_like(a[0])
    for one, other in zip(a, b, strict=True):
        apart = one - other
        apart *= apart
        squared += apart
    squared /= len(a)
    side = 2 * (_AGREEMENT * len(squared) // 512 // 2) + 1
    return np.asarray(cv2.GaussianBlur(cv2.blur(squared, (side, side)), (0, 0), max(0.8, side / 3)), np.float32)


def _noise_variance(differences: Sequence[Plane]) -> float:
    """Return the noise of one frame: half of what a still pixel differs by between two.

    Most of a face is still most of the time.
    """
    half = 0.5 * float(np.median([np.median(difference[::4, ::4]) for difference in differences]))
    return min(max(half, _LEAST_NOISE**2), _MOST_NOISE**2)


def alikeness(a: Look, b: Look) -> float:
    """Return how much two aligned crops of one track show the same, in (0, 1]: for weighing their codes."""
    return float(np.exp(-np.square(a.thumbnail - b.thumbnail).mean() / (2 * 0.06**2)))


@dataclass(eq=False)
class Vote:
    """The Transformer's logits of one face, (h*w, K): a frame's vote on the codes of the frames around it."""

    logits: Any

    @cached_property
    def log_probabilities(self) -> Any:
        """Made once: a frame votes on several others."""
        return _log_softmax(self.logits)


def average_logits(votes: Sequence[Vote], weights: Sequence[float]) -> Any:
    """Return the weighted mean of one face's log-probabilities in neighbouring frames, (h*w, K)."""
    total = sum(weights)
    result = None
    for vote, weight in zip(votes, weights, strict=True):
        share = vote.log_probabilities * (weight / total)
        result = share if result is None else result + share
    return result


def _log_softmax(logits: Any) -> Any:
    """Return log-probabilities: of PyTorch's tensors, or of the arrays of another engine."""
    if not isinstance(logits, np.ndarray):
        return logits.log_softmax(-1)
    below = logits - logits.max(-1, keepdims=True)
    return below - np.log(np.exp(below).sum(-1, keepdims=True))
