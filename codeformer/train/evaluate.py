"""Measuring a network on faces that it has not seen: `codeformer evaluate`.

Face number i of a folder (in the order of its file names) is degraded with the generator ``default_rng((seed, i))``:
the set is fixed by its seed, and ``limit`` takes a subset of it. Everything is computed in float32, face by face.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from codeformer.arrays import Crop, Mask
from codeformer.errors import RestorationError, UsageError
from codeformer.images.blend import mix
from codeformer.images.colour import to_grey
from codeformer.models.codeformer import CodeFormer
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.tasks.inpainting.masks import smear
from codeformer.tasks.table import TASKS
from codeformer.train.data import list_faces, read_face, to_picture, to_tensor
from codeformer.train.degrade import DEGRADATIONS, degrade_small, paint_white, random_mask
from codeformer.train.metrics import Identity, chroma_error, colourfulness, cosine, psnr, ssim
from codeformer.train.perceptual import PerceptualDistance

Scores = dict[str, float]
INPUT = "input"


@dataclass(frozen=True)
class Question:
    """What is measured.

    Attributes:
        task: restore, colorize or inpaint.
        degradation: medium or heavy (the ranges of stage III and II), or none.
        seed: of the degradations and masks.
        fidelities: the w that are tried, in the order of the table.
        adain: whether the codes take the input's statistics.
        hole: what the network sees where it inpaints: ``white``, or ``smear``, a blurred guess.
        reduced: sides in pixels; at each the sharp face itself is measured too, see :func:`shrunk`.
    """

    task: str = "restore"
    degradation: str = "medium"
    seed: int = 0
    fidelities: tuple[float, ...] = (0.0, 0.5, 1.0)
    adain: bool = False
    hole: str = "white"
    reduced: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UsageError(f"--task {self.task}: there are {', '.join(TASKS)}")
        if self.degradation not in (*DEGRADATIONS, "none"):
            raise UsageError(f"--degradation {self.degradation}: there are {', '.join(DEGRADATIONS)}, none")
        if self.task == "restore" and self.degradation == "none":
            raise UsageError("--degradation none leaves nothing to restore; take medium or heavy")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: a number from 0 on")
        if not self.fidelities or not all(0 <= w <= 1 for w in self.fidelities):
            raise UsageError("--w: numbers from 0 to 1")
        if any(side < 1 for side in self.reduced):
            raise UsageError("--reduced: sides in pixels, from 1 on")


@dataclass(frozen=True)
class Measures:
    """The measures that need a network; None is left out.

    With ``perceptual_side`` the perceptual distance looks at every picture reduced to so many pixels a side.
    """

    perceptual: PerceptualDistance | None = None
    identity: Identity | None = None
    perceptual_side: int | None = None

    def view(self, picture: Crop) -> Crop:
        """Return a picture (S, S, 3) as the perceptual distance sees it."""
        side = self.perceptual_side or picture.shape[0]
        return picture if side == picture.shape[0] else downsized(picture, side)


@dataclass(frozen=True)
class Sample:
    """A sharp face, the network's input, and answers that need no network by name.

    For inpainting also what is to be filled, ``mask`` (S, S) in [0, 1], and ``around``, what stays where it is 0.
    """

    hq: Crop
    lq: Crop
    answers: Mapping[str, Crop]
    mask: Mask | None = None
    around: Crop | None = None

    def finish(self, answer: Crop) -> Crop:
        """Return an answer as it is compared: as it is, or for inpainting in the hole alone, as in the product."""
        if self.mask is None or self.around is None:
            return answer
        return np.asarray(mix(self.around, answer, self.mask[..., None]), np.float32)


@dataclass(frozen=True)
class Evaluation:
    """Scores of each answer (the input, a simple method, the network at each w), face by face.

    ``faces`` maps a file's name to its answers' scores; ``sheet`` holds pictures of a few faces by column title.
    ``enlarged`` names the files with fewer pixels than the network's, of which no sharp original is known.
    """

    question: Question
    faces: Mapping[str, Mapping[str, Scores]]
    sheet: Mapping[str, Sequence[Crop]] = field(default_factory=dict)
    enlarged: Sequence[str] = ()

    @property
    def means(self) -> dict[str, Scores]:
        """Mean scores by answer."""
        every = list(self.faces.values())
        return {
            answer: {name: float(np.mean([scores[answer][name] for scores in every])) for name in every[0][answer]}
            for answer in every[0]
        }

    def rising(self) -> dict[str, bool]:
        """Return whether PSNR and identity rise strictly with w over the set, as w promises."""
        means = self.means
        ordered = [means[title] for title in map(w_title, sorted(set(self.question.fidelities))) if title in means]
        names = [n for n in ("psnr", "identity") if len(ordered) > 1 and n in ordered[0]]
        return {name: all(a[name] < b[name] for a, b in pairwise(ordered)) for name in names}


def w_title(w: float) -> str:
    """Return the name of the network's answer at a fidelity weight."""
    return f"w={w:g}"


def evaluate(
    net: CodeFormer | VQAutoEncoder,
    folder: Path,
    question: Question,
    measures: Measures,
    *,
    limit: int | None = None,
    device: torch.device | None = None,
    rows: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure `net` on the faces below `folder`, or on `limit` of them, evenly spread.

    A stage I autoencoder is asked to reproduce the sharp faces.

    Raises:
        InputError: no such folder, no pictures, or one that is no square picture.
        UsageError: a side of the question's ``reduced``, or the measures' ``perceptual_side``, is larger than the
            network's.
        RestorationError: the network's output is not finite.
    """
    if any(side > net.config.img_size for side in question.reduced):
        raise UsageError(f"--reduced: at most the {net.config.img_size} pixels that the faces have")
    if (measures.perceptual_side or 0) > net.config.img_size:
        raise UsageError(f"--perceptual_size: at most the {net.config.img_size} pixels that the faces have")
    files = list_faces(folder)
    chosen = spread(len(files), limit)
    shown = {chosen[i] for i in spread(len(chosen), rows)}
    device = device or torch.device("cpu")
    net = net.eval().to(device)
    faces: dict[str, dict[str, Scores]] = {}
    sheet: dict[str, list[Crop]] = {}
    enlarged: list[str] = []
    for done, index in enumerate(chosen, 1):
        name = files[index].relative_to(folder).as_posix()
        face, sharp = read_face(files[index], net.config.img_size)
        if not sharp:
            enlarged.append(name)
        sample = make_sample(face, question, np.random.default_rng((question.seed, index)))
        answers = {**sample.answers, **rulers(sample, question), **ask(net, sample, question, device)}
        for title, answer in answers.items():
            if not np.isfinite(answer).all():
                raise RestorationError(f"{files[index]}: the network's output ({title}) is not finite")
        faces[name] = score(sample, answers, question, measures, device)
        if index in shown:
            for title, picture in {**answers, "original": sample.hq}.items():
                sheet.setdefault(title, []).append(picture)
        progress(done, len(chosen))
    return Evaluation(question, faces, sheet, enlarged)


def spread(count: int, limit: int | None) -> list[int]:
    """Return `limit` of the numbers below `count`, evenly spread from 0 on; all of them without a limit."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def make_sample(face: Crop, question: Question, rng: np.random.Generator) -> Sample:
    """Make the network's input out of a sharp face, and the answers it is compared to.

    The input itself is one. For restoration the other is ``bicubic``: the same small picture (blurred, downsampled,
    noisy, compressed), enlarged by bicubic instead of the input's bilinear interpolation; for inpainting ``telea``,
    the hole filled by ``cv2.inpaint`` (Telea 2004) with a radius of 5.
    """
    size = (face.shape[1], face.shape[0])
    if question.degradation == "none":
        lq = cubic = face
    else:
        small = degrade_small(face, DEGRADATIONS[question.degradation], rng)
        lq, cubic = (
            np.clip(np.asarray(cv2.resize(small, size, interpolation=method), np.float32), 0, 1)
            for method in (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
        )
    if question.task == "restore":
        return Sample(face, lq, {INPUT: lq, "bicubic": cubic})
    if question.task == "colorize":
        grey = to_grey(lq)
        return Sample(face, grey, {INPUT: grey})
    mask = random_mask(rng, face.shape[0])
    painted = smear(lq, mask > 0) if question.hole == "smear" else paint_white(lq, mask)
    eight, hole = (lq * 255).round().astype(np.uint8), (mask > 0).astype(np.uint8)
    filled = cv2.inpaint(eight, hole, 5, cv2.INPAINT_TELEA).astype(np.float32) / 255
    return Sample(
        face, painted, {INPUT: painted, "telea": np.asarray(mix(lq, filled, mask[..., None]), np.float32)}, mask, lq
    )


def rulers(sample: Sample, question: Question) -> dict[str, Crop]:
    """Return what other numbers can be held against: the sharp face with no more detail than so many pixels have."""
    return {f"{side} px": sample.finish(shrunk(sample.hq, side)) for side in question.reduced}


def shrunk(face: Crop, side: int) -> Crop:
    """Return a face reduced to `side` x `side` pixels (area) and enlarged to its own size again (bicubic)."""
    enlarged = cv2.resize(downsized(face, side), face.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(np.asarray(enlarged, np.float32), 0, 1)


def downsized(picture: Crop, side: int) -> Crop:
    """Return a square picture reduced to `side` x `side` pixels, each the mean of those that it covers."""
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32)


@torch.inference_mode()
def ask(net: CodeFormer | VQAutoEncoder, sample: Sample, question: Question, device: torch.device) -> dict[str, Crop]:
    """Return the network's answers by title: at each w, or an autoencoder's reproduction of the sharp face."""
    if not isinstance(net, CodeFormer):
        return {"codes": to_picture(net(to_tensor(sample.hq)[None].to(device))[0][0])}
    lq_feat, features = net.encode_features(to_tensor(sample.lq)[None].to(device))
    codes = net.predict_logits(lq_feat).argmax(2)
    answers = {}
    for w in question.fidelities:
        out = to_picture(net.decode_codes(codes, lq_feat, features, w, question.adain)[0])
        answers[w_title(w)] = sample.finish(out)
    return answers


@torch.inference_mode()
def score(
    sample: Sample, answers: Mapping[str, Crop], question: Question, measures: Measures, device: torch.device
) -> dict[str, Scores]:
    """Return every answer's scores against the sharp face. For inpainting PSNR and distance look into the hole only."""
    result: dict[str, Scores] = {}
    for title, answer in answers.items():
        result[title] = {"psnr": psnr(answer, sample.hq, sample.mask), "ssim": ssim(answer, sample.hq)}
        if question.task == "colorize":
            result[title]["chroma"] = chroma_error(answer, sample.hq)
            result[title]["colour"] = colourfulness(answer, sample.hq)
    if measures.perceptual is not None:
        mask = None if sample.mask is None else torch.from_numpy(sample.mask)[None, None].to(device)
        target = measures.perceptual.vgg(to_tensor(measures.view(sample.hq))[None].to(device))
        for title, answer in answers.items():
            found = measures.perceptual.vgg(to_tensor(measures.view(answer))[None].to(device))
            distance = measures.perceptual.between(found, target, mask)
            result[title]["perceptual"] = float(distance)
    if measures.identity is not None:
        place = measures.identity.place(sample.hq)
        person = measures.identity.describe(sample.hq, place)
        for title, answer in answers.items():
            found = measures.identity.describe(answer, place)
            result[title]["identity"] = cosine(found, person)
            result[title]["identity_distance"] = float(np.linalg.norm(found - person))
    return result


_COLUMNS = {  # score: heading, format, how it is compared to the input's, format of that
    "psnr": ("PSNR dB", "{:.2f}", "difference", "{:+.2f}"),
    "ssim": ("SSIM", "{:.4f}", "", ""),
    "chroma": ("chroma err", "{:.2f}", "ratio", "{:.3f}"),
    "colour": ("colourful", "{:.2f}", "", ""),
    "perceptual": ("perceptual", "{:.4f}", "ratio", "{:.3f}"),
    "identity": ("identity", "{:.4f}", "difference", "{:+.4f}"),
    "identity_distance": ("id. dist", "{:.4f}", "", ""),
}


def table(evaluation: Evaluation) -> str:
    """Return the mean scores as text: a line for each answer, ratios to and differences from the input beside them."""
    means = evaluation.means
    base = means[INPUT]
    columns = [name for name in _COLUMNS if name in base]
    lines = [[""]]
    for name in columns:
        heading, _, comparison, _ = _COLUMNS[name]
        lines[0] += [heading, *({"difference": ["- input"], "ratio": ["/ input"]}.get(comparison, []))]
    for answer, scores in means.items():
        line = [answer]
        for name in columns:
            _, style, comparison, style2 = _COLUMNS[name]
            line.append(style.format(scores[name]))
            if comparison == "difference":
                line.append(style2.format(scores[name] - base[name]))
            elif comparison == "ratio":
                line.append(style2.format(scores[name] / max(base[name], 1e-12)))
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
