"""Weights files that are damaged or made up: each ends in our own error, soon, and in little memory."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from codeformer.errors import CodeFormerError, WeightsError
from codeformer.faces.parsing import NetworkParser
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import CONFIG_KEY, Config
from codeformer.models.file import open_model
from codeformer.models.load import load_network, save_network
from codeformer.models.state import read_state
from codeformer.upsampling.networks import load_descriptor

TINY = Config(
    img_size=32, nf=16, ch_mult=(1, 2), res_blocks=1, norm_groups=8, codebook_size=16, emb_dim=16, dim_embd=16,
    n_head=2, n_layers=1, latent_size=256, attn_resolutions=(16,), connect_list=("32",),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    torch.manual_seed(0)
    save_network(CodeFormer.from_config(TINY), path)
    load_network(path)
    return path


@pytest.fixture(scope="module")
def pickled(tiny: Path) -> Path:
    path = tiny.with_name("tiny.pth")
    torch.save({"params_ema": read_state(tiny)[0]}, path)
    return path


def described(tiny: Path, target: Path, config: object) -> Path:
    """The tiny file with another description of its network."""
    save_file(read_state(tiny)[0], target, {CONFIG_KEY: config if isinstance(config, str) else json.dumps(config)})
    return target


def plain(**changes: Any) -> dict[str, Any]:
    return {**json.loads(TINY.to_json()), **changes}


def refused(path: Path) -> str:
    begun = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    assert time.monotonic() - begun < 60, "it hangs"
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (plain(n_layers=10**6), "n_layers must be a whole number from 0 to 100, not 1000000"),
        (plain(n_layers=10**30), "n_layers"),
        (plain(nf=48, norm_groups=32), "cannot be built"),
        (plain(norm_groups=0), "norm_groups"),
        (plain(stem=0), "stem"),
        (plain(img_size="32"), "img_size"),
        (plain(img_size=32.0), "img_size"),
        (plain(ch_mult=[]), "ch_mult"),
        (plain(ch_mult=[1] * 50), "ch_mult"),
        (plain(ch_mult=7), "ch_mult"),
        (plain(res_blocks=10**6), "res_blocks"),
        (plain(res_blocks=[1, 10**6]), "res_blocks"),
        (plain(codebook_size=10**12), "codebook_size"),
        (plain(connect_list=["../x"]), "connect_list"),
        (plain(connect_list=["7"]), "cannot be built|another network"),
        (plain(n_head=3), "cannot be built"),
        (plain(beta="much"), "beta"),
        (plain(pixel_skip="yes"), "pixel_skip"),
        (plain(wings=2), "unknown hyperparameters: wings"),
        ([], "JSON object"),
        ("", "describes no network"),
        ("[" * 100_000, "describes no network"),
        ("9" * 5000, "describes no network"),
    ],
)
def test_a_description_that_is_wrong_is_refused_before_anything_is_built(
    tiny: Path, tmp_path: Path, config: object, words: str
) -> None:
    text = refused(described(tiny, tmp_path / "x.safetensors", config))
    assert any(one in text for one in words.split("|")), text


def test_metadata_that_is_missing_has_its_own_sentence(tiny: Path, tmp_path: Path) -> None:
    save_file(read_state(tiny)[0], tmp_path / "x.safetensors")
    assert "no metadata describes its network" in refused(tmp_path / "x.safetensors")


json_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.integers(0, 40), st.floats(), st.text(max_size=5),
    st.lists(st.integers(-5, 2**40), max_size=4), st.lists(st.text(max_size=3), max_size=3),
)  # fmt: skip


@given(changes=st.dictionaries(st.sampled_from(sorted(plain())), json_values, min_size=1, max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_mutated_descriptions_are_refused_or_fit(tiny: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = described(tiny, tmp_path / "x.safetensors", plain(**changes))
    for load in (load_network, open_model):
        try:
            load(path)
        except CodeFormerError as error:
            assert "\n" not in str(error)


def mutated(data: bytes, draw: st.DataObject, header: int) -> bytes:
    content = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 5))):
        most = header if draw.draw(st.booleans()) else len(content) - 1
        content[draw.draw(st.integers(0, most))] = draw.draw(st.integers(0, 255))
    if draw.draw(st.booleans()):
        del content[draw.draw(st.integers(0, len(content))) :]
    return bytes(content)


@given(draw=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_mutated_files_are_refused_or_loaded(
    tiny: Path, pickled: Path, tmp_path: Path, kind: str, draw: st.DataObject
) -> None:
    data = (tiny if kind == "safetensors" else pickled).read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0] if kind == "safetensors" else 5000
    path = tmp_path / f"x.{kind}"
    path.write_bytes(mutated(data, draw, header))
    for load in (load_network, open_model, lambda path: NetworkParser("bisenet", path), load_descriptor):
        try:
            load(path)
        except CodeFormerError as error:
            assert "\n" not in str(error)
        if load is open_model and draw.draw(st.integers(0, 19)) != 0:
            break  # building the other networks takes long


def test_tensors_that_unfold_are_refused(tmp_path: Path) -> None:
    """One number with strides of 0 is a tensor of any size; making it fp32 would fill the memory."""
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="unfold to more bytes"):
        read_state(tmp_path / "x.pth")


class Call:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.mkdir, (Path("/tmp/never"),))


def load_parser(path: Path) -> NetworkParser:
    """Load a parser, where the package that has its network is installed."""
    pytest.importorskip("facexlib", reason="the parsers' networks need the package facexlib")
    return NetworkParser("bisenet", path)


@pytest.mark.parametrize("load", [load_network, open_model, load_parser, load_descriptor])
def test_every_loader_names_code(tmp_path: Path, load: Any) -> None:
    torch.save({"a": Call()}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="would run code when opened"):
        load(tmp_path / "x.pth")


def devices(tmp_path: Path) -> Iterator[Path]:
    for ending in ("safetensors", "pth"):
        path = tmp_path / f"zero.{ending}"
        path.symlink_to("/dev/zero")
        yield path


def test_a_device_is_no_weights_file(tmp_path: Path) -> None:
    for path in devices(tmp_path):
        for load in (load_network, open_model, load_descriptor):
            with pytest.raises(WeightsError, match="device"):
                load(path)


def test_the_sample_is_what_it_says(tiny: Path) -> None:
    with safe_open(tiny, framework="pt") as file:
        assert Config.from_json(file.metadata()[CONFIG_KEY]) == TINY
