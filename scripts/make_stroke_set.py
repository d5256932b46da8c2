"""Make a test set of inpainting out of sharp faces: painted pictures, masks and originals, always the same ones.

    python scripts/make_stroke_set.py FACES OUT [--seed 0] [--size 512] [--limit N]

Face number i of the folder (by file name) gets thick white strokes over 5 to 60 % of it, as they are painted by
``codeformer evaluate --task inpaint --holes strokes --seed 0``. ``OUT/painted`` is what a tool gets, ``OUT/masks`` says
in white what is to be filled, ``OUT/telea`` is what ``cv2.inpaint`` makes of it. Any tool's results are measured by

    codeformer evaluate --results RESULTS OUT/telea --data OUT/original --masks OUT/masks
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codeformer.arrays import Crop
from codeformer.errors import CodeFormerError
from codeformer.images.picture import Picture, write_picture
from codeformer.train.data import list_faces, read_face
from codeformer.train.samples import Question, make_sample, spread


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder of sharp aligned faces")
    parser.add_argument("out", type=Path, help="folder that is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=512, help="side of the pictures (default: 512)")
    parser.add_argument("--limit", type=int, help="only so many faces, evenly spread")
    args = parser.parse_args(words)
    question = Question("inpaint", "none", args.seed, holes="strokes")
    files = list_faces(args.faces)
    shares = []
    for index in spread(len(files), args.limit):
        face, _ = read_face(files[index], args.size)
        sample = make_sample(face, question, np.random.default_rng((args.seed, index)))
        assert sample.mask is not None
        name = files[index].relative_to(args.faces).with_suffix(".png")
        mask = np.repeat(sample.mask[..., None], 3, axis=2)
        pictures = {"original": face, "painted": sample.seen("white"), "masks": mask, "telea": sample.answers["telea"]}
        for folder, picture in pictures.items():
            save(picture, args.out / folder / name)
        shares.append(float(sample.mask.mean()))
    print(
        f"{args.out}: {len(shares)} faces, {min(shares):.0%} to {max(shares):.0%} painted, mean {np.mean(shares):.0%}"
    )


def save(picture: Crop, path: Path) -> None:
    """Write a picture (S, S, 3) in [0, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(Picture((picture * 255).round().astype(np.uint8)), path)


if __name__ == "__main__":
    try:
        main()
    except CodeFormerError as error:
        sys.exit(str(error))
