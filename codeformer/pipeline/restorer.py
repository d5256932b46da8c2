"""The network on a device: batches of crops in, batches of crops out.

Batches halve when memory runs out, and only one face that does not fit is an error. Half precision is only ever a
faster way to the same face: the codes are predicted in fp32, and an output with NaN or infinity is computed again in
fp32 before it is called an error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from codeformer.device import dtype_of, in_fitting_batches, pick_device, pick_precision, whole_floats, within_memory
from codeformer.errors import RestorationError
from codeformer.models.config import Config
from codeformer.pipeline.side_by_side import SideBySide, plan_for

if TYPE_CHECKING:
    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.foreign import ForeignRestorer
    from codeformer.pipeline.compiled import CompiledNetwork

_S = TypeVar("_S")
_T = TypeVar("_T")

_BYTES_PER_FACE = 2_000_000_000  # of the published network at 512 x 512 in fp32, with the allocator's slack
_BYTES_PER_ELEMENT = 60  # the same for each number of the largest layer
_LARGEST_BATCH = 16
_LARGEST_LAYER = 2**31 - 1  # elements: some kernels count them in 32 bits


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
        """Return some of the faces, as views."""
        part = slice(index, index + 1) if isinstance(index, int) else index
        return EncodedFaces(self.lq_feat[part], {k: v[part] for k, v in self.features.items()}, self.logits[part])

    def joined(self, others: Sequence[EncodedFaces]) -> EncodedFaces:
        """Return these faces, and those of ``others`` behind them."""
        if not others:
            return self
        parts = [self, *others]
        return EncodedFaces(
            torch.cat([p.lq_feat for p in parts]),
            {k: torch.cat([p.features[k] for p in parts]) for k in parts[0].features},
            torch.cat([p.logits for p in parts]),
        )

    def stacked(self, codes: Sequence[Tensor]) -> Tensor:
        """Return the codes of several faces, each (h*w,), as one tensor (B, h*w)."""
        return torch.stack(list(codes))


class FaceRestorer:
    """A CodeFormer on a device with a precision.

    ``device``: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps. ``precision``: auto, fp32, bf16, fp16.
    ``batch_size``: faces at a time, None by the device. Raises UsageError for a device or precision that is not there.
    The network is moved and switched to evaluation. Deterministic for the same input on the same machine; without a
    ``batch_size`` on a CPU also whatever faces come with it, since several go through the network in a thread each.
    """

    def __init__(
        self,
        net: CodeFormer | ForeignRestorer,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self.net = within_memory(
            lambda: net.eval().requires_grad_(False).to(self.device).to(memory_format=_layout(net)),
            f"the network does not fit into the memory of {self.device}; try --device cpu",
        )
        self.size = int(net.config.img_size)
        self._side_by_side: SideBySide | None = None
        if batch_size is None and self.device.type == "cpu":
            cores = torch.get_num_threads()
            plan = plan_for(net, cores, _BYTES_PER_ELEMENT * largest_layer(net.config))
            batch_size = plan.faces
            if plan.cores < cores:
                self._side_by_side = SideBySide(plan)
        self.batch_size = batch_size or _pick_batch_size(self.device)
        self._most = max(1, _LARGEST_LAYER // largest_layer(net.config))
        self.compiled: CompiledNetwork | None = None  # see codeformer.pipeline.compiled
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
        return [one for (one,) in self.restore_at(crops, (w,), adain=adain)]

    def restore_at(
        self, crops: Sequence[np.ndarray], weights: Sequence[float], *, adain: bool
    ) -> list[tuple[np.ndarray, ...]]:
        """Return what :meth:`restore` gives of each face with each of the weights. Encoder and Transformer run once."""

        def run(part: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
            encoded = self._encode(part)
            codes = encoded.logits.argmax(2)

            def again(i: int) -> EncodedFaces:
                return self._encode([part[i]], exact=True)

            return list(zip(*(self._decode(encoded, codes, w, adain, again) for w in weights), strict=True))

        return self._batched(run, crops)

    def encode(self, crops: Sequence[np.ndarray]) -> EncodedFaces:
        """Return the first half of :meth:`restore`: features and code logits. All crops stay on the device together."""
        parts = self._batched(lambda part: [self._encode(part)], crops)
        return parts[0].joined(parts[1:])

    def decode(self, encoded: EncodedFaces, codes: Tensor, *, w: float, adain: bool) -> list[np.ndarray]:
        """Return the second half of :meth:`restore`, with ``codes`` (B, h*w) int64 chosen by the caller."""

        def run(part: Sequence[int]) -> list[np.ndarray]:
            rows = slice(part[0], part[-1] + 1)
            chosen = encoded.select(rows)
            return self._decode(chosen, codes[rows].to(self.device), w, adain, chosen.select)

        return self._batched(run, range(len(encoded)))

    def _encode(self, crops: Sequence[np.ndarray], *, exact: bool = False) -> EncodedFaces:
        with torch.inference_mode():
            x = staged(crops, self.device).permute(0, 3, 1, 2)  # (B, 3, S, S), channels last in memory
            x = x.to(self.device, non_blocking=True) * 2 - 1
            net = self._network(len(x), exact)
            with self._autocast(exact):
                lq_feat, features = net.encode_features(x)
            with self._autocast(exact=True):
                logits = net.predict_logits(lq_feat.float())
            return EncodedFaces(lq_feat, features, logits)

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
        net, lq_feat, features = self._network(len(encoded), exact), encoded.lq_feat, encoded.features
        if exact or self.precision == "fp32":
            lq_feat, features = lq_feat.float(), {k: v.float() for k, v in features.items()}
        with self._autocast(exact):
            return net.decode_codes(codes, lq_feat, features, w, adain).float()

    def _network(self, faces: int, exact: bool = False) -> CodeFormer | ForeignRestorer | CompiledNetwork:
        """Return what a batch goes through: translated, where that was asked for, if it is a full one."""
        return self.net if exact or self.compiled is None or faces != self.full_batch else self.compiled

    @property
    def full_batch(self) -> int:
        """How many faces of many go through the network at a time."""
        return evenly(self.batch_size, self._most)

    def _autocast(self, exact: bool = False) -> AbstractContextManager[object]:
        if exact or self.precision == "fp32":
            return whole_floats(self.device)
        return torch.autocast(self.device.type, dtype_of(self.precision))

    def _batched(self, run: Callable[[Sequence[_S]], list[_T]], items: Sequence[_S]) -> list[_T]:
        """Run over slices of the items that fit; a smaller size that was found is kept for later calls."""
        self.require_own_process()
        size = self.full_batch
        side = self._side_by_side
        results, fitting = in_fitting_batches(
            run if side is None else lambda part: side.each(run, part),
            items,
            size,
            self.device,
            f"one face does not fit into the memory of {self.device}; try --device cpu, or close other programs",
        )
        if fitting < size:
            self.batch_size = fitting
        return results


def staged(crops: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Return faces, (S, S, 3) each, as one float32 tensor (B, S, S, 3) in the memory from which a device takes them.

    A CUDA card fetches pinned memory by itself, while the processor goes on. PyTorch keeps it for the next batch.
    """
    shape = (len(crops), *crops[0].shape)
    tensor = torch.empty(shape, dtype=torch.float32, pin_memory=device.type == "cuda")
    np.stack(crops, out=tensor.numpy())
    return tensor


def largest_layer(config: Config) -> int:
    """Return how many elements the largest tensor between a network's layers has for one face."""
    side = config.img_size // config.stem
    channels = [config.nf * mult for mult in config.ch_mult]
    largest = max(3 * config.img_size**2, config.latent_size * config.codebook_size)
    if config.refine is not None:
        coarse, fine = config.refine
        largest = max(largest, max(coarse, fine + 3) * config.img_size**2, channels[0] * (config.img_size // 2) ** 2)
    for level, own in enumerate(channels):
        coarser = channels[min(level + 1, len(channels) - 1)]  # enlarged to this grid with the channels that it has
        width = max(own, coarser, 2 * own if str(side >> level) in config.connect_list else 0)
        largest = max(largest, width * (side >> level) ** 2)
    return largest


def evenly(count: int, most: int) -> int:
    """Return the size of equal parts of ``count`` faces, of which none has more than ``most``: 64 by 63 gives 32."""
    return count if count <= most else math.ceil(count / math.ceil(count / most))


def _layout(net: torch.nn.Module) -> torch.memory_format:
    """Return how tensors lie best in memory. Some of GFPGAN have five dimensions, which cannot be channels last."""
    five = any(one.dim() == 5 for one in (*net.parameters(), *net.buffers()))
    return torch.contiguous_format if five else torch.channels_last


def _pick_batch_size(device: torch.device) -> int:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return int(min(_LARGEST_BATCH, max(1, free // _BYTES_PER_FACE)))
    return 4


def _not_finite() -> RestorationError:
    return RestorationError("the network's output is not finite for this face; the weights file may be damaged")
