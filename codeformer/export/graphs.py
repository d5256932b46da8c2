"""What is exported: the network as graphs with named inputs and outputs, and w as one of the inputs.

Pictures are RGB in [0, 1] on both sides, so that a program needs nothing of ours to use them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codeformer.models.codeformer import CodeFormer


@dataclass(frozen=True, eq=False)
class ExportPart:
    """One graph on its way to a file.

    Attributes:
        name: ``whole``, ``encoder`` or ``decoder``.
        module: what is traced.
        example: inputs of a batch of two, in the order of ``inputs``.
        inputs: their names. All but ``w`` have the batch as their first dimension.
        outputs: names of the outputs.
    """

    name: str
    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Encoder(nn.Module):
    def __init__(self, net: CodeFormer) -> None:
        super().__init__()
        self.net = net

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        lq_feat, features = self.net.encode_features(picture * 2 - 1)
        return self.net.predict_logits(lq_feat), lq_feat, *features.values()


class _Decoder(nn.Module):
    def __init__(self, net: CodeFormer, adain: bool, names: tuple[str, ...]) -> None:
        super().__init__()
        self.net, self.adain, self.names = net, adain, names

    def forward(self, codes: Tensor, lq_feat: Tensor, w: Tensor, *features: Tensor) -> Tensor:
        by_name = dict(zip(self.names, features, strict=True))
        return _as_picture(self.net.decode_codes(codes, lq_feat, by_name, w, self.adain))


class _Whole(nn.Module):
    def __init__(self, net: CodeFormer, adain: bool) -> None:
        super().__init__()
        self.net, self.adain = net, adain

    def forward(self, picture: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        lq_feat, features = self.net.encode_features(picture * 2 - 1)
        codes = self.net.predict_logits(lq_feat).argmax(2)
        return _as_picture(self.net.decode_codes(codes, lq_feat, features, w, self.adain)), codes


def _as_picture(out: Tensor) -> Tensor:
    """Return the network's output in [0, 1]; what is not finite comes out as NaN.

    Some engines clamp NaN to the lower bound, and a black face would pass for a result: 0 times it is NaN again.
    """
    return (out.clamp(-1, 1) + 1) * 0.5 + out * 0


def whole(net: CodeFormer, adain: bool) -> ExportPart:
    """Return the network as one graph: ``picture`` (B, 3, S, S) and ``w`` () to ``restored`` and ``codes`` (B, h w)."""
    size = net.config.img_size
    example = (torch.rand(2, 3, size, size), torch.tensor(0.5))
    return ExportPart("whole", _Whole(net, adain).eval(), example, ("picture", "w"), ("restored", "codes"))


def split(net: CodeFormer, adain: bool) -> tuple[ExportPart, ExportPart]:
    """Return the network as two graphs, between which codes may be chosen: over time, or once for every w.

    The encoder maps ``picture`` to ``logits`` (B, h w, codes), ``lq_feat`` and a ``feature_N`` for each grid where CFT
    blends; the decoder maps ``codes``, ``lq_feat``, ``w`` and the features to ``restored``.
    """
    size = net.config.img_size
    picture = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        lq_feat, features = net.encode_features(picture * 2 - 1)
        codes = net.predict_logits(lq_feat).argmax(2)
    names = tuple(f"feature_{name}" for name in features)
    encoder = ExportPart("encoder", _Encoder(net).eval(), (picture,), ("picture",), ("logits", "lq_feat", *names))
    example = (codes.clone(), lq_feat.clone(), torch.tensor(0.5), *(one.clone() for one in features.values()))
    decoder = _Decoder(net, adain, tuple(features)).eval()
    return encoder, ExportPart("decoder", decoder, example, ("codes", "lq_feat", "w", *names), ("restored",))
