"""Keeping the codebook alive: placing codes on latents, letting them follow, moving the dead ones.

With ``codebook_decay`` above 0 the codes are moving averages of the latents that chose them (van den Oord et al.,
NeurIPS 2017, arXiv 1711.00937, appendix A.1) instead of descending the codebook loss: in short runs that keeps
several times more of them in use.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from codeformer.models.vqgan import VQAutoEncoder

KEPT = 8  # batches of latents that k-means and revival draw from


class Codebook:
    """Which codes are chosen, and recent latents.

    ``weights`` (K,) are moving counts of the choices and ``sums`` (K, C) of the latents behind them.
    """

    def __init__(self, size: int, channels: int, device: torch.device) -> None:
        self.counts = torch.zeros(size, dtype=torch.int64, device=device)
        self.weights = torch.zeros(size, device=device)
        self.sums = torch.zeros(size, channels, device=device)
        self.latents = torch.zeros(0, channels, device=device)

    @torch.no_grad()
    def see(self, latents: Tensor, codes: Tensor | None) -> None:
        """Take in a batch's latents (B, C, h, w) and, once it quantizes, its codes (B h w,)."""
        flat = latents.float().permute(0, 2, 3, 1).flatten(0, 2)
        self.latents = torch.cat((self.latents, flat))[-KEPT * len(flat) :]
        if codes is not None:
            self.counts += torch.bincount(codes, minlength=len(self.counts))

    @torch.no_grad()
    def start(self, net: VQAutoEncoder) -> None:
        """Begin the moving averages at the codes as they are."""
        self.weights.fill_(1)
        self.sums.copy_(net.quantize.embedding.weight)

    @torch.no_grad()
    def place(self, net: VQAutoEncoder, rounds: int = 10) -> None:
        """Place the codes by k-means on the recent latents."""
        size = len(self.counts)
        order = torch.randperm(len(self.latents))[torch.arange(size) % len(self.latents)]
        codes = self.latents[order.to(self.latents.device)].clone()
        codes += 1e-3 * self.latents.std() * torch.randn(codes.shape).to(codes.device)
        for _ in range(rounds):
            nearest = torch.cdist(self.latents, codes).argmin(1)
            sums = torch.zeros_like(codes).index_add_(0, nearest, self.latents)
            members = torch.bincount(nearest, minlength=size).unsqueeze(1)
            codes = torch.where(members > 0, sums / members.clamp_min(1), codes)
        net.quantize.embedding.weight.copy_(codes)
        self.start(net)

    @torch.no_grad()
    def follow(
        self, net: VQAutoEncoder, latents: Tensor, codes: Tensor, decay: float, add: Callable[[Tensor], Tensor]
    ) -> None:
        """Move the codes towards the mean of the latents that chose them; `add` sums over the processes."""
        flat = latents.float().permute(0, 2, 3, 1).flatten(0, 2)
        chosen = torch.bincount(codes, minlength=len(self.weights)).float()
        self.weights.lerp_(add(chosen), 1 - decay)
        self.sums.lerp_(add(torch.zeros_like(self.sums).index_add_(0, codes, flat)), 1 - decay)
        codebook, weights = net.quantize.embedding.weight, self.weights.unsqueeze(1)
        codebook.copy_(torch.where(weights > 1e-5, self.sums / weights.clamp_min(1e-5), codebook))

    def dead(self) -> Tensor:
        """Return the codes that were chosen less than a tenth as often as the mean since the count began."""
        return (self.counts < 0.1 * self.counts.float().mean()).nonzero().flatten()

    @torch.no_grad()
    def revive(self, net: VQAutoEncoder, optimizer: torch.optim.Optimizer) -> int:
        """Move the dead codes onto random recent latents.

        Starts the count anew; returns how many were moved.
        """
        dead = self.dead()
        if len(dead) and len(self.latents):
            picks = torch.randint(len(self.latents), (len(dead),)).to(self.latents.device)
            weight = net.quantize.embedding.weight
            weight[dead] = self.latents[picks]
            typical = self.weights.mean()
            self.weights[dead] = typical
            self.sums[dead] = typical * weight[dead]
            for moment in optimizer.state.get(weight, {}).values():
                if isinstance(moment, Tensor) and moment.shape == weight.shape:
                    moment[dead] = 0
        self.counts.zero_()
        return len(dead)

    def tensors(self, net: VQAutoEncoder) -> list[Tensor]:
        """Return what every process must agree on."""
        return [net.quantize.embedding.weight.data, self.weights, self.sums]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint kept."""
        for name, value in state.items():
            setattr(self, name, value.to(self.counts.device))
