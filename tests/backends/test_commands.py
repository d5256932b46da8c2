"""The commands with ``--backend``; and restoring where PyTorch is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from codeformer.cli import main
from codeformer.images.picture import Picture, write_picture
from tests.video.clips import make_film

_WITHOUT_TORCH = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
from codeformer.cli import main
code = main(sys.argv[1:])
loaded = [name for name in sys.modules if name.partition(".")[0] in ("torch", "torchvision", "onnx", "openvino")]
print("loaded:", loaded, "code:", int(code), file=sys.stderr)
"""


def without_torch(*words: str | Path) -> str:
    """What the program says in a process that cannot import PyTorch."""
    command = [sys.executable, "-c", _WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stderr


@pytest.fixture
def photo(portrait: np.ndarray, tmp_path: Path) -> Path:
    write_picture(Picture(portrait), tmp_path / "in" / "photo.png")
    return tmp_path / "in" / "photo.png"


def test_restoring_an_exported_network_needs_no_torch(
    photo: Path, exported: dict[str, Path], small_model_path: Path, tmp_path: Path
) -> None:
    said = without_torch("restore", photo.parent, "-o", tmp_path / "a", "--model", exported["whole"], "--json")
    assert "loaded: [] code: 0" in said, said
    report = json.loads((tmp_path / "a" / "results.json").read_text())
    assert (report["backend"], report["device"], report["precision"]) == ("onnxruntime", "cpu", "fp32")
    assert report["summary"]["faces"] == 1
    torchs = ["restore", str(photo.parent), "-o", str(tmp_path / "b"), "--model", str(small_model_path)]
    assert main([*torchs, "--precision", "fp32"]) == 0
    assert json.loads((tmp_path / "b" / "results.json").read_text())["backend"] == "torch"
    ours, theirs = (cv2.imread(str(tmp_path / name / "final_results" / "photo.png")).astype(int) for name in "ab")
    assert np.abs(ours - theirs).max() <= 1


def test_weights_without_torch_say_what_to_do(photo: Path, small_model_path: Path, tmp_path: Path) -> None:
    said = without_torch("restore", photo, "-o", tmp_path / "a", "--model", small_model_path)
    assert "small.safetensors needs PyTorch: pip install torch, or give --model FILE.onnx" in said and "code: 2" in said


def test_a_film(portrait: np.ndarray, exported: dict[str, Path], small_model_path: Path, tmp_path: Path) -> None:
    frames = [np.roll(portrait, 3 * index, axis=1) for index in range(4)]
    make_film(tmp_path / "film.mkv", frames)
    pictures = {}
    for name, model in (("ours", exported["encoder"]), ("theirs", small_model_path)):
        words = ["video", str(tmp_path / "film.mkv"), "-o", str(tmp_path / f"{name}.mkv"), "--model", str(model)]
        more = ["--precision", "fp32", "--save_frames", str(tmp_path / name)]
        assert main([*words, *more]) == 0
        pictures[name] = [cv2.imread(str(path)).astype(int) for path in sorted((tmp_path / name).rglob("*.png"))]
    assert len(pictures["ours"]) == 4
    for one, other in zip(pictures["ours"], pictures["theirs"], strict=True):
        assert np.abs(one - other).mean() < 0.05


def test_evaluating_an_exported_network(
    small_faces: list[np.ndarray], exported: dict[str, Path], small_model_path: Path, tmp_path: Path
) -> None:
    for number, face in enumerate(small_faces):
        write_picture(Picture(np.rint(face * 255).astype(np.uint8)), tmp_path / "faces" / f"{number}.png")
    means = []
    for model in (small_model_path, exported["whole"]):
        words = ["evaluate", "--data", str(tmp_path / "faces"), "-w", "0", "0.5", "--no_perceptual", "--no_identity"]
        assert main([*words, "--model", str(model), "--device", "cpu", "--json", str(tmp_path / "numbers.json")]) == 0
        means.append(json.loads((tmp_path / "numbers.json").read_text())["means"])
    for title, scores in means[0].items():
        assert means[1][title] == pytest.approx(scores, abs=0.01), title
