"""Make the pictures of ``docs/method.md`` in ``docs/images/`` with a model of ours and the two sample portraits.

    python scripts/make_method_pictures.py [NAME]... [--model NAME|FILE] [--out DIR]

Names: codes, lookup, w, cft; all without a name. Needs scikit-image and matplotlib, which carry the portraits (public
domain, see ``inputs/README.md``).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codeformer.arrays import Crop
from codeformer.errors import CodeFormerError, UsageError
from codeformer.faces.align import crop_face, face_transform
from codeformer.faces.find import find_faces, make_detector
from codeformer.images.picture import Picture, write_picture
from codeformer.models.codeformer import CodeFormer
from codeformer.models.file import find_model
from codeformer.tasks.table import TASKS
from codeformer.train.data import to_picture, to_tensor
from codeformer.train.degrade import HEAVY, MEDIUM, degrade

ROOT = Path(__file__).resolve().parents[1]
CELL = 256
PIXELS = "gate of the pixels"
FIDELITIES = (0.0, 0.1, 0.25, 0.5, 1.0)


def portraits() -> list[Crop]:
    """Return the sharp aligned faces of the two portraits, (512, 512, 3) in [0, 1]."""
    spec = importlib.util.spec_from_file_location("make_inputs", ROOT / "scripts" / "make_inputs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    detector = make_detector("retinaface_mobile0.25")
    faces = []
    for rgb in module.portraits().values():
        face = find_faces(rgb, detector)[0]
        faces.append(crop_face(rgb, face_transform(face.landmarks)))
    return faces


def degraded(face: Crop, strength: str, seed: int) -> Crop:
    """Return a face as training degrades it, in the middle of the ranges of stage III or of stage II."""
    ranges = MEDIUM if strength == "medium" else HEAVY
    middle = {name: (sum(getattr(ranges, name)) / 2,) * 2 for name in ("sigma", "scale", "noise", "quality")}
    return degrade(face, replace(ranges, anisotropic=0.0, **middle), np.random.default_rng(seed))


def codes_picture(net: CodeFormer) -> list[tuple[list[str], list[Crop]]]:
    """Return each face, its grid of codes in colours, and what the codes alone draw."""
    colours = code_colours(net)
    rows = []
    for face in portraits():
        latents, features = net.encode_features(to_tensor(face)[None])
        codes = net.predict_logits(latents).argmax(2)
        side = net.config.latent_side
        grid = colours[codes[0].numpy()].reshape(side, side, 3)
        large = cv2.resize(grid, (512, 512), interpolation=cv2.INTER_NEAREST)
        drawn = to_picture(net.decode_codes(codes, latents, features, 0.0)[0])
        rows.append((["a sharp face", f"its {side} x {side} codes", "the face that they draw"], [face, large, drawn]))
    return rows


def code_colours(net: CodeFormer) -> Crop:
    """Return a colour for each code, (K, 3) in [0, 1]: codes that are alike get like colours.

    The three principal directions of the codebook, each spread evenly over the codes by rank.
    """
    vectors = net.quantize.embedding.weight
    centred = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    places = centred @ directions[:3].T  # (K, 3)
    ranks = places.argsort(0).argsort(0).float() / (len(places) - 1)
    return np.asarray(ranks.numpy(), np.float32)


def lookup_picture(net: CodeFormer) -> list[tuple[list[str], list[Crop]]]:
    """Return degraded faces decoded from the nearest codes and from the Transformer's.

    The titles say how many codes are those that the Transformer finds for the sharp face.
    """
    rows = []
    for number, face in enumerate(portraits()):
        sharp_codes = net.predict_logits(net.encode_features(to_tensor(face)[None])[0]).argmax(2)
        for strength in ("medium", "heavy"):
            low = degraded(face, strength, number)
            latents, features = net.encode_features(to_tensor(low)[None])
            titles, pictures = [f"input, {strength}"], [low]
            answers = {
                "nearest codes": net.quantize.encode(latents),
                "the Transformer's": net.predict_logits(latents).argmax(2),
            }
            for title, codes in answers.items():
                share = float((codes == sharp_codes).float().mean())
                titles.append(f"{title}: {share:.0%} right")
                pictures.append(to_picture(net.decode_codes(codes, latents, features, 0.0)[0]))
            rows.append(([*titles, "original"], [*pictures, face]))
    return rows


def w_picture(net: CodeFormer) -> list[tuple[list[str], list[Crop]]]:
    """Return degraded faces restored at w from 0 to 1."""
    rows = []
    for number, face in enumerate(portraits()):
        low = degraded(face, "medium", number)
        latents, features = net.encode_features(to_tensor(low)[None])
        codes = net.predict_logits(latents).argmax(2)
        restored = [to_picture(net.decode_codes(codes, latents, features, w)[0]) for w in FIDELITIES]
        rows.append((["input", *(f"w = {w:g}" for w in FIDELITIES), "original"], [low, *restored, face]))
    return rows


def cft_picture(net: CodeFormer) -> list[tuple[list[str], list[Crop]]]:
    """Return degraded faces, and for each grid of CFT how much it changes the decoder's features there, as heat."""
    rows = []
    for number, face in enumerate(portraits()):
        low = degraded(face, "medium", number)
        changes = cft_changes(net, to_tensor(low)[None])
        heats = [heat(change, low) for change in changes.values()]
        rows.append((["input", *changes], [low, *heats]))
    return rows


def cft_changes(net: CodeFormer, x: Tensor) -> dict[str, Tensor]:
    """Return how much w = 1 changes the features of each of CFT's grids, (h, w): a share of the features' own size.

    Where the pixels themselves come back in, also how far their gate is open.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            before = inputs[1]
            found[name] = ((output - before).norm(dim=1) / before.norm(dim=1).mean())[0]

        return keep

    fuse = net.fuse_convs_dict
    handles = [fuse[s].register_forward_hook(watch(f"CFT at {s} x {s}")) for s in sorted(fuse, key=int)]
    if net.config.pixel_skip:
        gate = net.pixel_skip.gate
        handles.append(
            gate.register_forward_hook(
                lambda module, inputs, output: found.update({PIXELS: output.sigmoid().mean(1)[0]})
            )
        )
    net(x, w=1.0)
    for handle in handles:
        handle.remove()
    return found


def heat(change: Tensor, face: Crop) -> Crop:
    """Return a map (h, w) as heat over the face in grey: dark where nothing changes, yellow where most does."""
    size = face.shape[0]
    values = F.interpolate(change[None, None], size=(size, size), mode="bilinear")[0, 0]
    low, high = values.quantile(0.02), values.quantile(0.95)
    share = ((values - low) / (high - low)).clamp(0, 1).sqrt().numpy()  # so that a few strong places do not hide all
    colours = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1] / 255
    grey = face.mean(axis=2, keepdims=True)
    return np.asarray(0.75 * colours + 0.25 * grey, np.float32)


def draw(rows: Sequence[tuple[list[str], list[Crop]]], path: Path) -> None:
    """Write rows of pictures, each with its titles above it; a title that the row above has too stands once."""
    lines, before = [], [""] * len(rows[0][0])
    for titles, pictures in rows:
        if titles != before:
            head = np.full((26, CELL * len(titles), 3), 255, np.uint8)
            for i, title in enumerate(titles):
                place, font = (i * CELL + 6, 18), cv2.FONT_HERSHEY_SIMPLEX
                cv2.putText(head, title, place, font, 0.5, (20, 20, 20), 1, cv2.LINE_AA)
            lines.append(head)
        cells = [cv2.resize(p, (CELL, CELL), interpolation=cv2.INTER_AREA) for p in pictures]
        lines.append((np.clip(np.hstack(cells), 0, 1) * 255).round().astype(np.uint8))
        before = titles
    write_picture(Picture(np.vstack(lines)), path, quality=88)


PICTURES = {"codes": codes_picture, "lookup": lookup_picture, "w": w_picture, "cft": cft_picture}


@torch.inference_mode()
def main(words: Sequence[str] | None = None) -> None:
    """Make the pictures that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--model", default="compact", metavar="NAME|FILE")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", metavar="DIR")
    args = parser.parse_args(words)
    if unknown := set(args.names) - set(PICTURES):
        raise UsageError(f"{', '.join(sorted(unknown))}: there are {', '.join(PICTURES)}")
    net = find_model(args.model, TASKS["restore"]).build()
    if not isinstance(net, CodeFormer):
        raise UsageError(f"--model {args.model}: the autoencoder of stage 1 alone; a CodeFormer is needed")
    for name in args.names or PICTURES:
        path = args.out / f"method-{name}.jpg"
        draw(PICTURES[name](net), path)
        print(path)


if __name__ == "__main__":
    try:
        main()
    except CodeFormerError as error:
        sys.exit(str(error))
