"""Small networks and a picture for the tests of super-resolution."""

from __future__ import annotations

import numpy as np
import torch


def compact_state(scale: int = 4, channels: int = 3, *, zero: bool = True) -> dict[str, torch.Tensor]:
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    state = Compact(num_in_ch=channels, num_out_ch=channels, num_feat=4, num_conv=2, upscale=scale).state_dict()
    return {key: torch.zeros_like(value) if zero else value for key, value in state.items()}


def rrdb_state(*, shuffle: int | None = None) -> dict[str, torch.Tensor]:
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(1)
    channels = 3 * (shuffle or 1) ** 2
    net = ESRGAN(in_nc=channels, num_filters=8, num_blocks=1, scale=4, shuffle_factor=shuffle)
    return {key: value * 2.0 for key, value in net.state_dict().items()}  # louder than PyTorch's beginning


def photo(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    from skimage import data

    rgb = np.asarray(data.astronaut())[60 : 60 + height, 150 : 150 + width]
    return rgb if dtype == np.uint8 else (rgb.astype(np.float64) * 257 + np.arange(3)).clip(0, 65535).astype(dtype)
