"""The processes that share a training run."""

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from codeformer.device import pick_device


class World:
    """The processes of a run, as ``torchrun`` starts them, and this one's device.

    Raises:
        UsageError: there is no such device.
    """

    def __init__(self, device: str) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda":  # torchrun's processes take one each
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        self.device = pick_device(device)
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def leave(self) -> None:
        """End the group of processes, when all have come to the end: the first one still writes files then."""
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of every process's `value`."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.size
        return value

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of every process's `value`."""
        return self.mean(value) * self.size

    def mean_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace gradients by their mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = self.mean(torch.cat([g.flatten() for g in gradients]))
        for parameter, part in zip(parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the first one's tensors, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def any(self, flag: bool) -> bool:
        """Return whether any process says yes."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0) if self.size > 1 else flag
