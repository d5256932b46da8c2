"""Measuring networks on faces that they have not seen, and anybody's results: `codeformer evaluate`.

Face number i of a folder (in the order of its file names) is degraded with the generator ``default_rng((seed, i))``:
the set is fixed by its seed, and ``limit`` takes a subset of it. Everything is computed in float32, face by face.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from codeformer.arrays import Crop
from codeformer.backends.restorer import ExportedRestorer
from codeformer.device import whole_floats
from codeformer.errors import InputError, RestorationError, UsageError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.foreign import ForeignRestorer
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.data import list_faces, read_face, to_picture, to_tensor
from codeformer.train.iqa import Fid
from codeformer.train.samples import INPUT, TELEA, Question, Sample, make_sample, rulers, spread
from codeformer.train.scores import Measures, Scores, means_of, score
from codeformer.train.weave import Weave

Progress = Callable[[int, int], None]
COVERAGES = (0.0, 0.3, 0.55, 1.0)


@dataclass(frozen=True)
class Candidate:
    """A network that is measured.

    Attributes:
        net: the network; a stage I autoencoder is asked to reproduce the sharp faces.
        name: what its lines in the table begin with; empty where it is the only one.
        adain: whether the codes take the input's statistics.
        hole: what it sees where it inpaints, ``white`` or ``smear``.
    """

    net: CodeFormer | VQAutoEncoder | ForeignRestorer | ExportedRestorer
    name: str = ""
    adain: bool = False
    hole: str = "white"

    @property
    def size(self) -> int:
        """Side of its faces, pixels."""
        return self.net.size if isinstance(self.net, ExportedRestorer) else self.net.config.img_size

    def title(self, answer: str) -> str:
        """Return the title of one of its answers."""
        return f"{self.name} {answer}".strip()


@dataclass(frozen=True)
class Evaluation:
    """Scores of each answer (the input, a simple method, the networks at each w), face by face.

    Attributes:
        question: what was asked; None for results that came from elsewhere.
        faces: scores by file name and title.
        names: of the candidates.
        sheet: pictures of a few faces by title.
        energies, peaks: of :class:`Weave`, by title.
        fid: Fréchet inception distances by title, where they were asked for.
        enlarged: files with fewer pixels than the network's, of which no sharp original is known.
        covered: for inpainting, which share of each face is hole, by file name.
    """

    question: Question | None
    faces: Mapping[str, Mapping[str, Scores]]
    names: Sequence[str] = ("",)
    sheet: Mapping[str, Sequence[Crop]] = field(default_factory=dict)
    energies: Mapping[str, Scores] = field(default_factory=dict)
    peaks: Mapping[str, Scores] = field(default_factory=dict)
    fid: Mapping[str, float] = field(default_factory=dict)
    enlarged: Sequence[str] = ()
    covered: Mapping[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, Scores]:
        """The mean scores by answer."""
        means = means_of(self.faces)
        return {
            title: scores | ({"fid": self.fid[title]} if title in self.fid else {}) for title, scores in means.items()
        }

    def by_w(self, name: str) -> dict[float, Scores]:
        """Return a candidate's mean scores by w, rising."""
        means, fidelities = self.means, self.question.fidelities if self.question else ()
        titles = {w: f"{name} {w_title(w)}".strip() for w in sorted(set(fidelities))}
        return {w: means[title] for w, title in titles.items() if title in means}

    def rising(self, name: str = "") -> dict[str, bool]:
        """Return whether a candidate's PSNR and identity rise strictly with w over the set, as w promises.

        Where every value is below the input's, nothing is gained that could rise.
        """
        ordered, base = list(self.by_w(name).values()), self.means.get(INPUT, {})
        return {
            measure: all(a[measure] < b[measure] for a, b in pairwise(ordered))
            and max(scores[measure] for scores in ordered) > base.get(measure, -np.inf)
            for measure in ("psnr", "identity")
            if len(ordered) > 1 and measure in ordered[0]
        }

    def by_coverage(self, base: str = TELEA) -> dict[str, Scores]:
        """Return for each answer how far it is from the sharp face in the hole, as a ratio to `base`'s distance.

        The ratios of the mean distances stand apart by how much of the face is covered: ``up to 30 %`` and so on.
        """
        first = next(iter(self.faces.values()))
        distance = next((name for name in ("lpips", "perceptual") if name in first.get(base, {})), None)
        if distance is None or not self.covered:
            return {}
        found: dict[str, Scores] = {title: {} for title in first if title != base}
        for low, high in pairwise(COVERAGES):
            chosen = {name: self.faces[name] for name, share in self.covered.items() if low < share <= high}
            if chosen:
                means = means_of(chosen)
                for title, scores in found.items():
                    heading = f"{low:.0%} to {high:.0%} ({len(chosen)})"
                    scores[heading] = means[title][distance] / max(means[base][distance], 1e-12)
        return found


def w_title(w: float) -> str:
    """Return the name of the network's answer at a fidelity weight."""
    return f"w={w:g}"


def evaluate(
    candidates: Sequence[Candidate],
    folder: Path,
    question: Question,
    measures: Measures,
    *,
    fid: Fid | None = None,
    limit: int | None = None,
    device: torch.device | None = None,
    rows: int = 8,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Measure networks on the faces below `folder`, or on `limit` of them, evenly spread.

    Raises:
        InputError: no such folder, no pictures, or one that is not a square picture.
        UsageError: the networks differ in size; or a side of the question's ``reduced``, or the measures'
            ``perceptual_side``, is larger than theirs.
        RestorationError: a network's output is not finite.
    """
    size = _size_of(candidates, question, measures)
    files = list_faces(folder)
    chosen = spread(len(files), limit)
    shown = {chosen[i] for i in spread(len(chosen), rows)}
    device = device or torch.device("cpu")
    for candidate in candidates:
        if not isinstance(candidate.net, ExportedRestorer):
            candidate.net.eval().to(device)
    faces: dict[str, dict[str, Scores]] = {}
    sheet: dict[str, list[Crop]] = {}
    enlarged: list[str] = []
    covered: dict[str, float] = {}
    weave = Weave()
    for done, index in enumerate(chosen, 1):
        name = files[index].relative_to(folder).as_posix()
        face, sharp = read_face(files[index], size)
        if not sharp:
            enlarged.append(name)
        sample = make_sample(face, question, np.random.default_rng((question.seed, index)))
        answers = {**sample.answers, **rulers(sample, question)}
        with whole_floats(device):
            for candidate in candidates:
                answers |= ask(candidate, sample, question, device)
        for title, answer in answers.items():
            if not np.isfinite(answer).all():
                raise RestorationError(f"{files[index]}: the network's output ({title}) is not finite")
        colour = question.task == "colorize"
        with whole_floats(device):
            faces[name] = score(sample.hq, answers, measures, device, mask=sample.mask, colour=colour)
        if sample.mask is not None:
            covered[name] = float((sample.mask > 0).mean())
        weave.add(sample.hq, answers)
        if fid is not None:
            fid.add(sample.hq, answers)
        if index in shown:
            for title, picture in {**answers, "original": sample.hq}.items():
                sheet.setdefault(title, []).append(picture)
        progress(done, len(chosen))
    distances = fid.distances() if fid is not None else {}
    names = [candidate.name for candidate in candidates]
    return Evaluation(question, faces, names, sheet, weave.energies(), weave.peaks(), distances, enlarged, covered)


def compare(
    folders: Sequence[Path],
    data: Path,
    measures: Measures,
    *,
    size: int = 512,
    masks: Path | None = None,
    fid: Fid | None = None,
    limit: int | None = None,
    device: torch.device | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[Evaluation, list[str]]:
    """Measure folders of results against the sharp faces of the same name (whatever their ending).

    Args:
        folders: of the results, a line of the table each; square pictures, which are brought to `size`.
        data: folder of the sharp faces.
        measures: what is measured.
        size: side at which the pictures are compared, pixels.
        masks: folder of the holes by name, for inpainting: white where it filled.
        fid: measures the Fréchet inception distance too.
        limit: only so many of the faces, evenly spread.
        device: where the perceptual distance is computed.
        progress: called with the faces done and all.

    Returns:
        the scores, and the names of the results that have no sharp face or lack in one of the folders.

    Raises:
        InputError: no such folder, no pictures, one that is not a square picture, or no pair of names.
    """
    originals = _by_stem(data)
    results = {title: _by_stem(folder) for title, folder in zip(titles_of(folders), folders, strict=True)}
    common = sorted(set(originals).intersection(*results.values()))
    apart = sorted({name for found in results.values() for name in found} - set(common))
    if not common:
        names = " and ".join(map(str, folders))
        raise InputError(f"{names}: no result has the name of a face in {data}")
    device = device or torch.device("cpu")
    chosen = [common[i] for i in spread(len(common), limit)]
    holes = _by_stem(masks) if masks is not None else {}
    faces: dict[str, dict[str, Scores]] = {}
    enlarged: list[str] = []
    weave = Weave()
    for done, name in enumerate(chosen, 1):
        hq, sharp = read_face(originals[name], size)
        if not sharp:
            enlarged.append(name)
        answers = {title: read_face(found[name], size)[0] for title, found in results.items()}
        if masks is not None and name not in holes:
            raise InputError(f"{masks}: no mask named {name}.*")
        mask = (read_face(holes[name], size)[0][..., 0] > 0.5).astype(np.float32) if masks is not None else None
        faces[name] = score(hq, answers, measures, device, mask=mask)
        weave.add(hq, answers)
        if fid is not None:
            fid.add(hq, answers)
        progress(done, len(chosen))
    distances = fid.distances() if fid is not None else {}
    return Evaluation(None, faces, (), {}, weave.energies(), weave.peaks(), distances, enlarged), apart


def titles_of(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each file or folder: its own, or where two have the same as much as tells them apart."""
    parts = [path.with_suffix("").parts if path.suffix == ".safetensors" else path.parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _by_stem(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in list_faces(folder)}


def _size_of(candidates: Sequence[Candidate], question: Question, measures: Measures) -> int:
    sizes = {candidate.size for candidate in candidates}
    if len(sizes) > 1:
        raise UsageError(f"--model: networks of {' and '.join(map(str, sorted(sizes)))} pixels cannot be compared")
    size = sizes.pop()
    if any(side > size for side in question.reduced):
        raise UsageError(f"--reduced: at most the {size} pixels that the faces have")
    if (measures.perceptual_side or 0) > size:
        raise UsageError(f"--perceptual_size: at most the {size} pixels that the faces have")
    return size


@torch.inference_mode()
def ask(candidate: Candidate, sample: Sample, question: Question, device: torch.device) -> dict[str, Crop]:
    """Return a network's answers by title: at each w, or an autoencoder's reproduction of the sharp face."""
    net = candidate.net
    if isinstance(net, ExportedRestorer):
        (faces,) = net.restore_at([sample.seen(candidate.hole)], question.fidelities, adain=candidate.adain)
        return {
            candidate.title(w_title(w)): sample.finish(face) for w, face in zip(question.fidelities, faces, strict=True)
        }
    if isinstance(net, VQAutoEncoder) and not isinstance(net, CodeFormer):
        return {candidate.title("codes"): to_picture(net(to_tensor(sample.hq)[None].to(device))[0][0])}
    lq_feat, features = net.encode_features(to_tensor(sample.seen(candidate.hole))[None].to(device))
    codes = net.predict_logits(lq_feat).argmax(2)
    answers = {}
    for w in question.fidelities:
        out = to_picture(net.decode_codes(codes, lq_feat, features, w, candidate.adain)[0])
        answers[candidate.title(w_title(w))] = sample.finish(out)
    return answers
