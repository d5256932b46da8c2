"""Losses of pictures (B, 3, S, S) in [-1, 1] that need no network; every loss is a mean over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from codeformer.images.colour import LUMA


def pixel_loss(out: Tensor, hq: Tensor, sharp: Tensor, weight: Tensor | float = 1.0, reduced: int = 1) -> Tensor:
    """Return the mean absolute difference, each pixel times `weight`, at the size divided by `reduced`.

    Faces that were enlarged are compared at half the size at most: they have no finer detail.
    """
    difference = (out - hq) * weight

    def mean(factor: int) -> Tensor:
        return (F.avg_pool2d(difference, factor) if factor > 1 else difference).abs().mean((1, 2, 3))

    if reduced > 1:
        return mean(reduced).mean()
    return torch.where(sharp.to(difference.device), mean(1), mean(2)).mean()


def soften(pictures: Tensor, sharp: Tensor) -> Tensor:
    """Take the finest detail, of which an enlarged face tells nothing, from pictures that are not `sharp` (B,)."""
    if bool(sharp.all()):
        return pictures
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    return torch.where(sharp.to(pictures.device).view(-1, 1, 1, 1), pictures, coarse)


def stress_colour(out: Tensor, hq: Tensor, weight: Tensor) -> Tensor:
    """Return `out` with its error of colour times `weight` (B, 1, 1, 1), that of the luma (BT.601) as it is."""
    difference = out - hq
    luma = (difference * torch.from_numpy(LUMA).to(out.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return hq + luma + weight * (difference - luma)


def grid_pattern(error: Tensor, side: int, cells: int = 8) -> Tensor:
    """Return how strongly the error (B, C, S, S) repeats from one square of `side` pixels to the next.

    A network that unfolds squares and doubles grids draws faint lines between them where it does not know better, and
    VGG takes them for texture. Every pixel of the square is averaged over up to `cells` x `cells` squares; what is left
    of the square, but for a plane, is the pattern, and its mean size is returned. (In a square of 2 a plane is all but
    a checkerboard; stripes 2 pixels apart are seen with a side of 4.)
    """
    squares = error.shape[-1] // side
    cells = max(n for n in range(1, cells + 1) if squares % n == 0)
    square = F.avg_pool2d(F.pixel_unshuffle(error, side), cells).unflatten(1, (error.shape[1], side, side))
    square = square - square.mean((2, 3), keepdim=True)
    steps = torch.arange(side, device=error.device, dtype=error.dtype) - (side - 1) / 2
    for across, slope in ((3, steps.view(-1, 1, 1, 1)), (2, steps.view(-1, 1, 1))):
        along = square.mean(across, keepdim=True)
        share = (along * slope).sum((2, 3), keepdim=True) / steps.pow(2).sum()
        square = square - share * slope
    return square.abs().mean()


def part_region(size: int) -> Tensor:
    """Return 1 on the eyes, nose and mouth of an aligned face, falling to 0 around them: (1, 1, size, size)."""
    from codeformer.faces.align import TEMPLATE_512

    grid = (torch.arange(size) + 0.5) * 512 / size
    region = torch.zeros(size, size)
    for x, y in TEMPLATE_512.tolist():
        distance = (grid[:, None] - y) ** 2 + (grid[None, :] - x) ** 2
        region = torch.maximum(region, torch.exp(-distance / (2 * 32.0**2)))
    return region[None, None]
