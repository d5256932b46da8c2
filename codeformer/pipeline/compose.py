"""From the network's output to the finished picture, for pictures and for a film's frames: parse, upsample, paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from codeformer.arrays import Crop, Mask, Rgb, Samples
from codeformer.faces.align import scaled, transform_points
from codeformer.faces.boxes import draw_boxes
from codeformer.faces.detail import detail_of, with_detail
from codeformer.faces.face import Face
from codeformer.faces.paste import blended, coverage, geometric_mask, paste_faces, seen_in_both
from codeformer.images.alpha import enlarged
from codeformer.images.picture import Picture, described_as, replace_rgb
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.crops import AlignedFace
from codeformer.tasks.base import Study, Task

if TYPE_CHECKING:
    from codeformer.faces.parsing import Parser
    from codeformer.upsampling.upsampler import Upsampler


@dataclass(frozen=True, eq=False)
class Composition:
    """What restored faces are composed with.

    Attributes:
        task: has the last word on each face's mask and on the picture.
        parser: sees which pixels are the face; None: its landmarks say where it is.
        background: enlarges the picture; None for Lanczos.
        face_upsampler: enlarges the faces where that shows; None for none.
        upscale: the result's scale.
        aligned: the whole picture is one aligned crop.
        draw_box: whether to draw the faces' boxes and numbers.
        detail: whether sharp faces that are larger than their crop keep the picture's own fine detail.
        strength: share of the restored faces in the result, in [0, 1]; the rest is the picture without them.
        keep_occluders: faces are pasted only where the parser sees them in the input too.
    """

    task: Task
    parser: Parser | None = None
    background: Upsampler | None = None
    face_upsampler: Upsampler | None = None
    upscale: float = 1.0
    aligned: bool = False
    draw_box: bool = False
    detail: bool = False
    strength: float = 1.0
    keep_occluders: bool = False


def compose(
    study: Study,
    faces: Sequence[Face],
    aligned: Sequence[AlignedFace],
    restored: Sequence[Crop],
    how: Composition,
    clock: Clock,
    ground: Picture | None = None,
) -> tuple[Picture, list[str]]:
    """Return the finished picture, and notes for the user.

    Args:
        study: the picture as the task wants it.
        faces: all its faces, left to right, for the boxes.
        aligned: the faces that were worked on; without any, the picture is enlarged only.
        restored: what the task made of the network's output for them, in sRGB.
        how: the networks and numbers.
        clock: gets the time of each step.
        ground: what :func:`ground_of` gives for the study's picture, where the caller needs it more than once.
    """
    before = study.picture
    if how.aligned and not how.task.in_place:
        with clock.timed("paste"):
            crop = restored[0]
            if how.strength < 1:
                own = aligned[0].crop.pixels
                crop = own + (crop - own) * np.float32(how.strength)
            return described_as(as_picture(before, crop), before), []
    size = (before.rgb.shape[1], before.rgb.shape[0])
    with clock.timed("parse"):
        masks, unsure = _masks(aligned, restored, how)
    with clock.timed("upsample"):
        if not how.aligned:
            before = ground_of(before, how) if ground is None else ground
        height, width = before.rgb.shape[:2]
        scale = (width / size[0], height / size[1])
        matrices = [scaled(one.matrix, scale) for one in aligned]
        crops = list(restored)
        notes: list[str] = []
        if how.face_upsampler is not None:
            from codeformer.upsampling.upsampler import upsample_faces  # imports torch

            crops, matrices, notes = upsample_faces(crops, matrices, how.face_upsampler)
            tones = [one.crop.tone for one in aligned]  # the network's noise is coloured
            crops = [crop if tone is None else tone.of(crop) for crop, tone in zip(crops, tones, strict=True)]
    with clock.timed("paste"):
        if before.space is not None:
            rest = [_enlarged(one.beyond, crop) for one, crop in zip(aligned, crops, strict=True)]
            crops = [before.space.from_srgb(crop, more) for crop, more in zip(crops, rest, strict=True)]
        after = before
        if crops:
            pasted = paste_faces(before.rgb, crops, matrices, masks, whole=how.aligned)
            if how.detail and not how.aligned:
                notes += _keep_detail(pasted, before, study.picture, aligned, restored, masks)
            after = replace_rgb(before, blended(before.rgb, pasted, how.strength))
        covered = partial(coverage, (width, height), crops, matrices, masks, whole=how.aligned)
        result, more = how.task.complete(study, before, after, covered)
        notes += [f"face {one.number}: {remark}" for one in aligned if (remark := how.task.remark(one.crop))]
        if how.draw_box:
            result = replace_rgb(result, draw_boxes(result.rgb, faces, size))
    return result, notes + unsure + more


def _keep_detail(
    pasted: Rgb,
    before: Picture,
    picture: Picture,
    aligned: Sequence[AlignedFace],
    restored: Sequence[Crop],
    masks: Sequence[Mask],
) -> list[str]:
    """Put the fine detail of large sharp faces back into ``pasted``, in place, and return notes about it.

    Args:
        pasted: (H, W, 3), the result with its faces.
        before: the same without them.
        picture: the input, of its own size.
        aligned: the faces, in the input.
        restored: their restored crops.
        masks: where they were pasted.
    """
    (height, width), (old_height, old_width) = before.rgb.shape[:2], picture.rgb.shape[:2]
    notes = []
    for one, crop, mask in zip(aligned, restored, masks, strict=True):
        detail = detail_of(one.crop.pixels, crop, mask, picture.rgb, one.matrix)
        if detail.weight is not None:
            matrix = scaled(one.matrix, (width / old_width, height / old_height))
            with_detail(pasted, before.rgb, detail.weight, mask, matrix, detail.grain)
        if detail.lost:
            notes.append(
                f"face {one.number}: is larger than the network's {crop.shape[0]} pixels, and its finest detail was "
                f"left out, as {detail.lost}: --strength 0.8 keeps some of it, --max_face_size leaves such faces alone"
            )
    return notes


def as_picture(picture: Picture, crop: Crop) -> Picture:
    """Return a crop, in sRGB, as a picture with the depth and the colours of the one that it was cut from."""
    if picture.space is not None:
        crop = picture.space.from_srgb(crop)
    top = np.iinfo(picture.rgb.dtype).max
    pixels = np.rint(np.clip(crop, 0, 1) * np.float32(top)).astype(picture.rgb.dtype)
    return Picture(
        pixels, icc=picture.icc, cicp=picture.cicp, format=picture.format, grey=picture.grey, path=picture.path
    )


def _enlarged(beyond: Samples | None, crop: Crop) -> Samples | None:
    """Return the light beyond sRGB at a crop's size."""
    if beyond is None or not beyond.any():
        return None
    return np.asarray(cv2.resize(beyond, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _masks(aligned: Sequence[AlignedFace], restored: Sequence[Crop], how: Composition) -> tuple[list[Mask], list[str]]:
    """Return where each face is pasted, by the parser where it sees a face, else by the landmarks; and notes."""
    parsed = how.parser(list(restored)) if how.parser and not how.aligned and aligned else None
    before = None
    if how.parser and parsed is not None and how.keep_occluders:
        before = how.parser([one.crop.pixels for one in aligned])
    result, notes = [], []
    for index, one in enumerate(aligned):
        size = one.crop.pixels.shape[0]
        if one.face is None:
            mask = np.ones((size, size), dtype=np.float32)
        else:
            mask = geometric_mask(transform_points(one.face.landmarks, one.matrix), size)
            if parsed is not None and parsed[index].max() > 0.5:
                mask = parsed[index]
                if before is not None:
                    seen = seen_in_both(mask, before[index])
                    mask = mask if seen is None else seen
                    if seen is None:
                        notes.append(
                            f"face {one.number}: too little of it is seen in the input to tell what is before it; "
                            "--keep_occluders did nothing"
                        )
        result.append(how.task.paste_mask(one.crop, mask))
    return result, notes


def ground_of(picture: Picture, how: Composition) -> Picture:
    """Return the picture at the result's scale, its alpha too."""
    if how.background is not None:
        from codeformer.upsampling.upsampler import upsample_picture  # imports torch

        return upsample_picture(picture, how.background, how.upscale)
    height, width = picture.rgb.shape[:2]
    return enlarged(picture, max(1, round(width * how.upscale)), max(1, round(height * how.upscale)))
