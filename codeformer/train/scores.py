"""Scores of pictures against a sharp one, the networks that measure them, and the table that shows the means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from codeformer.arrays import Crop, Mask
from codeformer.train.data import to_tensor
from codeformer.train.iqa import Iqa
from codeformer.train.metrics import Identity, chroma_error, colourfulness, cosine, psnr, ssim
from codeformer.train.perceptual import PerceptualDistance
from codeformer.train.samples import INPUT, downsized

Scores = dict[str, float]
Table = Mapping[str, Scores]


@dataclass(frozen=True)
class Measures:
    """The measures that need a network; None is left out.

    With ``perceptual_side`` the perceptual distance looks at every picture reduced to so many pixels a side.
    """

    perceptual: PerceptualDistance | None = None
    identity: Identity | None = None
    perceptual_side: int | None = None
    iqa: Sequence[Iqa] = field(default_factory=tuple)

    def view(self, picture: Crop) -> Crop:
        """Return a picture (S, S, 3) as the perceptual distance sees it."""
        side = self.perceptual_side or picture.shape[0]
        return picture if side == picture.shape[0] else downsized(picture, side)


@torch.inference_mode()
def score(
    hq: Crop,
    answers: Mapping[str, Crop],
    measures: Measures,
    device: torch.device,
    *,
    mask: Mask | None = None,
    colour: bool = False,
) -> dict[str, Scores]:
    """Return every answer's scores against the sharp face, by title.

    Args:
        hq: the sharp face, (S, S, 3).
        answers: pictures like it.
        measures: what is measured besides PSNR and SSIM.
        device: where the perceptual distance is computed.
        mask: (S, S); with it PSNR and the perceptual distance look into the hole only.
        colour: whether the errors of colour are measured.
    """
    result: dict[str, Scores] = {}
    for title, answer in answers.items():
        result[title] = {"psnr": psnr(answer, hq, mask), "ssim": ssim(answer, hq)}
        if colour:
            result[title]["chroma"] = chroma_error(answer, hq)
            result[title]["colour"] = colourfulness(answer, hq)
    if measures.perceptual is not None:
        distance, hole = measures.perceptual, None
        name = "lpips" if len(distance.heads) else "perceptual"
        if mask is not None:
            hole = torch.from_numpy(mask)[None, None].to(device)
        target = distance.vgg(to_tensor(measures.view(hq))[None].to(device))
        for title, answer in answers.items():
            found = distance.vgg(to_tensor(measures.view(answer))[None].to(device))
            result[title][name] = float(distance.between(found, target, hole))
    if measures.identity is not None:
        place = measures.identity.place(hq)
        person = measures.identity.describe(hq, place)
        for title, answer in answers.items():
            described = measures.identity.describe(answer, place)
            result[title]["identity"] = cosine(described, person)
            result[title]["identity_distance"] = float(np.linalg.norm(described - person))
    for metric in measures.iqa:
        for title, answer in answers.items():
            result[title][metric.name] = metric(answer, hq)
    return result


def means_of(faces: Mapping[str, Mapping[str, Scores]]) -> dict[str, Scores]:
    """Return the mean scores of the answers by title, from those of every face."""
    every = list(faces.values())
    return {
        answer: {name: float(np.mean([scores[answer][name] for scores in every])) for name in every[0][answer]}
        for answer in every[0]
    }


_COLUMNS = {  # score: heading, format, how it is compared to the input's, format of that
    "psnr": ("PSNR dB", "{:.2f}", "difference", "{:+.2f}"),
    "ssim": ("SSIM", "{:.4f}", "", ""),
    "chroma": ("chroma err", "{:.2f}", "ratio", "{:.3f}"),
    "colour": ("colourful", "{:.2f}", "", ""),
    "lpips": ("LPIPS", "{:.4f}", "ratio", "{:.3f}"),
    "perceptual": ("perceptual", "{:.4f}", "ratio", "{:.3f}"),
    "identity": ("identity", "{:.4f}", "difference", "{:+.4f}"),
    "identity_distance": ("id. dist", "{:.4f}", "", ""),
    "dists": ("DISTS", "{:.4f}", "", ""),
    "niqe": ("NIQE", "{:.2f}", "", ""),
    "musiq": ("MUSIQ", "{:.2f}", "", ""),
    "fid": ("FID", "{:.1f}", "", ""),
}


def table(means: Table) -> str:
    """Return mean scores as text: a line for each answer, ratios to and differences from the input's beside them."""
    base = means.get(INPUT)
    columns = [name for name in _COLUMNS if any(name in scores for scores in means.values())]
    lines = [[""]]
    for name in columns:
        heading, _, comparison, _ = _COLUMNS[name]
        beside = {"difference": ["- input"], "ratio": ["/ input"]}.get(comparison, []) if base else []
        lines[0] += [heading, *beside]
    for answer, scores in means.items():
        line = [answer]
        for name in columns:
            _, style, comparison, style2 = _COLUMNS[name]
            line.append(style.format(scores[name]) if name in scores else "-")
            if base and comparison == "difference":
                line.append(style2.format(scores[name] - base[name]))
            elif base and comparison == "ratio":
                line.append(style2.format(scores[name] / max(base[name], 1e-12)))
        lines.append(line)
    return aligned(lines)


def ratio_table(ratios: Table) -> str:
    """Return ratios as text: a line for each answer, a column for each name that one of them has."""
    columns = list(dict.fromkeys(name for scores in ratios.values() for name in scores))
    lines = [["", *columns]]
    for answer, scores in ratios.items():
        lines.append([answer, *(f"{scores[name]:.2f}" if name in scores else "-" for name in columns)])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return a table's cells as text, the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
