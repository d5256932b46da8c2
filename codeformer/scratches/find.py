"""Where a print is damaged: thin lines, folds, specks of dust, torn corners.

A small network (:mod:`codeformer.scratches.network`) looks at the picture at full size, and large ones at half and
quarter size too, because a scan of a higher resolution has wider scratches.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from safetensors.torch import load

from codeformer.arrays import Rgb, Samples, Where
from codeformer.device import whole_floats
from codeformer.hub.store import read_packaged
from codeformer.scratches.network import MULTIPLE, REACH, ScratchNet, network_input

FILE = "scratches.safetensors"

# Measured by `python scripts/train_scratches.py measure`: see weights/TRAINING.md
_SURE = 0.95  # a mark has at least one pixel with this probability
_LIKELY = 0.3  # and consists of pixels with this one
_TILE = 1024
_SMALLEST = 512  # the picture is not looked at smaller than this, its longer side


@dataclass(frozen=True, eq=False)
class ScratchFinder:
    """The network on a device."""

    net: ScratchNet
    device: torch.device

    def __call__(self, rgb: Rgb) -> Where:
        """Return which pixels of a picture are damaged, (H, W) bool, for (H, W, 3) uint8 sRGB."""
        return marks(self.probability(rgb))

    def probability(self, rgb: Rgb) -> Samples:
        """Return how likely each pixel is damaged, (H, W) float32 in [0, 1], for (H, W, 3) uint8 sRGB."""
        result = self._at_one_size(rgb)
        height, width = rgb.shape[:2]
        while max(rgb.shape[:2]) >= 2 * _SMALLEST:
            half = (-(-rgb.shape[1] // 2), -(-rgb.shape[0] // 2))
            rgb = np.asarray(cv2.resize(rgb, half, interpolation=cv2.INTER_AREA))
            coarse = cv2.resize(self._at_one_size(rgb), (width, height), interpolation=cv2.INTER_LINEAR)
            np.maximum(result, coarse, out=result)
        return result

    def _at_one_size(self, rgb: Rgb) -> Samples:
        height, width = rgb.shape[:2]
        result = np.empty((height, width), np.float32)
        for y in range(0, height, _TILE):
            for x in range(0, width, _TILE):
                top, left = max(0, y - REACH), max(0, x - REACH)
                part = rgb[top : y + _TILE + REACH, left : x + _TILE + REACH]
                seen = self._tile(network_input(part, top, left, (height, width)))
                inner = result[y : y + _TILE, x : x + _TILE]
                inner[:] = seen[y - top :, x - left :][: inner.shape[0], : inner.shape[1]]
        return result

    def _tile(self, source: Samples) -> Samples:
        height, width = source.shape[1:]
        more = ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE))
        x = torch.from_numpy(np.pad(source, more, mode="edge"))[None].to(self.device)
        with torch.inference_mode(), whole_floats(self.device):
            seen = self.net(x.contiguous(memory_format=torch.channels_last)).sigmoid()
        return np.asarray(seen[0, 0, :height, :width].float().cpu().numpy())


def marks(probability: Samples) -> Where:
    """Return the damaged pixels, (H, W) bool: those that are likely, as far as they hang together with a sure one."""
    likely = (probability >= _LIKELY).astype(np.uint8)
    count, labels = cv2.connectedComponents(likely, connectivity=8)
    sure = np.zeros(count, bool)
    sure[labels[probability >= _SURE]] = True
    sure[0] = False
    return np.asarray(sure[labels])


def open_finder(device: str | torch.device = "cpu") -> ScratchFinder:
    """Return the finder that comes in the package.

    Raises:
        WeightsError: its file is missing or damaged.
    """
    net = ScratchNet()
    net.load_state_dict({name: tensor.float() for name, tensor in load(read_packaged(FILE)).items()})
    where = torch.device(device)
    net = net.eval().requires_grad_(False).to(where).to(memory_format=torch.channels_last)
    return ScratchFinder(net, where)
