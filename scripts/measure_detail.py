"""Measure what sharp faces of many sizes keep of their fine detail, and what degraded ones gain, with and without it.

Usage: python scripts/measure_detail.py [--data FOLDER] [--limit N] [--sizes PX ...]

FOLDER holds aligned, sharp faces of 512 x 512 pixels; scikit-image's astronaut is measured beside them. Each is made
as wide as the table's first column says, sharpened, and gets the texture of its cheek, pixel for pixel, and grain of 3
levels, as cameras give it: that is the sharp face. It is blurred, made noisy and packed by JPEG, and everything is
restored with and without the transfer of fine detail (codeformer/faces/detail.py). No picture here has a face of more
than 204 pixels: larger ones are enlarged, and what is fine in them is that texture and grain.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from codeformer.faces.align import TEMPLATE_512, crop_face, face_transform
from codeformer.images.picture import Picture
from codeformer.models.file import find_model
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.compose import compose
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.opened import open_picture
from codeformer.tasks.table import TASKS

_WIDTH = 204  # pixels: of a face in an aligned crop of 512, as the detector boxes it
_CORE = (slice(170, 400), slice(170, 340))  # of the crop: eyes, nose, mouth and cheeks
_CHEEK = (slice(280, 344), slice(176, 240))
_ASTRONAUT = ((203.2, 99.9), (247.0, 101.8), (224.0, 127.8), (202.5, 138.4), (244.9, 140.3))  # eyes, nose, mouth


def eight(levels: np.ndarray) -> np.ndarray:
    """Return levels as a picture, uint8."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def blurred(levels: np.ndarray, sigma: float) -> np.ndarray:
    """Return a picture blurred, float32."""
    return cv2.GaussianBlur(np.asarray(levels, np.float32), (0, 0), sigma)


def packed(rgb: np.ndarray, quality: int) -> np.ndarray:
    """Return a picture as JPEG of this quality keeps it."""
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def faces(folder: Path | None, limit: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and aligned faces, (512, 512, 3) uint8."""
    from skimage import data

    matrix = face_transform(np.array(_ASTRONAUT, np.float32), 512)
    yield "astronaut", eight(crop_face(data.astronaut(), matrix, 512) * 255)
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".webp", ".png", ".jpg")) if folder else []
    for path in paths[:: max(1, len(paths) // limit)][:limit]:
        yield path.stem, np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def sharp_face(face: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a face of this width that is as sharp as a camera makes it."""
    scale = width / _WIDTH
    side = round(512 * scale)
    large = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    large += large - blurred(large, 0.7 * scale)
    large += _skin(face, side)
    return eight(large + 3 * rng.standard_normal((side, side, 1)).astype(np.float32))


def _skin(face: np.ndarray, side: int) -> np.ndarray:
    """Return the texture of a cheek, pixel for pixel as the camera gave it, mirrored until it fills (side, side, 3).

    An enlargement has nothing that is as fine as a pixel; this has.
    """
    cheek = face[_CHEEK].astype(np.float32)
    texture = (cheek - blurred(cheek, 2))[4:-4, 4:-4]
    height, width = texture.shape[:2]
    return np.pad(texture, ((0, side - height), (0, side - width), (0, 0)), mode="symmetric")


def states(scale: float, rng: np.random.Generator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return what is done to a sharp face, by its name; ``scale`` is the picture's to the crop's."""

    def noise(rgb: np.ndarray) -> np.ndarray:
        return rng.standard_normal(rgb.shape).astype(np.float32)

    return {
        "sharp": lambda rgb: rgb,
        "JPEG 90": lambda rgb: packed(rgb, 90),
        "blur": lambda rgb: eight(blurred(rgb, 2.5 * scale)),
        "noise 25": lambda rgb: eight(rgb + 25 * noise(rgb)),
        "blur, noise": lambda rgb: eight(blurred(rgb, 1.5 * scale) + 10 * noise(rgb)),
        "JPEG 20": lambda rgb: packed(rgb, 20),
        "soft, grain": lambda rgb: eight(blurred(rgb, 0.8 * scale) + 3 * noise(rgb)[..., :1]),
    }


def measured(engine: Engine, rgb: np.ndarray, sharp: np.ndarray, scale: float) -> dict[str, float]:
    """Return shares of the sharp face's fine detail, and PSNR to it, with and without the transfer."""
    opened = open_picture(Picture(rgb), engine)
    (one,) = opened.aligned.values()
    (output,) = engine.restorer.restore([one.source], w=engine.work.w, adain=engine.adain)
    crop = engine.task.finish(one.crop, output)
    core = tuple(slice(round(part.start * scale), round(part.stop * scale)) for part in _CORE)

    def fine(picture: np.ndarray) -> float:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        return float((grey - blurred(grey, 2))[core].std())

    def psnr(picture: np.ndarray) -> float:
        return float(-10 * np.log10(((picture[core].astype(np.float32) - sharp[core]) ** 2).mean() / 255**2 + 1e-9))

    row = {"PSNR of the input": psnr(rgb)}
    for name, detail in (("without", False), ("with", True)):
        how = replace(engine.composition, detail=detail)
        result, _ = compose(opened.study, opened.faces, [one], [crop], how, Clock())
        row |= {f"fine {name}": fine(result.rgb) / fine(sharp), f"PSNR {name}": psnr(result.rgb)}
    return row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 450, 600, 900, 1200, 1500])
    args = parser.parse_args()
    task, model = TASKS["restore"], ModelOptions(device="cpu")
    w = find_model(model.model, task, None).choose_w(task, None)
    print("| face | state | fine detail with (least) | without | PSNR of the input | without | with |", flush=True)
    print("|---|---|---|---|---|---|---|")
    for size in args.sizes:
        scale = size / _WIDTH
        points = tuple((float(x), float(y)) for x, y in (TEMPLATE_512 + 0.5) * scale - 0.5)
        faces_there = FaceOptions(landmarks=(points,))
        engine = open_engine(task, FaceWork(w=w, model=model, faces=faces_there, canvas=CanvasOptions(1.0)))
        rows: dict[str, list[dict[str, float]]] = {}
        for number, (_, face) in enumerate(faces(args.data, args.limit)):
            rng = np.random.default_rng((number, size))
            sharp = sharp_face(face, size, rng)
            for name, made in states(scale, rng).items():
                rows.setdefault(name, []).append(measured(engine, made(sharp), sharp, scale))
        for name, found in rows.items():
            mean = {key: float(np.mean([row[key] for row in found])) for key in found[0]}
            least = min(row["fine with"] for row in found)
            print(
                f"| {size} | {name} | {mean['fine with']:.0%} ({least:.0%}) | {mean['fine without']:.0%} | "
                f"{mean['PSNR of the input']:.1f} | {mean['PSNR without']:.1f} | {mean['PSNR with']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
