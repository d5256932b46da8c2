"""Whether an output still shows the person, as a loss: dlib's recognition network, with gradients."""

from pathlib import Path

import torch
from torch import Tensor, nn

from codeformer.faces.recognition import RecognitionNetwork, chip


class IdentityDistance(nn.Module):
    """The squared distance of two aligned faces' descriptions; 0.36 is dlib's limit for the same person."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network = RecognitionNetwork(path)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances (B,) of aligned faces (B, 3, S, S) in [-1, 1]; gradients go to `a` alone."""
        with torch.autocast(a.device.type, enabled=False):
            with torch.no_grad():
                goal = self.network(chip(b))
            return (self.network(chip(a)) - goal).pow(2).sum(1)
