"""Make the sample pictures in ``inputs/``: public-domain portraits, degraded the same way every time.

    python scripts/make_inputs.py [FOLDER]

Needs scikit-image and matplotlib, which carry the originals (see ``inputs/README.md``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from codeformer.faces.align import crop_face, face_transform
from codeformer.faces.find import find_faces, make_detector
from codeformer.images.picture import Picture, write_picture


def portraits() -> dict[str, np.ndarray]:
    """Return the sharp originals, (H, W, 3) uint8 RGB."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    from skimage import data

    with get_sample_data("grace_hopper.jpg") as file:
        hopper = np.asarray(Image.open(file).convert("RGB"))
    return {"astronaut": np.asarray(data.astronaut()), "grace_hopper": hopper}


def degrade(rgb: np.ndarray, *, blur: float, shrink: float, noise: float, jpeg: int, seed: int) -> np.ndarray:
    """Blur, shrink, noise, JPEG, and back to the size it had: what time and the internet do to a picture."""
    height, width = rgb.shape[:2]
    out = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), blur)
    out = cv2.resize(out, (round(width / shrink), round(height / shrink)), interpolation=cv2.INTER_AREA)
    out += np.random.default_rng(seed).normal(0, noise, out.shape).astype(np.float32)
    pixels = np.clip(np.rint(out), 0, 255).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg])
    pixels = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))


def main(folder: Path) -> None:
    """Write everything below ``folder``."""
    detector = make_detector("retinaface_mobile0.25")
    originals = portraits()
    whole = {
        "00_astronaut.jpg": degrade(originals["astronaut"], blur=1.2, shrink=2.0, noise=6, jpeg=45, seed=0),
        "01_grace_hopper.jpg": degrade(originals["grace_hopper"], blur=1.5, shrink=2.5, noise=4, jpeg=40, seed=1),
    }
    grey = cv2.cvtColor(originals["grace_hopper"], cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    grey = degrade(grey, blur=1.0, shrink=1.6, noise=14, jpeg=70, seed=2)
    whole["02_grace_hopper_grey.jpg"] = np.repeat(cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    for name, rgb in whole.items():
        write_picture(Picture(rgb, grey="grey" in name), folder / "whole_imgs" / name, quality=90)
    for number, (name, rgb) in enumerate(originals.items()):
        face = find_faces(rgb, detector)[0]
        crop = np.rint(crop_face(rgb, face_transform(face.landmarks)) * 255).astype(np.uint8)
        crop = degrade(crop, blur=4.0, shrink=4.0, noise=5, jpeg=60, seed=10 + number)
        write_picture(Picture(crop), folder / "cropped_faces" / f"{number:02d}_{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "inputs")
