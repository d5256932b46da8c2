"""Muon: momentum orthogonalised for weights that are matrices, AdamW for all others.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the size of a step as in Liu et al.,
"Muon is Scalable for LLM Training" (arXiv 2502.16982), section 2.2. ``torch.optim.Muon`` takes matrices alone, and most
of this network are convolutions, whose kernels are matrices of output channels by everything else.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

SMALLEST = 32  # matrices with a shorter side are left to AdamW
_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the quintic iteration (Jordan et al.)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return about U V^T of `matrix` = U S V^T, (m, n), in bfloat16: singular values become 0.7 to 1.2.

    Newton and Schulz's iteration of degree five.
    """
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = _A * x + (_B * square + _C * (square @ square)) @ x
    return x.T if tall else x


def is_matrix(weight: Tensor) -> bool:
    """Return whether `weight`, all but its first dimension flattened, is a matrix that is worth orthogonalising."""
    return weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) >= SMALLEST


class Muon(torch.optim.AdamW):
    """AdamW that moves matrices and convolution kernels by their orthogonalised momentum instead.

    A step moves an (m, n) matrix by ``lr * scale * sqrt(max(m, n))`` times a matrix of singular values near 1; at a
    `scale` of 0.2 the root mean square of its elements is that of AdamW's steps (arXiv 2502.16982).

    Args:
        params: what trains.
        lr, betas, weight_decay: of AdamW; the rate and the decay hold for the matrices as well.
        tables: those of `params` that are matrices by their shape alone, such as a codebook: AdamW moves them.
        scale: see above. momentum: of the matrices' gradients (Nesterov's).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        tables: Iterable[Tensor] = (),
        scale: float = 0.2,
        momentum: float = 0.95,
    ) -> None:
        kept = {id(table) for table in tables}
        groups: dict[bool, list[Tensor]] = {True: [], False: []}
        for weight in params:
            groups[is_matrix(weight) and id(weight) not in kept].append(weight)
        self.scale, self.momentum = scale, momentum
        super().__init__([{"params": groups[True]}, {"params": groups[False]}], lr, betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step. The matrices' gradients are used up: they are None afterwards."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        for weight in group["params"]:
            self._move(weight, group["lr"], group["weight_decay"])
            weight.grad = None  # AdamW passes over it
        super().step()
        return loss

    def _move(self, weight: Tensor, lr: float, decay: float) -> None:
        state, gradient = self.state[weight], weight.grad
        if gradient is None:
            return
        if "momentum" not in state:
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(weight)  # AdamW looks for a step
        state["step"] += 1
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        ahead = gradient.lerp(state["momentum"], self.momentum).flatten(1)
        move = orthogonalise(ahead).to(weight.dtype).reshape(weight.shape)
        weight.mul_(1 - lr * decay).add_(move, alpha=-lr * self.scale * max(ahead.shape) ** 0.5)
