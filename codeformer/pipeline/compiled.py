"""``--compile``: the network as torch.compile translates it for a CUDA card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codeformer.errors import UsageError
from codeformer.models.codeformer import CodeFormer

if TYPE_CHECKING:
    from codeformer.models.foreign import ForeignRestorer
    from codeformer.pipeline.restorer import FaceRestorer


class CompiledNetwork:
    """The three parts of a CodeFormer, translated for batches of one size when they are first called.

    Raises:
        UsageError: it is not a CodeFormer, or not on a CUDA card.
    """

    def __init__(self, net: CodeFormer | ForeignRestorer, device: torch.device) -> None:
        if device.type != "cuda":
            raise UsageError("--compile needs a CUDA card, since on other devices it gains nothing: leave it out")
        if not isinstance(net, CodeFormer):
            raise UsageError("--compile translates CodeFormer networks alone: leave it out")
        self._encode: Any = torch.compile(net.encode_features, dynamic=False)
        self._predict: Any = torch.compile(net.predict_logits, dynamic=False)
        self._decode: Any = torch.compile(net.decode_codes, dynamic=False)

    def encode_features(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what :meth:`CodeFormer.encode_features` gives."""
        found: tuple[Tensor, dict[str, Tensor]] = self._encode(x)
        return found

    def predict_logits(self, lq_feat: Tensor) -> Tensor:
        """Return what :meth:`CodeFormer.predict_logits` gives."""
        logits: Tensor = self._predict(lq_feat)
        return logits

    def decode_codes(
        self, codes: Tensor, lq_feat: Tensor, features: dict[str, Tensor], w: float, adain: bool
    ) -> Tensor:
        """Return what :meth:`CodeFormer.decode_codes` gives."""
        # As a tensor every w is the same translation; at the number 0 CFT is left out, which is another one
        weight = torch.tensor(w, device=codes.device) if w > 0 else 0.0
        out: Tensor = self._decode(codes, lq_feat, features, weight, adain)
        return out


def translate(restorer: FaceRestorer, *, w: float, adain: bool) -> None:
    """Let a restorer's full batches go through the translated network from now on; one is tried at once.

    Args:
        restorer: its batch size is the one that is translated; other batches go through the network as it is.
        w: a fidelity weight of the run.
        adain: whether the codes take the input's statistics.

    Raises:
        UsageError: the device or the network is another, or PyTorch cannot translate it here.
    """
    import numpy as np

    restorer.compiled = CompiledNetwork(restorer.net, restorer.device)
    grey = np.full((restorer.size, restorer.size, 3), 0.5, np.float32)
    try:
        tried = 0
        while tried != restorer.full_batch:  # which shrinks where memory runs out
            tried = restorer.full_batch
            restorer.restore([grey] * tried, w=w, adain=adain)
    except Exception as error:  # the translator's own errors have no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"--compile: PyTorch cannot translate the network here ({reason}): leave it out") from error
