"""Inpainting's steps: what to fill in a picture, what the network sees of a face, what is shown of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from codeformer.errors import InputError
from codeformer.images.colour import to_grey
from codeformer.tasks.base import Study
from codeformer.tasks.inpainting.masks import (
    feather,
    from_alpha,
    grow,
    guess_under,
    mask_file,
    paint_over,
    read_mask,
    smear,
)
from codeformer.tasks.inpainting.paint import from_paint

if TYPE_CHECKING:
    from codeformer.images.picture import Picture
    from codeformer.tasks.base import FaceCrop, Inpaint
    from codeformer.tasks.inpainting.masks import Mask

_WHITE = (255, 255, 255)
# A mask that holds less than this of every pixel of a crop does not touch its face.
_TOUCH = 0.05
# Paint over more than this share of the picture's border is more likely its background.
_BORDER_SHARE = 0.25


def study(task: Inpaint, picture: Picture) -> Study:
    """The picture with its mask, grown and feathered.

    Raises InputError if there is no mask, an empty one, or one of another size.
    """
    mask, covered, notes = _mask_of(task, picture)
    mask = grow(mask, task.grow)
    if not mask.any():
        raise InputError(f"nothing is left of the mask after --mask_grow {task.grow}")
    # Under a mask file there may be a whole face, say with a scratch; under paint the detector sees only paint
    seen = guess_under(picture.rgb, mask) if covered else None
    return Study(picture, feather(mask, task.feather), seen, notes)


def _mask_of(task: Inpaint, picture: Picture) -> tuple[Mask, bool, tuple[str, ...]]:
    """The mask, whether it covers what is to be filled, and notes."""
    if task.mask is not None:
        return read_mask(mask_file(task.mask, picture.path), picture.rgb.shape[:2]), False, ()
    if task.color is None and picture.alpha is not None:
        mask = from_alpha(picture.alpha)
        if mask.any():
            return mask, True, ()
    mask = from_paint(picture.rgb, task.color or _WHITE, task.tolerance)
    if not mask.any():
        paint = "no white paint" if task.color is None else f"no paint of the colour {','.join(map(str, task.color))}"
        transparent = " and nothing transparent" if task.color is None else ""
        raise InputError(f"nothing to fill: {paint}{transparent} found; give --mask, --mask_color or --mask_tolerance")
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    notes = (f"the paint covers {border.mean():.0%} of the picture's border; if that is the background, give --mask",)
    return mask, True, notes if border.mean() > _BORDER_SHARE else ()


def prepare(crop: FaceCrop, hole: str = "white") -> np.ndarray | None:
    """The network's input: white where it shall invent, or smeared over. None if the mask leaves this face alone."""
    if crop.fill is None or crop.share is None or crop.hole is None:
        return None
    if not (crop.fill * crop.share > _TOUCH).any():
        return None
    return (smear if hole == "smear" else paint_over)(crop.pixels, crop.hole)


def finish(crop: FaceCrop, output: np.ndarray) -> np.ndarray:
    """The network's pixels in and closely around the mask, the crop's elsewhere. A grey face stays grey.

    Where exactly the picture changes is decided in the picture, by its own mask. Here it is only made sure that the
    network's pixels are there wherever that one may want them, after all the resampling.
    """
    if crop.fill is None:
        return output
    if crop.grey:
        output = to_grey(output)
    weight = feather(grow((crop.fill > 0).astype(np.float32), 3), 4)[..., None]
    return np.asarray(crop.pixels * (1 - weight) + output * weight, np.float32)
