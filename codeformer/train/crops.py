"""Random squares of faces, for losses that are dear on whole ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Square:
    """A square of one face: the face is reduced by `factor` (1, 2 or 4), and `side` pixels of that are cut out."""

    top: int
    left: int
    side: int
    factor: int

    def cut(self, picture: Tensor) -> Tensor:
        """Return the square of a picture (C, S, S): (C, side, side)."""
        span, top, left = self.factor * self.side, self.factor * self.top, self.factor * self.left
        patch = picture[:, top : top + span, left : left + span]
        return F.avg_pool2d(patch[None], self.factor)[0] if self.factor > 1 else patch


def cut_all(squares: Sequence[Square], pictures: Tensor) -> Tensor:
    """Cut each picture's square out of a batch: (B, C, S, S) -> (B, C, side, side)."""
    return torch.stack([square.cut(picture) for square, picture in zip(squares, pictures, strict=True)])


def choose_squares(
    size: int,
    side: int,
    sharp: Tensor,
    draws: Tensor,
    scales: Sequence[float] = (0.5, 0.5, 0.0),
    mask: Tensor | None = None,
    spread: float = 0.25,
) -> list[Square]:
    """Choose one random square for each face of a batch.

    A square comes from the face, from the face halved, which shows four times the area, or from its quarter; never
    from a size that is smaller than the square, and of faces that are not `sharp` never from the whole size. Half of
    the squares lie anywhere, half around the features; where a mask is, around a point of it.

    Args:
        size: side of the faces, pixels.
        side: side of the squares, pixels.
        sharp: (B,) bool.
        draws: (B, 6) uniform numbers in [0, 1), one row for each face.
        scales: chances of the three sizes; they need not sum to 1.
        mask: (B, 1, S, S), above 0 where to look; a face whose mask is empty is cut like the others.
        spread: how far the squares around the features stray from the centre, of the size.
    """
    squares = []
    for i, (scale, mode, y, x, dy, dx) in enumerate(draws.tolist()):
        factor = _pick_factor(size, side, bool(sharp[i]), scales, scale)
        whole = size // factor
        cut = min(side, whole)
        # The features of an aligned face lie around its centre, a little below: y + dy - 1 is triangular in (-1, 1).
        centre = (y, x) if mode < 0.5 else (0.56 + 2 * spread * (y + dy - 1), 0.5 + 2 * spread * (x + dx - 1))
        if mask is not None and len(holes := mask[i, 0].nonzero()):
            point = (holes[int(mode * len(holes))] / size).tolist()
            centre = (point[0] + (y - 0.5) * cut / whole, point[1] + (x - 0.5) * cut / whole)
        top, left = (int(min(max(round(c * whole - cut / 2), 0), whole - cut)) for c in centre)
        squares.append(Square(top, left, cut, factor))
    return squares


def _pick_factor(size: int, side: int, sharp: bool, scales: Sequence[float], draw: float) -> int:
    """Return by how much a face is reduced, 1, 2 or 4: the factor that `draw` in [0, 1) picks of those allowed."""
    allowed = [
        chance if factor == 1 or size >= factor * side else 0.0
        for factor, chance in zip((1, 2, 4), scales, strict=True)
    ]
    if not sharp and any(allowed[1:]):
        allowed[0] = 0.0
    left, picked = draw * sum(allowed), 1
    for factor, chance in zip((1, 2, 4), allowed, strict=True):
        if chance and left >= 0:
            picked = factor
        left -= chance
    return picked
