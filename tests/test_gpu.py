"""What only a CUDA card can show; on a machine without one every test here is skipped."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeformer.errors import OutOfMemoryError
from codeformer.images.picture import read_picture, to_uint8
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.load import load_network
from codeformer.pipeline.compiled import translate
from codeformer.pipeline.restorer import FaceRestorer
from tests.models import test_golden as published
from tests.models.test_golden import CASES, GOLDEN, check_samples
from tests.reference.fill import face, fill

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "weights" / "compact.safetensors"
Cli = Callable[..., subprocess.CompletedProcess[str]]


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) + 1e-20))


@pytest.fixture(autouse=True)
def free_card() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    """Two sharp faces, and the same blurred, (512, 512, 3) float32 in [0, 1]."""
    import cv2

    sharp = [read_picture(path).rgb for path in sorted((ROOT / "inputs" / "cropped_faces").glob("*.png"))]
    faces = [np.ascontiguousarray(to_uint8(one), np.float32) / np.float32(255) for one in sharp]
    return [*faces, *(cv2.GaussianBlur(one, (0, 0), 4.0) for one in faces)]


@pytest.fixture(scope="module")
def on_cpu(crops: list[np.ndarray]) -> np.ndarray:
    net: Any = load_network(BUNDLED)
    return np.stack(FaceRestorer(net, device="cpu", precision="fp32").restore(crops, w=0.5, adain=False))


def bundled(**options: Any) -> FaceRestorer:
    net: Any = load_network(BUNDLED)
    return FaceRestorer(net, device="cuda", **options)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("vqgan")])
def test_the_published_network_gives_its_golden_numbers(case: str) -> None:
    kind, *rest = case.split("|")
    options = dict(item.split("=") for item in rest)
    net: Any = fill(published.build(kind))
    restorer = FaceRestorer(net, device="cuda", precision="fp32")
    x = face(int(options["seed"]), int(options.get("batch", 1)))
    faces = [np.ascontiguousarray((one.permute(1, 2, 0).numpy() + 1) / 2) for one in x]
    encoded = restorer.encode(faces)
    clear = GOLDEN[f"{case}|margin"].ravel() > 1e-3
    codes = encoded.logits.argmax(2)
    np.testing.assert_array_equal(codes.cpu().numpy().ravel()[clear], GOLDEN[f"{case}|codes"].ravel()[clear])
    check_samples(encoded.logits.cpu().numpy(), GOLDEN[f"{case}|logits"].astype(np.float32))
    check_samples(encoded.lq_feat.cpu().numpy(), GOLDEN[f"{case}|lq_feat"].astype(np.float32))
    with torch.inference_mode():
        out = restorer._generate(encoded, codes, float(options["w"]), options["adain"] == "1")
    check_samples(out.cpu().numpy(), GOLDEN[f"{case}|patch"].astype(np.float32))


@pytest.mark.parametrize(("precision", "least"), [("fp32", 60.0), ("bf16", 36.0), ("fp16", 44.0)])
def test_faces_are_those_of_the_processor(
    precision: str, least: float, crops: list[np.ndarray], on_cpu: np.ndarray
) -> None:
    restored = np.stack(bundled(precision=precision).restore(crops, w=0.5, adain=False))
    found = [decibels(a, b) for a, b in zip(restored, on_cpu, strict=True)]
    print(precision, [round(one, 1) for one in found])
    assert min(found) > least


def test_the_same_faces_give_the_same_bytes(crops: list[np.ndarray]) -> None:
    restorer = bundled()
    assert restorer.precision == ("bf16" if torch.cuda.get_device_capability()[0] >= 8 else restorer.precision)
    first, again = (np.stack(restorer.restore(crops * 4, w=0.5, adain=False)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, np.stack(bundled().restore(crops * 4, w=0.5, adain=False)))


def test_a_batch_that_does_not_fit_is_halved(crops: list[np.ndarray]) -> None:
    restorer = bundled(precision="fp32", batch_size=64)
    expected = np.stack(bundled(precision="fp32", batch_size=1).restore(crops, w=0.5, adain=False))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.5e9 / total)
    found = restorer.restore(crops * 16, w=0.5, adain=False)
    print("fitting batch:", restorer.batch_size)
    assert restorer.batch_size < 64 and len(found) == 64
    assert all(decibels(one, expected[i % 4]) > 60 for i, one in enumerate(found))
    torch.cuda.set_per_process_memory_fraction(1e8 / total)
    with pytest.raises(OutOfMemoryError, match="one face does not fit into the memory of cuda"):
        restorer.restore(crops[:1], w=0.5, adain=False)


def test_64_faces_of_the_published_network_are_those_of_single_ones(crops: list[np.ndarray]) -> None:
    net: Any = fill(CodeFormer.from_config(Config()))
    restorer = FaceRestorer(net, device="cuda", precision="fp32", batch_size=64)
    single = FaceRestorer(net, device="cuda", precision="fp32", batch_size=1)
    many = restorer.restore(crops * 16, w=0.5, adain=True)
    few = single.restore(crops, w=0.5, adain=True)
    found = [decibels(one, few[i % 4]) for i, one in enumerate(many)]
    print(min(found), torch.cuda.max_memory_allocated() / 1e9, restorer.batch_size)
    assert min(found) > 40  # a face that a kernel left out would be at 6 dB


def test_whole_pictures_by_the_command_line(cli: Cli, tmp_path: Path) -> None:
    for device in ("cuda", "cpu"):
        done = cli("restore", "-i", ROOT / "inputs" / "whole_imgs", "-o", tmp_path / device, "--device", device)
        assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "cuda" / "results.json").read_bytes())
    print(report["device"], report["precision"], report["summary"])
    assert report["device"].startswith("cuda")
    pairs = sorted((tmp_path / "cuda" / "final_results").iterdir())
    assert len(pairs) == 3
    for path in pairs:
        other = tmp_path / "cpu" / "final_results" / path.name
        found = decibels(read_picture(path).rgb / 255.0, read_picture(other).rgb / 255.0)
        print(path.name, round(found, 1))
        assert found > 36


def test_a_film_by_the_command_line(cli: Cli, tmp_path: Path, portrait: np.ndarray) -> None:
    pytest.importorskip("av")
    from tests.video.clips import make_film

    film = make_film(tmp_path / "film.mp4", [np.roll(portrait, i, 1) for i in range(12)])
    for device in ("cuda", "cpu"):
        done = cli("restore", "-i", film, "-o", tmp_path / device, "--device", device)
        assert done.returncode == 0, done.stderr
    import av

    def frames(device: str) -> np.ndarray:
        (path,) = (tmp_path / device).rglob("*.mp4")
        with av.open(str(path)) as opened:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)])

    ours, theirs = frames("cuda"), frames("cpu")
    assert ours.shape == theirs.shape and len(ours) == 12
    print("film", decibels(ours / 255.0, theirs / 255.0))
    assert decibels(ours / 255.0, theirs / 255.0) > 32


def test_upsampling_in_tiles(networks: dict[str, Path]) -> None:
    from codeformer.upsampling.upsampler import make_upsampler

    rgb = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    for precision, least in (("fp32", 50.0), ("auto", 30.0)):
        ours = make_upsampler(networks["compact"], scale=2, device="cuda", precision=precision, tile=64)(rgb)
        theirs = make_upsampler(networks["compact"], scale=2, device="cpu", precision="fp32", tile=0)(rgb)
        found = decibels(ours / 255.0, theirs / 255.0)
        print("upsampling", precision, round(found, 1))
        assert found > least


def test_training_goes_down_and_on(tmp_path: Path) -> None:
    """Stage I on the card: its weights are those of the processor after a step or two, and it goes on where it was."""
    from codeformer.train import loop
    from codeformer.train.data import Folder
    from codeformer.train.settings import load_settings

    faces = tmp_path / "faces"
    faces.mkdir()
    import cv2

    for i in range(8):
        picture = np.full((64, 64, 3), (40 * i % 200, 90, 200 - 20 * i), np.uint8)
        cv2.circle(picture, (32, 32), 12 + i, (20, 200, 90), -1)
        cv2.imwrite(str(faces / f"{i}.png"), picture)
    settings = load_settings("tiny", 1, ["steps=4", "perceptual=0.0", "gan=0.0", "ema=0.0", "vq_start=100"])
    runs = {"whole": "cuda", "parts": "cuda", "cpu": "cpu"}
    for run, device in runs.items():
        steps = 2 if run == "parts" else 4
        loop.train(replace(settings, steps=steps), [Folder(faces)], tmp_path / run, device=device, quiet=True)
    loop.train(settings, [Folder(faces)], tmp_path / "parts", device="cuda", quiet=True, resume=True)
    weights = {run: load_network(tmp_path / run / "model.safetensors").state_dict() for run in runs}
    for name, tensor in weights["whole"].items():
        for other in ("parts", "cpu"):
            assert float((tensor.float() - weights[other][name].float()).abs().max()) < 2e-3, (name, other)


def test_a_translated_network_gives_the_same_faces(crops: list[np.ndarray]) -> None:
    restorer = bundled(precision="fp32", batch_size=4)
    expected = restorer.restore(crops, w=0.5, adain=False)
    translate(restorer, w=0.5, adain=False)
    found = [decibels(a, b) for a, b in zip(restorer.restore(crops, w=0.5, adain=False), expected, strict=True)]
    print("translated", found)
    assert min(found) > 55


def test_the_doctor_names_the_card(cli: Cli) -> None:
    done = cli("doctor")
    assert torch.cuda.get_device_name() in done.stdout + done.stderr, done.stdout
