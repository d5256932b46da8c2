"""What the server was asked for, and what a request asks for: the flags of the command line, as fields.

Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from codeformer.errors import UsageError
from codeformer.options import (
    DEFAULT_DETECTOR,
    DEFAULT_THRESHOLD,
    PERSON_DISTANCE,
    CanvasOptions,
    FaceOptions,
    FaceWork,
    ModelOptions,
)
from codeformer.tasks.base import Task
from codeformer.video.options import FilmOptions, parse_time

#: Upsamplers that a request may name; a path would be one of the server's files.
UPSAMPLERS = ("none", "realesrgan")


@dataclass(frozen=True)
class ServerOptions:
    """One server.

    Attributes:
        queue: how many requests, and films, wait at most.
        max_mb: the most megabytes of an upload.
        max_pixels: of a picture; None by the machine's memory.
        timeout: seconds after which a picture's request is given up.
        token: what clients show; None for nothing.
        root_path: the folder that a reverse proxy serves this under and takes off each path, as "/faces"; "" for none.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    queue: int = 64
    max_mb: int = 200
    max_pixels: int | None = None
    timeout: float = 600.0
    token: str | None = None
    root_path: str = ""
    model: ModelOptions = field(default_factory=ModelOptions)
    detection_model: str = DEFAULT_DETECTOR

    def __post_init__(self) -> None:
        """Refuse what is out of range, and an open door."""
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port must lie in [0, 65535], not {self.port}")
        if self.queue < 1:
            raise UsageError(f"--queue must be at least 1, not {self.queue}")
        if self.max_mb < 1:
            raise UsageError(f"--max_mb must be at least 1, not {self.max_mb}")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise UsageError(f"--max_pixels must be auto or at least 1, not {self.max_pixels}")
        if self.timeout <= 0:
            raise UsageError(f"--timeout must be more than 0 seconds, not {self.timeout:g}")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise UsageError("--token needs 8 or more printable ASCII characters")
        if self.root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.root_path):
            raise UsageError(f"--root_path must begin with / and not end with it, as /faces, not {self.root_path!r}")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(f"--host {self.host} lets other machines in: give a --token too, or use --host 127.0.0.1")

    @property
    def max_bytes(self) -> int:
        """The most bytes of an upload."""
        return self.max_mb * 1_000_000


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def face_work(fields: Mapping[str, Any], task: Task, server: ServerOptions) -> FaceWork:
    """Return the options of a request. Fields that are missing, or None, have the command line's defaults.

    ``person`` is a list of paths, of files that were uploaded.

    Raises:
        UsageError: a value is out of range; it names the flag.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    if "w" in given and "fidelity_weight" in given:
        raise UsageError("w and fidelity_weight are two names of one field: give one")
    if given.get("parsing", "auto") not in ("auto", "none"):
        raise UsageError(f"--parsing must be auto or none here, not {given['parsing']!r}")
    upsampler = given.get("bg_upsampler", "none")
    if upsampler not in UPSAMPLERS:
        raise UsageError(f"--bg_upsampler must be one of {', '.join(UPSAMPLERS)}, not {upsampler!r}")
    background = None if upsampler == "none" else upsampler
    enlarged = background is not None or given.get("face_upsample", False)
    upscale = task.default_upscale if not given.get("film") else 2.0 if enlarged else 1.0
    if given.get("draw_box") and given.get("aligned"):
        raise UsageError("--draw_box needs whole pictures: aligned crops have no boxes")
    return FaceWork(
        w=given.get("w", given.get("fidelity_weight", task.default_w)),
        model=server.model,
        faces=FaceOptions(
            detection_model=server.detection_model,
            det_threshold=given.get("det_threshold", DEFAULT_THRESHOLD),
            min_face_size=given.get("min_face_size", 0.0),
            max_face_size=given.get("max_face_size"),
            max_faces=given.get("max_faces"),
            only_center_face=given.get("only_center_face", False),
            numbers=tuple(given.get("face", ())),
            landmarks=tuple(tuple((float(x), float(y)) for x, y in face) for face in given.get("landmarks", ())),
            aligned=given.get("aligned", False),
            parsing=given.get("parsing", "auto"),
            keep_occluders=given.get("keep_occluders", False),
            person=tuple(Path(path) for path in given.get("person", ())),
            person_distance=given.get("person_distance", PERSON_DISTANCE),
        ),
        canvas=CanvasOptions(
            upscale=given.get("upscale", upscale),
            bg_upsampler=background,
            face_upsample=given.get("face_upsample", False),
            draw_box=given.get("draw_box", False),
        ),
        tone=given.get("tone", "auto"),
    )


def has_w(fields: Mapping[str, Any]) -> bool:
    """Whether a request names its fidelity weight."""
    return fields.get("w") is not None or fields.get("fidelity_weight") is not None


def film_options(
    fields: Mapping[str, Any], task: Task, server: ServerOptions, source: Path, output: Path
) -> FilmOptions:
    """Return the options of a film's request, as :func:`face_work`."""
    given = {name: value for name, value in fields.items() if value is not None}
    return FilmOptions(
        source=source,
        output=output,
        work=face_work({**given, "film": True}, task, server),
        temporal=given.get("temporal", "auto"),
        start=parse_time(given["start"]) if given.get("start") else None,
        end=parse_time(given["end"]) if given.get("end") else None,
        fps=_rate(given.get("save_video_fps"), "--save_video_fps"),
        clock=_rate(given.get("fps"), "--fps"),
        stream=given.get("stream"),
        deinterlace=given.get("deinterlace", "auto"),
        codec=given.get("codec"),
        crf=given.get("crf"),
        preset=given.get("preset"),
        pix_fmt=given.get("pix_fmt"),
        audio=not given.get("no_audio", False),
        preview=given.get("preview", 0),
        stretch=given.get("stretch", 96),
        w_by_model=not has_w(given),
    )


def _rate(text: str | None, flag: str) -> Fraction | None:
    if not text:
        return None
    try:
        return Fraction(text).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{flag}: {text!r} is not a frame rate: write 25 or 30000/1001") from None
