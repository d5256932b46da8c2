"""Where kernels give wrong numbers without an error, a run does not begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeformer.errors import RestorationError
from codeformer.hub.store import packaged
from codeformer.models import attention
from codeformer.models.file import open_model
from codeformer.options import ModelOptions
from codeformer.pipeline import engine
from codeformer.pipeline.agreement import needs_trial, require_agreement
from codeformer.pipeline.restorer import FaceRestorer
from codeformer.tasks.table import TASKS


class _Misread(FaceRestorer):
    """A device whose attention takes the values of other places, as a kernel does that misreads a view."""

    def restore_at(self, *args: Any, **options: Any) -> list[tuple[np.ndarray, ...]]:
        real = attention.attend
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "needs_contiguous", lambda device: True)
            patch.setattr(attention, "attend", lambda q, k, v: real(q, k, v.roll(7, dims=2)))
            return super().restore_at(*args, **options)


@pytest.fixture(scope="module")
def compact() -> Any:
    path = packaged("compact.safetensors")
    assert path is not None
    return open_model(path)


def test_a_device_that_misreads_is_refused_and_half_precision_is_not(compact: Any) -> None:
    ruler = FaceRestorer(compact.build(), device="cpu", precision="fp32")
    require_agreement(FaceRestorer(compact.build(), device="cpu", precision="bf16"), ruler)
    with pytest.raises(RestorationError, match="--device cpu"):
        require_agreement(_Misread(compact.build(), device="cpu", precision="fp32"), ruler)


def test_numbers_that_are_none_are_refused(small_model_path: Path) -> None:
    ruler = FaceRestorer(open_model(small_model_path).build(), device="cpu", precision="fp32")

    class Nothing(FaceRestorer):
        def restore_at(self, crops: Any, weights: Any, **options: Any) -> list[tuple[np.ndarray, ...]]:
            return [tuple(np.full_like(crops[0], np.nan) for _ in weights)]

    with pytest.raises(RestorationError, match="cpu computes wrong faces"):
        require_agreement(Nothing(ruler.net, device="cpu", precision="fp32"), ruler)


def test_apples_gpus_alone_are_tried_once_a_run(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [needs_trial(torch.device(kind)) for kind in ("mps", "cuda", "cpu")] == [True, False, False]
    tried: list[tuple[FaceRestorer, FaceRestorer]] = []
    monkeypatch.setattr(engine, "require_agreement", lambda *pair: tried.append(pair))
    options, model = ModelOptions(device="cpu", precision="bf16"), open_model(small_model_path)
    engine.open_restorer(model, TASKS["restore"], options)
    assert not tried, "the CPU is what the others are held against"
    monkeypatch.setattr(engine, "needs_trial", lambda device: True)
    restorer = engine.open_restorer(model, TASKS["restore"], options)
    ((found, ruler),) = tried
    assert found is restorer and found.net is not ruler.net
    assert (found.precision, ruler.precision, ruler.device.type) == ("bf16", "fp32", "cpu")
    for mine, theirs in zip(found.net.parameters(), ruler.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
