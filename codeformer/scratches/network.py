"""A small U-Net that marks the damaged pixels of a print.

After Ronneberger, Fischer, Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation" (MICCAI 2015), with
dilated convolutions on the coarsest grid. The network and its training (``scripts/train_scratches.py``) are ours.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.arrays import Rgb, Samples

#: The picture's sides must be multiples of this.
MULTIPLE = 4
#: A pixel's result depends on no pixel that is further away along a side.
REACH = 80

_FAR = 96  # pixels from the border up to which the network is told the distance


class ScratchNet(nn.Module):
    """A picture with its distances from the border in, one logit for each pixel out.

    Args:
        widths: channels of the three grids: at full, half and quarter size.
    """

    def __init__(self, widths: tuple[int, int, int] = (16, 24, 32)) -> None:
        super().__init__()
        a, b, c = widths
        self.d1 = nn.ModuleList([_conv(5, a), _conv(a, a)])
        self.d2 = nn.ModuleList([_conv(a, b), _conv(b, b)])
        self.d3 = nn.ModuleList([_conv(b, c), _conv(c, c, 2), _conv(c, c, 4), _conv(c, c, 8), _conv(c, c)])
        self.u2 = nn.ModuleList([_conv(c + b, b), _conv(b, b)])
        self.u1 = nn.ModuleList([_conv(b + a, a), _conv(a, a)])
        self.out = nn.Conv2d(a, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1, H, W) of (B, 5, H, W), as :func:`network_input` makes it; H, W multiples of 4."""
        a = _through(self.d1, x)  # (B, 16, H, W)
        b = _through(self.d2, F.avg_pool2d(a, 2))  # (B, 24, H / 2, W / 2)
        c = _through(self.d3, F.avg_pool2d(b, 2))  # (B, 32, H / 4, W / 4)
        up = _through(self.u2, torch.cat([F.interpolate(c, scale_factor=2.0), b], 1))
        up = _through(self.u1, torch.cat([F.interpolate(up, scale_factor=2.0), a], 1))
        return torch.as_tensor(self.out(up))


def network_input(rgb: Rgb, top: int = 0, left: int = 0, size: tuple[int, int] | None = None) -> Samples:
    """Return what the network gets of a picture, or of a part of one: (5, H, W) float32.

    The last two channels tell how far the nearest border of the whole picture is, along y and along x: a torn corner
    looks like a white wall, and only its place tells.

    Args:
        rgb: (H, W, 3) uint8, sRGB.
        top: where the part begins in the whole picture.
        left: the same, along x.
        size: height and width of the whole picture; None: ``rgb`` is the whole picture.
    """
    height, width = rgb.shape[:2]
    whole = size or (height, width)
    y, x = np.arange(top, top + height), np.arange(left, left + width)
    away_y = np.clip(np.minimum(y, whole[0] - 1 - y) / _FAR, 0, 1).astype(np.float32)
    away_x = np.clip(np.minimum(x, whole[1] - 1 - x) / _FAR, 0, 1).astype(np.float32)
    result = np.empty((5, height, width), np.float32)
    result[:3] = rgb.transpose(2, 0, 1).astype(np.float32) / 255 - 0.5
    result[3], result[4] = away_y[:, None], away_x[None, :]
    return result


def _conv(inside: int, outside: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=dilation, dilation=dilation)


def _through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = F.relu(layer(x))
    return x
