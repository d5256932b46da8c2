"""Inpainting's steps: what to fill in a picture, what the network sees of a face, what is shown of its answer.

Pure functions over values; :class:`codeformer.tasks.inpaint.Inpaint` holds the settings. The words mask, hole and
region are explained in :mod:`codeformer.tasks.inpainting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codeformer.arrays import Crop, Mask, Matrix, Rgb
from codeformer.errors import InputError
from codeformer.faces.align import crop_mask
from codeformer.images.blend import composite, mix
from codeformer.images.picture import Picture, replace_rgb
from codeformer.images.tone import in_own_colours
from codeformer.tasks.base import CropMasks, FaceCrop, Study
from codeformer.tasks.inpainting.masks import (
    feather,
    from_alpha,
    grow,
    guess_under,
    mask_file,
    paint_over,
    read_mask,
    regions,
    resized,
    smear,
)
from codeformer.tasks.inpainting.paint import from_paint

_WHITE = (255, 255, 255)
# A mask that holds less than this of every pixel of a crop does not touch its face.
_TOUCH = 0.05
# Paint over more than this share of the picture's border is more likely its background.
_BORDER_SHARE = 0.25
# A mask that covers more than this share of an aligned crop leaves little of the face to go by.
_MUCH = 0.18


def study(
    picture: Picture,
    *,
    file: Path | None = None,
    color: tuple[int, int, int] | None = None,
    tolerance: float = 24.0,
    grown: int = 0,
    feathered: int = 4,
) -> Study:
    """Return the picture with its mask, grown and feathered.

    Args:
        picture: the input.
        file: the mask's file or a folder of masks; else the mask is in the picture.
        color: the paint's colour; without it what is transparent, else what is white.
        tolerance: how far the paint's colour may differ from it, of 0-255.
        grown: pixels by which the mask is widened.
        feathered: pixels beyond that over which it falls to 0.

    Raises:
        InputError: there is no mask, an empty one, or one of another size.
    """
    mask, covered, notes = _mask_of(picture, file, color, tolerance)
    mask = grow(mask, grown)
    if not mask.any():
        raise InputError(f"nothing is left of the mask after --mask_grow {grown}")
    # Under a mask file there may be a whole face, say with a scratch; under paint the detector sees only paint
    seen = guess_under(picture.rgb, mask) if covered else None
    return Study(picture, feather(mask, feathered), seen, notes)


def _mask_of(
    picture: Picture, file: Path | None, color: tuple[int, int, int] | None, tolerance: float
) -> tuple[Mask, bool, tuple[str, ...]]:
    """Return the mask, whether it covers what is to be filled, and notes."""
    if file is not None:
        return read_mask(mask_file(file, picture.path), picture.rgb.shape[:2]), False, ()
    if color is None and picture.alpha is not None:
        mask = from_alpha(picture.alpha)
        if mask.any():
            return mask, True, ()
    mask = from_paint(picture.rgb, color or _WHITE, tolerance)
    if not mask.any():
        paint = "no white paint" if color is None else f"no paint of the colour {','.join(map(str, color))}"
        transparent = " and nothing transparent" if color is None else ""
        raise InputError(f"nothing to fill: {paint}{transparent} found; give --mask, --mask_color or --mask_tolerance")
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    notes = (f"the paint covers {border.mean():.0%} of the picture's border; if that is the background, give --mask",)
    return mask, True, notes if border.mean() > _BORDER_SHARE else ()


def uncovered(rgb: Rgb, mask: Mask) -> Rgb:
    """Return a picture in which a face may be found that the masked pixels hide: with a guess in their place."""
    core = (mask >= 0.99 * mask.max()).astype(np.float32)  # the feather around it shows the picture
    return guess_under(rgb, core)


def masks_of_crops(mask: Mask, matrices: Sequence[Matrix], size: int, *, whole: bool = False) -> list[CropMasks]:
    """Return the picture's mask in each crop.

    Args:
        mask: (H, W), the study's.
        matrices: the picture to the crops of ``size`` pixels.
        size: the crops' side.
        whole: the crop is the whole picture, so its face fills all of it.
    """
    parts = [np.ones((size, size), dtype=np.float32)] * len(matrices) if whole else regions(matrices, size)
    return [
        CropMasks(
            mask=crop_mask(mask, matrix, size),
            hole=crop_mask(mask >= 0.5, matrix, size) > 0.02,
            region=region,
        )
        for matrix, region in zip(matrices, parts, strict=True)
    ]


def without_hole(pixels: Crop, masks: CropMasks | None) -> Crop:
    """Return a crop with the mean of its other pixels in its hole, which may be painted in any colour."""
    if masks is None or not masks.hole.any() or masks.hole.all():
        return pixels
    return np.where(masks.hole[..., None], pixels[~masks.hole].mean(axis=0), pixels)


def prepare(crop: FaceCrop, hole: str = "white") -> Crop | None:
    """Return the network's input, its hole white or smeared over; None if the mask leaves this face alone."""
    if crop.masks is None or not (crop.masks.mask * crop.masks.region > _TOUCH).any():
        return None
    return (smear if hole == "smear" else paint_over)(crop.pixels, crop.masks.hole)


def finish(crop: FaceCrop, output: Crop) -> Crop:
    """Return the network's pixels in and closely around the mask, the crop's elsewhere. A grey face stays grey.

    Where exactly the picture changes is decided in the picture, by its own mask. This only makes sure that the
    network's pixels are there wherever that one may want them, after all the resampling.
    """
    if crop.masks is None:
        return output
    output = in_own_colours(output, grey=crop.grey and crop.tone is None, tone=crop.tone)
    weight = feather(grow((crop.masks.mask > 0).astype(np.float32), 3), 4)[..., None]
    return np.asarray(mix(crop.pixels, output, weight), np.float32)


def fill(before: Picture, after: Picture, mask: Mask, covered: Mask) -> tuple[Picture, list[str]]:
    """Return ``after`` only where the mask says so, else ``before`` bit for bit; and notes.

    What was transparent becomes opaque as far as it is filled: all of it where the mask makes up for what it lacked.

    Args:
        before: the picture at the result's size, without its faces.
        after: the same with its faces.
        mask: (H, W) of the input.
        covered: (H, W) of the result, how far faces were pasted over each pixel.
    """
    height, width = before.rgb.shape[:2]
    weight = resized(mask, width, height)
    rgb = composite(before.rgb, after.rgb, weight)
    reached = np.asarray(weight * covered, np.float32)
    alpha = before.alpha
    if alpha is not None:
        top = np.iinfo(alpha.dtype).max
        lacks = 1 - alpha / np.float32(top)
        made_up = np.asarray(np.clip(weight / np.maximum(lacks, 0.5 / top), 0, 1) * covered, np.float32)
        alpha = composite(alpha, np.full_like(alpha, top), made_up)
    left = 1 - float(reached.sum(dtype=np.float64) / max(weight.sum(dtype=np.float64), 1e-9))
    notes = []
    if left >= 0.01:
        notes.append(f"{left:.0%} of the mask lies outside of the faces' crops and stays as it is")
    if left >= 0.5:
        notes.append("a covered face may have been missed, or something else taken for it: --draw_box, --landmarks")
    return replace_rgb(after, rgb, alpha), notes


def doubt(crop: FaceCrop) -> str:
    """Return a warning where a mask leaves little of the face to go by, else nothing."""
    share = 0.0 if crop.masks is None else float(crop.masks.hole.mean())
    return f"the mask covers {share:.0%} of its crop; what is drawn there is a rough guess" if share > _MUCH else ""
