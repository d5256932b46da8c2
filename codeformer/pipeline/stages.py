"""The stages that a picture passes: look, cut, (restore), mask, compose. Values in, values out.

The pipeline runs them over many pictures and batches the faces between ``cut`` and ``compose``; nothing keeps state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from codeformer.errors import InputError
from codeformer.faces.align import crop_face, face_transform, scaled, transform_points
from codeformer.faces.choose import face_by_hand
from codeformer.faces.find import Face, find_faces
from codeformer.faces.paste import geometric_mask, paste_faces
from codeformer.images.colour import is_grey
from codeformer.images.picture import Picture, replace_rgb
from codeformer.options import CanvasOptions
from codeformer.pipeline.engine import Engine
from codeformer.tasks.base import CropMasks, FaceCrop, Study
from codeformer.tasks.inpainting.steps import masks_of_crops, uncovered, without_hole


@dataclass(frozen=True, eq=False)
class Cut:
    """One face on its way to the network.

    ``number`` counts the picture's faces from 1, left to right. ``face`` is None for an aligned crop. ``matrix`` maps
    the picture to the crop. ``source`` is (S, S, 3) float32 in [0, 1], what the network gets.
    """

    number: int
    face: Face | None
    matrix: np.ndarray
    crop: FaceCrop
    source: np.ndarray


def look(engine: Engine, study: Study) -> list[Face]:
    """All faces of a picture, left to right: detected, or given by hand. Raises InputError for one outside of it.

    Where none is seen and a mask says what shall go, it may be what hides them: then with a guess in its place.
    """
    options = engine.work.faces
    if options.landmarks:
        faces = [face_by_hand(np.array(points, dtype=np.float32)) for points in options.landmarks]
        height, width = study.picture.rgb.shape[:2]
        for face in faces:
            x, y = face.landmarks.mean(axis=0)
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise InputError(
                    f"--landmarks: a face around ({x:.0f}, {y:.0f}) lies outside of {width} x {height} pixels"
                )
        return sorted(faces, key=lambda face: face.centre)
    if engine.detector is None:
        return []

    def find(rgb: np.ndarray) -> list[Face]:
        assert engine.detector is not None
        return find_faces(rgb, engine.detector, threshold=options.det_threshold, min_size=options.min_face_size)

    if study.seen is not None:
        return find(study.seen)
    faces = find(study.picture.rgb)
    if not faces and study.mask is not None:
        faces = find(uncovered(study.picture.rgb, study.mask))
    return faces


def cut(engine: Engine, study: Study, faces: Sequence[Face], numbers: set[int]) -> list[Cut]:
    """The crops of the chosen faces that the task wants to work on. Raises InputError for impossible landmarks."""
    size = engine.restorer.size
    if engine.work.faces.aligned:
        height, width = study.picture.rgb.shape[:2]
        whole = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        places: list[tuple[int, Face | None, np.ndarray]] = [(1, None, scaled(whole, (width / size, height / size)))]
    else:
        places = [
            (number, face, face_transform(face.landmarks, size))
            for number, face in enumerate(faces, 1)
            if number in numbers
        ]
    masks: Sequence[CropMasks | None] = [None] * len(places)
    if study.mask is not None:
        matrices = [matrix for _, _, matrix in places]
        masks = masks_of_crops(study.mask, matrices, size, whole=engine.work.faces.aligned)
    cuts = []
    for (number, face, matrix), own in zip(places, masks, strict=True):
        pixels = _whole_crop(study.picture.rgb, size) if face is None else crop_face(study.picture.rgb, matrix, size)
        grey = study.picture.grey or is_grey(without_hole(pixels, own))
        crop = FaceCrop(pixels, grey, own)
        source = engine.task.prepare(crop)
        if source is not None:
            cuts.append(Cut(number, face, matrix, crop, np.ascontiguousarray(source, dtype=np.float32)))
    return cuts


def masks(engine: Engine, cuts: Sequence[Cut], restored: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Where each face is pasted, (S, S) float32: by the parser where it sees a face, else by the landmarks."""
    size = engine.restorer.size
    parsed = engine.parser(list(restored)) if engine.parser and not engine.work.faces.aligned and cuts else None
    result = []
    for index, one in enumerate(cuts):
        if one.face is None:
            mask = np.ones((size, size), dtype=np.float32)
        else:
            mask = geometric_mask(transform_points(one.face.landmarks, one.matrix), size)
            if parsed is not None and parsed[index].max() > 0.5:
                mask = parsed[index]
        result.append(engine.task.paste_mask(one.crop, mask))
    return result


def background(engine: Engine, picture: Picture) -> Picture:
    """The picture at the output's scale, by the upsampler or by Lanczos; alpha too."""
    factor = engine.work.canvas.upscale
    if engine.background is not None:
        from codeformer.upsampling.upsampler import upsample_picture

        return upsample_picture(picture, engine.background, factor)
    height, width = picture.rgb.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    alpha = None if picture.alpha is None else _lanczos(picture.alpha, *size)
    return replace_rgb(picture, _lanczos(picture.rgb, *size), alpha)


def upsample_faces(
    engine: Engine, cuts: Sequence[Cut], restored: Sequence[np.ndarray], scale: tuple[float, float]
) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Crops and their matrices for a picture enlarged by ``scale`` (x, y), upsampled where that shows; and notes."""
    matrices = [scaled(one.matrix, scale) for one in cuts]
    if engine.face_upsampler is None:
        return list(restored), matrices, []
    from codeformer.upsampling.upsampler import upsample_faces as grown  # imports torch

    return grown(restored, matrices, engine.face_upsampler)


def compose(
    canvas: Picture,
    crops: Sequence[np.ndarray],
    matrices: Sequence[np.ndarray],
    face_masks: Sequence[np.ndarray],
    *,
    whole: bool = False,
) -> Picture:
    """The faces pasted into the picture that is already at the output's scale; ``whole``: the crop is the picture."""
    return replace_rgb(canvas, paste_faces(canvas.rgb, crops, matrices, face_masks, whole=whole)) if crops else canvas


def as_picture(picture: Picture, crop: np.ndarray) -> Picture:
    """A crop, float32 in [0, 1], as a picture with the depth and colour profile of the one it was cut from."""
    top = np.iinfo(picture.rgb.dtype).max
    pixels = np.rint(np.clip(crop, 0, 1) * np.float32(top)).astype(picture.rgb.dtype)
    return Picture(pixels, icc=picture.icc, format=picture.format, grey=picture.grey, path=picture.path)


def draw_boxes(picture: Picture, faces: Sequence[Face], options: CanvasOptions, size: tuple[int, int]) -> Picture:
    """The picture with each face's box and number; ``size`` is the (width, height) that the boxes refer to."""
    height, width = picture.rgb.shape[:2]
    sx, sy = width / size[0], height / size[1]
    thick = max(1, round(min(width, height) / 300))
    font = max(0.4, min(width, height) / 700)
    outline, ink = (np.zeros((height, width), np.uint8) for _ in range(2))  # OpenCV writes into 8 bits only
    for number, face in enumerate(faces, 1):
        x0, y0, x1, y1 = (round(v * s) for v, s in zip(face.box, (sx, sy, sx, sy), strict=True))
        cv2.rectangle(ink, (x0, y0), (x1, y1), 255, thick)
        at = (x0 + 2 * thick, max(y0 - 2 * thick, round(22 * font)))
        for mask, width_of_line in ((outline, 3 * thick), (ink, thick)):
            cv2.putText(mask, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, font, 255, width_of_line, cv2.LINE_AA)
    rgb = picture.rgb.copy()
    green = np.array([0, np.iinfo(rgb.dtype).max, 0], np.float32)
    for mask, colour in ((outline, 0 * green), (ink, green)):
        drawn = mask > 0
        weight = mask[drawn][:, None].astype(np.float32) / 255
        rgb[drawn] = np.rint(rgb[drawn] + (colour - rgb[drawn]) * weight).astype(rgb.dtype)
    return replace_rgb(picture, rgb)


def _whole_crop(rgb: np.ndarray, size: int) -> np.ndarray:
    """A whole picture as a crop, (size, size, 3) float32; bit for bit where it has that size."""
    height, width = rgb.shape[:2]
    pixels = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    if (height, width) == (size, size):
        return pixels
    shrinks = min(height, width) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.clip(cv2.resize(pixels, (size, size), interpolation=method), 0, 1)


def _lanczos(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The same array where nothing changes."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LANCZOS4)
