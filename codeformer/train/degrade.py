"""Making low-quality faces out of sharp ones.

Restoration follows the paper (section 4.1, equation 8): ``LQ = {[(HQ * k) down r + noise] JPEG q} up r``.
Everything is drawn from the generator that is passed in, so that a sample depends on its seed alone. Pictures
are (S, S, 3) float32 RGB in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from codeformer.arrays import Crop, Mask
from codeformer.errors import UsageError
from codeformer.images.colour import to_grey
from codeformer.train.holes import fill, random_hole

Span = tuple[float, float]
_RESIZING = 0.9  # variance in pixels squared that halving by areas and enlarging by lines adds to a blur


@dataclass(frozen=True)
class Degradation:
    """Ranges of the restoration degradation, for faces of 512 pixels.

    Attributes:
        sigma: standard deviation of the Gaussian blur, pixels.
        scale: factor of the downsampling.
        noise: standard deviation of the Gaussian noise, of 255.
        quality: JPEG quality.
        anisotropic, motion: chances of an elongated Gaussian, and of motion blur instead of Gaussian blur.
        grey: chance that the low-quality face loses its colour (the sharp one too: the task stays restoration).
    """

    sigma: Span
    scale: Span
    noise: Span
    quality: Span
    anisotropic: float = 0.5
    motion: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sigma", "scale", "noise", "quality"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"degradation {name}: ({low}, {high}) is not a range of positive numbers")


# Paper, section 4.1: the ranges of stage II and of stage III.
HEAVY = Degradation(sigma=(1, 15), scale=(4, 30), noise=(0, 20), quality=(30, 80))
MEDIUM = Degradation(sigma=(0.1, 10), scale=(1, 12), noise=(0, 15), quality=(60, 100))
DEGRADATIONS = {"heavy": HEAVY, "medium": MEDIUM}


def parse_degradation(value: str | Mapping[str, Any] | Degradation) -> Degradation:
    """Return the degradation that a name or a table of ranges means.

    Raises:
        UsageError: there is no such name, or it is not such a table.
    """
    if isinstance(value, Degradation):
        return value
    if isinstance(value, Mapping):
        ranges: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        try:
            return Degradation(**ranges)
        except (TypeError, ValueError) as error:
            raise UsageError(f"training settings: degradations: {error}") from error
    if value not in DEGRADATIONS:
        known = ", ".join(DEGRADATIONS)
        raise UsageError(f"training settings: degradations: there is no {value!r}; take {known} or a table of ranges")
    return DEGRADATIONS[value]


def degrade(face: Crop, degradation: Degradation, rng: np.random.Generator) -> Crop:
    """Return the low-quality version of a face, of the same size, float32 in [0, 1]."""
    size = face.shape[0]
    small = degrade_small(face, degradation, rng)
    return np.clip(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), 0, 1)


def degrade_small(face: Crop, degradation: Degradation, rng: np.random.Generator) -> Crop:
    """Return what :func:`degrade` enlarges at its end: the small picture as JPEG left it, (s, s, 3) in [0, 1]."""
    size = face.shape[0]
    unit = size / 512
    sigma = rng.uniform(*degradation.sigma) * unit
    if rng.random() < degradation.motion:
        blurred = motion_blur(face, length=4 * sigma, angle=rng.uniform(0, np.pi))
    else:
        other = rng.uniform(*degradation.sigma) * unit if rng.random() < degradation.anisotropic else sigma
        blurred = gaussian_blur(face, sigma, other, angle=rng.uniform(0, np.pi))
    small_size = max(1, round(size / max(rng.uniform(*degradation.scale), 1)))
    small = cv2.resize(blurred, (small_size, small_size), interpolation=cv2.INTER_LINEAR)
    small = small + rng.standard_normal(small.shape, dtype=np.float32) * (rng.uniform(*degradation.noise) / 255)
    return jpeg(small, round(rng.uniform(*degradation.quality)))


def gaussian_blur(face: Crop, sigma_x: float, sigma_y: float, angle: float) -> Crop:
    """Blur with a Gaussian whose axes are turned by `angle` (radians), the same one for all sizes.

    The published code cuts its kernels at 41 pixels, so that its sigma of 15 blurs like one of about 10; here a sigma
    is what it says.
    """
    if max(sigma_x, sigma_y) < 0.15:
        return face
    if sigma_x == sigma_y:
        blurred = cv2.GaussianBlur(face, (0, 0), sigma_x, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(blurred, np.float32)
    # Wide kernels are applied at half the resolution: the result is the same to the eye, at a tenth of the cost.
    if min(sigma_x, sigma_y) > 4:
        half = np.asarray(cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32)
        inner_x, inner_y = (float(np.sqrt(sigma**2 - _RESIZING)) / 2 for sigma in (sigma_x, sigma_y))
        half = gaussian_blur(half, inner_x, inner_y, angle)
        return np.asarray(cv2.resize(half, face.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    radius = int(np.ceil(3 * max(sigma_x, sigma_y)))
    grid = np.arange(-radius, radius + 1, dtype=np.float64)
    x, y = np.meshgrid(grid, grid)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / max(sigma_x, 0.1)) ** 2 + (v / max(sigma_y, 0.1)) ** 2))
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return np.asarray(cv2.filter2D(face, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)


def motion_blur(face: Crop, length: float, angle: float) -> Crop:
    """Blur along a straight line of `length` pixels."""
    radius = max(1, min(20, round(length / 2)))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    end = (radius * np.cos(angle), radius * np.sin(angle))
    points = [(round(radius - end[0]), round(radius - end[1])), (round(radius + end[0]), round(radius + end[1]))]
    cv2.line(kernel, points[0], points[1], 1.0, lineType=cv2.LINE_AA)
    blurred = cv2.filter2D(face, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def jpeg(face: Crop, quality: int) -> Crop:
    """Compress and decompress; float32 in [0, 1] both ways."""
    pixels = np.clip(face[..., ::-1] * 255, 0, 255).round().astype(np.uint8)
    ok, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("JPEG compression failed")
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return decoded[..., ::-1].astype(np.float32) / np.float32(255)


def colour_jitter(face: Crop, rng: np.random.Generator, strength: float = 0.2) -> Crop:
    """Scale brightness, contrast and each channel a little."""
    gain = 1 + rng.uniform(-strength, strength, 3).astype(np.float32) * 0.5
    contrast, lift = 1 + rng.uniform(-strength, strength), rng.uniform(-strength, strength) * 0.5
    return np.clip(((face - 0.5) * contrast + 0.5 + lift) * gain, 0, 1).astype(np.float32)


def for_task(
    task: str,
    face: Crop,
    degradation: Degradation,
    rng: np.random.Generator,
    hole: str = "white",
    cover: float = 0.0,
    strokes: float = 0.0,
) -> tuple[Crop, Crop, Mask]:
    """Return ``(lq, hq, mask)`` of one task: ``restore``, ``colorize`` or ``inpaint``.

    The mask is (S, S), 0 but for inpainting. Colorization sees a jittered grey face, half the time degraded as well.
    Inpainting sees what `hole` says where the mask is 1 (:func:`~codeformer.train.holes.fill`). The hole is thick
    strokes with the chance `strokes`, else thin ones and small shapes, with the chance `cover` over a feature.
    """
    mask = np.zeros(face.shape[:2], np.float32)
    if task == "restore":
        if rng.random() < degradation.grey:
            face = to_grey(face)
            return to_grey(degrade(face, degradation, rng)), face, mask
        return degrade(face, degradation, rng), face, mask
    if task == "colorize":
        grey = to_grey(colour_jitter(face, rng))
        light = replace(degradation, noise=(0, min(8, degradation.noise[1])))
        return (to_grey(degrade(grey, light, rng)) if rng.random() < 0.5 else grey), face, mask
    if task == "inpaint":
        kind = "strokes" if strokes and rng.random() < strokes else "shapes"
        mask = random_hole(rng, face.shape[0], kind, cover)
        return fill(face, mask, hole), face, mask
    raise ValueError(f"unknown task {task!r}")
