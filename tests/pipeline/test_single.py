"""One picture on a CPU starts without PyTorch, and comes out as by PyTorch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from codeformer import environment
from codeformer.backends.stored import is_linked, parts_for
from codeformer.errors import WeightsError
from codeformer.hub import store
from codeformer.hub.store import bundled
from codeformer.images.picture import Picture, write_picture
from codeformer.models import exported
from codeformer.models.exported import linked_to
from codeformer.models.file import open_model
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline import single
from codeformer.pipeline.engine import open_restorer
from codeformer.pipeline.single import for_one_picture
from codeformer.tasks.table import TASKS

BUNDLED = [("compact", "restore"), ("compact", "colorize"), ("compact_inpainting", "inpaint")]


@pytest.mark.parametrize(("name", "task"), BUNDLED)
def test_bundled_graphs_belong_to_the_bundled_weights(name: str, task: str) -> None:
    model = open_model(bundled(name))
    assert is_linked(model, TASKS[task]), "run scripts/link_graphs.py weights/compact*.safetensors"
    graphs = parts_for(model, TASKS[task], "fp32")
    assert graphs.encoder and graphs.decoder
    assert graphs.encoder.stat().st_size + graphs.decoder.stat().st_size < 300_000  # no weights of their own


@pytest.mark.parametrize(("name", "task"), BUNDLED)
def test_they_answer_as_pytorch_does(name: str, task: str, portrait: np.ndarray) -> None:
    crop = cv2.resize(portrait, (512, 512), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    model = open_model(bundled(name))
    ours, theirs = (
        open_restorer(model, TASKS[task], ModelOptions(device="cpu", precision="fp32", backend=backend))
        for backend in ("onnxruntime", "torch")
    )
    codes = [np.asarray(one.encode([crop]).logits.argmax(2)) for one in (ours, theirs)]
    assert np.array_equal(*codes)
    for w in (0.0, 0.5, 1.0):
        (one,), (other,) = (network.restore([crop], w=w, adain=False) for network in (ours, theirs))
        assert np.abs(one - other).max() <= 1 / 255
        assert np.abs(one - crop).max() > 0.02


def test_graphs_of_another_file_are_passed_over(tmp_path: Path) -> None:
    weights = bundled("compact")
    sha256 = open_model(weights).sha256
    for path in weights.parent.glob("compact_[ed]*coder.onnx"):
        shutil.copy(path, tmp_path)
    there = tmp_path / weights.name
    adain = open_model(weights).adain(TASKS["restore"])
    assert linked_to(there, sha256, adain) is not None
    assert linked_to(there, "0" * 64, adain) is None
    assert linked_to(there, sha256, not adain) is None
    for path in tmp_path.glob("*.onnx"):  # under another name they would not find their weights
        path.rename(path.with_name(path.name.replace("compact", "mine")))
    assert linked_to(tmp_path / "mine.safetensors", sha256, adain) is None
    assert linked_to(there, sha256, adain) is None


def test_a_damaged_graph_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = bundled("compact")
    for path in weights.parent.glob("compact[._]*"):
        shutil.copy(path, tmp_path)
    graph = tmp_path / "compact_decoder.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    monkeypatch.setattr(store, "packaged", lambda file: tmp_path / file)
    monkeypatch.setattr(exported, "packaged", lambda file: tmp_path / file)
    with pytest.raises(WeightsError, match=r"compact_decoder\.onnx: is damaged, by its SHA-256; reinstall"):
        is_linked(open_model(tmp_path / "compact.safetensors"), TASKS["restore"])


def asked(**model: Any) -> FaceWork:
    return FaceWork(w=0.5, model=ModelOptions(**model))


@pytest.mark.parametrize(
    ("work", "backend"),
    [
        (asked(), "onnxruntime"),
        (asked(device="cpu", precision="fp32"), "onnxruntime"),
        (replace(asked(), faces=FaceOptions(aligned=True)), "onnxruntime"),
        (asked(precision="bf16"), "auto"),
        (asked(backend="torch"), "torch"),
        (replace(asked(), canvas=CanvasOptions(face_upsample=True)), "auto"),
        (replace(asked(), faces=FaceOptions(detection_model="retinaface_resnet50")), "auto"),
        (replace(asked(), faces=FaceOptions(person=(Path("her.jpg"),))), "auto"),
        (replace(asked(), scratches="auto"), "auto"),
    ],
)
def test_pytorch_is_left_out_where_nothing_needs_it(
    work: FaceWork, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "accelerator_in_sight", lambda: False)
    model = open_model(bundled("compact"))
    assert for_one_picture(TASKS["restore"], work, model).model.backend == backend
    monkeypatch.setattr(single, "accelerator_in_sight", lambda: True)
    on_cpu = work.model.device == "cpu"
    assert for_one_picture(TASKS["restore"], work, model).model.backend == (backend if on_cpu else work.model.backend)


def test_weights_without_graphs_run_on_pytorch(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single, "accelerator_in_sight", lambda: False)
    assert for_one_picture(TASKS["restore"], asked(), open_model(small_model_path)).model.backend == "auto"


def test_one_picture_never_imports_pytorch(portrait: np.ndarray, tmp_path: Path) -> None:
    for name in ("one/a.png", "two/a.png", "two/b.png"):
        write_picture(Picture(portrait), tmp_path / name)
    code = "import sys; from codeformer.cli import main; c = main(sys.argv[1:]); print('torch' in sys.modules, int(c))"
    for folder, backend in (("one", "onnxruntime"), ("two", "torch")):
        words = ["restore", "-i", tmp_path / folder, "-o", tmp_path / f"{folder}.out", "--device", "cpu", "-w", "0.5"]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words), "--precision", "fp32", "--quiet"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout.split() == [str(backend == "torch"), "0"], done.stderr
        report = json.loads((tmp_path / f"{folder}.out" / "results.json").read_text())
        assert (report["backend"], report["summary"]["faces"]) == (backend, len(report["inputs"]))
    one, two = (
        cv2.imread(str(tmp_path / name / "final_results" / "a.png")).astype(int) for name in ("one.out", "two.out")
    )
    assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize(
    ("system", "build", "files", "seen"),
    [
        ("linux", "2.14.1+cu130", (), False),
        ("linux", "2.14.1+cu130", ("/dev/nvidiactl",), True),
        ("linux", "2.14.1", ("/dev/kfd",), True),
        ("linux", "2.14.1", ("/dev/dxg",), True),
        ("linux", "2.14.1+cpu", ("/dev/nvidiactl",), False),
        ("win32", "2.14.1+cu130", ("C:/W/System32/nvcuda.dll",), True),
        ("win32", "2.14.1+cpu", ("C:/W/System32/nvcuda.dll",), False),
        ("win32", "2.14.1", (), False),
        ("darwin", "2.14.1", (), True),
        ("freebsd14", "2.14.1", (), True),
    ],
)
def test_an_accelerator_is_seen_by_what_its_driver_left(
    system: str, build: str, files: tuple[str, ...], seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "sys", SimpleNamespace(platform=system))
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("importlib.metadata.version", lambda name: build)
    monkeypatch.setenv("SYSTEMROOT", "C:/W")
    for asks in ("exists", "is_file"):
        monkeypatch.setattr(Path, asks, lambda path: path.as_posix() in files)
    assert environment.accelerator_in_sight() is seen
