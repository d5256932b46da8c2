"""A device is tried before a run trusts it: one picture must come out as it does on the CPU.

PyTorch's kernels for Apple's GPUs have given wrong numbers without an error (its issues 163597 and 181133). A face that
such a kernel made looks like a bad restoration, so nobody would see the reason.
"""

from __future__ import annotations

import numpy as np

from codeformer.arrays import Crop
from codeformer.backends.base import FaceNetwork
from codeformer.device import Device
from codeformer.errors import RestorationError

#: Levels of 255, on average, by which two devices may differ: bf16 on a CPU differs from fp32 by 0.5.
TOLERATED = 4.0
_WEIGHTS = (0.0, 1.0)  # the codes alone, and with all that the encoder's features add


def needs_trial(device: Device) -> bool:
    """Return whether a device is tried at the start of a run."""
    return device.type == "mps"


def trial_crop(side: int) -> Crop:
    """Return a smooth picture, (side, side, 3) float32 in [0, 1], of which every network makes something."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    return np.stack([0.3 + 0.4 * x, 0.6 - 0.3 * y, 0.4 + 0.2 * np.sin(9 * x * y)], axis=-1)


def require_agreement(restorer: FaceNetwork, ruler: FaceNetwork) -> None:
    """Try one picture with a network on two devices.

    Args:
        restorer: the network on the device that is tried.
        ruler: the same network on a device that is trusted.

    Raises:
        RestorationError: the results differ by more than :data:`TOLERATED` levels on average.
    """
    crop = trial_crop(restorer.size)
    made, right = (one.restore_at([crop], _WEIGHTS, adain=True)[0] for one in (restorer, ruler))
    off = max(float(np.abs(a - b).mean()) * 255 for a, b in zip(made, right, strict=True))
    if not off <= TOLERATED:
        raise RestorationError(
            f"{restorer.device} computes wrong faces: a trial picture differs from that of {ruler.device} by {off:.0f} "
            f"of 255 on average; use --device {ruler.device}, or another version of PyTorch"
        )
