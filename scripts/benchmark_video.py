"""How steady and how good films come out: ``--temporal off`` against the others, on clips whose original is known.

A portrait moves, turns, zooms and talks by known transforms; each frame is shrunk, gets noise of its own and is
compressed on its own. Each mode restores the clip. Measured in the face's own coordinates, inside an egg around it:

* flicker: mean absolute difference of consecutive frames, less that of the original (8-bit levels),
* PSNR against the original (dB).

And of the whole face crops, as papers on films report them (VFHQ):

* SSIM of the luma; LPIPS with --perceptual (the package lpips, or a file with VGG16 and the heads),
* identity: the mean cosine of dlib's descriptions of the restored and the original face (the extra dlib),
* keypoints and jitter: how far dlib's landmarks lie from the original's, and how much that changes from frame to frame
  (pixels of a crop of 512).

    python scripts/benchmark_video.py --model auto -w 0.5 --json benchmark_video.json
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from codeformer.errors import UsageError
from codeformer.faces.align import crop_face, face_transform
from codeformer.faces.paste import geometric_mask
from codeformer.images.picture import read_picture
from codeformer.options import CanvasOptions, FaceWork, ModelOptions
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.tasks.table import TASKS
from codeformer.train.metrics import Identity, cosine, decibels, ssim
from codeformer.train.perceptual import PerceptualDistance
from codeformer.video.segment import MODES, Seen, find_in_frame, paste, restore_stretch
from codeformer.video.source import Frame

SIDE = 192  # of a degraded frame
SCALE = 2  # of the result
FACE = 256  # side of the crop in which faces are compared
CLIPS = ("move", "turn", "zoom", "talk")
_FURTHER = ("ssim", "lpips", "identity", "keypoints", "jitter")
STRENGTHS = {"mild": (1.5, 6.0, 60), "strong": (2.0, 14.0, 40)}  # shrink factor, noise sigma, JPEG quality


@dataclass(frozen=True, eq=False)
class Clip:
    """A degraded film with its original: what each frame shows, and the original's crops in face coordinates."""

    name: str
    frames: list[np.ndarray]  # (SIDE, SIDE, 3) uint8
    matrices: list[np.ndarray]  # result's frame -> face coordinates
    originals: list[np.ndarray]  # (FACE, FACE, 3) float32 in [0, 1]


def portrait() -> np.ndarray:
    """Return the astronaut's head, (300, 300, 3) uint8 (NASA, public domain, from scikit-image)."""
    try:
        from skimage import data
    except ImportError:
        sys.exit("scikit-image carries the portrait: pip install scikit-image, or give --picture")
    return np.ascontiguousarray(np.asarray(data.astronaut())[0:300, 70:370])


def motion(name: str, t: float, size: int) -> np.ndarray:
    """(2, 3): picture -> degraded frame at time ``t`` in [0, 1]."""
    angle = 8 * np.sin(2 * np.pi * t) if name == "turn" else 1.5 * np.sin(2 * np.pi * t)
    zoom = 0.85 + (0.15 * np.sin(2 * np.pi * t) if name == "zoom" else 0.0)
    matrix = cv2.getRotationMatrix2D((size / 2, size * 0.4), angle, zoom)
    dx, dy = (18 * np.sin(2 * np.pi * t), 9 * np.sin(4 * np.pi * t)) if name == "move" else (3 * t, -2 * t)
    matrix[:, 2] += (SIDE / 2 - size / 2 + dx, SIDE * 0.5 - size * 0.4 + dy)
    return matrix


def talking(picture: np.ndarray, landmarks: np.ndarray, t: float) -> np.ndarray:
    """Return the mouth opens and closes and the eyes blink: content that moves in face coordinates."""
    ys, xs = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]].astype(np.float32)
    unit = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    mouth = landmarks[3:].mean(axis=0)
    opening = 0.16 * unit * np.sin(6 * np.pi * t) ** 2
    below = np.exp(-(((xs - mouth[0]) / (0.5 * unit)) ** 2 + ((ys - mouth[1] - 0.1 * unit) / (0.35 * unit)) ** 2))
    shift = opening * below * np.tanh((ys - mouth[1]) / (0.12 * unit))
    blink = 0.12 * unit * max(0.0, np.sin(4 * np.pi * t)) ** 6
    for eye in landmarks[:2]:
        near = np.exp(-(((xs - eye[0]) / (0.22 * unit)) ** 2 + ((ys - eye[1]) / (0.16 * unit)) ** 2))
        shift = shift - blink * near * np.tanh((ys - eye[1]) / (0.06 * unit))
    return cv2.remap(picture, xs, ys - shift.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def degrade(frame: np.ndarray, strength: str, rng: np.random.Generator) -> np.ndarray:
    """Shrunk, noisy, compressed, and back at its size."""
    shrink, sigma, quality = STRENGTHS[strength]
    small = cv2.resize(frame, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    noisy = np.clip(small + rng.normal(0, sigma, small.shape), 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality + int(rng.integers(-5, 6))])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    return cv2.resize(decoded, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def make_clip(name: str, picture: np.ndarray, landmarks: np.ndarray, count: int, strength: str) -> Clip:
    """``count`` frames; the noise depends on the clip's name and the frame alone."""
    to_face = face_transform(landmarks, FACE)
    frames, matrices, originals = [], [], []
    for index in range(count):
        t = index / 48  # the motion's speed does not depend on the clip's length
        matrix = motion(name, t, picture.shape[0])
        shown = talking(picture, landmarks, t) if name == "talk" else picture
        large = cv2.warpAffine(
            shown, scaled_output(matrix), (SIDE * SCALE,) * 2, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        frame = cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        rng = np.random.default_rng([index, CLIPS.index(name)])
        frames.append(degrade(frame, strength, rng))
        inverse = cv2.invertAffineTransform(scaled_output(matrix))
        matrices.append(np.asarray((np.vstack([to_face, [0, 0, 1]]) @ np.vstack([inverse, [0, 0, 1]]))[:2]))
        originals.append(crop_face(large, matrices[-1], FACE))
    return Clip(name, frames, matrices, originals)


def scaled_output(matrix: np.ndarray) -> np.ndarray:
    """Picture -> result's frame, from picture -> degraded frame (pixel centres handled)."""
    result = matrix * SCALE
    result[:, 2] += 0.5 * SCALE - 0.5
    return result


@dataclass(frozen=True, eq=False)
class Judges:
    """The networks that judge faces; None where one is not here."""

    identity: Identity | None = None
    perceptual: PerceptualDistance | None = None


def open_judges(perceptual: str | None) -> Judges:
    """Return what is installed; ``perceptual`` is "auto" for torchvision's cache and the package lpips, or a file."""
    distance = None
    if perceptual is not None:
        distance = PerceptualDistance(None if perceptual == "auto" else Path(perceptual), kind="lpips")
    try:
        return Judges(Identity(), distance)
    except UsageError as error:
        print(error, file=sys.stderr)
        return Judges(None, distance)


def judge(faces: Sequence[np.ndarray], originals: Sequence[np.ndarray], judges: Judges) -> dict[str, float]:
    """Return SSIM and, where the networks are here, LPIPS, identity, keypoints and jitter; (S, S, 3) in [0, 1]."""
    values = {"ssim": float(np.mean([ssim(face, original) for face, original in zip(faces, originals, strict=True)]))}
    if judges.perceptual is not None:
        pair = [torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() for crops in (faces, originals)]
        values["lpips"] = float(judges.perceptual(pair[0] * 2 - 1, pair[1] * 2 - 1).mean())
    if judges.identity is not None:
        alike, off = [], []
        for face, original in zip(faces, originals, strict=True):
            place = judges.identity.place(original)
            alike.append(cosine(*(judges.identity.describe(crop, place) for crop in (face, original))))
            off.append(_points(judges.identity.place(face)) - _points(place))
        offsets = np.stack(off) * (512 / faces[0].shape[0])  # (frames, landmarks, 2)
        values["identity"] = float(np.mean(alike))
        values["keypoints"] = float(np.linalg.norm(offsets, axis=-1).mean())
        values["jitter"] = float(np.linalg.norm(np.diff(offsets, axis=0), axis=-1).mean()) if len(offsets) > 1 else 0.0
    return values


def _points(place: Any) -> np.ndarray:
    return np.array([(part.x, part.y) for part in place.parts()], np.float64)


def measure(faces: Sequence[np.ndarray], originals: Sequence[np.ndarray], mask: np.ndarray) -> dict[str, float]:
    """Flicker and PSNR of faces in face coordinates."""
    weight = mask[..., None] / (mask.sum() * 3)

    def mean(values: np.ndarray) -> float:
        return float((values * weight).sum())

    def change(crops: Sequence[np.ndarray]) -> float:
        return float(np.mean([mean(np.abs(a - b)) for a, b in pairwise(crops)])) * 255

    errors = [mean(np.square(face - original)) for face, original in zip(faces, originals, strict=True)]
    return {
        "flicker": change(faces) - change(originals),
        "change": change(faces),
        "psnr": float(np.mean([decibels(error) for error in errors])),
    }


def run_mode(clip: Clip, seen: Sequence[Seen], engine: Engine, mode: str) -> tuple[list[np.ndarray], float]:
    """Return the restored faces in face coordinates, and seconds per frame."""
    start = time.perf_counter()
    results = []
    clock = Clock()
    frames = restore_stretch(seen, 0, len(seen), engine, MODES[mode], clock)
    for done, matrix in zip(frames, clip.matrices, strict=True):
        results.append(crop_face(paste(done, engine, clock).rgb, matrix, FACE))
    return results, (time.perf_counter() - start) / len(seen)


def main() -> None:
    """Measure the clips that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="auto")
    parser.add_argument("-w", "--fidelity_weight", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--picture", type=Path, help="a portrait with one face instead of the astronaut")
    parser.add_argument("--clips", nargs="+", default=list(CLIPS), choices=CLIPS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--strength", nargs="+", default=["strong"], choices=list(STRENGTHS))
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--perceptual", metavar="FILE|auto", help="also measure LPIPS")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strip", type=Path, help="also write a picture: original, input and modes of one frame")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for w in args.fidelity_weight:
        work = FaceWork(
            w=w, model=ModelOptions(args.model, None, args.device, args.precision), canvas=CanvasOptions(upscale=SCALE)
        )
        engine = open_engine(TASKS["restore"], work)
        rows += run(args, engine, w)
    if args.json:
        machine = {"platform": platform.platform(), "processor": platform.processor(), "python": sys.version.split()[0]}
        args.json.write_text(json.dumps({"machine": machine, "model": args.model, "rows": rows}, indent=1))


def run(args: argparse.Namespace, engine: Engine, w: float) -> list[dict[str, Any]]:
    """Restore the clips in every mode, and return a row of numbers for each."""
    picture = read_picture(args.picture).rgb if args.picture else portrait()
    found = find_in_frame(Frame(0, 0, 1, picture), engine).faces
    if len(found) != 1:
        sys.exit(f"the portrait must show one face, not {len(found)}")
    landmarks = np.asarray(found[0].landmarks, dtype=np.float64)
    mask = geometric_mask(landmarks @ np.eye(2) @ face_transform(landmarks, FACE)[:, :2].T
                          + face_transform(landmarks, FACE)[:, 2], FACE)  # fmt: skip
    rows = []
    judges = open_judges(args.perceptual)
    print(f"w = {w:g}, {engine.model.path.name}, {args.frames} frames")
    head = f"{'clip':>6} {'strength':>8} {'mode':>10} {'flicker':>8} {'less':>6} {'PSNR':>6} {'gain':>6} {'s/frame':>8}"
    print(f"{head}  further")
    for strength in args.strength:
        for name in args.clips:
            clip = make_clip(name, picture, landmarks, args.frames, strength)
            seen = [find_in_frame(Frame(i, i, 1, frame), engine) for i, frame in enumerate(clip.frames)]
            base: dict[str, float] | None = None
            strip = []
            for mode in args.modes:
                faces, seconds = run_mode(clip, seen, engine, mode)
                values = measure(faces, clip.originals, mask) | judge(faces, clip.originals, judges)
                base = base or values
                less = 1 - values["flicker"] / base["flicker"]
                gain = values["psnr"] - base["psnr"]
                further = " ".join(f"{key} {values[key]:.3f}" for key in _FURTHER if key in values)
                print(
                    f"{name:>6} {strength:>8} {mode:>10} {values['flicker']:8.3f} {less:6.1%} {values['psnr']:6.2f} "
                    f"{gain:+6.2f} {seconds:8.2f}  {further}",
                    flush=True,
                )
                rows.append(
                    {"w": w, "clip": name, "strength": strength, "mode": mode, "seconds_per_frame": seconds, **values}
                )
                strip.append(faces[len(faces) // 2])
            if args.strip:
                middle = len(clip.frames) // 2
                enlarged = cv2.resize(clip.frames[middle], None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
                shown = [clip.originals[middle], crop_face(enlarged, clip.matrices[middle], FACE), *strip]
                both = np.rint(np.concatenate(shown, axis=1) * 255).clip(0, 255).astype(np.uint8)
                target = args.strip.with_name(f"{args.strip.stem}_{name}_{strength}_{w:g}{args.strip.suffix or '.png'}")
                cv2.imwrite(str(target), both[..., ::-1])
    for mode in args.modes:
        own = [row for row in rows if row["mode"] == mode]
        first = [row for row in rows if row["mode"] == args.modes[0]]
        flicker, before = (float(np.mean([row["flicker"] for row in part])) for part in (own, first))
        psnr, psnr_before = (float(np.mean([row["psnr"] for row in part])) for part in (own, first))
        less, gain = 1 - flicker / before, psnr - psnr_before
        print(f"{'mean':>6} {'':>8} {mode:>10} {flicker:8.3f} {less:6.1%} {psnr:6.2f} {gain:+6.2f}")
    return rows


if __name__ == "__main__":
    main()
