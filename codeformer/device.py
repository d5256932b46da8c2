"""Devices, precisions and memory, once for all networks: which device, which arithmetic, and halving until it fits.

PyTorch is imported where one of its devices is asked for, so that other engines do without it. Threads and what
libraries read before they are loaded stand in :mod:`codeformer.environment`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from codeformer.errors import OutOfMemoryError, UsageError

if TYPE_CHECKING:
    import torch

S = TypeVar("S")
T = TypeVar("T")

#: The names of ``--precision``, but for ``auto``, and what PyTorch calls them.
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "ALLOC_FAILED")


class Device(Protocol):
    """Where an engine's networks run: a device of PyTorch's, or of another engine. As text, a ``--device``."""

    @property
    def type(self) -> str:
        """The kind of device: ``cpu``, ``cuda`` and ``mps`` are PyTorch's."""


def dtype_of(precision: str) -> torch.dtype:
    """Return PyTorch's type for fp32, bf16 or fp16."""
    import torch

    dtype: torch.dtype = getattr(torch, _DTYPES[precision])
    return dtype


def pick_device(device: str = "auto") -> torch.device:
    """Return PyTorch's device for a ``--device``.

    Args:
        device: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.

    Raises:
        UsageError: PyTorch does not see it.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"--device must be auto, cpu, cuda, cuda:N or mps, not {device!r}") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise UsageError(f"--device {device}: PyTorch sees {count or 'no'} CUDA devices here; try --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: PyTorch sees no Apple GPU here; try --device cpu")
    return chosen


def name_of(device: Device) -> str:
    """Return what tells a device from others that may give other last bits: the kind, and a CUDA card's name."""
    if device.type != "cuda":
        return device.type
    import torch

    return f"cuda {torch.cuda.get_device_name(str(device))}"


def pick_precision(precision: str, device: torch.device) -> str:
    """Return the precision for a ``--precision``: ``auto`` is the fastest that the device computes natively.

    Raises:
        UsageError: the precision is unknown, or this device does not have it.
    """
    if precision not in ("auto", *_DTYPES):
        raise UsageError(f"--precision must be auto, fp32, bf16 or fp16, not {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        import torch

        major = torch.cuda.get_device_capability(device)[0]
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    # Chosen by what the processor can do, not by a stopwatch: the same picture must give the same bytes every time.
    # With AVX512-BF16 the published network was measured at 4.1 s a face instead of 5.8 s (two EPYC cores).
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


class _WholeFloats:
    """Switches TF32 off while anything that needs whole floats runs, in whatever thread.

    PyTorch's switch is the process's, and so is this object: the first to enter remembers how it stood, the last to
    leave puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[Any] = []

    def __enter__(self) -> None:
        switches, name, off = _tf32_switches()
        with self._lock:
            if not self._inside:
                self._before = [getattr(one, name) for one in switches]
                for one in switches:
                    setattr(one, name, off)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        switches, name, _ = _tf32_switches()
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for one, before in zip(switches, self._before, strict=True):
                    setattr(one, name, before)


def _tf32_switches() -> tuple[tuple[Any, Any], str, Any]:
    """Return PyTorch's objects for convolutions and matrix products, their switch's name, and its value without TF32.

    PyTorch refuses to read the old switches in a program that has set the new ones, which version 2.9 brought.
    """
    import torch

    new = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(new, "fp32_precision"):
        return (new, torch.backends.cuda.matmul), "fp32_precision", "ieee"
    return (torch.backends.cudnn, torch.backends.cuda.matmul), "allow_tf32", False


_WHOLE_FLOATS = _WholeFloats()


def whole_floats(device: Device) -> AbstractContextManager[None]:
    """Return a context in which fp32 is fp32 on this device.

    A CUDA card computes convolutions of float32 numbers with 10 of their 23 bits (TF32) unless it is told otherwise.
    Of the published network that changed one code in 255, and its logits by 0.004 (``tests/test_gpu.py`` without this).
    Whatever computes in fp32 enters it: a network outside of it would get what others happen to have switched.
    """
    return _WHOLE_FLOATS if device.type == "cuda" else nullcontext()


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 natively (AVX512-BF16 or AMX); emulated, it is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False  # not Linux
    return "avx512_bf16" in flags or "amx_bf16" in flags


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether PyTorch, on any of its devices, or Python ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if type(error).__name__ == "OutOfMemoryError":  # PyTorch's own, told without importing it
        return True
    return any(words.lower() in str(error).lower() for words in _NO_MEMORY)


def within_memory(action: Callable[[], T], refused: str) -> T:
    """Return what the action returns.

    Args:
        action: what to do.
        refused: the message if memory runs out.

    Raises:
        OutOfMemoryError: memory ran out.
    """
    try:
        return action()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(refused) from error
        raise


def halved_until_it_fits(
    attempt: Callable[[int], T],
    size: int,
    device: Device,
    refused: Callable[[int], str],
    *,
    least: int = 1,
    shrunk: Callable[[int, int], None] = lambda size, smaller: None,
) -> tuple[T, int]:
    """Try with ever smaller sizes while memory runs out; return the result and the size that it had.

    Args:
        attempt: does the work at a size: of a batch, or of a tile.
        size: what is tried first.
        device: gets its cached memory back between two tries.
        refused: gives the message for a size below which nothing is tried.
        least: the smallest size.
        shrunk: is told of each step, from one size to the next.

    Raises:
        OutOfMemoryError: the smallest size does not fit either.
    """
    while True:
        try:
            return attempt(size), size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, where no traceback keeps what failed alive
        _release(device)
        smaller = size // 2
        if smaller < least:
            raise OutOfMemoryError(refused(size))
        shrunk(size, smaller)
        size = smaller


def in_fitting_batches(
    run: Callable[[Sequence[S]], list[T]],
    items: Sequence[S],
    size: int,
    device: Device,
    refused: str,
) -> tuple[list[T], int]:
    """Run over slices of the items that fit into memory; return all results, and the batch size that was found.

    Args:
        run: gives the results of a slice.
        items: what to work on.
        size: the largest slice.
        device: where the memory is.
        refused: the message if even one item does not fit.

    Raises:
        OutOfMemoryError: one item does not fit.
    """
    results: list[T] = []
    start = 0
    while start < len(items):
        count = min(size, len(items) - start)
        part, fitting = halved_until_it_fits(
            lambda n, start=start: run(items[start : start + n]),  # type: ignore[misc]
            count,
            device,
            lambda _: refused,
        )
        results += part
        start += fitting
        if fitting < count:
            size = fitting
    return results, size


def _release(device: Device) -> None:
    if device.type not in ("cuda", "mps"):
        return
    import torch

    (torch.cuda if device.type == "cuda" else torch.mps).empty_cache()
