"""Measure how far faces of one person, and of different people, are apart by the numbers that ``--person`` compares.

    python scripts/measure_person.py FOLDER

FOLDER holds aligned faces named ``<person>-<anything>.<ending>``, two or more of each person, such as those of the Face
Research Lab London Set (DeBruine and Jones, CC BY 4.0). The first picture of each person is the photograph; the second
is shrunk, gets noise and JPEG compression, and is enlarged again, as a small face in a film is. Printed are the
distances of one person's two pictures, and of every picture to everybody else's photograph.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from codeformer.arrays import Crop
from codeformer.faces.person import Recogniser
from codeformer.images.picture import SUFFIXES, read_picture
from codeformer.options import PERSON_DISTANCE

SIZES = (512, 128, 64, 48, 32, 24)  # sides of the aligned crop, of which the face itself is about six tenths


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="distances of faces")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=float, default=PERSON_DISTANCE)
    args = parser.parse_args()
    pairs = pairs_in(args.folder)
    recogniser = Recogniser(what="this measurement")
    photos = recogniser.describe([crop_of(first) for first, _ in pairs])
    rng = np.random.default_rng(0)
    print(f"{len(pairs)} people\ncrop   same: median  90 %  taken   others: nearest  taken   nearest is right")
    for size in SIZES:
        found = recogniser.describe([degraded(crop_of(second), size, rng) for _, second in pairs])
        distances = np.linalg.norm(found[:, None] - photos[None], axis=2)  # (pictures, photographs)
        same, others = np.diag(distances), distances[~np.eye(len(pairs), dtype=bool)]
        right = float((distances.argmin(1) == np.arange(len(pairs))).mean())
        print(
            f"{size:4} {np.median(same):14.2f} {np.quantile(same, 0.9):5.2f} {(same <= args.limit).mean():6.0%}"
            f" {others.min():17.2f} {(others <= args.limit).mean():6.1%} {right:18.0%}"
        )


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """Return two pictures of each person."""
    people: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            people.setdefault(path.stem.split("-")[0], []).append(path)
    pairs = [(own[0], own[1]) for own in people.values() if len(own) > 1]
    if len(pairs) < 2:
        raise SystemExit(f"{folder}: needs two pictures of two people at least, named <person>-<anything>")
    return pairs


def crop_of(path: Path) -> Crop:
    """Return a picture as a crop, (512, 512, 3) in [0, 1]."""
    rgb = read_picture(path).rgb
    crop = rgb.astype(np.float32) / np.float32(np.iinfo(rgb.dtype).max)
    return np.asarray(cv2.resize(crop, (512, 512), interpolation=cv2.INTER_AREA), np.float32)


def degraded(crop: Crop, size: int, rng: np.random.Generator) -> Crop:
    """Return a crop as it looks where the face is small: `size` pixels a side, noisy, of JPEG quality 60."""
    if size >= crop.shape[0]:
        return crop
    small = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    noisy = (np.clip(small + rng.normal(0, 4 / 255, small.shape), 0, 1) * 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32) / 255
    large = cv2.resize(decoded, (512, 512), interpolation=cv2.INTER_CUBIC)
    return np.clip(large, 0, 1).astype(np.float32)


if __name__ == "__main__":
    main()
