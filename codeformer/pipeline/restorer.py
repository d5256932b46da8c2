"""The network on a device: batches of crops in, batches of crops out.

Batches halve when memory runs out, and only one face that does not fit is an error. Half precision is only ever a
faster way to the same face: the codes are predicted in fp32, and an output with NaN or infinity is computed again in
fp32 before it is called an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from codeformer.errors import OutOfMemoryError, RestorationError, UsageError

if TYPE_CHECKING:
    from codeformer.models.codeformer import CodeFormer

_T = TypeVar("_T")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BYTES_PER_FACE = 2_000_000_000  # of the published network at 512 x 512 in fp32, with the allocator's slack
_LARGEST_BATCH = 16
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "ALLOC_FAILED")


@dataclass(frozen=True, eq=False)
class EncodedFaces:
    """Faces between encoder and decoder, on the restorer's device.

    ``lq_feat`` (B, C, h, w), ``features`` the CFT features by grid size, ``logits`` (B, h*w, codebook_size) float32.
    """

    lq_feat: Tensor
    features: dict[str, Tensor]
    logits: Tensor

    def __len__(self) -> int:
        return int(self.lq_feat.shape[0])

    def select(self, index: int | slice) -> EncodedFaces:
        """Some of the faces, as views."""
        part = slice(index, index + 1) if isinstance(index, int) else index
        return EncodedFaces(self.lq_feat[part], {k: v[part] for k, v in self.features.items()}, self.logits[part])

    @staticmethod
    def join(parts: Sequence[EncodedFaces]) -> EncodedFaces:
        """Return the faces of several batches as one."""
        if len(parts) == 1:
            return parts[0]
        return EncodedFaces(
            torch.cat([p.lq_feat for p in parts]),
            {k: torch.cat([p.features[k] for p in parts]) for k in parts[0].features},
            torch.cat([p.logits for p in parts]),
        )


class FaceRestorer:
    """A CodeFormer on a device with a precision.

    ``device``: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps. ``precision``: auto, fp32, bf16, fp16.
    ``batch_size``: faces at a time, None by the device. Raises UsageError for a device or precision that is not there.
    The network is moved and switched to evaluation. Deterministic for the same input on the same machine.
    """

    def __init__(
        self, net: CodeFormer, *, device: str = "auto", precision: str = "auto", batch_size: int | None = None
    ) -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.net = _with_memory_error(
            lambda: net.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last),
            f"the network does not fit into the memory of {self.device}; try --device cpu",
        )
        self.size = int(net.config.img_size)
        self.batch_size = batch_size or _pick_batch_size(self.device)
        self._process = os.getpid()

    def require_own_process(self) -> None:
        """Raise an error in a process that was forked after the network was loaded.

        Raises:
            RestorationError: this is such a process. PyTorch's threads, which loading began, did not come along, so
                that the first network would wait for them for ever.
        """
        if self._process != os.getpid():
            raise RestorationError(
                f"this model was loaded before the process was forked (in process {self._process}), and cannot be used "
                "here; load it in each worker, or start workers with spawn (see docs/servers.md)"
            )

    def restore(self, crops: Sequence[np.ndarray], *, w: float, adain: bool) -> list[np.ndarray]:
        """Restored faces for aligned ones, both (S, S, 3) float32 RGB in [0, 1], S = ``size``.

        Raises RestorationError when a face comes out with NaN or infinity even in fp32, OutOfMemoryError when even
        one face does not fit.
        """

        def run(part: Sequence[np.ndarray]) -> list[np.ndarray]:
            encoded = self._encode(part)
            return self._decode(
                encoded, encoded.logits.argmax(2), w, adain, lambda i: self._encode([part[i]], exact=True)
            )

        return self._batched(run, crops)

    def encode(self, crops: Sequence[np.ndarray]) -> EncodedFaces:
        """The first half of :meth:`restore`: features and code logits. All crops stay on the device together."""
        return EncodedFaces.join(self._batched(lambda part: [self._encode(part)], crops))

    def decode(self, encoded: EncodedFaces, codes: Tensor, *, w: float, adain: bool) -> list[np.ndarray]:
        """The second half of :meth:`restore`, with ``codes`` (B, h*w) int64 chosen by the caller."""

        def run(part: Sequence[int]) -> list[np.ndarray]:
            rows = slice(part[0], part[-1] + 1)
            chosen = encoded.select(rows)
            return self._decode(chosen, codes[rows].to(self.device), w, adain, chosen.select)

        return self._batched(run, range(len(encoded)))

    def _encode(self, crops: Sequence[np.ndarray], *, exact: bool = False) -> EncodedFaces:
        with torch.inference_mode():
            x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)  # (B, 3, S, S), channels last in memory
            x = x.to(self.device, torch.float32) * 2 - 1
            with self._autocast(exact):
                lq_feat, features = self.net.encode_features(x)
            return EncodedFaces(lq_feat, features, self.net.predict_logits(lq_feat.float()))

    def _decode(
        self, encoded: EncodedFaces, codes: Tensor | None, w: float, adain: bool, again: Callable[[int], EncodedFaces]
    ) -> list[np.ndarray]:
        """Without ``codes``, the likeliest ones. ``again(i)`` gives face i for a second try in fp32."""
        with torch.inference_mode():
            chosen = encoded.logits.argmax(2) if codes is None else codes
            out = self._generate(encoded, chosen, w, adain)
            good = out.flatten(1).isfinite().all(1) & encoded.logits.flatten(1).isfinite().all(1)
            if not bool(good.all()):
                if self.precision == "fp32":
                    raise _not_finite()
                for i in (~good).nonzero().flatten().tolist():
                    face = again(i)
                    own = face.logits.argmax(2) if codes is None else codes[i : i + 1]
                    redone = self._generate(face, own, w, adain, exact=True)
                    if not bool(redone.isfinite().all() & face.logits.isfinite().all()):
                        raise _not_finite()
                    out[i] = redone[0]
            pixels = (out.clamp(-1, 1) + 1) * 0.5
            return list(pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy())

    def _generate(self, encoded: EncodedFaces, codes: Tensor, w: float, adain: bool, *, exact: bool = False) -> Tensor:
        if exact or self.precision == "fp32":
            features = {k: v.float() for k, v in encoded.features.items()}
            return self.net.decode_codes(codes, encoded.lq_feat.float(), features, w, adain).float()
        with self._autocast():
            return self.net.decode_codes(codes, encoded.lq_feat, encoded.features, w, adain).float()

    def _autocast(self, exact: bool = False) -> AbstractContextManager[object]:
        if exact or self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, _DTYPES[self.precision])

    def _batched(self, run: Callable[[Sequence[_S]], list[_T]], items: Sequence[_S]) -> list[_T]:
        """``run`` over slices of ``items`` that fit; a smaller size that was found is kept for later calls."""
        self.require_own_process()
        results: list[_T] = []
        start = 0
        while start < len(items):
            count = min(self.batch_size, len(items) - start)
            try:
                results += run(items[start : start + count])
                start += count
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler, where no traceback keeps the failed batch alive
            _release(self.device)
            if count == 1:
                raise OutOfMemoryError(
                    f"one face does not fit into the memory of {self.device}; try --device cpu, or close other programs"
                )
            self.batch_size = max(1, count // 2)
        return results


_S = TypeVar("_S")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, on any of its devices, or Python ran out of memory."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words.lower() in str(error).lower() for words in _NO_MEMORY)


def pick_device(device: str = "auto") -> torch.device:
    """The device for a ``--device``. Raises UsageError if PyTorch does not see it."""
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


def pick_precision(precision: str, device: torch.device) -> str:
    """The precision for a ``--precision``: ``auto`` is the fastest that the device computes natively."""
    if precision not in ("auto", *_DTYPES):
        raise UsageError(f"--precision must be auto, fp32, bf16 or fp16, not {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        major = torch.cuda.get_device_capability(device)[0]
        return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    # Chosen by what the processor can do, not by a stopwatch: the same picture must give the same bytes every time.
    # With AVX512-BF16 the published network was measured at 4.1 s a face instead of 5.8 s (two EPYC cores).
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX512-BF16 or AMX); emulated it would be slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False  # not Linux
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _pick_batch_size(device: torch.device) -> int:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return int(min(_LARGEST_BATCH, max(1, free // _BYTES_PER_FACE)))
    # One face keeps a CPU busy; and batches of one give the same bytes whatever the faces before and after it were
    return 4 if device.type == "mps" else 1


def _with_memory_error(action: Callable[[], _T], message: str) -> _T:
    try:
        return action()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(message) from error
        raise


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _not_finite() -> RestorationError:
    return RestorationError("the network's output is not finite for this face; the weights file may be damaged")
