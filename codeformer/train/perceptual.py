"""The perceptual distance: how far two pictures are apart to VGG16, with LPIPS's learned weights or without.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018 (arXiv 1801.03924).
Pictures are (B, 3, S, S) in [-1, 1].
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.errors import UsageError, WeightsError
from codeformer.extras import require

# torchvision's VGG16 `features`: convolutions by index, and the ReLU that ends each block.
_PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
CHANNELS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}
KINDS = ("lpips", "vgg")


class VggFeatures(nn.Module):
    """The first layers of VGG16, fixed.

    Args:
        layers: names of :data:`LAYERS`, in their order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        self.taps = sorted(LAYERS[name] for name in layers)
        modules: list[nn.Module] = []
        channels = 3
        for item in _PLAN:
            if isinstance(item, int):
                modules += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU()]
                channels = item
            else:
                modules.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*modules[: self.taps[-1] + 1])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the layers' features of pictures (B, 3, S, S) in [-1, 1]: (B, C, S/2^i, S/2^i) each."""
        x = ((x + 1) / 2 - self.mean) / self.std
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found


class PerceptualDistance(nn.Module):
    """Distance of VGG16's features, each of unit length over the channels.

    ``lpips`` is LPIPS 0.1 as published: of all five layers, squared differences weighted channel by channel with the
    learned heads, averaged over space, summed over the layers. ``vgg`` takes the plain sum over the channels and the
    mean over the layers (equation 1 without the learned weights).

    Args:
        weights: a safetensors file with torchvision's ``features.N.weight`` and ``.bias``, and for ``lpips`` the heads
            ``lin0.weight`` to ``lin4.weight`` (1, C, 1, 1). None takes torchvision's own ImageNet weights, from its
            cache or its server, and the heads of the package ``lpips``.
        layers: names of :data:`LAYERS`; ``lpips`` has all five.
        kind: ``lpips`` or ``vgg``.

    Raises:
        UsageError: unknown layers or kind, or the package ``lpips`` is missing.
        WeightsError: the file is not that.
    """

    def __init__(self, weights: Path | None, layers: Sequence[str] = tuple(LAYERS), kind: str = "vgg") -> None:
        super().__init__()
        if kind not in KINDS:
            raise UsageError(f"perceptual_kind: {' or '.join(KINDS)}, not {kind}")
        if not layers or not set(layers) <= set(LAYERS):
            raise UsageError(
                f"perceptual_layers: one or more of {', '.join(LAYERS)}, not {', '.join(layers) or 'none'}"
            )
        if kind == "lpips" and set(layers) != set(LAYERS):
            raise UsageError("perceptual_layers: LPIPS has all five layers; leave them out, or take the kind vgg")
        self.layers = sorted(layers, key=lambda name: LAYERS[name])
        self.vgg = VggFeatures(self.layers)
        state = read_features(weights)
        own = self.vgg.features.state_dict()
        if any(name not in state or state[name].shape != t.shape for name, t in own.items()):
            raise WeightsError(f"{weights}: not the features of VGG16 (torchvision's names features.N.weight)")
        self.vgg.features.load_state_dict({name: state[name] for name in own})
        heads = _heads(weights, state) if kind == "lpips" else []
        self.heads = nn.ParameterList(nn.Parameter(head) for head in heads)
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance of each pair, (B,). With `mask` (B, 1, S, S), only where it is above a half."""
        with torch.no_grad():
            target = self.vgg(b)
        return self.between(self.vgg(a), target, mask)

    def between(self, a: Sequence[Tensor], b: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Return the distance of pictures whose features `vgg` gave, (B,); the mask as in :meth:`forward`."""
        total = torch.zeros(len(a[0]), device=a[0].device)
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            squared = (unit(x) - unit(y)).pow(2)
            distance = (squared * self.heads[i] if len(self.heads) else squared).sum(1, keepdim=True)  # (B, 1, h, w)
            if mask is None:
                total = total + distance.mean((1, 2, 3))
            else:
                inside = (F.adaptive_max_pool2d(mask, distance.shape[2:]) > 0.5).float()
                total = total + (distance * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1)
        return total if len(self.heads) else total / len(a)

    def by_sharpness(self, a: Tensor, b: Tensor, sharp: Tensor) -> Tensor:
        """Return the distance of each pair of whole pictures, (B,); of faces that were enlarged at half the size."""
        total = torch.zeros(len(a), device=a.device)
        chosen = sharp.to(a.device)
        for rows, factor in ((chosen, 1), (~chosen, 2)):
            if bool(rows.any()):
                pair = (F.avg_pool2d(x[rows], factor) if factor > 1 else x[rows] for x in (a, b))
                total = total.masked_scatter(rows, self(*pair))
        return total


def unit(x: Tensor) -> Tensor:
    """Return features (B, C, h, w) of unit length over the channels, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).sum(1, keepdim=True) + 1e-8)


def read_features(weights: Path | None) -> dict[str, Tensor]:
    """Return VGG16's features by torchvision's names, from a file or, without one, from torchvision.

    Raises:
        UsageError: torchvision is not installed, and there is no file.
        WeightsError: the file cannot be read, or torchvision cannot fetch its own.
    """
    if weights is not None:
        from codeformer.models.state import read_state

        return {name.removeprefix("features."): t.float() for name, t in read_state(weights)[0].items()}
    otherwise = "give a safetensors file of its features with --perceptual FILE"
    try:
        models = require("torchvision.models", "the perceptual distance (VGG16)", "torchvision")
    except UsageError as error:
        raise UsageError(f"{error}; or {otherwise}") from error
    try:
        state: dict[str, Tensor] = models.vgg16(weights=models.VGG16_Weights.IMAGENET1K_V1).features.state_dict()
    except OSError as error:
        raise WeightsError(
            f"the perceptual distance needs VGG16: torchvision cannot fetch it ({error}); {otherwise}"
        ) from error
    return state


def _heads(weights: Path | None, state: dict[str, Tensor]) -> list[Tensor]:
    """Return the five heads of LPIPS, (1, C, 1, 1) each, from the file or from the package ``lpips``."""
    names = [f"lin{i}.weight" for i in range(len(LAYERS))]
    if weights is None:
        spec = find_spec("lpips")
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(
                "LPIPS's learned heads are missing: pip install lpips, give a file that holds them (lin0.weight to "
                "lin4.weight) with --perceptual FILE, or take the plain distance, kind vgg"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / "weights" / "v0.1" / "vgg.pth"
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: loaded[name.replace(".weight", ".model.1.weight")] for name in names}
    shapes = [(1, channels, 1, 1) for channels in CHANNELS.values()]
    if any(name not in state or tuple(state[name].shape) != shape for name, shape in zip(names, shapes, strict=True)):
        raise WeightsError(
            f"{weights}: holds no heads of LPIPS (lin0.weight to lin4.weight): take another file, or the plain "
            "distance: --set perceptual_kind=vgg in training, --distance vgg in evaluate"
        )
    return [state[name].float() for name in names]
