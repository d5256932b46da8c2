"""Make the README's pictures in ``docs/images/`` from ``inputs/``, with the command line itself.

    python scripts/make_readme_pictures.py [NAME]...

Names: restore, w, whole, colorize, inpaint; all without a name. ``whole`` needs ``pip install '.[upsample]'``
or the published Real-ESRGAN files.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from codeformer.cli import program
from codeformer.images.picture import Picture, read_picture, write_picture

ROOT = Path(__file__).resolve().parents[1]
INPUTS, IMAGES = ROOT / "inputs", ROOT / "docs" / "images"


def run(*words: str | Path) -> None:
    """Run ``codeformer`` with these arguments."""
    program([str(word) for word in (*words, "--quiet", "--model", "compact")])


def row(*pictures: np.ndarray, height: int = 384) -> np.ndarray:
    """Pictures side by side, all of this height."""
    return np.hstack(
        [
            cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height), interpolation=cv2.INTER_AREA)
            for p in pictures
        ]
    )


def save(name: str, rgb: np.ndarray) -> None:
    """Write ``docs/images/NAME.jpg``."""
    write_picture(Picture(np.ascontiguousarray(rgb)), IMAGES / f"{name}.jpg", quality=88)


def restore(folder: Path) -> None:
    """The faces of the sample photographs, cropped and restored."""
    run("restore", "-w", "0.7", "-i", INPUTS / "whole_imgs", "-o", folder)
    names = sorted(path.name for path in (folder / "restored_faces").glob("*.png"))
    pairs = [read_picture(folder / kind / name).rgb for name in names for kind in ("cropped_faces", "restored_faces")]
    save("restore", row(*pairs, height=300))


def weights(folder: Path) -> None:
    """One face at three fidelity weights, beside its input."""
    crop = INPUTS / "cropped_faces" / "00_astronaut.png"
    faces = [read_picture(crop).rgb]
    for w in ("0", "0.5", "1"):
        run("restore", "--has_aligned", "-w", w, "-i", crop, "-o", folder / w)
        faces.append(read_picture(folder / w / "restored_faces" / crop.name).rgb)
    save("w", row(*faces, height=300))


def whole(folder: Path) -> None:
    """A whole photograph with its background and its face done."""
    photo = INPUTS / "whole_imgs" / "00_astronaut.jpg"
    run("restore", "-w", "0.7", "-s", "2", "--bg_upsampler", "realesrgan", "--face_upsample", "-i", photo, "-o", folder)
    before, after = read_picture(photo).rgb, read_picture(folder / "final_results" / "00_astronaut.png").rgb
    before = cv2.resize(before, after.shape[1::-1], interpolation=cv2.INTER_LANCZOS4)
    save("whole", row(before, after, height=700))


def colorize(folder: Path) -> None:
    """The grey sample photograph."""
    photo = INPUTS / "whole_imgs" / "02_grace_hopper_grey.jpg"
    run("colorize", "-i", photo, "-o", folder)
    save("colorize", row(read_picture(photo).rgb, read_picture(folder / "final_results" / f"{photo.stem}.png").rgb))


def inpaint(folder: Path) -> None:
    """A sample photograph with two scratches painted over its face."""
    painted = read_picture(INPUTS / "whole_imgs" / "00_astronaut.jpg").rgb.copy()
    cv2.line(painted, (186, 118), (208, 150), (255, 255, 255), 4, cv2.LINE_AA)
    cv2.line(painted, (205, 70), (232, 92), (255, 255, 255), 4, cv2.LINE_AA)
    write_picture(Picture(painted), folder / "painted.png")
    run("inpaint", "-i", folder / "painted.png", "--mask_color", "white", "-o", folder / "out")
    after = read_picture(folder / "out" / "final_results" / "painted.png").rgb
    save("inpaint", row(painted[20:220, 120:320], after[20:220, 120:320]))


MAKERS: dict[str, Callable[[Path], None]] = {
    "restore": restore,
    "w": weights,
    "whole": whole,
    "colorize": colorize,
    "inpaint": inpaint,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        with tempfile.TemporaryDirectory() as temporary:
            MAKERS[name](Path(temporary))
