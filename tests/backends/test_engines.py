"""ONNX Runtime and OpenVINO give the faces that PyTorch gives, through the same three calls."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.backends import ort, ov
from codeformer.backends.base import EngineDevice, FaceNetwork
from codeformer.backends.choose import place_for
from codeformer.backends.restorer import ExportedRestorer, Graphs
from codeformer.errors import OutOfMemoryError, RestorationError, UsageError, WeightsError
from codeformer.models.file import ModelFile, open_model
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline.engine import open_engine, open_restorer
from codeformer.tasks.table import TASKS

RESTORE = TASKS["restore"]
ENGINES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.skipif(not find_spec("openvino"), reason="none"))]


def opened(path: Path, backend: str = "auto", **more: Any) -> FaceNetwork:
    """The network of a file on the CPU, in fp32."""
    options = ModelOptions(device="cpu", precision="fp32", backend=backend, **more)  # type: ignore[arg-type]
    return open_restorer(open_model(path), RESTORE, options)


@pytest.fixture(scope="module")
def by_torch(small_model_path: Path) -> FaceNetwork:
    return opened(small_model_path, "torch")


@pytest.mark.parametrize("part", ["whole", "encoder", "decoder"])
@pytest.mark.parametrize("backend", ENGINES)
def test_an_engine_restores_as_pytorch_does(
    backend: str, part: str, exported: dict[str, Path], by_torch: FaceNetwork, small_faces: list[np.ndarray]
) -> None:
    network = opened(exported[part], backend, batch_size=2)
    assert (str(network.device), network.precision, network.size) == ("cpu", "fp32", 64)
    each = network.restore_at(small_faces, (0.0, 0.5, 1.0), adain=True)
    for number, w in enumerate((0.0, 0.5, 1.0)):
        ours = network.restore(small_faces, w=w, adain=True)
        assert all(np.array_equal(face, faces[number]) for face, faces in zip(ours, each, strict=True))
        theirs = by_torch.restore(small_faces, w=w, adain=True)
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == (64, 64, 3) and one.dtype == np.float32
            assert np.abs(one - other).max() < 1 / 255
    assert np.abs(ours[0] - network.restore(small_faces, w=0.0, adain=True)[0]).max() > 1e-3  # w is used


@pytest.mark.parametrize("backend", ENGINES)
def test_encoder_and_decoder_may_be_called_apart(
    backend: str, exported: dict[str, Path], by_torch: FaceNetwork, small_faces: list[np.ndarray]
) -> None:
    network = opened(exported["encoder"], backend)
    parts = [network.encode([face]) for face in small_faces]
    encoded = parts[0].joined(parts[1:])
    theirs = by_torch.encode(small_faces)
    np.testing.assert_allclose(encoded.logits, theirs.logits.numpy(), atol=1e-3)
    likeliest = encoded.logits.argmax(2)
    assert np.array_equal(likeliest, theirs.logits.argmax(2).numpy())
    whole = network.restore(small_faces, w=0.5, adain=True)
    both = network.decode(encoded, likeliest, w=0.5, adain=True)
    np.testing.assert_allclose(np.stack(both), np.stack(whole), atol=1e-5)
    other = np.roll(likeliest, 1, axis=1)  # the codes that the caller gives are taken
    changed = network.decode(encoded.select(1), encoded.stacked([other[1]]), w=0.5, adain=True)
    import torch

    wanted = by_torch.decode(theirs.select(1), torch.from_numpy(other[1:2]), w=0.5, adain=True)
    assert np.abs(changed[0] - wanted[0]).max() < 1 / 255 < np.abs(changed[0] - both[1]).max()


def test_the_whole_graph_has_no_halves(exported: dict[str, Path], small_faces: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match=r"net\.onnx is the network in one piece.*--split"):
        opened(exported["whole"]).encode(small_faces)


def test_exported_networks_are_not_translated(exported: dict[str, Path]) -> None:
    """--compile is PyTorch's: it must not be accepted and do nothing."""
    with pytest.raises(UsageError, match=r"--compile is for PyTorch, and onnxruntime runs net\.onnx"):
        open_engine(TASKS["restore"], FaceWork(model=ModelOptions(str(exported["whole"]), compile=True)))


def test_adain_is_part_of_the_file(exported: dict[str, Path], small_faces: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match="was exported with AdaIN"):
        opened(exported["whole"]).restore(small_faces, w=0.5, adain=False)
    with pytest.raises(WeightsError, match="was trained to restore, not to inpaint"):
        open_engine(TASKS["inpaint"], FaceWork(model=ModelOptions(str(exported["whole"]), device="cpu")))


@pytest.mark.parametrize("backend", ENGINES)
def test_an_output_that_is_not_finite_is_an_error(
    backend: str, small_model_path: Path, exported: dict[str, Path], tmp_path: Path, small_faces: list[np.ndarray]
) -> None:
    """OpenVINO clamps NaN to black, which would pass for a face."""
    import onnx

    for part in ("whole", "encoder", "decoder"):
        proto = onnx.load(exported[part])
        for tensor in proto.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor).copy()
            if tensor.name.endswith("bias") and "generator" in tensor.name:
                values[:] = np.nan
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(proto, tmp_path / exported[part].name)
    for part in ("whole", "encoder"):
        with pytest.raises(RestorationError, match="not finite"):
            opened(tmp_path / exported[part].name, backend).restore(small_faces, w=0.5, adain=True)


@pytest.mark.parametrize("backend", ENGINES)
def test_a_page_shows_the_pixels_of_a_run(
    backend: str, exported: dict[str, Path], small_faces: list[np.ndarray], by_torch: FaceNetwork
) -> None:
    from codeformer.images.picture import Picture
    from codeformer.pipeline.opened import open_picture
    from codeformer.pipeline.pictures import Job, process

    model = ModelOptions(str(exported["encoder"]), device="cpu", precision="fp32", backend=backend)  # type: ignore[arg-type]
    work = FaceWork(model=model, faces=FaceOptions(aligned=True), canvas=CanvasOptions(1.0))
    engine = open_engine(RESTORE, work)
    picture = Picture((small_faces[0] * 255).astype(np.uint8))
    shown, _ = open_picture(picture, engine).render(engine, 0.5, [1])
    run = next(process([Job(None, lambda: picture)], engine)).output
    assert run is not None and np.array_equal(shown.rgb, run.rgb)


def test_threads_do_not_spin_and_follow_the_machine(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "threads", lambda: 1)
    graph = ort.open_graph(exported["whole"], ort.pick_device("cpu"))
    settings = graph._session.get_session_options()
    assert settings.intra_op_num_threads == 1
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


class Narrow:
    """A graph with memory for ``fits`` faces."""

    inputs = frozenset({"picture", "w"})

    def __init__(self, fits: int) -> None:
        self.fits, self.sizes = fits, []

    def __call__(self, feed: Any) -> dict[str, np.ndarray]:
        count = len(feed["picture"])
        self.sizes.append(count)
        if count > self.fits:
            raise MemoryError("Failed to allocate memory for requested buffer of size 1073741824")
        return {"restored": feed["picture"]}


def test_batches_halve_until_they_fit(small_faces: list[np.ndarray]) -> None:
    def made(graph: Narrow) -> ExportedRestorer:
        device = EngineDevice("onnxruntime", "cuda", 1)
        return ExportedRestorer(
            Graphs(whole=graph), size=64, adain=True, device=device, precision="fp32", batch_size=8, name="net.onnx"
        )

    graph = Narrow(1)
    network = made(graph)
    faces = (small_faces * 3)[:6]
    assert all(np.array_equal(a, b) for a, b in zip(network.restore(faces, w=1, adain=True), faces, strict=True))
    assert graph.sizes[:4] == [6, 3, 1, 1] and network.batch_size == 1
    with pytest.raises(OutOfMemoryError, match="one face does not fit into the memory of cuda:1"):
        made(Narrow(0)).restore(faces, w=1, adain=True)


def test_an_engines_words_for_no_memory_are_understood() -> None:
    class Session:
        def run(self, *args: Any) -> None:
            raise Exception("RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer")

    graph = ort.OrtGraph.__new__(ort.OrtGraph)
    graph._session, graph._outputs = Session(), ["restored"]
    with pytest.raises(MemoryError, match="allocate"):
        graph({})


def test_devices_that_are_not_installed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--device tensorrt: .* only for .*cpu.*pip install onnxruntime-gpu"):
        ort.pick_device("tensorrt")
    with pytest.raises(UsageError, match=r"--device mps is not for --backend onnxruntime: choose one of cpu"):
        ort.pick_device("mps")
    there = ["CUDAExecutionProvider", "CPUExecutionProvider", "TensorrtExecutionProvider"]
    monkeypatch.setattr(ort.onnxruntime(), "get_available_providers", lambda: there)
    assert str(ort.pick_device("auto")) == "cuda" and str(ort.pick_device("cuda:1")) == "cuda:1"
    assert ort.devices() == ["cpu", "cuda", "tensorrt"]


def test_a_device_that_cannot_be_started_is_an_error_unless_any_will_do(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime would go on with the CPU in silence."""
    module = ort.onnxruntime()
    monkeypatch.setattr(module, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(
        module, "InferenceSession", lambda path, settings, providers, made=module.InferenceSession: made(path, settings)
    )
    with pytest.raises(UsageError, match="--device cuda: ONNX Runtime has its execution provider, but cannot start it"):
        ort.open_graph(exported["whole"], ort.pick_device("cuda"))
    ort.open_graph(exported["whole"], ort.pick_device("auto"), fallback=True)
    assert "cuda cannot be started by ONNX Runtime, so the CPU does the work" in caplog.text


@pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO is not installed")
def test_openvino_names_its_own_devices() -> None:
    assert str(ov.pick_device("cpu")) == "cpu"
    with pytest.raises(UsageError, match="--device gpu:7: OpenVINO sees only cpu"):
        ov.pick_device("gpu:7")
    cpu, gpu = EngineDevice("openvino", "cpu"), EngineDevice("openvino", "gpu")
    assert ov.pick_precision("bf16", cpu) == "bf16" and ov.pick_precision("auto", gpu) == "fp16"
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        ov.pick_precision("fp16", cpu)
    with pytest.raises(UsageError, match="fp16 or fp32"):
        ov.pick_precision("bf16", gpu)


def test_openvino_reports_nothing_to_anybody() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from codeformer.environment import openvino; openvino(); "
        "print([m for m in sys.modules if m.partition('.')[0] in ('openvino_telemetry', 'torch')])"
    )
    pytest.importorskip("openvino")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_engine_is_chosen_by_the_file(small_model_path: Path, exported: dict[str, Path]) -> None:
    weights, network = open_model(small_model_path), open_model(exported["whole"])

    def chosen(model: ModelFile, **options: Any) -> tuple[str, str]:
        place = place_for(model, RESTORE, ModelOptions(**{"device": "cpu", **options}))
        return place.backend, place.precision

    assert chosen(weights, precision="fp32") == ("torch", "fp32")
    assert chosen(network) == chosen(weights, backend="onnxruntime") == ("onnxruntime", "fp32")
    with pytest.raises(UsageError, match=r"net\.onnx is an exported network, which --backend torch cannot run"):
        chosen(network, backend="torch")
    with pytest.raises(UsageError, match=r"--precision fp16: net\.onnx was exported in fp32"):
        chosen(network, precision="fp16")
    with pytest.raises(UsageError, match="openvino has bf16"):
        chosen(network, precision="bf16")
    with pytest.raises(UsageError, match="--backend must be one of"):
        ModelOptions(backend="abacus")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--device must be auto, cpu, gpu or gpu:N for --backend openvino"):
        ModelOptions(backend="openvino", device="cuda")


@pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO is not installed")
def test_a_signal_after_openvinos_last_graph_ends_nothing(tmp_path: Path) -> None:
    """Its plugin gives the thread that loads it a stack for signals, which goes with the last graph."""
    code = """
import gc, signal, sys, threading
from pathlib import Path
import numpy as np
from codeformer.backends import ov
from codeformer.environment import openvino

library, file = openvino(), Path(sys.argv[1])
import openvino.opset13 as op
given = op.parameter([1, 4], np.float32)
model = library.Model([op.relu(given)], [given], "model")
model.inputs[0].get_tensor().set_names({"picture"})
model.outputs[0].get_tensor().set_names({"restored"})
library.save_model(model, str(file))
graphs = [ov.open_graph(file, ov.pick_device("cpu"), "fp32")]
print(graphs[0]({"picture": np.ones((1, 4), np.float32)})["restored"].sum())
thread = threading.Thread(target=lambda: (graphs.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *args: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.xml")], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.split()) == (0, ["4.0", "handled"]), ran.stderr
