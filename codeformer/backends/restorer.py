"""An exported network on an engine: batches of crops in, batches of crops out, with NumPy alone.

Batches halve when memory runs out. What comes out with NaN or infinity is an error: an exported file has no other
precision to fall back to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from codeformer.arrays import Crop
from codeformer.backends.base import EncodedArrays, EngineDevice, Graph
from codeformer.device import in_fitting_batches
from codeformer.errors import RestorationError, UsageError

_S = TypeVar("_S")
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Graphs:
    """The graphs of an exported network, loaded: the whole, or encoder and decoder."""

    whole: Graph | None = None
    encoder: Graph | None = None
    decoder: Graph | None = None


class ExportedRestorer:
    """An exported network, as :class:`~codeformer.backends.base.FaceNetwork` describes it.

    Deterministic for the same input on the same machine.

    Args:
        graphs: the network.
        size: side of a face, pixels.
        adain: whether AdaIN is in the graphs.
        device: where they run.
        precision: their arithmetic.
        batch_size: faces at a time.
        name: of the file, for messages.
    """

    def __init__(
        self,
        graphs: Graphs,
        *,
        size: int,
        adain: bool,
        device: EngineDevice,
        precision: str,
        batch_size: int,
        name: str,
    ) -> None:
        self.size, self.adain, self.device = size, adain, device
        self.precision, self.batch_size = precision, batch_size
        self._graphs, self._name = graphs, name
        self._process = os.getpid()

    def require_own_process(self) -> None:
        """Raise an error in a process that was forked after the network was loaded: its threads did not come along.

        Raises:
            RestorationError: this is such a process.
        """
        if self._process != os.getpid():
            raise RestorationError(
                f"this model was loaded before the process was forked (in process {self._process}), and cannot be used "
                "here; load it in each worker, or start workers with spawn (see docs/servers.md)"
            )

    def restore(self, crops: Sequence[Crop], *, w: float, adain: bool) -> list[Crop]:
        """Return the restored faces of aligned ones, both (S, S, 3) float32 RGB in [0, 1].

        Raises:
            UsageError: ``adain`` is not what the graphs were exported with.
            RestorationError: a face comes out with NaN or infinity.
            OutOfMemoryError: not even one face fits.
        """
        return [one for (one,) in self.restore_at(crops, (w,), adain=adain)]

    def restore_at(self, crops: Sequence[Crop], weights: Sequence[float], *, adain: bool) -> list[tuple[Crop, ...]]:
        """Return what :meth:`restore` gives of each face with each of the weights; the encoder of two runs once."""
        self._require(adain)
        whole = self._graphs.whole

        def run(part: Sequence[Crop]) -> list[tuple[Crop, ...]]:
            if whole is not None:
                x = _batch(part)
                outputs = (whole({"picture": x, "w": _weight(w)})["restored"] for w in weights)
                return list(zip(*(_faces(one, self.precision) for one in outputs), strict=True))
            encoded = self._encode(part)
            codes = encoded.logits.argmax(2)
            return list(zip(*(self._decode(encoded, codes, w) for w in weights), strict=True))

        return self._batched(run, crops)

    def encode(self, crops: Sequence[Crop]) -> EncodedArrays:
        """Return the first half of :meth:`restore`: features and code logits, of all crops together.

        Raises:
            UsageError: the file is the whole network in one piece.
        """
        parts = self._batched(lambda part: [self._encode(part)], crops)
        return parts[0].joined(parts[1:])

    def decode(self, encoded: EncodedArrays, codes: NDArray[np.int64], *, w: float, adain: bool) -> list[Crop]:
        """Return the second half of :meth:`restore`, with ``codes`` (B, h*w) chosen by the caller."""
        self._require(adain)

        def run(part: Sequence[int]) -> list[Crop]:
            rows = slice(part[0], part[-1] + 1)
            return self._decode(encoded.select(rows), codes[rows], w)

        return self._batched(run, range(len(encoded)))

    def _encode(self, crops: Sequence[Crop]) -> EncodedArrays:
        encoder, decoder = self._halves()
        found = encoder({"picture": _batch(crops)})
        return EncodedArrays(found["logits"], {name: found[name] for name in decoder.inputs & found.keys()})

    def _decode(self, encoded: EncodedArrays, codes: NDArray[Any], w: float) -> list[Crop]:
        _, decoder = self._halves()
        if not np.isfinite(encoded.logits).all():
            raise _not_finite(self.precision)
        feed: dict[str, NDArray[Any]] = {
            **encoded.features,
            "codes": np.ascontiguousarray(codes, np.int64),
            "w": _weight(w),
        }
        return _faces(decoder({name: feed[name] for name in decoder.inputs})["restored"], self.precision)

    def _halves(self) -> tuple[Graph, Graph]:
        encoder, decoder = self._graphs.encoder, self._graphs.decoder
        if encoder is None or decoder is None:
            raise UsageError(
                f"{self._name} is the network in one piece, and films and previews need it in two: "
                "run codeformer export --split, and give NAME_encoder.onnx"
            )
        return encoder, decoder

    def _require(self, adain: bool) -> None:
        if adain != self.adain:
            raise UsageError(
                f"{self._name} was exported {'with' if self.adain else 'without'} AdaIN: export it again for this task"
            )

    def _batched(self, run: Callable[[Sequence[_S]], list[_T]], items: Sequence[_S]) -> list[_T]:
        """Run over slices of the items that fit; a smaller size that was found is kept for later calls."""
        self.require_own_process()
        results, self.batch_size = in_fitting_batches(
            run,
            items,
            self.batch_size,
            self.device,
            f"one face does not fit into the memory of {self.device}; try --device cpu, or close other programs",
        )
        return results


def _batch(crops: Sequence[Crop]) -> NDArray[np.float32]:
    """Return crops as the graphs take them, (B, 3, S, S)."""
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32)


def _weight(w: float) -> NDArray[np.float32]:
    return np.array(w, np.float32)


def _faces(restored: NDArray[np.float32], precision: str) -> list[Crop]:
    """Return the faces of (B, 3, S, S). Raises RestorationError where one is not finite."""
    if not np.isfinite(restored).all():
        raise _not_finite(precision)
    return list(np.ascontiguousarray(restored.transpose(0, 2, 3, 1), np.float32))


def _not_finite(precision: str) -> RestorationError:
    way_out = "the file may be damaged" if precision == "fp32" else "try --precision fp32"
    return RestorationError(f"the network's output is not finite for this face; {way_out}")
