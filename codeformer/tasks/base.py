"""What can be done to a face: restore, colorize, inpaint.

A task is a frozen dataclass: its class attributes say which weights, fidelity weight and AdaIN the network gets,
its fields are the user's settings for it (they are part of the fingerprint by which a later run recognises finished
work), and its methods are the steps that differ between tasks. The pipeline calls them in this order::

    study(picture)          once per picture: what to fill, what to note, or an error that this picture cannot be done
    prepare(crop)           once per face: the network's input, or None when this face needs nothing
    finish(crop, output)    once per face: the face that is shown, from the network's output
    paste_mask(crop, mask)  once per face: where the finished face replaces the picture
    settle(before, after)   once per picture: the last word on the pixels, with all faces in their places

A new task is one class here, one entry in :data:`TASKS` and one subcommand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from codeformer.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from codeformer.images.picture import Picture


@dataclass(frozen=True)
class Study:
    """A picture as the task wants it.

    ``fill`` is (H, W) float32 in [0, 1], 1 where the task shall invent pixels, or None when it works on whole faces:
    where it is 0 the picture stays, bit for bit. ``seen`` is what the detector gets instead of the picture, (H, W, 3).
    """

    picture: Picture
    fill: np.ndarray | None = None
    seen: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaceCrop:
    """One face cut out of a picture, as a task sees it.

    ``pixels`` is (S, S, 3) float32 RGB in [0, 1]; ``fill`` is the study's mask cut the same way, (S, S) float32;
    ``hole``, (S, S) bool, is every pixel of the crop into which something reaches that is masked by half or more;
    ``share`` is the part of the crop that this face fills and no other, (S, S) float32; ``grey`` says that the crop has
    no colour of its own.
    """

    pixels: np.ndarray
    grey: bool = False
    fill: np.ndarray | None = None
    hole: np.ndarray | None = None
    share: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """Restoration, and the defaults that other tasks override."""

    name: ClassVar[str] = "restore"
    past: ClassVar[str] = "restored"
    weights_group: ClassVar[str] = "restoration"
    default_w: ClassVar[float] = 0.5
    default_upscale: ClassVar[float] = 2.0
    adain: ClassVar[bool] = True
    #: With aligned input: True pastes the face into the input at the input's own size, False gives the network's crop.
    in_place: ClassVar[bool] = False
    #: Whether the user should be told that the rest of a picture is left alone, as nobody expects of this task.
    only_faces: ClassVar[bool] = False
    #: Whether a picture without a face is an error, whatever ``--no_face`` says.
    needs_face: ClassVar[bool] = False

    def suited(self, metadata: Mapping[str, str]) -> Task:
        """The task as the weights file with this metadata was trained for it."""
        return self

    def companion(self, path: Path) -> Path | None:
        """Another file whose bytes decide the result for the input ``path`` (a mask), or None."""
        return None

    def study(self, picture: Picture) -> Study:
        """Look at a whole picture. Raises a CodeFormerError if the task cannot be done on it."""
        return Study(picture)

    def prepare(self, crop: FaceCrop) -> np.ndarray | None:
        """The network's input, (S, S, 3) float32 in [0, 1]; None leaves this face as it is."""
        return crop.pixels

    def finish(self, crop: FaceCrop, output: np.ndarray) -> np.ndarray:
        """The finished face from the network's output; both (S, S, 3) float32 in [0, 1]."""
        return output

    def paste_mask(self, crop: FaceCrop, mask: np.ndarray) -> np.ndarray:
        """Where the face is pasted, (S, S) float32 in [0, 1], from the face's own soft mask of the same shape."""
        return mask

    def settle(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The result's pixels from those without and with the faces, (H, W, 3) uint8 or uint16 of the result's size."""
        return after

    def untouched(self, faces: int) -> str:
        """What to say when :meth:`prepare` wanted none of the ``faces`` that were chosen."""
        return "no face needs this"


@dataclass(frozen=True)
class Restore(Task):
    """Blind face restoration with w and AdaIN as published (paper section 3.3). A grey face stays grey."""

    def finish(self, crop: FaceCrop, output: np.ndarray) -> np.ndarray:
        if not crop.grey:
            return output
        from codeformer.images.colour import to_grey

        return to_grey(output)


@dataclass(frozen=True)
class Colorize(Task):
    """Colour for a face from the code sequence alone: w = 0 (paper section 4.4).

    The network always sees grey, so a sepia or faded face is coloured anew. ``keep_luma`` takes only the colour and
    leaves the original's brightness; ``strength`` in [0, 1] is how much of the colour.
    """

    name: ClassVar[str] = "colorize"
    past: ClassVar[str] = "colorized"
    weights_group: ClassVar[str] = "colorization"
    default_w: ClassVar[float] = 0.0
    default_upscale: ClassVar[float] = 1.0
    only_faces: ClassVar[bool] = True

    keep_luma: bool = False
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"--color_strength must lie in [0, 1], not {self.strength}")

    def study(self, picture: Picture) -> Study:
        from codeformer.images.colour import kind_of

        notes: tuple[str, ...] = ()
        if not picture.grey and kind_of(picture.rgb) == "colour":
            notes = ("is in colour already; its faces are colorized all the same, from their brightness alone",)
        # What comes out is no grey picture, and a grey profile cannot describe it
        return Study(replace(picture, grey=False, icc=None) if picture.grey else picture, notes=notes)

    def prepare(self, crop: FaceCrop) -> np.ndarray:
        from codeformer.images.colour import before_colorizing

        return before_colorizing(crop.pixels)

    def finish(self, crop: FaceCrop, output: np.ndarray) -> np.ndarray:
        from codeformer.images.colour import after_colorizing

        return after_colorizing(crop.pixels, output, luma_of_crop=self.keep_luma, strength=self.strength)

    def settle(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        if not self.keep_luma:
            return after
        from codeformer.images.colour import keep_luma_of_changes

        # Once more for the whole picture: a large face has finer detail than its crop could hold
        return keep_luma_of_changes(before, after)


@dataclass(frozen=True)
class Inpaint(Task):
    """Fills the masked part of a face: w = 1, no AdaIN (paper section 4.4).

    The mask is ``mask`` (a file of the picture's size, or a folder with one for each picture), else what is painted
    over with ``color`` (within ``tolerance``, both of 0-255), else what is transparent, else what is painted white.
    It is widened by ``grow`` pixels, and mixed with the picture over ``feather`` pixels beyond that. ``hole`` is what
    the network sees there: "white", as the published one, or "smear", a blurred guess from the surroundings.
    """

    name: ClassVar[str] = "inpaint"
    past: ClassVar[str] = "inpainted"
    weights_group: ClassVar[str] = "inpainting"
    default_w: ClassVar[float] = 1.0
    default_upscale: ClassVar[float] = 1.0
    adain: ClassVar[bool] = False
    in_place: ClassVar[bool] = True
    needs_face: ClassVar[bool] = True

    mask: Path | None = None
    color: tuple[int, int, int] | None = None
    tolerance: float = 24.0
    grow: int = 0
    feather: int = 4
    hole: str = "white"

    def __post_init__(self) -> None:
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
        return replace(self, hole=metadata.get("hole", self.hole))

    def companion(self, path: Path) -> Path | None:
        if self.mask is None:
            return None
        from codeformer.tasks.inpainting.masks import mask_file

        return mask_file(self.mask, path)

    def study(self, picture: Picture) -> Study:
        from codeformer.tasks.inpainting.steps import study

        return study(self, picture)

    def prepare(self, crop: FaceCrop) -> np.ndarray | None:
        from codeformer.tasks.inpainting.steps import prepare

        return prepare(crop, self.hole)

    def finish(self, crop: FaceCrop, output: np.ndarray) -> np.ndarray:
        from codeformer.tasks.inpainting.steps import finish

        return finish(crop, output)

    def paste_mask(self, crop: FaceCrop, mask: np.ndarray) -> np.ndarray:
        return mask if crop.share is None else crop.share

    def untouched(self, faces: int) -> str:
        of = f" in {self.mask}" if self.mask else ""
        misses = f"touches none of the {faces} faces" if faces > 1 else "does not touch the face"
        what = f"the mask{of} {misses}" if faces else "no face found to inpaint"
        points = '--landmarks "x,y x,y x,y x,y x,y"'
        return f"{what} (a covered face may not be found: give {points}, or --aligned for a crop)"


#: Each task with its default settings; ``dataclasses.replace`` makes one with the user's.
TASKS: dict[str, Task] = {"restore": Restore(), "colorize": Colorize(), "inpaint": Inpaint()}
