"""What can be done to a face: restore, colorize, inpaint.

A task is a frozen dataclass: its class attributes say which weights, fidelity weight and AdaIN the network gets,
its fields are the user's settings for it (they are part of the fingerprint by which a later run recognises finished
work), and its methods are the steps that differ between tasks. The pipeline calls them in this order::

    study(picture)          once per picture: what to fill, what to note, or an error that this picture cannot be done
    prepare(crop)           once per face: the network's input, or None when this face needs nothing
    finish(crop, output)    once per face: the face that is shown, from the network's output
    paste_mask(crop, mask)  once per face: where the finished face replaces the picture

A new task is one class here, one entry in :data:`TASKS` and one subcommand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from codeformer.picture import Picture


@dataclass(frozen=True)
class Study:
    """A picture as the task wants it.

    ``fill`` is (H, W) float32 in [0, 1], 1 where the task shall invent pixels, or None when it works on whole faces.
    """

    picture: Picture
    fill: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaceCrop:
    """One face cut out of a picture, as a task sees it.

    ``pixels`` is (S, S, 3) float32 RGB in [0, 1]; ``fill`` is the study's mask cut the same way, (S, S) float32;
    ``grey`` says that the crop has no colour of its own.
    """

    pixels: np.ndarray
    grey: bool = False
    fill: np.ndarray | None = None


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
    #: Whether a picture without a face is an error, whatever ``--no_face`` says.
    needs_face: ClassVar[bool] = False

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

    def untouched(self) -> str:
        """What to say when there are faces but :meth:`prepare` wanted none of them."""
        return "no face needs this"


@dataclass(frozen=True)
class Restore(Task):
    """Blind face restoration with w and AdaIN as published (paper section 3.3). A grey face stays grey."""

    def finish(self, crop: FaceCrop, output: np.ndarray) -> np.ndarray:
        if not crop.grey:
            return output
        from codeformer.colour import to_grey

        return to_grey(output)


@dataclass(frozen=True)
class Colorize(Task):
    """Colour for a face from the code sequence alone: w = 0 (paper section 4.4)."""

    name: ClassVar[str] = "colorize"
    past: ClassVar[str] = "colorized"
    weights_group: ClassVar[str] = "colorization"
    default_w: ClassVar[float] = 0.0
    default_upscale: ClassVar[float] = 1.0


@dataclass(frozen=True)
class Inpaint(Task):
    """Fills the masked part of a face: w = 1, no AdaIN (paper section 4.4)."""

    name: ClassVar[str] = "inpaint"
    past: ClassVar[str] = "inpainted"
    weights_group: ClassVar[str] = "inpainting"
    default_w: ClassVar[float] = 1.0
    default_upscale: ClassVar[float] = 1.0
    adain: ClassVar[bool] = False
    in_place: ClassVar[bool] = True
    needs_face: ClassVar[bool] = True

    def untouched(self) -> str:
        return "the mask touches no face (give --landmarks, or --aligned for a crop)"


#: Each task with its default settings; ``dataclasses.replace`` makes one with the user's.
TASKS: dict[str, Task] = {"restore": Restore(), "colorize": Colorize(), "inpaint": Inpaint()}
