"""The networks give the published networks' outputs under reproducible weights (tests/reference)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.vqgan import VQAutoEncoder
from tests.reference.fill import face, fill

HERE = Path(__file__).parents[1] / "reference"
MANIFEST = json.loads((HERE / "state_dict_manifest.json").read_text())
GOLDEN = np.load(HERE / "golden.npz")
CASES = sorted({name.rpartition("|")[0] for name in GOLDEN.files})
ARGUMENTS: dict[str, dict] = {
    "restoration": {"codebook_size": 1024, "connect_list": ["32", "64", "128", "256"]},
    "colorization": {"codebook_size": 1024, "connect_list": ["32", "64", "128"]},
    "inpainting": {"codebook_size": 512, "connect_list": ["32", "64", "128"]},
}


def build(kind: str) -> torch.nn.Module:
    if kind == "vqgan":
        return VQAutoEncoder(512, 64, [1, 2, 2, 4, 4, 8], "nearest", 2, [16], 1024, 256, 0.25)
    return CodeFormer(dim_embd=512, n_head=8, n_layers=9, **ARGUMENTS[kind])


@pytest.mark.parametrize("kind", sorted(MANIFEST))
def test_state_dict_is_the_published_one(kind: str) -> None:
    with torch.device("meta"):
        net = build(kind)
    ours = {name: list(t.shape) for name, t in net.state_dict().items()}
    assert ours == MANIFEST[kind]


@pytest.mark.parametrize("kind", sorted(MANIFEST))
def test_config_is_inferred_from_shapes(kind: str) -> None:
    with torch.device("meta"):
        assert Config.from_shapes(MANIFEST[kind]) == build(kind).config


@pytest.fixture(scope="module")
def filled() -> dict[str, torch.nn.Module]:
    return {}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, filled: dict[str, torch.nn.Module]) -> None:
    kind, *rest = case.split("|")
    options = dict(item.split("=") for item in rest)
    if kind not in filled:
        filled.clear()  # one network in memory at a time
        filled[kind] = fill(build(kind)).eval()
    net = filled[kind]
    x = face(int(options["seed"]), int(options.get("batch", 1)))

    def golden(name: str) -> np.ndarray:
        return GOLDEN[f"{case}|{name}"].astype(np.float32)

    with torch.inference_mode():
        if kind == "vqgan":
            out, loss, stats = net(x)
            codes = stats["min_encoding_indices"].flatten().numpy()
            np.testing.assert_array_equal(codes, golden("codes").ravel())
            np.testing.assert_allclose(loss.item(), golden("codebook_loss"), rtol=1e-3)
        else:
            out, logits, lq_feat = net(x, w=float(options["w"]), adain=options["adain"] == "1")
            margin = golden("margin").ravel()
            codes = logits.argmax(2).numpy().ravel()
            clear = margin > 1e-3
            assert clear.mean() > 0.9
            np.testing.assert_array_equal(codes[clear], golden("codes").ravel()[clear])
            check_samples(logits.numpy(), golden("logits"))
            check_samples(lq_feat.numpy(), golden("lq_feat"))
    check_samples(out.numpy(), golden("patch"))
    np.testing.assert_allclose(out.mean((2, 3)).numpy().ravel(), golden("mean").ravel(), atol=2e-3)
    np.testing.assert_allclose(out.std((2, 3)).numpy().ravel(), golden("std").ravel(), atol=2e-3)


def check_samples(ours: np.ndarray, golden: np.ndarray) -> None:
    """Compare every k-th element along each axis: the reference file keeps a regular sample of each tensor."""
    samples = ours[tuple(slice(None, None, a // b) for a, b in zip(ours.shape, golden.shape, strict=True))]
    np.testing.assert_allclose(samples, golden, atol=2e-3)
