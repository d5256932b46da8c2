"""A model's file can grow and be scaled between runs without another answer than it should give."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from codeformer.errors import UsageError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.file import open_model
from codeformer.models.load import load_network, save_network

SMALL = Config(
    img_size=64,
    stem=2,
    nf=8,
    ch_mult=(1, 2, 2),
    res_blocks=(2, 1, 1),
    attn_resolutions=(16, 8),
    norm_groups=4,
    codebook_size=16,
    emb_dim=8,
    dim_embd=16,
    n_head=2,
    n_layers=1,
    latent_size=64,
    connect_list=("16", "32"),
    pixel_skip=True,
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "reshape_model.py"
    spec = importlib.util.spec_from_file_location("reshape_model", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file whose every tensor says something: what starts at 0 or 1 would hide a mistake."""
    torch.manual_seed(0)
    net = CodeFormer.from_config(SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_network(net, tmp_path / "in.safetensors", {"tasks": "restore", "hole": "white"})
    return tmp_path / "in.safetensors"


def answer(path: Path, w: float) -> torch.Tensor:
    net = load_network(path)
    face = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    out: torch.Tensor = net(face, w=w)[0]
    return out


@pytest.mark.parametrize("blocks", [(3, 1, 1), (2, 1, 3), (4, 1, 2), (2, 1, 1)])
def test_a_deeper_network_answers_as_before(script: ModuleType, source: Path, blocks: tuple[int, ...]) -> None:
    target = source.with_name("out.safetensors")
    script.main(["deepen", str(source), str(target), "--res_blocks", *map(str, blocks)])
    assert load_network(target).config.blocks_by_level == blocks
    for w in (0.0, 1.0):
        assert torch.allclose(answer(target, w), answer(source, w), atol=1e-5)
    assert open_model(target).metadata["tasks"] == "restore"


@pytest.mark.parametrize("stem", [2, 4])
def test_a_refined_network_answers_as_before_and_can_learn(
    script: ModuleType, source: Path, stem: int, tmp_path: Path
) -> None:
    if stem != SMALL.stem:
        torch.manual_seed(0)
        other = CodeFormer.from_config(replace(SMALL, img_size=128, stem=stem))
        save_network(other, tmp_path / "in.safetensors")
    target = source.with_name("out.safetensors")
    script.main(["refine", str(source), str(target), "--channels", "6", "5"])
    old, new = load_network(source), load_network(target).requires_grad_(True)
    assert new.config == replace(old.config, refine=(6, 5))
    face = torch.rand(1, 3, new.config.img_size, new.config.img_size) * 2 - 1
    for w in (0.0, 1.0):
        assert torch.equal(new(face, w=w)[0], old(face, w=w)[0])
    new.generator.refine.conv_out.weight.data.normal_()
    out = new(face, w=1.0)[0]
    assert out.shape == face.shape and not torch.allclose(out, old(face, w=1.0)[0], atol=1e-2)
    out.square().sum().backward()
    assert all(parameter.grad.any() for parameter in new.generator.refine.parameters())
    with pytest.raises(UsageError, match="refinement of 6 5 already"):
        script.main(["refine", str(target), str(source)])
    deeper = script.deepen(new, (3, 1, 1))
    assert torch.allclose(deeper(face, w=1.0)[0], out, atol=1e-5)


def test_what_was_added_can_learn(script: ModuleType, source: Path) -> None:
    net = script.deepen(load_network(source), (3, 1, 2)).requires_grad_(True)
    net.encoder(torch.rand(1, 3, 64, 64)).square().sum().backward()
    added = net.encoder.blocks[3]
    assert not added.conv2.weight.any() and added.conv2.weight.grad.any()


def test_the_scaled_file_at_1_is_the_old_one_at_the_factor(script: ModuleType, source: Path) -> None:
    target = source.with_name("out.safetensors")
    script.main(["scale", str(source), str(target), "--factor", "0.5", "--set", "licence=mine", "--set", "hole="])
    # Half precision halves exactly; the rest of the network is not touched.
    assert torch.allclose(answer(target, 1.0), answer(source, 0.5), atol=1e-4)
    assert torch.equal(answer(target, 0.0), answer(source, 0.0))
    assert not torch.allclose(answer(target, 1.0), answer(source, 1.0), atol=1e-2)
    metadata = open_model(target).metadata
    assert (metadata["cft_scale"], metadata["licence"], metadata.get("hole")) == ("0.5", "mine", None)
    again = source.with_name("again.safetensors")
    script.main(["scale", str(target), str(again), "--factor", "0.5"])
    assert open_model(again).metadata["cft_scale"] == "0.25", "of the file as it was trained"


@pytest.mark.parametrize(
    ("words", "of"),
    [
        (["deepen", "--res_blocks", "1", "1", "1"], "at least 2 1 1"),
        (["deepen", "--res_blocks", "2", "1"], "at least 2 1 1"),
        (["deepen", "--res_blocks", "2", "2", "1"], "16 x 16 has attention and CFT"),
        (["scale", "--factor", "0"], "above 0"),
        (["scale", "--factor", "nan"], "above 0"),
        (["scale", "--factor", "1", "--set", "licence"], "key=value"),
    ],
)
def test_what_makes_no_sense_is_refused(script: ModuleType, source: Path, words: list[str], of: str) -> None:
    target = source.with_name("out.safetensors")
    with pytest.raises(UsageError, match=of):
        script.main([words[0], str(source), str(target), *words[1:]])
    assert not target.exists()
