"""Make aged prints out of sharp photographs, with the mask of what was damaged.

Usage: python scripts/age_prints.py PICTURE... FOLDER [--seed N]

Writes FOLDER/NAME_aged.png and FOLDER/NAME_damage.png (white where the print is damaged). Everything is drawn from the
seed: scratches and creases by random lines, dust by small spots, torn corners, and over the whole print fading, tone
and paper grain. `age` is what the tests of the scratch finder use.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Ageing:
    """How much a print has suffered.

    Attributes:
        scratches: number of thin lines, of 1 to 3 pixels' width.
        folds: number of creases from edge to edge, of 2 to 5 pixels.
        dust: number of spots, of 1 to 4 pixels' radius.
        corners: number of torn corners.
        fading: how much of the contrast is lost, in [0, 1].
        grain: standard deviation of the paper's grain, of 255.
        tone: colour that the print has taken, RGB factors of its brightness; None leaves the colours.
    """

    scratches: int = 12
    folds: int = 1
    dust: int = 40
    corners: int = 0
    fading: float = 0.2
    grain: float = 2.0
    tone: tuple[float, float, float] | None = None


def age(rgb: np.ndarray, rng: np.random.Generator, ageing: Ageing | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return an aged version of a photograph, and where it is damaged.

    Args:
        rgb: (H, W, 3) uint8.
        rng: everything random is drawn from it.
        ageing: how much; by default a print with scratches, a fold and dust.

    Returns:
        the aged print, (H, W, 3) uint8; the damage, (H, W) bool: pixels that scratches, folds, dust and torn corners
        changed by more than 8 of 255.
    """
    ageing = ageing or Ageing()
    print_ = rgb.astype(np.float32)
    if ageing.tone is not None:
        luma = print_ @ np.array([0.299, 0.587, 0.114], np.float32)
        print_ = luma[..., None] * np.array(ageing.tone, np.float32)
    print_ = print_ * (1 - ageing.fading) + ageing.fading * 150.0
    print_ += _grain(rgb.shape[:2], ageing.grain, rng)[..., None]
    faded = np.clip(print_, 0, 255)
    aged = faded.copy()
    for _ in range(ageing.folds):
        aged = _fold(aged, rng)
    for _ in range(ageing.scratches):
        aged = _scratch(aged, rng)
    for _ in range(ageing.dust):
        aged = _spot(aged, rng)
    for _ in range(ageing.corners):
        aged = tear(aged, rng)
    damage = np.abs(aged - faded).max(axis=2) > 8
    return np.rint(aged).astype(np.uint8), damage


def _grain(shape: tuple[int, int], strength: float, rng: np.random.Generator) -> np.ndarray:
    fine = rng.standard_normal(shape).astype(np.float32)
    coarse = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), 1.2) * 3
    return strength * (0.6 * fine + 0.4 * coarse)


def _blend(print_: np.ndarray, cover: np.ndarray, level: float) -> np.ndarray:
    """Mix a grey level into the print where `cover` (H, W) in [0, 1] says so."""
    return print_ + cover[..., None] * (level - print_)


def _level(rng: np.random.Generator) -> float:
    """Return the brightness of bared paper, or of dirt."""
    return float(rng.uniform(215, 252) if rng.random() < 0.7 else rng.uniform(5, 35))


def _scratch(print_: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = print_.shape[:2]
    point = rng.uniform(0, 1, 2) * (width, height)
    heading, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.004)
    length, step = rng.uniform(0.08, 0.8) * max(height, width), 4.0
    points = [point]
    for _ in range(int(length / step)):
        heading += bend + rng.normal(0, 0.01)
        point = point + step * np.array([np.cos(heading), np.sin(heading)])
        points.append(point)
    cover = _line(print_.shape[:2], np.array(points), rng.uniform(1.0, 3.0))
    return _blend(print_, cover * rng.uniform(0.6, 1.0), _level(rng))


def _fold(print_: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = print_.shape[:2]
    at, slope = rng.uniform(0.15, 0.85), rng.normal(0, 0.05)
    t = np.linspace(0, 1, 40)
    wobble = np.cumsum(rng.normal(0, 0.0015, t.size))
    if rng.random() < 0.5:
        points = np.stack([t * (width - 1), (at + slope * t + wobble) * height], axis=1)
    else:
        points = np.stack([(at + slope * t + wobble) * width, t * (height - 1)], axis=1)
    shade = _line(print_.shape[:2], points, rng.uniform(8, 16))
    print_ = print_ * (1 - 0.12 * cv2.GaussianBlur(shade, (0, 0), 4)[..., None])
    return _blend(print_, _line(print_.shape[:2], points, rng.uniform(2, 5)) * rng.uniform(0.7, 1.0), _level(rng))


def _spot(print_: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = print_.shape[:2]
    centre, axes = rng.uniform(0, 1, 2) * (width, height), rng.uniform(1.0, 4.0, 2)
    cover = np.zeros((height, width), np.float32)
    scaled = tuple(int(v * 16) for v in centre), tuple(int(v * 16) for v in axes)
    cv2.ellipse(cover, *scaled, rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_8, 4)
    cover = cv2.GaussianBlur(cover, (0, 0), 0.5)
    return _blend(print_, cover * rng.uniform(0.6, 1.0), _level(rng))


def tear(print_: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a print (H, W, 3) float32 with one of its corners torn off."""
    height, width = print_.shape[:2]
    reach = rng.uniform(0.06, 0.16, 2) * (width, height)
    t = np.linspace(0, 1, 24)
    edge = np.stack([reach[0] * (1 - t), reach[1] * t], axis=1) * (1 + np.cumsum(rng.normal(0, 0.02, t.size)))[:, None]
    corner = np.concatenate([[[-1, -1]], edge, [[-1, edge[-1, 1]]]])
    cover = np.zeros((height, width), np.float32)
    cv2.fillPoly(cover, [np.rint(corner).astype(np.int32)], 1.0)
    cover = cover[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
    return _blend(print_, cv2.GaussianBlur(cover, (0, 0), 0.7), float(rng.uniform(235, 252)))


def _line(shape: tuple[int, int], points: np.ndarray, width: float) -> np.ndarray:
    """Draw a polyline of a fractional width, with soft edges: (H, W) float32 in [0, 1]."""
    scale = 4
    large = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
    scaled = np.rint((points + 0.5) * scale).astype(np.int32)
    cv2.polylines(large, [scaled], False, 255, max(1, round(width * scale)))
    return cv2.resize(large, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def main() -> None:
    """Age the pictures that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(args.pictures):
        rgb = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        aged, damage = age(rgb, np.random.default_rng((args.seed, index)), Ageing(corners=1))
        cv2.imwrite(str(args.folder / f"{path.stem}_aged.png"), cv2.cvtColor(aged, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(args.folder / f"{path.stem}_damage.png"), damage.astype(np.uint8) * 255)


if __name__ == "__main__":
    main()
