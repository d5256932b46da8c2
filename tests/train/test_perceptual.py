"""LPIPS as published: golden numbers of the reference package, with a stand-in for VGG16 and with the real one.

The numbers come from the package lpips 0.1.4 (`LPIPS(net="vgg")`), given the same weights. The real file is too large
for the repository: `LPIPS_VGG16=FILE` names it.
"""

import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from codeformer.errors import UsageError, WeightsError
from codeformer.train import perceptual
from codeformer.train.data import to_tensor
from codeformer.train.perceptual import CHANNELS, LAYERS, PerceptualDistance

PAIRS = [(1, 2), (3, 4)]
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def numbers(count: int, seed: int) -> np.ndarray:
    """Return numbers in [-0.5, 0.5) that look random and are the same everywhere."""
    x = np.sin(np.arange(count, dtype=np.float64) * 12.9898 + seed * 78.233) * 43758.5453
    return (x - np.floor(x) - 0.5).astype(np.float32)


def blob(seed: int, size: int = 96) -> torch.Tensor:
    """Return a smooth coloured picture with a disc, (1, 3, size, size) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    smooth = np.clip(
        cv2.resize(rng.random((6, 6, 3), dtype=np.float32), (size, size), interpolation=cv2.INTER_CUBIC), 0, 1
    )
    cv2.circle(smooth, (size // 2, size // 2), size // 5, rng.random(3).tolist(), -1)
    return to_tensor(smooth)[None]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG16's size with other weights, and heads."""
    state, inside = {}, 3
    for index, width in zip(CONVOLUTIONS, WIDTHS, strict=True):
        weight = torch.from_numpy(numbers(width * inside * 9, index).reshape(width, inside, 3, 3))
        state[f"features.{index}.weight"] = weight * (24 / (9 * inside)) ** 0.5
        state[f"features.{index}.bias"] = torch.from_numpy(numbers(width, index + 100)) * 0.1
        inside = width
    for i, width in enumerate(CHANNELS.values()):
        state[f"lin{i}.weight"] = torch.from_numpy(np.abs(numbers(width, 200 + i)).reshape(1, width, 1, 1))
    path = tmp_path_factory.mktemp("lpips") / "stand-in.safetensors"
    save_file(state, path)
    return path


def distances(weights: Path) -> list[float]:
    distance = PerceptualDistance(weights, kind="lpips")
    with torch.inference_mode():
        return [float(distance(blob(a), blob(b))) for a, b in PAIRS]


def test_lpips_is_the_reference_packages(stand_in: Path) -> None:
    assert distances(stand_in) == pytest.approx([0.460317, 0.411451], abs=1e-4)


@pytest.mark.skipif("LPIPS_VGG16" not in os.environ, reason="LPIPS_VGG16 names no file of VGG16 and LPIPS's heads")
def test_lpips_of_the_real_network_is_the_reference_packages() -> None:
    assert distances(Path(os.environ["LPIPS_VGG16"])) == pytest.approx([0.654469, 0.604141], abs=1e-4)


def test_lpips_is_no_distance_of_a_picture_to_itself_and_grows_with_noise(stand_in: Path) -> None:
    distance = PerceptualDistance(stand_in, kind="lpips")
    a, noise = blob(1), torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        near, far = (float(distance(a + share * noise, a)) for share in (0.05, 0.3))
        assert float(distance(a, a)) == pytest.approx(0, abs=1e-6) and 0 < near < far


def test_heads_come_from_the_package_where_no_file_is_given(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = load_file(stand_in)
    package = tmp_path / "lpips"
    (package / "weights" / "v0.1").mkdir(parents=True)
    heads = {f"lin{i}.model.1.weight": state[f"lin{i}.weight"] for i in range(5)}
    torch.save(heads, package / "weights" / "v0.1" / "vgg.pth")
    spec = ModuleSpec("lpips", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(perceptual, "find_spec", lambda name: spec)
    features = {n.removeprefix("features."): t for n, t in state.items() if n.startswith("features")}
    monkeypatch.setattr(perceptual, "read_features", lambda weights: features)
    with torch.inference_mode():
        found = float(PerceptualDistance(None, kind="lpips")(blob(1), blob(2)))
    assert found == pytest.approx(0.460317, abs=1e-4)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install lpips"):
        PerceptualDistance(None, kind="lpips")


def test_a_file_without_heads_gives_the_plain_distance_alone(stand_in: Path, tmp_path: Path) -> None:
    state = {name: t for name, t in load_file(stand_in).items() if name.startswith("features")}
    save_file(state, tmp_path / "vgg.safetensors")
    with pytest.raises(WeightsError, match="perceptual_kind=vgg"):
        PerceptualDistance(tmp_path / "vgg.safetensors", kind="lpips")
    assert not len(PerceptualDistance(tmp_path / "vgg.safetensors", tuple(LAYERS)).heads)
    with pytest.raises(UsageError, match="all five"):
        PerceptualDistance(stand_in, ["relu1_2"], "lpips")
    with pytest.raises(UsageError, match="lpips or vgg"):
        PerceptualDistance(stand_in, kind="alex")
