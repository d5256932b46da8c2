"""Blind face restoration (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codeformer.arrays import Crop
from codeformer.tasks.base import FaceCrop, Task


@dataclass(frozen=True)
class Restore(Task):
    """Blind face restoration with w and AdaIN as published. A grey face stays grey, and a toned one in its tone."""

    name: ClassVar[str] = "restore"
    past: ClassVar[str] = "restored"
    weights_group: ClassVar[str] = "restoration"
    default_w: ClassVar[float] = 0.5
    default_upscale: ClassVar[float] = 2.0
    blends: ClassVar[bool] = True
    mends: ClassVar[bool] = True

    def finish(self, crop: FaceCrop, output: Crop) -> Crop:
        """Return the network's output, without colour for a crop that has none, or in the picture's tone."""
        from codeformer.images.tone import in_own_colours  # imports OpenCV, which ``--help`` does without

        return in_own_colours(output, grey=crop.grey and crop.tone is None, tone=crop.tone)
