"""Exported networks by ONNX Runtime, on whatever execution provider is installed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from codeformer.backends.base import EngineDevice
from codeformer.device import is_out_of_memory
from codeformer.environment import onnxruntime, threads
from codeformer.errors import UsageError, WeightsError

_log = logging.getLogger("codeformer")

#: The execution providers by the word of ``--device``, the preferred first, and the package that brings them.
PROVIDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "cpu": (("CPUExecutionProvider",), "onnxruntime"),
    "cuda": (("CUDAExecutionProvider",), "onnxruntime-gpu"),
    "tensorrt": (("TensorrtExecutionProvider",), "onnxruntime-gpu, and NVIDIA's TensorRT"),
    "rocm": (("MIGraphXExecutionProvider", "ROCMExecutionProvider"), "onnxruntime-migraphx"),
    "directml": (("DmlExecutionProvider",), "onnxruntime-directml"),
    "coreml": (("CoreMLExecutionProvider",), "onnxruntime on macOS"),
    "openvino": (("OpenVINOExecutionProvider",), "onnxruntime-openvino"),
}
#: What ``--device auto`` takes, the first that is installed. TensorRT is not among them: it builds for minutes first.
_AUTO = ("cuda", "rocm", "directml", "coreml", "cpu")
_NO_MEMORY = ("allocate memory", "bad_alloc", "bad allocation", "out of memory", "alloc_failed", "not enough memory")


def devices() -> list[str]:
    """Return the words of ``--device`` whose execution providers are installed."""
    return [word for word in PROVIDERS if _provider(word) is not None]


def pick_device(asked: str) -> EngineDevice:
    """Return the device for a ``--device``.

    Raises:
        UsageError: its execution provider is not installed.
    """
    word, _, number = asked.partition(":")
    if word == "auto":
        word = next(one for one in _AUTO if _provider(one) is not None)
    elif word not in PROVIDERS:
        raise UsageError(f"--device {asked} is not for --backend onnxruntime: choose one of {', '.join(devices())}")
    if _provider(word) is None:
        raise UsageError(
            f"--device {asked}: this ONNX Runtime has no execution provider for it, only for {', '.join(devices())}; "
            f"pip install {PROVIDERS[word][1]} instead of onnxruntime, or use --device cpu"
        )
    return EngineDevice("onnxruntime", word, int(number) if number else None)


def open_graph(path: Path, device: EngineDevice, *, fallback: bool = False) -> OrtGraph:
    """Load an exported graph.

    Args:
        path: the file.
        device: where it runs.
        fallback: whether the CPU will do where the device cannot be started.

    Raises:
        UsageError: the device cannot be started, as without a driver.
        WeightsError: the file is damaged.
    """
    module = onnxruntime()
    settings = module.SessionOptions()
    settings.intra_op_num_threads = threads()
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # it would print; what goes wrong is raised, or asked for below
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider = _provider(device.kind)
    if provider == "DmlExecutionProvider":  # it allows neither
        settings.enable_mem_pattern = False
        settings.execution_mode = module.ExecutionMode.ORT_SEQUENTIAL
    chosen: list[Any] = [(provider, _settings_of(device))]
    if device.kind != "cpu":
        chosen.append("CPUExecutionProvider")  # for the few operators that a provider may lack
    try:
        session = module.InferenceSession(str(path), settings, providers=chosen)
    except Exception as error:  # its errors have no class of their own but Exception
        if is_lack_of_memory(error):
            raise MemoryError(str(error)) from error
        if device.kind != "cpu" and "protobuf" not in str(error).lower():
            raise _not_started(device) from error
        raise WeightsError(f"{path}: ONNX Runtime cannot load it ({_line(error)})") from error
    if provider not in session.get_providers():
        if not fallback:
            raise _not_started(device)
        _log.warning("%s cannot be started by ONNX Runtime, so the CPU does the work", device)
    return OrtGraph(session)


class OrtGraph:
    """A graph in an ONNX Runtime session; see :class:`~codeformer.backends.base.Graph`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [one.name for one in session.get_outputs()]
        self.inputs = frozenset(one.name for one in session.get_inputs())
        self.on_cpu = session.get_providers()[0] == "CPUExecutionProvider"

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs for a batch."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(feed)), strict=True))
        except Exception as error:  # its errors have no class of their own but Exception
            if is_lack_of_memory(error):
                raise MemoryError(_line(error)) from error
            raise


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an engine's error says that memory ran out."""
    return is_out_of_memory(error) or any(words in str(error).lower() for words in _NO_MEMORY)


def _provider(word: str) -> str | None:
    there = onnxruntime().get_available_providers()
    return next((name for name in PROVIDERS[word][0] if name in there), None)


def _settings_of(device: EngineDevice) -> dict[str, str]:
    numbered = {} if device.index is None else {"device_id": str(device.index)}
    if device.kind == "cuda":
        numbered["use_tf32"] = "0"  # fp32 is fp32: TF32 has 10 bits of mantissa
    return numbered


def _not_started(device: EngineDevice) -> UsageError:
    return UsageError(
        f"--device {device}: ONNX Runtime has its execution provider, but cannot start it (a driver or a library of "
        "it is missing); use --device cpu"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
