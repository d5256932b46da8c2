"""Weights files: what opens, and that whatever does not is refused in one line, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from codeformer.errors import WeightsError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.file import open_model
from codeformer.models.load import load_network, save_network
from codeformer.models.state import load_into, read_state
from codeformer.models.vqgan import VQAutoEncoder

# Of the published family, whose config is inferred from shapes, but small
SMALL = Config(
    img_size=32,
    nf=32,
    ch_mult=(1, 2),
    codebook_size=16,
    emb_dim=32,
    dim_embd=32,
    n_layers=1,
    connect_list=("32",),
)


@pytest.fixture(scope="module")
def net() -> CodeFormer:
    torch.manual_seed(0)
    return CodeFormer.from_config(SMALL).eval()


def faces(config: Config) -> torch.Tensor:
    return torch.rand(1, 3, config.img_size, config.img_size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def output(net: torch.nn.Module, config: Config) -> np.ndarray:
    with torch.inference_mode():
        return net(faces(config), w=0.5)[0].numpy()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params_ema": state, "params": {name: t * 0 for name, t in state.items()}},
        lambda state: {"params": state},
        lambda state: {"state_dict": state, "iteration": 7},
        lambda state: {"params_ema": {f"module.{name}": t for name, t in state.items()}},
    ],
    ids=["plain", "params_ema", "params", "state_dict", "module"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_wrapping_of_a_published_file_opens(
    net: CodeFormer, wrap: Callable[[dict[str, Any]], dict[str, Any]], zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    torch.save(wrap(dict(net.state_dict())), path, _use_new_zipfile_serialization=zipped)
    opened = load_network(path)
    assert isinstance(opened, CodeFormer) and opened.config == SMALL and not opened.training
    np.testing.assert_array_equal(output(opened, SMALL), output(net, SMALL))


COMPACT = [
    replace(
        SMALL,
        img_size=64,
        stem=4,
        nf=8,
        norm_groups=4,
        attn_resolutions=(),
        n_head=2,
        latent_size=64,
        connect_list=("16",),
    ),
    replace(SMALL, ch_mult=(1, 1, 2), img_size=48, latent_size=144, connect_list=("24", "48"), n_head=4, n_layers=2),
    replace(SMALL, img_size=64, stem=2, emb_dim=8, dim_embd=48, codebook_size=5, n_head=3, pixel_skip=True),
    replace(SMALL, res_blocks=(3, 1)),
    replace(SMALL, img_size=128, stem=4, latent_size=256, connect_list=("16",), refine=(6, 4)),
    replace(SMALL, img_size=128, stem=8, latent_size=64, connect_list=("16",), refine=(6, 4)),
]


@pytest.mark.parametrize("config", COMPACT, ids=["stem", "levels", "skip", "blocks", "refine", "refine 8"])
def test_networks_of_other_sizes_travel_with_their_config(config: Config, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = CodeFormer.from_config(config).eval()
    path = tmp_path / "net.safetensors"
    save_network(made, path, {"tasks": "restore"}, half=False)
    opened = load_network(path)
    assert isinstance(opened, CodeFormer) and opened.config == config
    assert open_model(path).metadata["tasks"] == "restore"
    result = output(opened, config)
    assert result.shape == (1, 3, config.img_size, config.img_size)
    np.testing.assert_array_equal(result, output(made, config))
    save_network(made, path)  # half precision by default, and over a file that is there
    halved = load_network(path)
    assert path.stat().st_size < sum(4 * t.numel() for t in made.state_dict().values())
    for name, tensor in halved.state_dict().items():
        torch.testing.assert_close(tensor, made.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_an_autoencoder_is_refined_too() -> None:
    config = replace(SMALL, img_size=128, stem=4, n_layers=0, connect_list=(), refine=(6, 4))
    net = VQAutoEncoder.from_config(config)
    before = net(faces(config))[0]
    assert before.shape == (1, 3, 128, 128) and net.generator.refine is not None
    net.generator.refine.conv_out.bias.data.fill_(0.5)
    torch.testing.assert_close(net(faces(config))[0], before + 0.5)


@pytest.mark.parametrize(("stem", "refine", "says"), [(1, (6, 4), "stem of 2, 4 or 8"), (4, (6,), "two numbers")])
def test_a_refinement_needs_folded_pixels_and_two_numbers(stem: int, refine: tuple[int, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(SMALL, img_size=128, stem=stem, latent_size=(64 // stem) ** 2, connect_list=(), refine=refine)


def test_a_stage_one_file_is_an_autoencoder(tmp_path: Path) -> None:
    config = replace(SMALL, n_layers=0, connect_list=())
    save_network(VQAutoEncoder.from_config(config), tmp_path / "vqgan.safetensors")
    opened = load_network(tmp_path / "vqgan.safetensors")
    assert type(opened) is VQAutoEncoder and opened.config == config


def test_a_network_starts_from_a_stage_one_file(net: CodeFormer, tmp_path: Path) -> None:
    path = tmp_path / "vqgan.safetensors"
    torch.manual_seed(5)
    stage1 = VQAutoEncoder.from_config(replace(SMALL, n_layers=0, connect_list=()))
    save_network(stage1, path, half=False)
    made = CodeFormer(config=SMALL, vqgan_path=path)
    assert torch.equal(made.quantize.embedding.weight, stage1.quantize.embedding.weight)
    assert not made.quantize.embedding.weight.requires_grad and made.position_emb.requires_grad
    with pytest.raises(WeightsError, match="tensors missing"):
        load_into(made, path)


class Malicious:
    """A pickle that leaves a file behind when it is trusted."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


Damage = Callable[[CodeFormer, Path], None]


def _cut(net: CodeFormer, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _other_shape(net: CodeFormer, path: Path) -> None:
    torch.save({**net.state_dict(), "position_emb": torch.zeros(255, 32)}, path)


def _not_finite(net: CodeFormer, path: Path) -> None:
    torch.save({**net.state_dict(), "position_emb": torch.full_like(net.position_emb, torch.nan)}, path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda net, path: path.unlink(), "no such weights file"),
        (lambda net, path: path.write_bytes(b""), "empty"),
        (_cut, "cut off"),
        (lambda net, path: path.write_bytes(b"<html>not found</html>"), "not a PyTorch checkpoint"),
        (lambda net, path: path.write_bytes(bytes(range(256)) * 9), "not a PyTorch checkpoint"),
        (
            lambda net, path: torch.save({"params": Malicious(path.with_name("ran"))}, path),
            "would run code when opened",
        ),
        (lambda net, path: torch.save(7, path), "not a network's weights"),
        (lambda net, path: torch.save({}, path), "not a network's weights"),
        (lambda net, path: torch.save({"a.weight": torch.zeros(3)}, path), "another network"),
        (_other_shape, "another network"),
        (_not_finite, "position_emb is not finite"),
    ],
    ids=["missing", "empty", "cut", "page", "noise", "code", "number", "nothing", "other", "shape", "nan"],
)
def test_what_is_no_network_is_refused_in_one_line(net: CodeFormer, damage: Damage, says: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    damage(net, path)
    with pytest.raises(WeightsError, match=says) as refusal:
        load_network(path)
    assert str(refusal.value).startswith(f"{path}: ") and "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_a_safetensors_file_that_is_cut_off_is_refused(net: CodeFormer, part: float, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(net, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    for read in (load_network, read_state, open_model):
        with pytest.raises(WeightsError, match="cut off") as refusal:
            read(path)
        assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["{}[", "7", '{"img_size": 512, "colour": "red"}', '{"img_size": 511}', '{"img_size": "large"}']
)
def test_a_config_that_makes_no_sense_is_refused(net: CodeFormer, text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({name: t.contiguous() for name, t in net.state_dict().items()}, path, {"codeformer_config": text})
    with pytest.raises(WeightsError, match=r"net\.safetensors"):
        load_network(path)


def test_a_config_survives_its_text() -> None:
    for config in (Config(), SMALL, *COMPACT):
        again = Config.from_json(config.to_json())
        assert again == config and asdict(again) == asdict(config)
    with pytest.raises(ValueError, match="multiple"):
        Config(img_size=500)
    with pytest.raises(ValueError, match="latent_size"):
        Config(latent_size=200)
    with pytest.raises(ValueError, match="one for each of 6 levels"):
        Config(res_blocks=(1, 2))


def test_residual_blocks_are_counted_level_by_level_from_the_finest() -> None:
    net = VQAutoEncoder.from_config(replace(SMALL, res_blocks=(3, 1), attn_resolutions=(), n_layers=0, connect_list=()))
    for half, kinds in ((net.encoder, "CRRRDRRARGC"), (net.generator, "CRARRURRRGC")):
        assert "".join(type(block).__name__[0] for block in half.blocks) == kinds


def test_equal_networks_are_equal_files_in_every_process(tmp_path: Path) -> None:
    """Else nobody could say of a trained file that it was trained as another one."""
    torch.manual_seed(0)
    net = CodeFormer.from_config(
        Config(img_size=32, nf=8, ch_mult=(1, 2), res_blocks=1, norm_groups=4, codebook_size=16, emb_dim=8, dim_embd=8,
               n_head=2, n_layers=1, latent_size=256, attn_resolutions=(16,), connect_list=("32",))
    )  # fmt: skip
    described = {name: name * 3 for name in ("tasks", "adain", "hole", "ü", "step", "stage", "a\nb")}
    for number in range(6):  # in six orders of 5,040
        items = list(described.items())
        save_network(net, tmp_path / f"{number}.safetensors", dict(items[number:] + items[:number]))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    state, metadata = read_state(tmp_path / "0.safetensors")
    assert described.items() <= metadata.items()
    assert all(torch.equal(state[name], tensor.half()) for name, tensor in net.state_dict().items())
