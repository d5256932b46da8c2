"""Scratches are filled before anything else, so that faces are found and restored without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from codeformer.arrays import Matrix, Rgb, Where
from codeformer.backends.base import FaceNetwork
from codeformer.faces.align import face_transform, inverse, mean_scale, scaled, transform_points
from codeformer.images.alpha import visible
from codeformer.images.picture import Picture
from codeformer.images.space import in_srgb
from codeformer.images.value import to_uint8
from codeformer.models.file import ModelFile, find_model
from codeformer.options import FaceOptions, ModelOptions, TonePolicy
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.compose import Composition, compose
from codeformer.pipeline.crops import align, find, toned
from codeformer.scratches.fill import fill, wide_parts
from codeformer.tasks.base import Study, Task
from codeformer.tasks.inpaint import Inpaint

if TYPE_CHECKING:
    import torch

    from codeformer.faces.find import Detector
    from codeformer.scratches.find import ScratchFinder

#: More than this share of a picture is no print's damage: a drawing, a page of text.
MOST = 0.2
# Half the width of a mark, in pixels of a face's crop of 512, from which the inpainting network draws the face better
# than its surroundings tell. Over lines of 4, 8, 14, 22, 32 and 48 pixels across 8 faces, PSNR in dB by Telea's method
# was 28.4, 25.8, 23.6, 22.0, 20.4, 19.1; by the bundled network 24.2, 24.2, 23.4, 22.9, 21.8, 21.0.
_WIDE = 9.0


@dataclass(frozen=True, eq=False)
class Mender:
    """The networks that find scratches and fill the wide ones in faces.

    Attributes:
        finder: marks the damaged pixels.
        task: inpainting, as ``model`` was trained for it.
        restorer: the inpainting network.
        model: its weights file.
    """

    finder: ScratchFinder
    task: Task
    restorer: FaceNetwork
    model: ModelFile


@dataclass(frozen=True, eq=False)
class Mended:
    """A picture without its scratches.

    Attributes:
        picture: bit for bit as it was outside of ``damage``.
        damage: (H, W), the pixels that were filled.
        notes: lines for the user.
    """

    picture: Picture
    damage: Where
    notes: tuple[str, ...] = ()


def open_mender(restorer: FaceNetwork, model: ModelFile, device: torch.device) -> Mender:
    """Load what finds scratches.

    Args:
        restorer: the inpainting network.
        model: its weights file.
        device: where the network that finds them runs.

    Raises:
        WeightsError: the finder's file is missing or damaged.
    """
    from codeformer.scratches.find import open_finder

    return Mender(open_finder(device), Inpaint().suited(model.metadata), restorer, model)


def find_inpainting(options: ModelOptions) -> ModelFile:
    """Open the inpainting weights that go with ``--model``. Raises WeightsError."""
    name = options.model if options.model in ("auto", "compact", "official") else "auto"
    return find_model(name, Inpaint(), options.weights_dir)


def mend(
    picture: Picture, mender: Mender, detector: Detector | None, faces: FaceOptions, tone: TonePolicy = "auto"
) -> Mended:
    """Return a picture whose scratches are filled.

    Thin ones are filled from both sides, the wide ones in faces by the inpainting network.

    Args:
        picture: the input, in any colour space.
        mender: the networks.
        detector: finds faces; None for an aligned crop, or faces by hand.
        faces: which faces.
        tone: as ``--tone``.

    Raises:
        RestorationError: the inpainting network's output is not finite.
        OutOfMemoryError: not even one face fits.
    """
    hole = mender.finder(_seen(picture))
    damage = hole if picture.alpha is None else hole & (picture.alpha > 0)
    share = float(damage.mean())
    if not damage.any():
        return Mended(picture, damage, ("no scratches were found",))
    if share > MOST:
        line = (
            f"{share:.0%} of it looks like scratches, more than a print can have: nothing is filled; to fill parts of "
            "it give them to codeformer inpaint --mask"
        )
        return Mended(picture, np.zeros_like(damage), (line,))
    made_up = fill(visible(picture), hole)
    filled = replace(picture, rgb=np.where(damage[..., None], made_up, picture.rgb))
    drawn, count = _fill_faces(filled, damage, mender, detector, faces, tone)
    notes = [f"scratches, dust and creases were filled: {max(share, 1e-4):.2%} of the picture"]
    if count:
        notes.append(f"what is wide of them in {count} face{'s' * (count > 1)} was drawn by the inpainting network")
    return Mended(drawn, damage, tuple(notes))


def _seen(picture: Picture) -> Rgb:
    """Return what the finder gets: 8 bits, sRGB, and no colours that are not to be seen."""
    rgb = visible(picture)
    return to_uint8(rgb) if picture.space is None else in_srgb(rgb, picture.space, np.uint8)


def _fill_faces(
    picture: Picture, damage: Where, mender: Mender, detector: Detector | None, faces: FaceOptions, tone: TonePolicy
) -> tuple[Picture, int]:
    """Return the picture with the wide damage in its faces drawn by the network, and in how many faces that is."""
    size = mender.restorer.size
    found = [] if faces.aligned else find(Study(picture), detector, faces)
    matrices = [face_transform(face.landmarks, size) for face in found]
    if faces.aligned:
        height, width = damage.shape
        matrices = [scaled(np.eye(2, 3), (width / size, height / size))]
    wide = _wide_in_faces(matrices, damage, size)
    if not wide.any():
        return picture, 0
    study = toned(Study(picture, wide.astype(np.float32)), tone)
    every = set(range(1, len(found) + 1))
    aligned = align(study, found, every, mender.task, size, aligned=faces.aligned)
    if not aligned:
        return picture, 0
    w, adain = mender.model.default_w(mender.task), mender.model.adain(mender.task)
    outputs = mender.restorer.restore([one.source for one in aligned], w=w, adain=adain)
    crops = [mender.task.finish(one.crop, output) for one, output in zip(aligned, outputs, strict=True)]
    how = Composition(mender.task, aligned=faces.aligned)
    result, _ = compose(study, found, aligned, crops, how, Clock())
    return replace(picture, rgb=np.where(wide[..., None], result.rgb, picture.rgb)), len(aligned)


def _wide_in_faces(matrices: Sequence[Matrix], damage: Where, size: int) -> Where:
    """Return the damaged pixels in the faces' crops that belong to wide marks, (H, W) bool."""
    result = np.zeros_like(damage)
    corners = [[0, 0], [size, 0], [size, size], [0, size]]
    for matrix in matrices:
        (scale,) = mean_scale([matrix])  # pixels of the crop for one of the picture
        inside = np.zeros(damage.shape, np.uint8)
        quad = transform_points(np.array(corners, np.float64), inverse(matrix))
        cv2.fillConvexPoly(inside, np.rint(quad).astype(np.int32), 1)
        within = inside > 0
        if (damage & within).any():
            result |= wide_parts(damage, _WIDE * size / 512 / scale) & within
    return result
