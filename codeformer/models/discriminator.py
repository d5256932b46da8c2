"""The patch discriminator of the GAN losses (Isola et al., CVPR 2017, arXiv 1611.07004, section 3.2.2).

Group instead of batch normalisation, so that a face's score does not depend on the batch it sits in and
several processes give what one would.
"""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Score overlapping patches: (B, 3, S, S) in [-1, 1] -> (B, 1, s, s) logits, high for real."""

    def __init__(self, ndf: int = 64, n_layers: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = ndf
        for i in range(1, n_layers + 1):
            out = ndf * min(2**i, 8)
            stride = 2 if i < n_layers else 1
            layers += [
                nn.Conv2d(channels, out, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(min(16, out), out),
                nn.LeakyReLU(0.2),
            ]
            channels = out
        layers.append(nn.Conv2d(channels, 1, 4, padding=1))
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map faces (B, 3, S, S) in [-1, 1] to a logit for each patch, (B, 1, h, w)."""
        return self.main(x)
