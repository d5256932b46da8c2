"""What a network is asked in an evaluation: inputs made of sharp faces, and answers that need no network."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from codeformer.arrays import Crop, Mask
from codeformer.errors import UsageError
from codeformer.images.blend import mix
from codeformer.images.colour import to_grey
from codeformer.tasks.table import TASKS
from codeformer.train import holes
from codeformer.train.degrade import DEGRADATIONS, degrade_small

INPUT, TELEA = "input", "telea"


@dataclass(frozen=True)
class Question:
    """What is measured.

    Attributes:
        task: restore, colorize or inpaint.
        degradation: medium or heavy (the ranges of stage III and II), or none.
        seed: of the degradations and masks.
        fidelities: the w that are tried, in the order of the table.
        holes: what inpainting has to fill: ``shapes``, thin strokes and small shapes, or ``strokes``, thick ones.
        reduced: sides in pixels; at each the sharp face itself is measured too, see :func:`shrunk`.
    """

    task: str = "restore"
    degradation: str = "medium"
    seed: int = 0
    fidelities: tuple[float, ...] = (0.0, 0.5, 1.0)
    holes: str = "shapes"
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
        if self.holes not in holes.KINDS:
            raise UsageError(f"--holes {self.holes}: there are {', '.join(holes.KINDS)}")
        if any(side < 1 for side in self.reduced):
            raise UsageError("--reduced: sides in pixels, from 1 on")


@dataclass(frozen=True)
class Sample:
    """A sharp face ``hq``, what became of it ``lq``, and answers that need no network by name.

    For inpainting also what is to be filled, ``mask`` (S, S) in [0, 1]; ``lq`` is then what stays where that is 0.
    """

    hq: Crop
    lq: Crop
    answers: Mapping[str, Crop]
    mask: Mask | None = None

    def seen(self, hole: str) -> Crop:
        """Return what the network sees, with `hole` (``white`` or ``smear``) where it inpaints."""
        return self.lq if self.mask is None else holes.fill(self.lq, self.mask, hole)

    def finish(self, answer: Crop) -> Crop:
        """Return an answer as it is compared: as it is, or for inpainting in the hole alone, as in the product."""
        if self.mask is None:
            return answer
        return np.asarray(mix(self.lq, answer, self.mask[..., None]), np.float32)


def make_sample(face: Crop, question: Question, rng: np.random.Generator) -> Sample:
    """Make the network's input out of a sharp face, and the answers it is compared to.

    The input itself is one. For restoration the other is ``bicubic``: the same small picture (blurred, downsampled,
    noisy, compressed), enlarged by bicubic instead of the input's bilinear interpolation; for inpainting ``telea``,
    the hole filled by ``cv2.inpaint`` (Telea 2004) with a radius of 5. Inpainting's input is the one painted white.
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
    mask = holes.random_hole(rng, face.shape[0], question.holes)
    answers = {INPUT: holes.paint_white(lq, mask), TELEA: telea(lq, mask)}
    return Sample(face, lq, answers, mask)


def telea(face: Crop, mask: Mask) -> Crop:
    """Return the face with its hole filled by ``cv2.inpaint``, Telea's method with a radius of 5 pixels."""
    eight, hole = (face * 255).round().astype(np.uint8), (mask > 0).astype(np.uint8)
    filled = cv2.inpaint(eight, hole, 5, cv2.INPAINT_TELEA).astype(np.float32) / 255
    return np.asarray(mix(face, filled, mask[..., None]), np.float32)


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


def spread(count: int, limit: int | None) -> list[int]:
    """Return `limit` of the numbers below `count`, evenly spread from 0 on; all of them without a limit."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]
