"""Which engine runs a network, on which device and in which precision; and loading it there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codeformer.backends import ort, ov
from codeformer.backends.base import EngineDevice, Graph
from codeformer.backends.restorer import ExportedRestorer, Graphs
from codeformer.backends.stored import is_stored, parts_for
from codeformer.device import Device, within_memory
from codeformer.errors import UsageError, WeightsError
from codeformer.extras import installed
from codeformer.models.file import OWN, ModelFile
from codeformer.options import ModelOptions
from codeformer.tasks.base import Task

_LARGEST_BATCH = 8  # faces at a time on a GPU


@dataclass(frozen=True)
class EnginePlace:
    """Where a network runs: the engine, its device, and the arithmetic."""

    backend: str
    device: Device
    precision: str


def place_for(model: ModelFile, task: Task, options: ModelOptions) -> EnginePlace:
    """Return where the options let a network run. Nothing is loaded but the engine.

    ``--backend auto`` is PyTorch for weights and ONNX Runtime for an exported network; without PyTorch it is ONNX
    Runtime for weights, too, whose exported form is in the cache.

    Raises:
        UsageError: the engine cannot run this file, is not installed, or has no such device or precision.
    """
    backend = options.backend
    if backend == "auto":
        backend = "torch" if model.exported is None and not _only_exported(model, task) else "onnxruntime"
    if model.architecture != OWN:
        if backend != "torch":
            raise UsageError(
                f"--backend {backend}: {model.path.name} holds {model.architecture}, which torch alone runs"
            )
        backend = "torch"
    if backend == "torch":
        if model.exported is not None:
            raise UsageError(
                f"{model.path.name} is an exported network, which --backend torch cannot run: "
                "use --backend onnxruntime or openvino, or give the weights"
            )
        if not installed("torch"):
            raise UsageError(f"{model.path.name} needs PyTorch: pip install torch, or give --model FILE.onnx")
        from codeformer.device import pick_device, pick_precision

        torch_device = pick_device(options.device)
        return EnginePlace(backend, torch_device, pick_precision(options.precision, torch_device))
    if backend == "openvino":
        device = ov.pick_device(options.device)
        precision = ov.pick_precision(options.precision, device)
    else:
        device = ort.pick_device(options.device)
        precision = _precision_of_onnxruntime(model, options.precision, device)
    return EnginePlace(backend, device, precision)


def open_exported(model: ModelFile, task: Task, options: ModelOptions, place: EnginePlace) -> ExportedRestorer:
    """Return a network on another engine than PyTorch.

    Raises:
        UsageError: the engine cannot start the device, or what exporting needs is missing.
        WeightsError: the file is damaged, or holds a stage I autoencoder.
        OutOfMemoryError: the network does not fit into memory.
    """
    if not model.config.n_layers:
        raise WeightsError(
            f"{model.path}: holds a stage I autoencoder, which restores nothing; give a whole CodeFormer file"
        )
    device = place.device
    assert isinstance(device, EngineDevice)
    on_cpu = device.kind == "cpu"
    parts = parts_for(model, task, "fp16" if place.precision == "fp16" and place.backend == "onnxruntime" else "fp32")

    def load(path: Path) -> Graph:
        if place.backend == "openvino":
            return ov.open_graph(path, device, place.precision)
        return ort.open_graph(path, device, fallback=options.device == "auto")

    def load_all() -> Graphs:
        names = ("whole", "encoder", "decoder")
        return Graphs(**{name: load(path) for name in names if (path := getattr(parts, name)) is not None})

    refused = f"the network does not fit into the memory of {device}; try --device cpu"
    return ExportedRestorer(
        within_memory(load_all, refused),
        size=model.config.img_size,
        adain=model.adain(task),
        device=device,
        precision=place.precision,
        # One face keeps a CPU busy; and batches of one give the same bytes whatever the faces around it were
        batch_size=options.batch_size or (1 if on_cpu else _LARGEST_BATCH),
        name=model.path.name,
    )


def _only_exported(model: ModelFile, task: Task) -> bool:
    return not installed("torch") and is_stored(model, task)


def _precision_of_onnxruntime(model: ModelFile, asked: str, device: EngineDevice) -> str:
    """Return the precision: ONNX Runtime computes in that of the file. Raises UsageError."""
    if asked == "bf16":
        raise UsageError("--precision bf16: ONNX Runtime computes in fp32, on GPUs also in fp16; openvino has bf16")
    if model.exported is not None:
        own = model.metadata.get("precision", "fp32")
        if asked not in ("auto", own):
            raise UsageError(f"--precision {asked}: {model.path.name} was exported in {own}; leave --precision out")
        return own
    if asked == "fp16" and device.kind == "cpu":
        raise UsageError("--precision fp16 needs a GPU; use fp32 on the CPU")
    return "fp32" if asked == "auto" else asked
