"""From a picture to what the network gets: find its faces, and align the crops of those that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from codeformer.arrays import Crop, Matrix, Rgb, Samples
from codeformer.errors import InputError
from codeformer.faces.align import crop_face, face_transform, scaled
from codeformer.faces.choose import face_by_hand
from codeformer.faces.find import Detector, Face, find_faces
from codeformer.faces.person import describe_faces
from codeformer.images.alpha import visible
from codeformer.images.colour import is_grey, to_grey
from codeformer.images.picture import Picture
from codeformer.images.space import glance, in_srgb
from codeformer.images.tone import tone_in
from codeformer.options import FaceOptions, TonePolicy
from codeformer.tasks.base import CropMasks, FaceCrop, Study, Task
from codeformer.tasks.inpainting.steps import masks_of_crops, uncovered, without_hole

if TYPE_CHECKING:
    from codeformer.pipeline.engine import Engine


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """One face on its way to the network.

    Attributes:
        number: its place among the picture's faces, from 1, left to right.
        face: where it is in the picture; None for an aligned crop.
        matrix: (2, 3), the picture to the crop.
        crop: what the task sees of it, in sRGB.
        source: (S, S, 3), what the network gets.
        beyond: (S, S, 3), light that the picture's space has and sRGB has not, which comes back with the face; None in
            sRGB.
    """

    number: int
    face: Face | None
    matrix: Matrix
    crop: FaceCrop
    source: Crop
    beyond: Samples | None = None


def find(study: Study, detector: Detector | None, options: FaceOptions, *, turned_views: bool = True) -> list[Face]:
    """Return all faces of a picture, left to right: detected, or given by hand.

    Where none is seen and a mask says what is to be filled, that may be what hides them: then they are searched with a
    guess in its place.

    Args:
        study: the picture as the task wants it.
        detector: None finds nothing but faces by hand.
        options: which faces.
        turned_views: whether a picture without a sure upright face is looked at from its other sides. A film's
            frames are not: most frames without a face would cost four looks.

    Raises:
        InputError: a face by hand lies outside of the picture.
    """
    if options.landmarks:
        return _by_hand(options, study.picture.rgb)
    if detector is None:
        return []
    space = study.picture.space
    seen = study.picture.rgb if study.seen is None else study.seen
    if space is not None:
        seen = in_srgb(seen, space, np.uint8) if turned_views else glance(seen, space)
    search = partial(
        find_faces,
        detector=detector,
        threshold=options.det_threshold,
        min_size=options.min_face_size,
        turned_views=turned_views,
    )
    faces = search(seen)
    if not faces and study.seen is None and study.mask is not None:
        guess = uncovered(study.picture.rgb, study.mask)
        faces = search(guess if space is None else in_srgb(guess, space, np.uint8))
    return faces


def recognised(picture: Picture, faces: Sequence[Face], engine: Engine) -> tuple[list[float], set[int] | None]:
    """Return how far each face is from the wanted person, and the numbers of those that are near enough.

    Without a wanted person that is nothing, and None for every face.
    """
    person, recogniser = engine.person, engine.recogniser
    if person is None or recogniser is None:
        return [], None
    distances = [person.distance(one) for one in describe_faces(picture, faces, recogniser)]
    return distances, {number for number, far in enumerate(distances, 1) if far <= person.limit}


def toned(study: Study, policy: TonePolicy) -> Study:
    """Return the study with the tone that the picture's faces are to keep, and a note where that was found out."""
    if policy == "free":
        return study
    tone = tone_in(study.picture, study.mask, always=policy == "keep")
    if tone is None:
        return study
    notes = study.notes
    if policy == "auto":
        notes = (*notes, "is toned as a whole, as sepia is: its faces keep that tone; --tone free gives them colours")
    return replace(study, tone=tone, notes=notes)


def _by_hand(options: FaceOptions, rgb: Rgb) -> list[Face]:
    faces = [face_by_hand(np.array(points, dtype=np.float32)) for points in options.landmarks]
    height, width = rgb.shape[:2]
    for face in faces:
        x, y = face.landmarks.mean(axis=0)
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise InputError(f"--landmarks: a face around ({x:.0f}, {y:.0f}) lies outside of {width} x {height} pixels")
    return sorted(faces, key=lambda face: face.centre)


def align(
    study: Study, faces: Sequence[Face], numbers: set[int], task: Task, size: int, *, aligned: bool = False
) -> list[AlignedFace]:
    """Return the crops of the chosen faces that the task wants to work on.

    Args:
        study: the picture as the task wants it.
        faces: all faces of the picture, left to right.
        numbers: which of them are chosen, from 1.
        task: decides what the network gets of each crop, and whether the crop needs anything.
        size: the crops' side.
        aligned: the whole picture is one aligned crop; ``faces`` and ``numbers`` do not count.

    Raises:
        InputError: landmarks of no face.
    """
    rgb = study.picture.rgb if study.mask is not None else visible(study.picture)
    places: list[tuple[int, Face | None, Matrix]]
    if aligned:
        whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        places = [(1, None, scaled(whole, (rgb.shape[1] / size, rgb.shape[0] / size)))]
    else:
        chosen = [(number, face) for number, face in enumerate(faces, 1) if number in numbers]
        places = [(number, face, face_transform(face.landmarks, size)) for number, face in chosen]
    masks: Sequence[CropMasks | None] = [None] * len(places)
    if study.mask is not None:
        masks = masks_of_crops(study.mask, [matrix for _, _, matrix in places], size, whole=aligned)
    result = []
    for (number, face, matrix), own in zip(places, masks, strict=True):
        pixels = _whole_crop(rgb, size) if face is None else crop_face(rgb, matrix, size)
        beyond = None
        if study.picture.space is not None:
            beyond = study.picture.space.beyond_srgb(pixels)
            pixels = study.picture.space.to_srgb(pixels)
        crop = FaceCrop(pixels, study.picture.grey or is_grey(without_hole(pixels, own)), own, study.tone)
        source = task.prepare(crop)
        if source is not None:
            if study.tone is not None:  # the tone comes back afterwards; with it, a face looks like none in colour
                source = to_grey(source)
            source = np.ascontiguousarray(source, dtype=np.float32)
            result.append(AlignedFace(number, face, matrix, crop, source, beyond))
    return result


def _whole_crop(rgb: Rgb, size: int) -> Crop:
    """Return a whole picture as a crop; bit for bit where it has that size."""
    height, width = rgb.shape[:2]
    pixels = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    if (height, width) == (size, size):
        return pixels
    shrinks = min(height, width) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.clip(cv2.resize(pixels, (size, size), interpolation=method), 0, 1)
