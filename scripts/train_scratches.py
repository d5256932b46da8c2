"""Train the network that finds scratches, and measure it.

Usage:
    python scripts/train_scratches.py train FOLDER... -o FILE [--init FILE] [--also PICTURE...] [--minutes N]
    python scripts/train_scratches.py measure FILE FOLDER|PICTURE... [--limit N]

Photographs are aged anew for every sample (scripts/age_prints.py), so sharp ones without any damage are all it needs.
weights/TRAINING.md says how the bundled file was made.
"""

from __future__ import annotations

import argparse
import math
import queue
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from age_prints import Ageing, age, tear  # noqa: E402  (scripts are no package)

from codeformer.scratches.fill import fill  # noqa: E402
from codeformer.scratches.find import ScratchFinder, marks  # noqa: E402
from codeformer.scratches.network import ScratchNet, network_input  # noqa: E402

_SIDE, _BATCH = 256, 8
_ENDINGS = {".webp", ".png", ".jpg", ".jpeg"}
# As photographs with lines, dots and letters that are no damage; those left out here are for measuring.
_SAMPLES = ("coffee", "chelsea", "rocket", "immunohistochemistry", "retina", "gravel", "brick", "grass", "text", "page")
_MORE_SAMPLES = ("coins", "clock", "moon", "colorwheel", "logo")


def samples_of_skimage() -> list[np.ndarray]:
    """Return the sample pictures of scikit-image that are installed, (H, W, 3) uint8."""
    from skimage import data

    found = []
    for name in (*_SAMPLES, *_MORE_SAMPLES):
        try:
            picture = getattr(data, name)()
        except Exception as error:  # those that it would download
            print(f"left out {name}: {error}", file=sys.stderr)
            continue
        if picture.dtype == np.uint8:
            found.append(picture[..., :3] if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2))
    return found


def pictures_in(paths: list[Path]) -> list[Path]:
    """Return the pictures of folders and their folders, and those that are named themselves."""
    found = []
    for path in paths:
        found += sorted(one for one in path.rglob("*") if one.suffix in _ENDINGS) if path.is_dir() else [path]
    return found


def read(path: Path) -> np.ndarray:
    """Return a picture, (H, W, 3) uint8 RGB."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"{path}: cannot be read")
    return np.ascontiguousarray(bgr[..., ::-1])


def sample(rgb: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what the network gets of an aged part of a photograph, (5, S, S), and its damage, (1, S, S) float32."""
    scale = rng.uniform(0.45, 1.1) * 512 / min(rgb.shape[:2]) if rng.random() < 0.8 else 1.0
    scale = max(scale, (_SIDE + 1) / min(rgb.shape[:2]))
    rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    height, width = rgb.shape[:2]
    y = int(rng.integers(height - _SIDE + 1) if rng.random() < 0.7 else rng.choice([0, height - _SIDE]))
    x = int(rng.integers(width - _SIDE + 1) if rng.random() < 0.7 else rng.choice([0, width - _SIDE]))
    part = rgb[y : y + _SIDE, x : x + _SIDE]
    if rng.random() < 0.5:
        part, x = part[:, ::-1], width - _SIDE - x
    if rng.random() < 0.25:
        part = np.repeat(cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    part = np.ascontiguousarray(part)
    if rng.random() < 0.6:
        part = with_objects(part, rng)
    if rng.random() < 0.15:
        part = cv2.GaussianBlur(part, (0, 0), rng.uniform(0.5, 2.5))
    clean = rng.random() < 0.4
    toned = (rng.uniform(1, 1.1), rng.uniform(0.92, 1), rng.uniform(0.7, 0.95)) if rng.random() < 0.25 else None
    ageing = Ageing(
        scratches=0 if clean else int(rng.integers(0, 7)),
        folds=0 if clean else int(rng.random() < 0.35),
        dust=0 if clean else int(rng.integers(0, 22)),
        fading=rng.uniform(0, 0.4),
        grain=rng.uniform(0, 6),
        tone=toned,
    )
    aged, damage = age(part, rng, ageing)
    at_corner = y in (0, height - _SIDE) and x in (0, width - _SIDE)
    if not clean and at_corner and rng.random() < 0.5:
        aged, more = _torn(aged, rng, top=y == 0, left=x == 0)
        damage |= more
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 97))]
        aged = cv2.imdecode(cv2.imencode(".jpg", aged, quality)[1], cv2.IMREAD_COLOR)
    return network_input(aged, y, x, (height, width)), damage.astype(np.float32)[None]


def with_objects(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a part of a photograph with things that look like damage and are none.

    Faces have few of them; without, highlights, rods, letters, stars and piping were taken for scratches.
    """
    top = rgb.astype(np.float32)
    for _ in range(int(rng.integers(1, 7))):
        layer = top.copy()
        kind = rng.choice(
            ["shape", "star", "text", "rod", "stripes", "ring", "light", "cord", "net"],
            p=[0.15, 0.1, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.05],
        )
        _OBJECTS[kind](layer, rng)
        top = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.35, 0.8))
        changed = np.abs(layer - rgb.astype(np.float32)).max(axis=2, keepdims=True) > 0
        near = cv2.dilate(changed[..., 0].astype(np.uint8), np.ones((3, 3), np.uint8))[..., None] > 0
        top = np.where(near, top, layer)
    return np.rint(np.clip(top, 0, 255)).astype(np.uint8)


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return any colour, often white or nearly black."""
    chance = rng.random()
    if chance < 0.4:
        return (float(rng.uniform(190, 255)),) * 3
    if chance < 0.6:
        return (float(rng.uniform(0, 45)),) * 3
    red, green, blue = rng.uniform(0, 255, 3)
    return float(red), float(green), float(blue)


def _points(rng: np.random.Generator, count: int, size: float) -> np.ndarray:
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = size * rng.uniform(0.5, 1, count)
    return rng.uniform(0, _SIDE, 2) + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]


def _shape(layer: np.ndarray, rng: np.random.Generator) -> None:
    points = np.rint(_points(rng, int(rng.integers(3, 9)), rng.uniform(8, 110))).astype(np.int32)
    cv2.fillPoly(layer, [points], _colour(rng))
    if rng.random() < 0.5:
        cv2.polylines(layer, [points], True, _colour(rng), int(rng.integers(1, 4)), cv2.LINE_AA)


def _star(layer: np.ndarray, rng: np.random.Generator) -> None:
    turn, size, centre = rng.uniform(0, 7), rng.uniform(6, 24), rng.uniform(0, _SIDE, 2)
    colour = _colour(rng)
    for _ in range(int(rng.integers(1, 5))):
        angles = turn + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, size, 0.4 * size)
        points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
        cv2.fillPoly(layer, [np.rint(points * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
        centre = centre + rng.uniform(-70, 70, 2)


def _text(layer: np.ndarray, rng: np.random.Generator) -> None:
    letters = "".join(
        rng.choice(list("ABCDEFGHIKLMNOPRSTUVWXYZabcdefghiklmnoprstu0123456789 "), int(rng.integers(2, 14)))
    )
    at = tuple(int(v) for v in rng.uniform(-20, _SIDE, 2))
    font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX]))
    ink = np.zeros(layer.shape[:2], np.uint8)
    cv2.putText(ink, letters, at, font, rng.uniform(0.3, 1.2), 255, int(rng.integers(1, 3)), cv2.LINE_AA)
    layer += ink[..., None] / np.float32(255) * (np.array(_colour(rng), np.float32) - layer)


def _rod(layer: np.ndarray, rng: np.random.Generator) -> None:
    start, way = rng.uniform(0, _SIDE, 2), rng.uniform(-1, 1, 2) * rng.uniform(40, 260)
    width, shift = rng.uniform(3, 14), rng.uniform(-0.3, 0.3)
    normal = np.array([-way[1], way[0]]) / max(1e-6, float(np.hypot(*way)))
    colour = np.array(_colour(rng))
    for share, light in ((1.0, rng.uniform(0.4, 0.8)), (0.6, 1.0), (0.25, rng.uniform(1.0, 1.7))):
        ends = [np.rint((p + normal * width * shift * (1 - share)) * 16).astype(int) for p in (start, start + way)]
        tone = tuple(float(v) for v in np.clip(colour * light, 0, 255))
        cv2.line(
            layer,
            tuple(map(int, ends[0])),
            tuple(map(int, ends[1])),
            tone,
            max(1, round(width * share)),
            cv2.LINE_AA,
            4,
        )


def _stripes(layer: np.ndarray, rng: np.random.Generator) -> None:
    start, way = rng.uniform(0, _SIDE, 2), rng.uniform(-1, 1, 2) * rng.uniform(20, 120)
    step = np.array([-way[1], way[0]]) / max(1e-6, float(np.hypot(*way))) * rng.uniform(5, 16)
    colour, width = _colour(rng), int(rng.integers(1, 5))
    for number in range(int(rng.integers(3, 9))):
        ends = [np.rint((p + number * step) * 16).astype(int) for p in (start, start + way)]
        cv2.line(layer, tuple(map(int, ends[0])), tuple(map(int, ends[1])), colour, width, cv2.LINE_AA, 4)


def _ring(layer: np.ndarray, rng: np.random.Generator) -> None:
    centre, axes = rng.uniform(0, _SIDE, 2) * 16, rng.uniform(6, 80, 2) * 16
    inside, outline = _colour(rng), _colour(rng)
    place = tuple(int(v) for v in centre), tuple(int(v) for v in axes), rng.uniform(0, 180), 0, 360
    if rng.random() < 0.6:
        cv2.ellipse(layer, *place, inside, -1, cv2.LINE_AA, 4)
    cv2.ellipse(layer, *place, outline, int(rng.integers(1, 5)), cv2.LINE_AA, 4)


def _cord(layer: np.ndarray, rng: np.random.Generator) -> None:
    """Cords, hoses, piping, rims of glasses: bent, round, lit from one side, and of one width."""
    t = np.linspace(0, 1, 48)[:, None]
    a, b, c, d = (rng.uniform(-0.2, 1.2, 2) * _SIDE for _ in range(4))
    way = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    colour, width, light = np.array(_colour(rng)), rng.uniform(3, 11), rng.uniform(-0.3, 0.3, 2)
    for share, brightness in ((1.0, rng.uniform(0.3, 0.8)), (0.6, 1.0), (0.25, rng.uniform(1.0, 1.6))):
        points = np.rint((way + light * width * (1 - share)) * 16).astype(np.int32)
        tone = tuple(float(v) for v in np.clip(colour * brightness, 0, 255))
        cv2.polylines(layer, [points], False, tone, max(1, round(width * share)), cv2.LINE_AA, 4)


def _net(layer: np.ndarray, rng: np.random.Generator) -> None:
    """Fences, blinds, checked cloth: two sets of lines that cross."""
    colour, width, step = _colour(rng), int(rng.integers(1, 4)), rng.uniform(7, 30)
    turn, centre, reach = rng.uniform(0, np.pi), rng.uniform(0, _SIDE, 2), rng.uniform(30, 140)
    for angle in (turn, turn + rng.uniform(0.9, 2.2)):
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for place in np.arange(-reach, reach, step):
            ends = [np.rint((centre + across * place + along * far) * 16).astype(int) for far in (-reach, reach)]
            cv2.line(layer, tuple(map(int, ends[0])), tuple(map(int, ends[1])), colour, width, cv2.LINE_AA, 4)


def _light(layer: np.ndarray, rng: np.random.Generator) -> None:
    """Highlights: bright in the middle, and fading."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    for _ in range(int(rng.integers(1, 6))):
        (cy, cx), turn = rng.uniform(0, _SIDE, 2), rng.uniform(0, np.pi)
        long, short = rng.uniform(1, 14), rng.uniform(0.7, 2.5)
        u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        cover = np.exp(-0.5 * ((u / long) ** 2 + (v / short) ** 2))[..., None] * rng.uniform(0.5, 1)
        layer += cover * (rng.uniform(210, 255) - layer)


_OBJECTS = {
    "shape": _shape,
    "star": _star,
    "text": _text,
    "rod": _rod,
    "stripes": _stripes,
    "ring": _ring,
    "light": _light,
    "cord": _cord,
    "net": _net,
}


def _torn(aged: np.ndarray, rng: np.random.Generator, *, top: bool, left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tear off the one corner of a part that is a corner of the print."""
    before = aged.astype(np.float32)
    for _ in range(8):
        after = tear(before, rng)
        damage = np.abs(after - before).max(axis=2) > 8
        y, x = (axis.mean() < _SIDE / 2 if len(axis) else None for axis in np.nonzero(damage))
        if (y, x) == (top, left):
            return np.rint(np.clip(after, 0, 255)).astype(np.uint8), damage
    return aged, np.zeros(aged.shape[:2], bool)


def train(
    folders: list[Path], out: Path, init: Path | None, also: list[Path], minutes: float, rate: float, seed: int
) -> None:
    """Train for so many minutes, and write the mean of the weights over the last steps."""
    torch.manual_seed(seed)
    cv2.setNumThreads(1)
    net = ScratchNet().to(memory_format=torch.channels_last)
    if init is not None:
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(init).items()})
    files, extra = pictures_in(folders), samples_of_skimage() + [read(path) for path in also]
    ready: queue.Queue[tuple[np.ndarray, np.ndarray]] = queue.Queue(8 * _BATCH)

    def feed(number: int) -> None:
        rng = np.random.default_rng((seed, number))
        while True:
            own = rng.random() < 0.3 and extra
            ready.put(sample(extra[rng.integers(len(extra))] if own else read(files[rng.integers(len(files))]), rng))

    for number in range(2):
        threading.Thread(target=feed, args=(number,), daemon=True).start()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-4)
    mean = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    began, step, losses = time.monotonic(), 0, []
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / 30 + 0.02) * max(0.02, math.cos(share * math.pi / 2))
        inputs, truths = zip(*(ready.get() for _ in range(_BATCH)), strict=True)
        x = torch.from_numpy(np.stack(inputs)).contiguous(memory_format=torch.channels_last)
        y = torch.from_numpy(np.stack(truths))  # (B, 1, S, S)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x)
        logits = logits.float()
        seen = logits.sigmoid()
        dice = 1 - (2 * (seen * y).sum() + 1) / (seen.sum() + y.sum() + 1)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, y, pos_weight=torch.tensor(1.2))
        optimizer.zero_grad()
        (cross_entropy + 0.5 * dice).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            for name, tensor in net.state_dict().items():
                mean[name].lerp_(tensor, 1 - min(0.99, (1 + step) / (10 + step)))
        losses.append((cross_entropy.item(), dice.item()))
        if step % 100 == 0:
            write(mean, out, step)
            print(step, f"{60 * minutes * share:.0f} s", *np.mean(losses[-100:], axis=0).round(4), flush=True)
    write(mean, out, step)


def write(weights: dict[str, torch.Tensor], out: Path, step: int) -> None:
    """Write weights as the package carries them: half precision, safetensors."""
    said = {"task": "scratches", "step": str(step), "licence": "non-commercial research use; see weights/README.md"}
    save_file({name: tensor.half().contiguous() for name, tensor in weights.items()}, out, said)


def measure(file: Path, paths: list[Path], limit: int | None) -> None:
    """Print what is found of the damage, what is taken for damage on clean photographs, and what filling gains."""
    net = ScratchNet()
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    finder = ScratchFinder(net.eval(), torch.device("cpu"))
    files = pictures_in(paths)
    files = files[:: max(1, len(files) // limit)][:limit] if limit else files
    rows = [measured(finder, read(path), number) for number, path in enumerate(files)]
    for path, row in zip(files, rows, strict=True):
        print(f"{path.name[:40]:40}", "  ".join(f"{name} {value:6.2f}" for name, value in row.items()))
    for word, of in (("mean", np.mean), ("worst", None)):
        values = {}
        for name in rows[0]:
            column = [row[name] for row in rows]
            values[name] = of(column) if of else (max(column) if name.startswith("false") else min(column))
        print(f"{word:40}", "  ".join(f"{name} {value:6.2f}" for name, value in values.items()))


def measured(finder: ScratchFinder, rgb: np.ndarray, seed: int) -> dict[str, float]:
    """Return percentages of pixels and decibels for one photograph, aged by the seed."""
    toned = (1.05, 0.98, 0.86) if seed % 3 == 0 else None
    ageing = Ageing(tone=toned, corners=seed % 2)
    aged, damage = age(rgb, np.random.default_rng(seed), ageing)
    whole = replace(ageing, scratches=0, folds=0, dust=0, corners=0)
    clean, _ = age(rgb, np.random.default_rng(seed), whole)
    found = finder(aged)
    near = cv2.dilate(damage.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    filled = fill(aged, found)

    def error(picture: np.ndarray) -> float:
        return float(((picture.astype(np.float64) - clean)[damage] ** 2).mean())

    return {
        "found %": 100 * float((found & damage).sum() / damage.sum()),
        "false % (aged)": 100 * float((found & ~near).mean()),
        "false % (clean)": 100 * float(marks(finder.probability(rgb)).mean()),
        "gain dB": 10 * math.log10(error(aged) / error(filled)),
    }


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train")
    one.add_argument("folders", nargs="+", type=Path)
    one.add_argument("-o", "--out", type=Path, required=True)
    one.add_argument("--init", type=Path)
    one.add_argument("--also", nargs="+", type=Path, default=[], help="sharp pictures of other things than faces")
    one.add_argument("--minutes", type=float, default=45)
    one.add_argument("--rate", type=float, default=2e-3)
    one.add_argument("--seed", type=int, default=0)
    other = commands.add_parser("measure")
    other.add_argument("file", type=Path)
    other.add_argument("pictures", nargs="+", type=Path)
    other.add_argument("--limit", type=int)
    args = parser.parse_args()
    if args.command == "train":
        train(args.folders, args.out, args.init, args.also, args.minutes, args.rate, args.seed)
    else:
        measure(args.file, args.pictures, args.limit)


if __name__ == "__main__":
    main()
