"""What the report says: settings, fingerprints, and the record of one input. See ``docs/report.md``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codeformer.backends.base import backend_of
from codeformer.errors import CodeFormerError, InputError
from codeformer.files.digest import sha256_of
from codeformer.files.paths import is_file
from codeformer.hub.catalogue import BUNDLED
from codeformer.models.file import ModelFile
from codeformer.options import FaceWork, OutputOptions
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.pictures import Result
from codeformer.run.inputs import NamedInput
from codeformer.run.outputs import Written, losses
from codeformer.run.stored import Record, now
from codeformer.tasks.base import Task
from codeformer.version import __version__

#: Keys of the head that say what a run worked on; a run that finds everything done leaves them as they are.
RAN_ON = ("backend", "device", "precision", "networks")


def describe(task: Task, work: FaceWork, output: OutputOptions) -> dict[str, Any]:
    """Return the settings that decide what the results look like, as JSON: what the fingerprint and the report hold."""
    model = asdict(work.model)
    # Another place, engine, device or batch gives the same pictures
    for name in ("weights_dir", "backend", "device", "batch_size", "compile"):
        del model[name]
    out = asdict(output)
    for name in ("output_path", "resume", "png_level"):  # nor does another compression without loss
        del out[name]
    canvas = asdict(work.canvas)
    del canvas["bg_tile"]
    if work.canvas.bg_upsampler and Path(work.canvas.bg_upsampler).is_file():
        canvas["bg_upsampler_sha256"] = sha256_of(Path(work.canvas.bg_upsampler))
    faces = asdict(work.faces) | {"person": sorted(_photo(path) for path in work.faces.person)}
    w: Any = list(work.weights) if work.more_w else work.w
    settings: dict[str, Any] = {"w": w, "model": model, "faces": faces, "canvas": canvas, "output": out}
    settings["tone"] = work.tone
    settings["strength"] = work.strength
    if work.scratches != "off":
        settings["scratches"] = work.scratches
    if networks := _networks(work):
        settings["networks"] = networks
    own = {name: value for name, value in asdict(task).items() if not isinstance(value, Path)}
    return json.loads(json.dumps({"task": task.name, "task_settings": own, **settings}, default=str))


def _photo(path: Path) -> str:
    """Return the SHA-256 of a photograph of the wanted person, which stands for it. Raises InputError."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"--person {path}: cannot be read ({error.strerror})") from error


def _networks(work: FaceWork) -> dict[str, str]:
    """Return what ``auto`` and ``realesrgan`` stand for on this machine: with other files here, other results come out.

    Raises WeightsError if a file that would be taken is damaged, or none is here.
    """
    networks: dict[str, str] = {}
    if work.scratches == "auto":
        from codeformer.pipeline.mend import find_inpainting

        networks |= {"scratches": BUNDLED["scratches.safetensors"], "filling": find_inpainting(work.model).sha256}
    if work.faces.aligned:
        return networks
    if work.faces.parsing == "auto":
        from codeformer.faces.parsing import find_parser

        if found := find_parser("auto", work.model.weights_dir):
            networks["parsing"] = found[0]
    canvas = work.canvas
    if (canvas.bg_upsampler or canvas.face_upsample) and canvas.bg_upsampler in (None, "realesrgan"):
        from codeformer.upsampling.networks import find_realesrgan

        networks["upsampling"] = find_realesrgan(canvas.upsampler_scale, work.model.weights_dir).name
    return networks


def stamp_of(settings: Mapping[str, Any], digest: str) -> str:
    """Return what all fingerprints of a run have in common: a digest of settings, network and version."""
    return hashlib.sha256(json.dumps([settings, digest, __version__]).encode()).hexdigest()


def fingerprint_of(path: Path, task: Task | None, stamp: str, version: str = "") -> tuple[str, Path | None]:
    """Return the fingerprint of an input, and its mask's file if the task has one.

    It is of the settings and of both files' bytes; where a store says what version it has of the input, of that.

    The fingerprint is empty if a file cannot be read or there is not exactly one mask, which the job will say properly.
    """
    mask = None
    if not version and not is_file(path):  # a pipe would block
        return "", mask
    try:
        mask = task.companion(path) if task else None
        parts = [stamp, version or sha256_of(path), *([] if mask is None else [sha256_of(mask)])]
    except (OSError, CodeFormerError):
        return "", mask
    return hashlib.sha256(" ".join(parts).encode()).hexdigest(), mask


def header_of(task: Task, settings: dict[str, Any], model: ModelFile, engine: Engine | None) -> dict[str, Any]:
    """Return the head of the report; with the engine, once it is open, what it runs on."""
    header: dict[str, Any] = {
        "codeformer": __version__,
        "task": task.name,
        "started": now(),
        "model": {"file": str(model.path), "sha256": model.sha256},
        "settings": settings,
    }
    if engine is not None:
        header["backend"] = backend_of(engine.restorer.device)
        header["device"] = str(engine.restorer.device)
        header["precision"] = engine.restorer.precision
        header["networks"] = dict(engine.extras)
    return header


def record_of(
    item: NamedInput,
    fingerprint: str,
    status: str,
    result: Result[Any],
    files: Sequence[Written],
    seconds: Mapping[str, float],
    error: CodeFormerError | None,
    mask: Path | None,
) -> Record:
    """One input's line of the report."""
    return {
        "input": item.key,
        "name": item.stem,
        "status": status,
        "fingerprint": "" if error else fingerprint,
        "size": _size(result.picture),
        "output_size": None if error else _size(result.output),
        "faces": [
            {
                "number": one.number,
                "chosen": one.chosen,
                "box": None if one.face is None else [round(v, 2) for v in one.face.box],
                "score": None if one.face is None else round(float(one.face.score), 4),
                "distance": None if one.distance is None else round(one.distance, 3),
                "landmarks": None
                if one.face is None
                else [[round(float(v), 2) for v in p] for p in one.face.landmarks],
            }
            for one in result.faces
        ],
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        "mask": None if mask is None else os.path.abspath(mask),  # noqa: PTH100  (links stay as they are named)
        "outputs": [{"path": name, "bytes": size} | ({} if w is None else {"w": w}) for name, size, w, _ in files],
        "notes": [*result.notes, *losses(files)],
        "error": None if error is None else error_entry(item.path, error),
    }


def error_entry(path: Path, error: CodeFormerError) -> dict[str, Any]:
    """Return why an input failed, as the report has it."""
    return {"kind": type(error).__name__, "message": naming(path, error), "exit_code": int(error.exit_code)}


def naming(path: Path, error: CodeFormerError) -> str:
    """Return the error's line, with the file that it is about."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _size(picture: Any) -> list[int] | None:
    return None if picture is None else [picture.rgb.shape[1], picture.rgb.shape[0]]
