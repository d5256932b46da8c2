"""What the pipeline asks of a loaded network, whatever engine runs it, and what engines of exported networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Crop
from codeformer.device import Device


class EncodedBatch(Protocol):
    """Faces between encoder and decoder, as arrays of the engine's own. ``logits`` (B, h*w, codes) have ``argmax``."""

    @property
    def logits(self) -> Any:
        """How likely each code is."""

    def __len__(self) -> int:
        """Return the number of faces."""

    def select(self, index: int | slice) -> Self:
        """Return some of the faces."""

    def joined(self, others: Sequence[Any]) -> Self:
        """Return these faces, and those of ``others`` behind them."""

    def stacked(self, codes: Sequence[Any]) -> Any:
        """Return the codes of several faces, each (h*w,), as one array (B, h*w)."""


class FaceNetwork(Protocol):
    """A network on a device, made for aligned faces of one size.

    Attributes:
        batch_size: how many faces it takes at a time; it shrinks where memory runs out.
    """

    batch_size: int

    @property
    def size(self) -> int:
        """Side of a face in pixels."""

    @property
    def device(self) -> Device:
        """Where it runs."""

    @property
    def precision(self) -> str:
        """Its arithmetic: fp32, bf16 or fp16."""

    def require_own_process(self) -> None:
        """Raise RestorationError in a process that was forked after the network was loaded."""

    def restore(self, crops: Sequence[Crop], *, w: float, adain: bool) -> list[Crop]:
        """Return the restored faces of aligned ones."""

    def restore_at(self, crops: Sequence[Crop], weights: Sequence[float], *, adain: bool) -> list[tuple[Crop, ...]]:
        """Return what :meth:`restore` gives of each face with each of the weights."""

    def encode(self, crops: Sequence[Crop]) -> Any:
        """Return the first half of :meth:`restore`, an :class:`EncodedBatch`."""

    def decode(self, encoded: Any, codes: Any, *, w: float, adain: bool) -> list[Crop]:
        """Return the second half of :meth:`restore`, with ``codes`` (B, h*w) chosen by the caller."""


@dataclass(frozen=True)
class EngineDevice:
    """A device of an engine's own.

    Attributes:
        backend: the engine, ``onnxruntime`` or ``openvino``.
        kind: as ``--device`` names it, without the number.
        index: the number, None where there is none.
    """

    backend: str
    kind: str
    index: int | None = None

    @property
    def type(self) -> str:
        """What tells it from devices of other engines, PyTorch's among them, which may give other last bits."""
        return f"{self.backend} {self.kind}"

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"


def backend_of(device: Device) -> str:
    """Return the name of the engine that a device belongs to."""
    return device.backend if isinstance(device, EngineDevice) else "torch"


class Graph(Protocol):
    """One exported graph, loaded: arrays by name in, arrays by name out."""

    inputs: frozenset[str]

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs for a batch. Raises MemoryError where the engine says that there is none left."""


@dataclass(frozen=True, eq=False)
class EncodedArrays:
    """Faces between the exported encoder and decoder.

    ``logits`` (B, h*w, codes) float32; ``features`` what the decoder gets besides codes and w, by the names of its
    inputs, float32 with the batch first.
    """

    logits: NDArray[np.float32]
    features: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    def select(self, index: int | slice) -> EncodedArrays:
        """Return some of the faces, as views."""
        part = slice(index, index + 1) if isinstance(index, int) else index
        return EncodedArrays(self.logits[part], {name: one[part] for name, one in self.features.items()})

    def joined(self, others: Sequence[EncodedArrays]) -> EncodedArrays:
        """Return these faces, and those of ``others`` behind them."""
        if not others:
            return self
        parts = [self, *others]
        return EncodedArrays(
            np.concatenate([part.logits for part in parts]),
            {name: np.concatenate([part.features[name] for part in parts]) for name in self.features},
        )

    def stacked(self, codes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return the codes of several faces as one array."""
        return np.stack(codes)
