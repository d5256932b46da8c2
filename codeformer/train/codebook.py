"""Keeping the codebook alive: placing codes on latents, counting which are used, moving the dead ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from codeformer.models.vqgan import VQAutoEncoder


@torch.no_grad()
def place_codes(net: VQAutoEncoder, hq: Tensor, reduce: Callable[[Tensor], Tensor], rounds: int = 10) -> None:
    """Place the codes by k-means on the latents of a batch of sharp faces (B, 3, S, S)."""
    latents = net.encoder(hq).float().permute(0, 2, 3, 1).flatten(0, 2)  # (N, C)
    count = net.quantize.codebook_size
    order = torch.randperm(len(latents), device="cpu")
    codes = latents[order[torch.arange(count) % len(latents)].to(latents.device)].clone()
    codes += 1e-3 * latents.std() * torch.randn(codes.shape).to(codes.device)
    for _ in range(rounds):
        nearest = torch.cdist(latents, codes).argmin(1)
        sums = torch.zeros_like(codes).index_add_(0, nearest, latents)
        sizes = torch.bincount(nearest, minlength=count).unsqueeze(1)
        codes = torch.where(sizes > 0, sums / sizes.clamp_min(1), codes)
    net.quantize.embedding.weight.copy_(reduce(codes))


class Usage:
    """Which codes were chosen since the last look, and latents to move dead ones onto."""

    def __init__(self, codebook_size: int, device: torch.device) -> None:
        self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=device)
        self.latents: Tensor | None = None

    def count(self, codes: Tensor, latents: Tensor) -> None:
        """Count chosen codes (N,); keep the batch's latents (B, C, h, w)."""
        self.counts += torch.bincount(codes, minlength=len(self.counts))
        self.latents = latents

    @torch.no_grad()
    def revive(self, net: VQAutoEncoder, optimizer: torch.optim.Optimizer) -> int:
        """Move codes that nothing chose onto random latents; start the count anew. Return how many were moved."""
        dead = (self.counts == 0).nonzero().flatten()
        if len(dead) and self.latents is not None:
            flat = self.latents.float().permute(0, 2, 3, 1).flatten(0, 2)
            picks = torch.randint(len(flat), (len(dead),)).to(flat.device)
            weight = net.quantize.embedding.weight
            weight[dead] = flat[picks]
            for moment in optimizer.state.get(weight, {}).values():
                if isinstance(moment, Tensor) and moment.shape == weight.shape:
                    moment[dead] = 0
        self.counts.zero_()
        return len(dead)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint kept."""
        self.counts.copy_(state["counts"])
