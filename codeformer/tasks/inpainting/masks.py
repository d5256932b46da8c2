"""What inpainting fills: masks from files and from transparency, and how they act. Pure functions.

A mask is float32 (H, W) in [0, 1] of the picture's size: 1 is filled by the network, 0 keeps the input bit for bit,
and between them the two are mixed. The feather runs from the inside out: a mask of value 1 is the network's alone up
to its edge (paint must not shine through), and the mixing happens in the few pixels beyond it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Bits, Crop, Mask, Matrix, Pixels, Points, Rgb, Where
from codeformer.errors import InputError
from codeformer.faces.align import inverse, mean_scale, transform_points

if TYPE_CHECKING:
    from codeformer.images.picture import Picture

# Mask files: what lossy compression leaves around an edge is not a mask.
_NOISE = 4 / 255
_LOSSY_NOISE = 20 / 255
_LOSSY_FORMATS = frozenset({"JPEG", "WEBP", "HEIF", "AVIF"})

# Widths, as shares of half a crop: the soft border of what a face fills, and how far it reaches into a neighbour's.
_BORDER = 0.08
_OVERLAP = 0.1


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Return the mask in a picture file: white fills, grey mixes, black and transparent keep.

    `size` is (height, width) of the picture. Raises InputError for a file that cannot be read, for a mask of another
    size (naming both) and for one without any white.
    """
    from codeformer.images.limits import most_pixels
    from codeformer.images.picture import read_picture

    # What the picture was allowed to have, the mask may have too.
    picture = read_picture(path, max_pixels=max(size[0] * size[1], most_pixels()))
    mask = _brightness(picture)
    if mask.shape != size:
        raise InputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, the picture {size[1]}x{size[0]};"
            " a mask must have the picture's size"
        )
    mask = _snapped(mask, _LOSSY_NOISE if picture.format in _LOSSY_FORMATS else _NOISE)
    if not mask.any():
        raise InputError(f"{path}: the mask is empty (white fills, and there is none)")
    return mask


def _brightness(picture: Picture) -> Mask:
    top = np.float32(np.iinfo(picture.rgb.dtype).max)
    value = picture.rgb.astype(np.float32).mean(axis=2) / top
    if picture.alpha is not None:  # white strokes on a transparent layer
        value *= picture.alpha.astype(np.float32) / top
    return value.astype(np.float32)


def _snapped(mask: Mask, noise: float) -> Mask:
    """Values within `noise` of 0 and 1 become 0 and 1; those between stay."""
    return np.where(mask <= noise, 0, np.where(mask >= 1 - noise, 1, mask)).astype(np.float32)


def from_alpha(alpha: Pixels) -> Mask:
    """Return the transparent part of a picture; all zero if nothing is fully transparent.

    ``alpha`` is (H, W) uint8 or uint16.

    Half-transparent pixels count by their transparency where they are the edge of a hole, and not at all elsewhere: a
    picture that is translucent as a whole has nothing cut out.
    """
    top = np.iinfo(alpha.dtype).max
    hole = alpha == 0
    thin = (alpha < top).astype(np.uint8)
    count, labels = cv2.connectedComponents(thin, connectivity=8)
    touched = np.zeros(count, bool)
    touched[labels[hole]] = True
    touched[0] = False  # label 0 is the opaque part
    return np.where(touched[labels], 1 - alpha.astype(np.float32) / np.float32(top), 0).astype(np.float32)


def mask_file(mask: Path, picture: Path | None) -> Path:
    """Return the mask's file: `mask` itself, or in a folder the file with the picture's name (its ending may differ).

    Where the folder has subfolders named like those that the picture lies in, what lies there goes first: of
    ``in/album/1.jpg``, ``masks/album/1.png`` before ``masks/1.png``. What lies beside the picture itself is not a mask.
    Raises InputError if there is none, naming the picture and the folder.
    """
    if not mask.is_dir():
        if not mask.exists():
            raise InputError(f"{mask}: no such mask file")
        return mask
    if picture is None:
        raise InputError(f"{mask}: is a folder; give the mask's file")
    # Without "..", which would lead out of the folder of masks, and with links as they are named.
    home = Path(os.path.abspath(picture)).parent  # noqa: PTH100
    folders = home.parts[1:]
    for first in range(len(folders) + 1):
        within = mask.joinpath(*folders[first:])
        if not within.is_dir() or (home.is_dir() and within.samefile(home)):
            continue
        if found := _named_like(picture, within):
            return found
    raise InputError(f"{picture}: no mask named {picture.stem}.* in {mask}")


def _named_like(picture: Path, folder: Path) -> Path | None:
    """Return the one picture in `folder` with this name, at first with the same ending; None if there is none."""
    from codeformer.images.picture import SUFFIXES

    if (same := folder / picture.name).is_file():
        return same
    found = sorted(
        p for p in folder.iterdir() if p.stem == picture.stem and p.suffix.lower() in SUFFIXES and p.is_file()
    )
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise InputError(f"{picture}: several masks in {folder} ({names}); keep one, or name it {picture.name}")
    return found[0] if found else None


def bounds(mask: Mask | Bits | Where, margin: int) -> tuple[slice, slice]:
    """Return the smallest box (rows, columns) around what is not 0, wider by a margin and cut at the frame."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def grow(mask: Mask, pixels: int) -> Mask:
    """Return the mask wider by `pixels` on every side (narrower if negative): a dilation with a disc."""
    if pixels == 0:
        return mask
    side = 2 * abs(pixels) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if pixels > 0 else cv2.erode
    return np.asarray(change(mask, disc, borderType=cv2.BORDER_REPLICATE), np.float32)


def feather(mask: Mask, pixels: int) -> Mask:
    """Return the mask with an edge that falls to 0 over `pixels` beyond it; what is 1 stays 1, and soft edges stay.

    Further out than `pixels` from a 1 the mask is as it was.
    """
    full = mask >= 1
    if pixels == 0 or not full.any():
        return mask
    result = mask.copy()
    box = bounds(full, pixels + 1)
    away = cv2.distanceTransform((~full[box]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.maximum(mask[box], np.clip(1 - away / (pixels + 1), 0, 1), out=result[box])
    return result


def resized(mask: Mask, width: int, height: int) -> Mask:
    """Return the mask for the same picture at another size; what is 0 or 1 all around stays exactly so."""
    if mask.shape == (height, width):
        return mask
    return _snapped(np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)), 1e-5)


def guess_under(rgb: Rgb, mask: Mask, size: int = 512) -> Rgb:
    """Return the picture with the masked part smeared over from its surroundings, for a face detector to look at.

    A detector does not see a face under white paint, but often sees it under a blurred guess. Worked out on a copy of
    at most `size` pixels a side (Telea's method takes long on large holes); outside of the mask bit for bit.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, size / max(height, width))
    small_size = (max(1, round(width * scale)), max(1, round(height * scale)))
    eight = rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)
    small = np.asarray(cv2.resize(eight, small_size, interpolation=cv2.INTER_AREA), np.uint8)
    hole = cv2.resize((mask > 0).astype(np.float32), small_size, interpolation=cv2.INTER_AREA) > 0
    if hole.all():
        return rgb
    filled = cv2.inpaint(small, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    box = bounds(mask, 0) if mask.any() else (slice(0, 0), slice(0, 0))
    large = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)[box]
    result = rgb.copy()
    inside = mask[box] > 0
    result[box][inside] = large[inside] if rgb.dtype == np.uint8 else large[inside].astype(np.uint16) * 257
    return result


def paint_over(crop: Crop, hole: Where) -> Crop:
    """Return the network's input for inpainting: (S, S, 3) float32 in [0, 1] with white where `hole` (S, S) is.

    The published network was trained on white strokes with hard edges.
    """
    return np.where(hole[..., None], np.float32(1), crop).astype(np.float32)


def smear(crop: Crop, hole: Where) -> Crop:
    """Return a crop (S, S, 3) with a blurred guess where `hole` (S, S) is: the other input for inpainting.

    A small network gets further from there than from white: it has to sharpen a guess, which is what restoration
    taught it, and its skip connections carry the guess and not the paint. Milliseconds: worked out at S / 4.
    """
    eight = np.rint(np.clip(crop, 0, 1) * 255).astype(np.uint8)
    guess = guess_under(eight, hole.astype(np.float32), max(1, crop.shape[0] // 4))
    return np.where(hole[..., None], guess.astype(np.float32) / 255, crop).astype(np.float32)


def regions(matrices: Sequence[Matrix], size: int) -> list[Mask]:
    """Return which part of its crop each face fills where crops overlap: (size, size) each, 1 its own, 0 others'.

    `matrices` map the picture to crops of `size` pixels. A pixel belongs to the face in whose crop it lies nearest to
    the middle, so a hand over one face is never filled in by its neighbour. A region reaches a little into its
    neighbours', where it falls to 0, and falls to 0 at the crop's border, where the network has seen too little.
    """
    middle = (size - 1) / 2
    step = np.arange(size, dtype=np.float64)
    grid = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)  # (size * size, 2) x, y in the crop
    to_border = (middle - np.abs(grid - middle).max(axis=1)) / middle
    own = _eccentricity(grid, size)
    centres = [transform_points([[middle, middle]], inverse(matrix))[0] for matrix in matrices]
    radii = [size / scale / 2**0.5 for scale in mean_scale(matrices)]
    result = []
    for index, matrix in enumerate(matrices):
        points = transform_points(grid, inverse(matrix))
        region = np.clip(to_border / _BORDER, 0, 1)
        for other, neighbour in enumerate(matrices):
            apart = np.linalg.norm(centres[index] - centres[other])
            if other != index and apart < radii[index] + radii[other]:
                theirs = _eccentricity(transform_points(points, neighbour), size)
                region = np.minimum(region, np.clip(1 - (own - theirs) / _OVERLAP, 0, 1))
        result.append(region.reshape(size, size).astype(np.float32))
    return result


def _eccentricity(points: Points, size: int) -> NDArray[np.float64]:
    """How far from the crop's middle: 0 there, 1 in the middle of its border, more outside."""
    middle = (size - 1) / 2
    return np.asarray(np.linalg.norm(points - middle, axis=1) / middle, np.float64)
