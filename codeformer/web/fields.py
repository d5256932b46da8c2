"""The fields of a form, one for each flag of the command line, as FastAPI wants them declared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import File, UploadFile
from pydantic import BaseModel, ConfigDict, field_validator

from codeformer.cli.inpaint import parse_color
from codeformer.cli.values import parse_landmarks


class FaceFields(BaseModel):
    """What pictures and films have in common."""

    model_config = ConfigDict(extra="forbid")

    w: float | None = None
    fidelity_weight: float | None = None
    det_threshold: float | None = None
    min_face_size: float | None = None
    max_face_size: float | None = None
    max_faces: int | None = None
    only_center_face: bool = False
    landmarks: list[str] = []
    tone: Literal["auto", "keep", "free"] | None = None
    parsing: Literal["auto", "none"] | None = None
    keep_occluders: bool = False
    person: Annotated[list[UploadFile], File(description="photographs of the one person whose faces are wanted")] = []
    person_distance: float | None = None
    upscale: float | None = None
    bg_upsampler: Literal["none", "realesrgan"] | None = None
    face_upsample: bool = False

    @field_validator("landmarks")
    @classmethod
    def _points(cls, value: list[str]) -> list[str]:
        for text in value:
            points_of(text)
        return value

    def given(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        files = {name for name, value in self if isinstance(value, UploadFile)}
        return self.model_dump(exclude=files | {"picture", "mask", "film", "person"})


class PictureFields(FaceFields):
    """Restore."""

    picture: Annotated[UploadFile, File(description="the picture, of any format that the command line reads")]
    face: list[int] = []
    aligned: bool = False
    draw_box: bool = False
    no_face: Literal["copy", "error"] = "copy"
    ext: Literal["png", "jpg", "webp"] = "png"
    quality: int = 95


class ColorizeFields(PictureFields):
    """Colorize."""

    keep_luma: bool = False
    color_strength: float | None = None


class InpaintFields(PictureFields):
    """Inpaint."""

    mask: Annotated[UploadFile | None, File(description="white fills, black keeps, of the picture's size")] = None
    mask_color: str | None = None
    mask_tolerance: float | None = None
    mask_grow: int | None = None
    mask_feather: int | None = None


class UpscaleFields(BaseModel):
    """Upscale."""

    model_config = ConfigDict(extra="forbid")

    picture: Annotated[UploadFile, File(description="the picture")]
    upscale: float = 4.0
    ext: Literal["png", "jpg", "webp"] = "png"
    quality: int = 95


class FilmFields(FaceFields):
    """A film."""

    film: Annotated[UploadFile, File(description="the film, of any format that the command line reads")]
    temporal: str | None = None
    start: str | None = None
    end: str | None = None
    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    no_audio: bool = False
    save_video_fps: str | None = None
    fps: str | None = None
    stream: int | None = None
    deinterlace: str | None = None
    preview: int = 0


def points_of(text: str) -> tuple[tuple[float, float], ...]:
    """Return a face's five points. Raises ValueError."""
    import argparse

    try:
        return parse_landmarks(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--landmarks: {error}") from None


def color_of(text: str) -> tuple[int, int, int]:
    """Return the paint's colour. Raises UsageError."""
    import argparse

    from codeformer.errors import UsageError

    try:
        return parse_color(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--mask_color: {error}") from None
