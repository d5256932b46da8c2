"""Face restorers of other projects, as spandrel builds them, behind the methods of a CodeFormer.

GFPGAN (Wang et al., CVPR 2021, arXiv 2101.04061) and RestoreFormer (Wang et al., CVPR 2022, arXiv 2201.06374) take the
same aligned faces of 512 x 512 pixels. They have neither codes that a user could weigh nor a fidelity weight.

The networks are called here, not by spandrel's descriptor: that one gives GFPGAN pictures in [0, 1], where it was
trained on [-1, 1], and lets it draw new noise for every call. Here its noise is that of the file, so that the same
picture gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codeformer.errors import WeightsError
from codeformer.extras import require
from codeformer.models.config import Config
from codeformer.models.header import first_line
from codeformer.models.state import read_state


def _gfpgan(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net(x.contiguous(), return_rgb=False, randomize_noise=False)[0]  # it takes views of its features
    return out


def _restoreformer(net: Any, x: Tensor) -> Tensor:
    out: Tensor = net(x)[0]
    return out


_CALLS: dict[str, Callable[[Any, Tensor], Tensor]] = {"GFPGAN": _gfpgan, "RestoreFormer": _restoreformer}


class ForeignRestorer(nn.Module):
    """Another project's network with the methods that a run wants of a CodeFormer.

    All of it runs in :meth:`decode_codes`: there is one code, and it says nothing.

    Args:
        net: the network; its output is a face like its input, (B, 3, 512, 512) in [-1, 1].
        architecture: its name in :data:`~codeformer.models.known.FACE_RESTORERS`.
    """

    config = Config()

    def __init__(self, net: nn.Module, architecture: str) -> None:
        super().__init__()
        self.net = net
        self._call = _CALLS[architecture]

    def encode_features(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the faces (B, 3, S, S) themselves."""
        return x, {}

    def predict_logits(self, lq_feat: Tensor) -> Tensor:
        """Return the logits of the one code, (B, 1, 1)."""
        return lq_feat.new_zeros((lq_feat.shape[0], 1, 1))

    def decode_codes(
        self, codes: Tensor, lq_feat: Tensor, features: Mapping[str, Tensor], w: float | Tensor, adain: bool
    ) -> Tensor:
        """Return the restored faces (B, 3, S, S) in [-1, 1], not clamped. Only ``lq_feat``, the faces, counts."""
        return self._call(self.net, lq_feat)


def load_foreign(path: Path, architecture: str) -> ForeignRestorer:
    """Open another project's face restorer, in float32 and ``eval`` mode. Nothing in the file is executed.

    Args:
        path: the weights file.
        architecture: what it holds.

    Raises:
        UsageError: spandrel is not installed.
        WeightsError: the file is damaged, or the network is of sizes that spandrel does not know.
    """
    spandrel = require("spandrel", f"{architecture} ({path.name})", "spandrel")
    state, _ = read_state(path)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: the tensor {name} is not finite; the file is damaged")
    try:
        model = spandrel.ModelLoader().load_from_state_dict(state)
        found = str(model.architecture.id)
    except Exception as error:  # tensors of other shapes make spandrel fail in any way
        raise WeightsError(f"{path}: not a {architecture} that spandrel can build ({first_line(error)})") from error
    if found != architecture or (model.input_channels, model.output_channels) != (3, 3):
        raise WeightsError(f"{path}: not a {architecture} for RGB faces, but {found}")
    return ForeignRestorer(model.model.float(), architecture).eval().requires_grad_(False)
