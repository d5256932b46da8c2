"""What every task is: its settings, its defaults, and the steps in which tasks differ.

A task is a frozen dataclass. Its class attributes say which weights, fidelity weight and AdaIN the network gets. Its
fields are the user's settings for it; they are part of the fingerprint by which a later run recognises finished work.
Its methods are the steps that differ between tasks. The pipeline calls them in this order::

    study(picture)            once per picture: what to fill, what to note, or why this picture cannot be done
    prepare(crop)             once per face: the network's input, or None when this face needs nothing
    finish(crop, output)      once per face: the face that is shown, from the network's output
    paste_mask(crop, mask)    once per face: where the finished face replaces the picture
    complete(study, ...)      once per picture: the last word on it, with all faces in their places
    remark(crop)              once per face: what the user should know of it

A new task is one class in a file of its own here, one entry in :data:`codeformer.tasks.table.TASKS` and one
subcommand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from codeformer.arrays import Crop, Mask, Rgb, Where

if TYPE_CHECKING:
    from codeformer.images.picture import Picture
    from codeformer.images.tone import Tone


@dataclass(frozen=True, eq=False)
class Study:
    """A picture as the task wants it.

    Attributes:
        picture: the picture that the faces are pasted into.
        mask: (H, W), 1 where the task invents pixels, 0 where the picture stays bit for bit; None when the task works
            on whole faces.
        seen: (H, W, 3), what the detector gets instead of the picture; None for the picture itself.
        notes: lines for the user.
        tone: the one colour of each brightness that the picture has, which its faces get too; None for none.
    """

    picture: Picture
    mask: Mask | None = None
    seen: Rgb | None = None
    notes: tuple[str, ...] = ()
    tone: Tone | None = None


@dataclass(frozen=True, eq=False)
class CropMasks:
    """A study's mask in one face's crop; :mod:`codeformer.tasks.inpainting` explains the three words.

    Attributes:
        mask: (S, S) float32, the picture's mask cut like the crop.
        hole: (S, S) bool, the pixels that the network does not see.
        region: (S, S) float32, the part of the crop that this face fills and no other.
    """

    mask: Mask
    hole: Where
    region: Mask


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """One face cut out of a picture, as a task sees it.

    Attributes:
        pixels: (S, S, 3) float32 RGB in [0, 1].
        grey: whether the crop has no colour of its own.
        masks: the study's mask in this crop; None where the study has none.
        tone: the whole picture's, as the study has it.
    """

    pixels: Crop
    grey: bool = False
    masks: CropMasks | None = None
    tone: Tone | None = None


@dataclass(frozen=True)
class Task:
    """The defaults that tasks override: those of a task that works on whole faces."""

    name: ClassVar[str]
    past: ClassVar[str]
    weights_group: ClassVar[str]
    default_w: ClassVar[float]
    default_upscale: ClassVar[float]
    adain: ClassVar[bool] = True
    #: With aligned input: True pastes the face into the input at the input's own size, False gives the network's crop.
    in_place: ClassVar[bool] = False
    #: Whether to tell the user that the rest of a picture is left alone, which nobody expects of this task.
    only_faces: ClassVar[bool] = False
    #: Whether faces keep the tone of a toned print (``--tone``).
    keeps_tone: ClassVar[bool] = True
    #: Whether a result may be a blend with the input (``--strength``).
    blends: ClassVar[bool] = False
    #: Whether ``--person`` may choose the faces: they are seen, not covered.
    recognises: ClassVar[bool] = True
    #: Whether scratches may be filled before (``--scratches``).
    mends: ClassVar[bool] = False
    #: Whether a picture without a face is an error, whatever ``--no_face`` says.
    needs_face: ClassVar[bool] = False

    def suited(self, metadata: Mapping[str, str]) -> Task:
        """Return the task as the weights file with this metadata was trained for it."""
        return self

    def companion(self, path: Path) -> Path | None:
        """Return another file whose bytes decide the result for the input ``path`` (a mask), or None."""
        return None

    def study(self, picture: Picture) -> Study:
        """Return what the task wants to do in a whole picture.

        Raises:
            CodeFormerError: the task cannot be done on this picture.
        """
        return Study(picture)

    def study_mended(self, picture: Picture) -> Study:
        """Return :meth:`study` of a picture whose scratches were filled.

        Raises:
            CodeFormerError: the task cannot be done on this picture.
        """
        return self.study(picture)

    def prepare(self, crop: FaceCrop) -> Crop | None:
        """Return the network's input, (S, S, 3); None leaves this face as it is."""
        return crop.pixels

    def finish(self, crop: FaceCrop, output: Crop) -> Crop:
        """Return the finished face from the network's output; both (S, S, 3)."""
        return output

    def paste_mask(self, crop: FaceCrop, mask: Mask) -> Mask:
        """Return where the face is pasted, (S, S), from the face's own soft mask of the same shape."""
        return mask

    def complete(
        self, study: Study, before: Picture, after: Picture, covered: Callable[[], Mask]
    ) -> tuple[Picture, list[str]]:
        """Return the finished picture, and notes for the user.

        Args:
            study: what :meth:`study` said of the input.
            before: the picture at the result's size, without its faces.
            after: the same with all faces pasted.
            covered: gives how far faces were pasted over each pixel of the result, (H, W).
        """
        return after, []

    def remark(self, crop: FaceCrop) -> str:
        """Return what the user should know of this face's result; empty for nothing."""
        return ""

    def untouched(self, faces: int) -> str:
        """Return what to say when :meth:`prepare` wanted none of the ``faces`` that were chosen."""
        return "no face needs this"
