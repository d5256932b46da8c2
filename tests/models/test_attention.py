"""Where kernels misread views, attention gets contiguous tensors, and the network gives the same faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from codeformer.models import attention
from codeformer.models.codeformer import CodeFormer
from codeformer.models.load import load_network


def test_only_apples_gpus_need_it() -> None:
    found = [attention.needs_contiguous(torch.device(kind)) for kind in ("mps", "cuda", "cpu")]
    assert found == [True, False, False]


def test_contiguous_attention_gives_the_same(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_network(small_model_path)
    assert isinstance(net, CodeFormer)
    net = net.eval().to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = net(x, w=0.5, adain=True)
        seen: list[bool] = []
        real = torch.nn.functional.scaled_dot_product_attention

        def spy(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
            seen.extend(one.is_contiguous() for one in tensors)
            return real(*tensors, **options)

        monkeypatch.setattr(attention, "needs_contiguous", lambda device: True)
        monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spy)
        got = net(x, w=0.5, adain=True)
    assert seen and all(seen)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
