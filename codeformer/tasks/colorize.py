"""Colour for grey, sepia and faded faces (paper section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from codeformer.arrays import Crop, Mask
from codeformer.errors import UsageError
from codeformer.tasks.base import FaceCrop, Study, Task

if TYPE_CHECKING:
    from codeformer.images.picture import Picture

# ``images.colour`` is imported where it is used: it needs OpenCV, which ``--help`` does without.


@dataclass(frozen=True)
class Colorize(Task):
    """Colour for a face from the code sequence alone: w = 0.

    The network always sees grey, so a sepia or faded face is coloured anew.

    Attributes:
        keep_luma: take only the colour, and leave the original's brightness.
        strength: how much of the colour, in [0, 1].
    """

    name: ClassVar[str] = "colorize"
    past: ClassVar[str] = "colorized"
    weights_group: ClassVar[str] = "colorization"
    default_w: ClassVar[float] = 0.0
    default_upscale: ClassVar[float] = 1.0
    only_faces: ClassVar[bool] = True
    keeps_tone: ClassVar[bool] = False

    keep_luma: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse settings that are out of range."""
        if not 0 <= self.strength <= 1:
            raise UsageError(f"--color_strength must lie in [0, 1], not {self.strength}")

    def study(self, picture: Picture) -> Study:
        """Return the picture as one that may get colour, with a note if it has some already."""
        from codeformer.images.colour import kind_of
        from codeformer.images.picture import as_srgb
        from codeformer.images.tone import tone_in

        notes: tuple[str, ...] = ()
        if not picture.grey and kind_of(picture.rgb) == "colour":
            notes = ("is in colour already; its faces are colorized all the same, from their brightness alone",)
        elif tone_in(picture) is not None:
            notes = ("is toned, as sepia is; its faces get colours instead, and the rest keeps the tone",)
        if picture.grey:  # the result is not, and a grey profile cannot describe it
            picture = replace(as_srgb(picture), grey=False)
        return Study(picture, notes=notes)

    def prepare(self, crop: FaceCrop) -> Crop:
        """Return the crop in grey over the full range of brightness."""
        from codeformer.images.colour import before_colorizing

        return before_colorizing(crop.pixels)

    def finish(self, crop: FaceCrop, output: Crop) -> Crop:
        """Return the network's colours in the crop's own tone."""
        from codeformer.images.colour import after_colorizing

        return after_colorizing(crop.pixels, output, luma_of_crop=self.keep_luma, strength=self.strength)

    def complete(
        self, study: Study, before: Picture, after: Picture, covered: Callable[[], Mask]
    ) -> tuple[Picture, list[str]]:
        """Return the picture with the brightness that it had, if the user asks for that."""
        if not self.keep_luma:
            return after, []
        from codeformer.images.colour import keep_luma_of_changes

        # Once more for the whole picture: a large face has finer detail than its crop could hold
        return replace(after, rgb=keep_luma_of_changes(before.rgb, after.rgb, before.space)), []
