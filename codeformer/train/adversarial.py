"""The GAN losses: discriminators, the hinge, and the weight that balances them against the other losses.

A discriminator sees evidence, a list of tensors of real or of generated faces, and answers with a list of logits. The
patch discriminator's evidence is the faces themselves; that of the feature discriminator what VGG16 makes of them.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.models.discriminator import PatchDiscriminator
from codeformer.train.perceptual import CHANNELS
from codeformer.train.settings import FEATURE_LAYERS

_WIDTH = 64


class FeatureDiscriminator(nn.Module):
    """Small heads on the fixed features that the perceptual loss computes anyway.

    Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021 (arXiv 2111.01007), without their random projections:
    for each block of VGG16 1x1, 3x3 and 3x3 convolutions, spectrally normalised, on features of unit length times the
    root of their channels. They cost a CPU almost nothing and give hair and skin their grain.
    """

    def __init__(self) -> None:
        super().__init__()
        normalised = nn.utils.parametrizations.spectral_norm
        self.heads = nn.ModuleList(
            nn.Sequential(
                normalised(nn.Conv2d(CHANNELS[layer], _WIDTH, 1)),
                nn.LeakyReLU(0.2),
                normalised(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)),
                nn.LeakyReLU(0.2),
                normalised(nn.Conv2d(_WIDTH, 1, 3, padding=1)),
            )
            for layer in FEATURE_LAYERS
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the features of the first four blocks, (B, C, h, w) each, to logits (B, 1, h, w), high for real."""
        return [
            head(F.normalize(x.float(), dim=1) * math.sqrt(x.shape[1]))
            for head, x in zip(self.heads, features, strict=True)
        ]


def logits(discriminator: nn.Module, evidence: Sequence[Tensor]) -> list[Tensor]:
    """Return what a discriminator says of its evidence, in float32."""
    if isinstance(discriminator, PatchDiscriminator):
        return [discriminator(evidence[0]).float()]
    return [x.float() for x in discriminator(evidence)]


def generator_loss(discriminator: nn.Module, fake: Sequence[Tensor]) -> Tensor:
    """Return the hinge loss of the generator: how far it is from being taken for real."""
    said = logits(discriminator, fake)
    return -torch.stack([x.mean() for x in said]).mean()


def discriminator_loss(discriminator: nn.Module, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the hinge loss of the discriminator on real and generated faces."""
    pairs = zip(logits(discriminator, real), logits(discriminator, fake), strict=True)
    return torch.stack([0.5 * (F.relu(1 - a).mean() + F.relu(1 + b).mean()) for a, b in pairs]).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, limit: float = 1.0) -> Tensor:
    """Return the GAN loss's weight, from the losses' gradients at the last layer (section 3.1; VQGAN, equation 7).

    At most `limit`, 1 as in the published training: without it, a discriminator that says little gets a weight of
    thousands. 0 where a gradient is not finite, as fp16 may make it: the GAN then waits for the next step.
    """
    ratio = reconstruction.norm() / (adversarial.norm() + 1e-4)
    return torch.where(reconstruction.norm().isfinite(), ratio, 0.0).nan_to_num(nan=0.0).clamp(0, limit).detach()
