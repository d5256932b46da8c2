"""Exported networks by OpenVINO, on Intel's and other CPUs and on Intel's GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from codeformer.backends.base import EngineDevice
from codeformer.backends.ort import is_lack_of_memory
from codeformer.device import cpu_has_bf16
from codeformer.environment import openvino, threads
from codeformer.errors import UsageError, WeightsError

T = TypeVar("T")

_NAMES = ("picture", "w", "restored", "codes", "logits", "lq_feat")

#: What OpenVINO calls our precisions.
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


def devices() -> list[str]:
    """Return the words of ``--device`` that OpenVINO sees here: ``cpu``, ``gpu``, or ``gpu:N`` where there are several.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    names = _apart(lambda: openvino().Core().available_devices)
    found = [name.replace(".", ":").lower() for name in names]
    return [name for name in found if name.partition(":")[0] in ("cpu", "gpu")]


def pick_device(asked: str) -> EngineDevice:
    """Return the device for a ``--device``: ``auto`` is a GPU of Intel's if there is one.

    Raises:
        UsageError: OpenVINO is not installed, or does not see the device.
    """
    there = devices()
    kinds = {name.partition(":")[0] for name in there}
    word, _, number = asked.partition(":")
    if word == "auto":
        word = "gpu" if "gpu" in kinds else "cpu"
    if word not in kinds or (number not in ("", "0") and asked not in there):
        raise UsageError(f"--device {asked}: OpenVINO sees only {', '.join(there)} here; use one of them")
    return EngineDevice("openvino", word, int(number) if number else None)


def pick_precision(asked: str, device: EngineDevice) -> str:
    """Return the precision for a ``--precision``: ``auto`` is what the device computes natively.

    Raises:
        UsageError: the device does not compute in it.
    """
    if device.kind == "gpu":
        if asked == "bf16":
            raise UsageError("--precision bf16: OpenVINO's GPUs compute in fp16 or fp32")
        return "fp16" if asked == "auto" else asked
    if asked == "fp16":
        raise UsageError("--precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if asked == "auto":
        return "bf16" if cpu_has_bf16() else "fp32"
    return asked


def open_graph(path: Path, device: EngineDevice, precision: str) -> OvGraph:
    """Load an exported graph.

    Raises:
        WeightsError: the file is damaged.
    """
    name = device.kind.upper() if device.index is None else f"{device.kind.upper()}.{device.index}"
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if device.kind == "cpu":
        settings |= {"INFERENCE_NUM_THREADS": threads(), "ENABLE_CPU_PINNING": False}  # the cores are not ours alone
    try:
        compiled = _apart(lambda: _compiled(path, name, settings))
    except Exception as error:
        if is_lack_of_memory(error):
            raise MemoryError(str(error)) from error
        line = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: OpenVINO cannot load it ({line})") from error
    return OvGraph(compiled)


def _compiled(path: Path, name: str, settings: dict[str, Any]) -> Any:
    core = openvino().Core()
    return core.compile_model(core.read_model(str(path)), name, settings)


def _apart(do: Callable[[], T]) -> T:
    """Call what loads OpenVINO's plugin for CPUs in a thread of its own.

    The plugin gives the thread that loads it another stack for signals, and takes the memory away when the last graph
    is gone, in whatever thread that is. A signal to a thread that still has that stack, such as Ctrl-C to the main
    thread, would end the process with SIGSEGV.
    """
    with ThreadPoolExecutor(1, "codeformer-openvino") as pool:
        return pool.submit(do).result()


class OvGraph:
    """A graph that OpenVINO has compiled; see :class:`~codeformer.backends.base.Graph`."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = [_own_name(one.get_names()) for one in compiled.outputs]
        self.inputs = frozenset(_own_name(one.get_names()) for one in compiled.inputs)

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs for a batch, as arrays of their own."""
        try:
            self._request.infer(dict(feed))
        except Exception as error:
            if is_lack_of_memory(error):
                raise MemoryError(str(error)) from error
            raise
        return {name: self._request.get_tensor(name).data.copy() for name in self._outputs}


def _own_name(names: Iterable[str]) -> str:
    """Return the name that ``codeformer export`` gave: a tensor gets further ones where nodes are fused."""
    return next(name for name in names if name in _NAMES or name.startswith("feature_"))
