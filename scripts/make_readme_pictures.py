"""Make the pictures of README and model card in ``docs/images/``, with the command line itself.

    python scripts/make_readme_pictures.py [NAME]...

Names: restore, gallery, w, whole, colorize, inpaint, strokes; all without a name. Runs from a checkout, with the
package installed or not. ``whole`` needs super-resolution, ``pip install '.[upsample]'``; ``strokes`` needs
scikit-image and matplotlib, which carry the sharp portraits. Without them that one stays as it is.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the checkout's own package, whatever is installed

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from make_method_pictures import portraits  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from codeformer.cli import program  # noqa: E402
from codeformer.errors import CodeFormerError  # noqa: E402
from codeformer.images.picture import Picture, read_picture, write_picture  # noqa: E402
from codeformer.train.holes import paint_white, stroke_mask  # noqa: E402

INPUTS, IMAGES = ROOT / "inputs", ROOT / "docs" / "images"
GAP = 8  # white pixels between pictures


def run(*words: str | Path) -> None:
    """Run ``codeformer`` with these arguments."""
    program([str(word) for word in (*words, "--quiet", "--model", "compact")])


def scaled(rgb: np.ndarray, height: int) -> np.ndarray:
    """Return a picture at this height."""
    width = round(rgb.shape[1] * height / rgb.shape[0])
    how = cv2.INTER_AREA if height < rgb.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(rgb, (width, height), interpolation=how)


def labelled(rgb: np.ndarray, label: str) -> np.ndarray:
    """Return a picture with its label in a dark strip at its bottom left."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(size=20)
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    box = (0, image.height - (bottom - top) - 16, right - left + 20, image.height)
    draw.rectangle(box, fill=(0, 0, 0, 150))
    draw.text((10, box[1] + 8 - top), label, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)


def row(*pictures: tuple[np.ndarray, str], height: int) -> np.ndarray:
    """Return pictures side by side, all of this height, with their labels."""
    parts: list[np.ndarray] = []
    for rgb, label in pictures:
        parts += [labelled(scaled(rgb, height), label), np.full((height, GAP, 3), 255, np.uint8)]
    return np.hstack(parts[:-1])


def rows(*lines: np.ndarray) -> np.ndarray:
    """Return rows below one another, filled with white to the widest."""
    width = max(line.shape[1] for line in lines)
    parts: list[np.ndarray] = []
    for line in lines:
        filled = np.full((line.shape[0], width, 3), 255, np.uint8)
        filled[:, : line.shape[1]] = line
        parts += [filled, np.full((GAP, width, 3), 255, np.uint8)]
    return np.vstack(parts[:-1])


def save(name: str, rgb: np.ndarray) -> None:
    """Write ``docs/images/NAME.jpg``."""
    write_picture(Picture(np.ascontiguousarray(rgb)), IMAGES / f"{name}.jpg", quality=88)
    print(f"docs/images/{name}.jpg: {rgb.shape[1]} x {rgb.shape[0]}")


def restore(folder: Path) -> None:
    """Restore the faces of two sample photographs."""
    run("restore", "-w", "0.7", "-i", INPUTS / "whole_imgs", "-o", folder)
    lines = []
    for name in sorted(path.name for path in (folder / "restored_faces").glob("0[01]*.png")):
        before, after = (read_picture(folder / kind / name).rgb for kind in ("cropped_faces", "restored_faces"))
        lines.append(row((before, "input"), (after, "restored, w = 0.7"), height=480))
    save("restore", rows(*lines))


def gallery(folder: Path) -> None:
    """Whole photographs before and after: restored, and grey ones in colour."""
    run("restore", "-w", "0.7", "-i", INPUTS / "whole_imgs", "-o", folder)
    run("colorize", "-i", INPUTS / "whole_imgs" / "02_grace_hopper_grey.jpg", "-o", folder / "colour")
    finals = {path.stem: path for path in (folder / "final_results").glob("*.png")}
    lines = []
    for photo in sorted((INPUTS / "whole_imgs").glob("*.jpg")):
        pictures = [(read_picture(photo).rgb, "input"), (read_picture(finals[photo.stem]).rgb, "restored, w = 0.7")]
        if "grey" in photo.stem:
            colour = read_picture(folder / "colour" / "final_results" / f"{photo.stem}.png").rgb
            pictures.append((colour, "colorized"))
        lines.append(row(*pictures, height=480))
    save("gallery", rows(*lines))


def weights(folder: Path) -> None:
    """One face at three fidelity weights, beside its input."""
    crop = INPUTS / "cropped_faces" / "00_astronaut.png"
    faces = [(read_picture(crop).rgb, "input")]
    for w in ("0", "0.5", "1"):
        run("restore", "--has_aligned", "-w", w, "-i", crop, "-o", folder / w)
        faces.append((read_picture(folder / w / "restored_faces" / crop.name).rgb, f"w = {w}"))
    save("w", rows(row(*faces[:2], height=420), row(*faces[2:], height=420)))


def whole(folder: Path) -> None:
    """Restore a whole photograph, its background too."""
    photo = INPUTS / "whole_imgs" / "00_astronaut.jpg"
    run("restore", "-w", "0.7", "-s", "2", "--bg_upsampler", "realesrgan", "--face_upsample", "-i", photo, "-o", folder)
    before, after = read_picture(photo).rgb, read_picture(folder / "final_results" / "00_astronaut.png").rgb
    before = cv2.resize(before, after.shape[1::-1], interpolation=cv2.INTER_LANCZOS4)
    save("whole", row((before, "input, enlarged"), (after, "background and face, x2"), height=700))


def colorize(folder: Path) -> None:
    """Colorize the grey sample photograph."""
    photo = INPUTS / "whole_imgs" / "02_grace_hopper_grey.jpg"
    run("colorize", "-i", photo, "-o", folder)
    after = read_picture(folder / "final_results" / f"{photo.stem}.png").rgb
    save("colorize", row((read_picture(photo).rgb, "input"), (after, "the face in colour"), height=520))


def inpaint(folder: Path) -> None:
    """Fill two scratches that are painted over a face."""
    painted = read_picture(INPUTS / "whole_imgs" / "00_astronaut.jpg").rgb.copy()
    cv2.line(painted, (186, 118), (208, 150), (255, 255, 255), 4, cv2.LINE_AA)
    cv2.line(painted, (205, 70), (232, 92), (255, 255, 255), 4, cv2.LINE_AA)
    write_picture(Picture(painted), folder / "painted.png")
    run("inpaint", "-i", folder / "painted.png", "--mask_color", "white", "-o", folder / "out")
    after = read_picture(folder / "out" / "final_results" / "painted.png").rgb
    pictures = ((painted[20:220, 120:320], "painted over"), (after[20:220, 120:320], "filled"))
    save("inpaint", row(*pictures, height=480))


def strokes(folder: Path) -> None:
    """Fill thick strokes over sharp portraits, as ``evaluate --holes strokes`` paints them, beside ``cv2.inpaint``."""
    lines = []
    for seed, (face, share) in enumerate((face, share) for face in portraits() for share in (0.2, 0.42)):
        mask = stroke_mask(np.random.default_rng(seed), face.shape[0], share, share + 0.1)
        original, painted, where = (
            np.rint(each * 255).astype(np.uint8) for each in (face, paint_white(face, mask), mask)
        )
        name = f"{seed}.png"
        for kind, picture in (("painted", painted), ("masks", cv2.merge([where] * 3))):
            (folder / kind).mkdir(exist_ok=True)
            write_picture(Picture(picture), folder / kind / name)
        files = ("-i", folder / "painted" / name, "--mask", folder / "masks", "-o", folder / "out")
        run("inpaint", "--has_aligned", *files)
        filled = read_picture(folder / "out" / "restored_faces" / name).rgb
        telea = cv2.inpaint(painted, where, 3, cv2.INPAINT_TELEA)
        pictures = ((painted, f"{mask.mean():.0%} painted over"), (telea, "cv2.inpaint"), (filled, "filled"))
        lines.append(row(*pictures, (original, "original"), height=320))
    save("strokes", rows(*lines))


MAKERS: dict[str, Callable[[Path], None]] = {
    "restore": restore,
    "gallery": gallery,
    "w": weights,
    "whole": whole,
    "colorize": colorize,
    "inpaint": inpaint,
    "strokes": strokes,
}

if __name__ == "__main__":
    status = 0
    for name in sys.argv[1:] or MAKERS:
        if name not in MAKERS:
            sys.exit(f"there is no picture {name}: {', '.join(MAKERS)}")
        with tempfile.TemporaryDirectory() as temporary:
            try:
                MAKERS[name](Path(temporary))
            except CodeFormerError as error:
                print(f"docs/images/{name}.jpg is left as it is: {error}", file=sys.stderr)
                status = 1
    sys.exit(status)
