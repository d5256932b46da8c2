"""Raw photographs to aligned faces: `codeformer align`, the first step of training.

Faces that are too small or too blurred to learn from are left out, and the report says which and why.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from codeformer.errors import CodeFormerError, ExitCode, InputError, OutputError, UsageError
from codeformer.faces.align import crop_face, face_transform, mean_scale
from codeformer.faces.find import Detector, Face, find_faces
from codeformer.files.atomic import write_atomic
from codeformer.images.picture import Picture, read_picture, write_picture
from codeformer.run.inputs import Input, NamedInput, assign_names
from codeformer.train.degrade import LUMA

Array = np.ndarray[Any, Any]
REPORT = "align.json"
_FORMAT = 1
_REPORT_EVERY = 100  # inputs


@dataclass(frozen=True)
class Demands:
    """What a face must be like, and how it is written.

    Attributes:
        size: side of the crops, pixels. A face that has fewer pixels in its photograph is written that much smaller,
            unless `enlarge`: training takes any sizes, and learns the finest detail from faces that have it.
        min_size: least side of the aligned square in the photograph, pixels (about 4 times the eyes' distance).
        min_sharpness: least :func:`sharpness`.
        threshold: least score of the detector.
        ext, quality: format of the files, png or webp, and WebP's quality.
    """

    size: int = 512
    min_size: float = 256.0
    min_sharpness: float = 80.0
    threshold: float = 0.7
    enlarge: bool = False
    ext: str = "png"
    quality: int = 95

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096:
            raise UsageError(f"--size {self.size}: 16 to 4096 pixels")
        if self.min_size < 0 or self.min_sharpness < 0:
            raise UsageError("--min_size and --min_sharpness: not below 0")
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"--det_threshold {self.threshold}: from 0 to 1")
        if self.ext not in ("png", "webp"):
            raise UsageError(f"--ext {self.ext}: png or webp")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality}: 1 to 100")


@dataclass(frozen=True)
class Found:
    """One face of a photograph: whether it is kept, and why not. ``side`` and ``sharpness`` as in :class:`Demands`."""

    status: str  # kept, too small, too blurred
    score: float
    side: float
    sharpness: float
    landmarks: list[list[float]]
    file: str | None = None


def sharpness(crop: Array) -> float:
    """Return how sharp an aligned face (S, S, 3) in [0, 1] is: the variance of its brightness's Laplacian.

    Taken of 8-bit values, at 256 pixels a side whatever S is, in the middle of the crop (eyes, nose, mouth). Faces
    that are sharp at 512 pixels have about 130 to 450, the same with a Gaussian blur of 2 pixels 14 to 80. Noise counts
    as sharpness.
    """
    small = cv2.resize(crop.astype(np.float32) @ LUMA, (256, 256), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(small[64:224, 64:192] * 255, cv2.CV_32F).var())


def judge(rgb: Array, face: Face, demands: Demands) -> tuple[Found, Array | None]:
    """Look at one face of a picture; return what is to be said about it and, if it is kept, its crop in [0, 1]."""
    size = demands.size
    matrix = face_transform(face.landmarks, size)
    side = size / mean_scale([matrix])[0]
    if side < size and not demands.enlarge:
        size = max(16, int(side) // 2 * 2)
        matrix = face_transform(face.landmarks, size)
    crop = crop_face(rgb, matrix, size)
    sharp = sharpness(crop)
    status = "too small" if side < demands.min_size else "too blurred" if sharp < demands.min_sharpness else "kept"
    landmarks = np.asarray(face.landmarks, float).round(2).tolist()
    found = Found(status, round(face.score, 4), round(side, 1), round(sharp, 1), landmarks)
    return found, crop if status == "kept" else None


def align_file(one: NamedInput, out: Path, detector: Detector, demands: Demands) -> dict[str, Any]:
    """Write the faces of one photograph, and return its entry of the report.

    Raises:
        CodeFormerError: it cannot be read, or a face cannot be written.
    """
    picture = read_picture(one.path)
    faces = []
    for number, face in enumerate(find_faces(picture.rgb, detector, threshold=demands.threshold), 1):
        found, crop = judge(picture.rgb, face, demands)
        entry = asdict(found)
        if crop is not None:
            entry["file"] = f"{one.stem}_{number:02d}.{demands.ext}"
            pixels = (crop * 255).round().astype(np.uint8)
            write_picture(Picture(pixels, icc=picture.icc), out / entry["file"], quality=demands.quality)
        faces.append(entry)
    return {"stem": one.stem, "status": "done", "faces": faces, "warnings": list(picture.warnings)}


@dataclass(frozen=True)
class Outcome:
    """What a run did: the report's entries of its inputs by path, and the errors by path."""

    entries: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, CodeFormerError]

    def count(self, status: str) -> int:
        """Return how many faces this run found ``kept``, ``too small`` or ``too blurred``."""
        done = [entry for entry in self.entries.values() if entry["status"] == "done"]
        return sum(face["status"] == status for entry in done for face in entry["faces"])

    @property
    def exit_code(self) -> ExitCode:
        """Nothing failed: 0. Everything failed for one kind of reason: that reason's. Else 1."""
        codes = {error.exit_code for error in self.errors.values()}
        if not codes:
            return ExitCode.OK
        return codes.pop() if len(codes) == 1 and len(self.errors) == len(self.entries) else ExitCode.SOME_FAILED


def align(
    inputs: Sequence[Input],
    out: Path,
    detector: Detector,
    demands: Demands,
    *,
    progress: Callable[[], None] = lambda: None,
) -> Outcome:
    """Write the faces of all inputs as ``out/<name>_<number>.<ext>``, and the report ``out/align.json``.

    Equal names of different inputs get a number each. Repeated, an input keeps its name and replaces its own faces;
    what other inputs gave, in this run or an earlier one, stays. A file that cannot be read stops nobody else, and
    the faces that an earlier run took from it stay.

    Raises:
        OutputError: the report cannot be read or written.
    """
    report = _read_report(out)
    taken = {key: str(entry["stem"]) for key, entry in report.items()}
    ours = {face["file"] for entry in report.values() for face in entry["faces"]}
    taken |= {f"file {path}": _stem_of(path) for path in _pictures(out) if path not in ours}
    planned = assign_names(inputs, taken)
    before = {one.key: report.get(one.key, {}) for one in planned}
    for one in planned:  # the names are kept before the first file is written, so a run that was killed can be repeated
        report.setdefault(one.key, {"stem": one.stem, "status": "pending", "faces": [], "warnings": []})
    _write_report(out, report, demands)

    errors: dict[str, CodeFormerError] = {}
    try:
        for done, one in enumerate(planned, 1):
            try:
                report[one.key] = align_file(one, out, detector, demands)
            except OutputError:
                raise
            except CodeFormerError as error:
                errors[one.key] = error
                report[one.key] = {
                    "stem": one.stem,
                    "status": "failed",
                    "error": str(error),
                    "faces": before[one.key].get("faces", []),
                    "warnings": [],
                }
            _remove_stale(out, before[one.key], report[one.key])
            if done % _REPORT_EVERY == 0:
                _write_report(out, report, demands)
            progress()
    finally:
        _write_report(out, report, demands)
    return Outcome({one.key: report[one.key] for one in planned}, errors)


def check_apart(inputs: Sequence[Input], out: Path) -> None:
    """Raise UsageError if an input lies in the folder that is written."""
    target = Path(os.path.realpath(out))
    for one in inputs:
        if target in Path(os.path.realpath(one.path)).parents:
            raise UsageError(f"{one.path}: lies in {out}, where the faces are written; give another folder")


def _pictures(out: Path) -> list[str]:
    """Return the pictures below the folder, as the report names them."""
    found = out.rglob("*") if out.is_dir() else ()
    return [path.relative_to(out).as_posix() for path in found if path.suffix.lower() in (".png", ".webp")]


def _stem_of(path: str) -> str:
    """Return the name whose face a file would be, ``album/1`` for ``album/1_01.png``; empty if it is none."""
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition("_")[0]
    return stem and folder + slash + stem


def _remove_stale(out: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Remove faces that an earlier run took from the same photograph and that this one did not."""
    kept = {face["file"] for face in after["faces"]}
    for face in before.get("faces", []):
        if face["file"] and face["file"] not in kept:
            (out / face["file"]).unlink(missing_ok=True)


def _read_report(out: Path) -> dict[str, dict[str, Any]]:
    path = out / REPORT
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise ValueError("another version's")
        entries = data["inputs"]
        if not all(isinstance(e["stem"], str) and isinstance(e["faces"], list) for e in entries.values()):
            raise ValueError("entries without names")
        return dict(entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a report of codeformer align ({error}); move it away, or the folder") from error


def _write_report(out: Path, report: Mapping[str, Any], demands: Demands) -> None:
    data = {"format": _FORMAT, "demands": asdict(demands), "inputs": report}
    write_atomic(out / REPORT, json.dumps(data, indent=1).encode())
