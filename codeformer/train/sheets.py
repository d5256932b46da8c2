"""Sample sheets and validation during training."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from codeformer.files.atomic import write_atomic
from codeformer.models.codeformer import CodeFormer
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.data import list_faces, read_face, to_picture, to_tensor
from codeformer.train.degrade import DEGRADATIONS, degrade, for_task
from codeformer.train.metrics import psnr
from codeformer.train.networks import Files, make_perceptual
from codeformer.train.settings import Settings


class Validation:
    """A few faces, made into the inputs of the run's likeliest task once, that it is measured on as it goes."""

    def __init__(self, settings: Settings, files: Files, device: torch.device) -> None:
        if files.validation is None:
            raise ValueError("a validation needs faces")
        paths = list_faces(files.validation)
        paths = paths[:: max(1, len(paths) // settings.validation)][: settings.validation]
        faces = [read_face(path, settings.network.img_size)[0] for path in paths]
        self.device, self.settings = device, settings
        self.hq = torch.stack([to_tensor(face) for face in faces])
        name = "medium" if settings.stage == 3 else "heavy"
        task = max(settings.tasks, key=lambda task: settings.tasks[task])
        lq = []
        for i, face in enumerate(faces):
            rng, degradation = np.random.default_rng((7, i)), DEGRADATIONS[name]
            if task == "restore":  # not by for_task, whose draws would give other inputs than earlier runs had
                lq.append(degrade(face, degradation, rng))
            else:
                lq.append(for_task(task, face, degradation, rng, settings.hole, settings.cover, settings.strokes)[0])
        self.lq = torch.stack([to_tensor(face) for face in lq])
        self.perceptual = make_perceptual(settings, files.perceptual).to(device) if settings.perceptual else None
        self.before = self._scores("lq", self.lq)

    @torch.inference_mode()
    def __call__(
        self, net: VQAutoEncoder | CodeFormer, average: Mapping[str, Tensor], sheet: Path | None
    ) -> dict[str, float]:
        """Measure the averaged weights; write a sheet: LQ (not in stage I), outputs, HQ, one face a row."""
        kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        net.load_state_dict(average)
        net.eval()
        try:
            with _eager():
                outputs = self._outputs(net)
        finally:
            net.load_state_dict(kept)
            net.train()
        scores: dict[str, float] = {}
        for name, out in outputs.items():
            scores |= self._scores(name, out)
        if len(outputs) > 1:
            scores |= self.before
        if sheet is not None:
            columns = {"LQ": self.lq, **outputs, "HQ": self.hq}
            if self.settings.stage == 1:  # it reproduces the sharp faces
                del columns["LQ"]
            write_sheet(sheet, list(columns.values()), list(columns))
        return scores

    def _outputs(self, net: VQAutoEncoder | CodeFormer) -> dict[str, Tensor]:
        if not isinstance(net, CodeFormer):
            return {"codes": torch.cat([net(x[None].to(self.device))[0].cpu() for x in self.hq])}
        adain = self.settings.adain
        fidelities = (0.0, 0.5, 1.0) if self.settings.stage == 3 else (0.0,)
        return {
            f"w={w:g}": torch.cat([net(x[None].to(self.device), w=w, adain=adain)[0].cpu() for x in self.lq])
            for w in fidelities
        }

    @torch.inference_mode()
    def _scores(self, name: str, out: Tensor) -> dict[str, float]:
        scores = {f"psnr {name}": mean_psnr(out, self.hq)}
        if self.perceptual is not None:
            pairs = ((a[None].to(self.device), b[None].to(self.device)) for a, b in zip(out, self.hq, strict=True))
            scores[f"perceptual {name}"] = float(np.mean([self.perceptual(a.clamp(-1, 1), b).item() for a, b in pairs]))
        return scores


def _eager() -> AbstractContextManager[Any]:
    """Keep what torch.compile translated for training from being translated again for single faces."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # from PyTorch 2.6 on
    return set_stance("force_eager") if set_stance else nullcontext()


def mean_psnr(a: Tensor, b: Tensor) -> float:
    """Return the mean PSNR in dB of pictures (B, 3, S, S) in [-1, 1]."""
    return float(np.mean([psnr(to_picture(x), to_picture(y)) for x, y in zip(a, b, strict=True)]))


def write_sheet(path: Path, columns: Sequence[Tensor], titles: Sequence[str], cell: int = 256, rows: int = 8) -> None:
    """Write a PNG: one face a row, one column for each batch of faces (B, 3, S, S), titles on top.

    Raises:
        OutputError: it cannot be written. A link at ``path`` is replaced, not followed.
    """
    count = min(rows, len(columns[0]))
    grid = [
        np.concatenate([cv2.resize(to_picture(c[i]), (cell, cell), interpolation=cv2.INTER_AREA) for c in columns], 1)
        for i in range(count)
    ]
    head = np.full((24, cell * len(columns), 3), 255, np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(head, title, (i * cell + 6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    pixels = np.concatenate([head, *((row * 255).round().astype(np.uint8) for row in grid)])
    ok, data = cv2.imencode(".png", pixels[..., ::-1])
    if not ok:
        raise RuntimeError("PNG compression failed")
    write_atomic(path, data.tobytes(), below=path.parent)
