"""Filling the masked part of a face (paper section 4.4). Its steps are in :mod:`codeformer.tasks.inpainting.steps`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from codeformer.arrays import Crop, Mask
from codeformer.errors import UsageError
from codeformer.tasks.base import FaceCrop, Study, Task

if TYPE_CHECKING:
    from codeformer.images.picture import Picture

# ``inpainting`` is imported where it is used: it needs OpenCV, which ``--help`` does without.


@dataclass(frozen=True)
class Inpaint(Task):
    """Fills the masked part of a face: w = 1, no AdaIN.

    Attributes:
        mask: a mask file of the picture's size, or a folder with one for each picture. Without it the mask is what is
            painted over with ``color``, else what is transparent, else what is painted white.
        color: the paint's colour, three values of 0-255.
        tolerance: how far the paint's colour may differ from it, of 0-255.
        grow: pixels by which the mask is widened (narrowed if negative).
        feather: pixels beyond that over which the result is mixed with the picture.
        hole: what the network sees in the hole: "white", as the published one, or "smear", a blurred guess from the
            surroundings.
    """

    name: ClassVar[str] = "inpaint"
    past: ClassVar[str] = "inpainted"
    weights_group: ClassVar[str] = "inpainting"
    default_w: ClassVar[float] = 1.0
    default_upscale: ClassVar[float] = 1.0
    adain: ClassVar[bool] = False
    in_place: ClassVar[bool] = True
    recognises: ClassVar[bool] = False
    needs_face: ClassVar[bool] = True
    mends: ClassVar[bool] = True

    mask: Path | None = None
    color: tuple[int, int, int] | None = None
    tolerance: float = 24.0
    grow: int = 0
    feather: int = 4
    hole: str = "white"

    def __post_init__(self) -> None:
        """Refuse settings that are out of range or contradict each other."""
        if self.mask is not None and self.color is not None:
            raise UsageError("--mask and --mask_color contradict each other: the mask is a file or paint")
        if self.color is not None and not all(0 <= value <= 255 for value in self.color):
            raise UsageError(f"--mask_color must be three values of 0-255, not {self.color}")
        if not 0 <= self.tolerance <= 255:
            raise UsageError(f"--mask_tolerance must lie in [0, 255], not {self.tolerance}")
        if not -256 <= self.grow <= 256:
            raise UsageError(f"--mask_grow must lie in [-256, 256] pixels, not {self.grow}")
        if not 0 <= self.feather <= 256:
            raise UsageError(f"--mask_feather must lie in [0, 256] pixels, not {self.feather}")

    def suited(self, metadata: Mapping[str, str]) -> Task:
        """Return the task with what the weights file's network was trained to see in the hole."""
        return replace(self, hole=metadata.get("hole", self.hole))

    def companion(self, path: Path) -> Path | None:
        """Return the mask's file for the input ``path``, or None where the mask is in the picture."""
        if self.mask is None:
            return None
        from codeformer.tasks.inpainting.masks import mask_file

        return mask_file(self.mask, path)

    def study(self, picture: Picture) -> Study:
        """Return the picture with its mask. Raises InputError if there is none, or nothing in it."""
        from codeformer.tasks.inpainting.steps import study

        return study(
            picture, file=self.mask, color=self.color, tolerance=self.tolerance, grown=self.grow, feathered=self.feather
        )

    def study_mended(self, picture: Picture) -> Study:
        """Return the picture as it is where no other mask is named: then the scratches were all there is to fill.

        Raises InputError if there is nothing in the mask that is named.
        """
        return Study(picture) if self.mask is None and self.color is None else self.study(picture)

    def prepare(self, crop: FaceCrop) -> Crop | None:
        """Return the crop with its hole painted over; None if the mask leaves this face alone."""
        from codeformer.tasks.inpainting.steps import prepare

        return prepare(crop, self.hole)

    def finish(self, crop: FaceCrop, output: Crop) -> Crop:
        """Return the network's pixels in and around the mask, the crop's elsewhere."""
        from codeformer.tasks.inpainting.steps import finish

        return finish(crop, output)

    def paste_mask(self, crop: FaceCrop, mask: Mask) -> Mask:
        """Return the face's region: the mask decides in the picture what changes, not the shape of the face."""
        return mask if crop.masks is None else crop.masks.region

    def complete(
        self, study: Study, before: Picture, after: Picture, covered: Callable[[], Mask]
    ) -> tuple[Picture, list[str]]:
        """Return the picture changed where its mask says so and nowhere else."""
        if study.mask is None:
            return after, []
        from codeformer.tasks.inpainting.steps import fill

        return fill(before, after, study.mask, covered())

    def remark(self, crop: FaceCrop) -> str:
        """Return a warning where the mask leaves little of the face to go by."""
        from codeformer.tasks.inpainting.steps import doubt

        return doubt(crop)

    def untouched(self, faces: int) -> str:
        """Return why no face was inpainted, and what to give."""
        of = f" in {self.mask}" if self.mask else ""
        misses = f"touches none of the {faces} faces" if faces > 1 else "does not touch the face"
        what = f"the mask{of} {misses}" if faces else "no face found to inpaint"
        points = '--landmarks "x,y x,y x,y x,y x,y"'
        return f"{what} (a covered face may not be found: give {points}, or --aligned for a crop)"
