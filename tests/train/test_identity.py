"""The identity loss: dlib's network read from its file, and what its distance says."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from codeformer.errors import WeightsError
from codeformer.faces.align import crop_face, face_transform
from codeformer.faces.recognition import RecognitionNetwork, chip
from codeformer.models.codeformer import CodeFormer
from codeformer.models.load import save_network
from codeformer.train import loop, networks
from codeformer.train.data import Folder, to_tensor
from codeformer.train.identity import IdentityDistance
from codeformer.train.settings import load_settings

WIDTHS = [32] * 7 + [64] * 8 + [128] * 6 + [256] * 8
POINTS = [[202.7, 99.6], [246.0, 101.9], [223.4, 127.5], [202.2, 138.0], [244.2, 140.3]]


def integer(value: int) -> bytes:
    """As dlib writes one."""
    data = value.to_bytes((value.bit_length() + 7) // 8 or 1, "little")
    return bytes([len(data)]) + data


def tensor(values: np.ndarray, *shape: int) -> bytes:
    return b"".join(map(integer, (2, *shape))) + values.astype("<f4").tobytes()


def file_of(seed: int = 0) -> bytes:
    """A file of dlib's layout with weights of our own."""
    rng = np.random.default_rng(seed)
    data, channels = b"\x01\x01\x01\x0dloss_metric_2", 3
    for i, width in enumerate(WIDTHS):
        count = width * channels * (49 if i == 0 else 9) + width
        values = rng.normal(0, (2 / (count / width)) ** 0.5, count)
        data += b"\x05con_4" + tensor(values, count, 1, 1, 1) + b"\x01\x20"
        scale = np.concatenate([np.full(width, 0.7), rng.normal(0, 0.1, width)])
        data += b"\x07affine_" + tensor(scale, 2 * width, 1, 1, 1)
        channels = width
    return data + b"\x04fc_2" + integer(128) + integer(256) + tensor(rng.normal(0, 0.1, 256 * 128), 256, 128, 1, 1)


@pytest.fixture(scope="module")
def dat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dlib") / "net.dat"
    path.write_bytes(file_of())
    return path


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return crop_face(np.asarray(data.astronaut()), face_transform(POINTS, 256), 256)


def test_the_file_is_read_weight_by_weight(dat: Path) -> None:
    net = RecognitionNetwork(dat)
    values = np.random.default_rng(0).normal(0, (2 / 148) ** 0.5, 4736).astype(np.float32)
    first = net.weights[0].numpy()
    np.testing.assert_allclose(first, 0.7 * values[:-32].reshape(32, 3, 7, 7), rtol=1e-5)
    assert net(torch.rand(2, 3, 150, 150)).shape == (2, 128)
    assert not any(p.requires_grad for p in net.parameters())


def test_a_file_that_is_something_else_or_cut_off_is_refused(dat: Path, tmp_path: Path) -> None:
    whole = dat.read_bytes()
    broken = {
        "other": b"PK\x03\x04 a zip",
        "cut": whole[: len(whole) // 2],
        "short": whole[:-1],
        "few": whole.replace(b"\x07affine_", b"\x07nothing", 1),
    }
    for name, data in broken.items():
        path = tmp_path / f"{name}.dat"
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=name):
            RecognitionNetwork(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        RecognitionNetwork(tmp_path / "none.dat")


def test_the_distance_is_0_for_the_same_face_and_draws_towards_it(dat: Path, astronaut: np.ndarray) -> None:
    distance = IdentityDistance(dat)
    sharp = to_tensor(astronaut)[None]
    blurred = to_tensor(cv2.GaussianBlur(astronaut, (0, 0), 4))[None].requires_grad_()
    assert distance(sharp, sharp).item() == 0
    before = distance(blurred, sharp)
    before.sum().backward()
    gradient = blurred.grad
    assert gradient is not None and before.item() > 0
    step = 1e-3 * gradient / gradient.abs().max()
    assert distance(blurred.detach() - step, sharp).item() < before.item()
    assert not gradient[..., :60, :].any() and not gradient[..., :, 220:].any(), "only the face's place counts"


def test_it_computes_what_dlib_computes(astronaut: np.ndarray) -> None:
    dlib = pytest.importorskip("dlib")
    from codeformer.faces.identity import dlib_models

    path = dlib_models("the test") / "dlib_face_recognition_resnet_model_v1.dat"
    part = (chip(to_tensor(astronaut)[None]) * 255).round()
    with torch.no_grad():
        ours = RecognitionNetwork(path)(part / 255)[0].numpy()
    picture = part[0].permute(1, 2, 0).numpy().astype(np.uint8)
    theirs = dlib.face_recognition_model_v1(str(path)).compute_face_descriptor(np.ascontiguousarray(picture))
    np.testing.assert_allclose(ours, np.array(theirs), atol=1e-4)


def test_stage_three_takes_it_up(dat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "faces").mkdir()
    for i in range(4):
        cv2.imwrite(
            str(tmp_path / "faces" / f"{i}.png"), cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (64, 64))
        )
    settings = replace(load_settings("tiny", 3), steps=5, gan=0.0, perceptual=0.0, identity=0.5)
    init = tmp_path / "two.safetensors"
    save_network(CodeFormer.from_config(settings.network), init, {})
    (tmp_path / "dlib_face_recognition_resnet_model_v1.dat").write_bytes(dat.read_bytes())
    monkeypatch.setattr(networks, "dlib_models", lambda what: tmp_path)
    out = tmp_path / "run"
    loop.train(settings, [Folder(tmp_path / "faces")], out, files=networks.Files(init=init), device="cpu", quiet=True)
    (scalars,) = (json.loads(line) for line in (out / "scalars.jsonl").read_text().splitlines())
    assert scalars["loss"] == pytest.approx(scalars["pixel"] + 0.5 * scalars["identity"]) and scalars["identity"] > 0
