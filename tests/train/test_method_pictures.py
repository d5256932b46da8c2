"""The script behind docs/method.md: the same four pictures, whatever the network."""

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from codeformer.models.codeformer import CodeFormer
from codeformer.models.load import save_network
from codeformer.train.data import to_tensor
from codeformer.train.settings import load_settings
from tests.train.test_evaluate import face

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "scripts" / "make_method_pictures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "portraits", lambda: [face(1), face(2)])
    return module


@pytest.fixture
def network() -> CodeFormer:
    torch.manual_seed(0)
    config = load_settings("tiny", 3, ["network.pixel_skip=true"]).network
    return CodeFormer.from_config(config).eval().requires_grad_(False)


def test_all_pictures_are_made_and_the_manual_shows_them(
    script: ModuleType, network: CodeFormer, tmp_path: Path
) -> None:
    save_network(network, tmp_path / "net.safetensors")
    script.main(["--model", str(tmp_path / "net.safetensors"), "--out", str(tmp_path)])
    manual = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    shapes = {"codes": (2, 3), "lookup": (4, 4), "w": (2, 7), "cft": (2, 4)}
    for name, (rows, columns) in shapes.items():
        picture = cv2.imread(str(tmp_path / f"method-{name}.jpg"))
        assert picture is not None and picture.shape[1] == columns * script.CELL
        assert picture.shape[0] // script.CELL == rows and f"images/method-{name}.jpg" in manual


def test_codes_that_are_alike_get_like_colours(script: ModuleType, network: CodeFormer) -> None:
    with torch.no_grad():
        network.quantize.embedding.weight.normal_()
        network.quantize.embedding.weight[1] = network.quantize.embedding.weight[0] + 1e-4
    colours = script.code_colours(network)
    assert colours.shape == (32, 3) and colours.min() == 0 and colours.max() == 1
    assert np.abs(colours[0] - colours[1]).max() < 0.1 < np.abs(colours[2:] - colours[0]).max(1).mean()


def test_cft_is_seen_where_it_acts(script: ModuleType, network: CodeFormer) -> None:
    changes = script.cft_changes(network, to_tensor(face(1))[None])
    assert list(changes) == ["CFT at 16 x 16", "CFT at 32 x 32", script.PIXELS]
    assert changes["CFT at 16 x 16"].shape == (16, 16) and changes["CFT at 16 x 16"].min() > 0
    for fuse in network.fuse_convs_dict.children():
        for branch in ("scale", "shift"):
            for parameter in fuse.get_submodule(branch)[-1].parameters():
                parameter.zero_()
    assert not script.cft_changes(network, to_tensor(face(1))[None])["CFT at 32 x 32"].any()
