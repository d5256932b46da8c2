"""Attention of the networks, with what Apple's GPUs need: their kernels misread queries that are not contiguous.

PyTorch issues 163597 and 181133 have the fault: wrong numbers, without an error.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def needs_contiguous(device: torch.device) -> bool:
    """Return whether attention on a device is right for contiguous tensors alone."""
    return device.type == "mps"


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return scaled dot product attention; queries, keys and values are (B, heads, N, D)."""
    if needs_contiguous(q.device):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    return F.scaled_dot_product_attention(q, k, v)


def self_attend(layer: nn.MultiheadAttention, q: Tensor, v: Tensor) -> Tensor:
    """Return what the layer gives for queries and keys ``q`` and values ``v``, (N, B, C) each: (N, B, C).

    PyTorch's own way hands its kernel views of one array; where these are misread, the same is computed here.
    """
    if not needs_contiguous(q.device):
        return layer(q, q, value=v, need_weights=False)[0]
    n, b, c = q.shape
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    queries, keys = F.linear(q, weight[: 2 * c], bias[: 2 * c]).chunk(2, -1)
    values = F.linear(v, weight[2 * c :], bias[2 * c :])
    heads = [x.reshape(n, b, layer.num_heads, -1).permute(1, 2, 0, 3) for x in (queries, keys, values)]
    return layer.out_proj(attend(*heads).permute(2, 0, 1, 3).reshape(n, b, c))
