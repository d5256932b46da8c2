"""Losses of the three stages. Pictures are (B, 3, S, S) in [-1, 1]; every loss is a mean over the batch."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.errors import UsageError, WeightsError
from codeformer.images.colour import LUMA

# torchvision's VGG16 `features`: convolutions by index, and the ReLU that ends each block.
_PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}


class PerceptualDistance(nn.Module):
    """Distance of VGG16 features, each unit-normalised over the channels and averaged over space and layers.

    Zhang et al., CVPR 2018 (arXiv 1801.03924), equation 1, without the learned weights of LPIPS.

    Args:
        weights: a safetensors file with torchvision's ``features.N.weight``/``bias``; None takes torchvision's
            own ImageNet weights, from its cache or its server.
        layers: names of :data:`LAYERS`.

    Raises:
        WeightsError: the file is not that.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None, layers: Sequence[str] = tuple(LAYERS)) -> None:
        super().__init__()
        if not layers or not set(layers) <= set(LAYERS):
            raise UsageError(
                f"perceptual_layers: one or more of {', '.join(LAYERS)}, not {', '.join(layers) or 'none'}"
            )
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
        self.features.load_state_dict(_vgg_state(weights, self.features))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance of each pair, (B,). With `mask` (B, 1, S, S), only where it is above a half."""
        with torch.no_grad():
            target = self.maps(b)
        return self.to_maps(a, target, mask)

    def to_maps(self, a: Tensor, target: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Return the distance of each picture of `a` to a picture whose :meth:`maps` are known, (B,)."""
        total = torch.zeros(a.shape[0], device=a.device)
        for x, y in zip(self.maps(a), target, strict=True):
            distance = (x - y).pow(2).sum(1, keepdim=True)  # (B, 1, h, w)
            if mask is None:
                total = total + distance.mean((1, 2, 3))
            else:
                inside = (F.adaptive_max_pool2d(mask, distance.shape[2:]) > 0.5).float()
                total = total + (distance * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp_min(1)
        return total / len(target)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the chosen layers' features of pictures (B, 3, S, S) in [-1, 1], of unit length over the channels."""
        x = ((x + 1) / 2 - self.mean) / self.std
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                maps.append(_unit(x))
        return maps


def _unit(x: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).sum(1, keepdim=True) + 1e-8)


def _vgg_state(weights: Path | None, features: nn.Module) -> dict[str, Tensor]:
    if weights is None:
        from torchvision.models import VGG16_Weights, vgg16

        try:
            state = vgg16(weights=VGG16_Weights.IMAGENET1K_V1).features.state_dict()
        except OSError as error:
            raise WeightsError(
                "the perceptual distance needs VGG16: torchvision cannot fetch it "
                f"({error}); give a safetensors file of its features with --perceptual FILE"
            ) from error
    else:
        from codeformer.models.load import read_state

        state = {name.removeprefix("features."): t.float() for name, t in read_state(weights)[0].items()}
    own = features.state_dict()
    if any(name not in state or state[name].shape != t.shape for name, t in own.items()):
        raise WeightsError(f"{weights}: not the features of VGG16 (torchvision's names features.N.weight)")
    return {name: state[name] for name in own}


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator on the logits of real and generated faces."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """Return the GAN loss's weight, from the losses' gradients at the last layer (section 3.1; VQGAN, equation 7).

    0 where a gradient is not finite, as fp16 may make it: the GAN then waits for the next step.
    """
    ratio = reconstruction.norm() / (adversarial.norm() + 1e-4)
    return torch.where(reconstruction.norm().isfinite(), ratio, 0.0).nan_to_num(nan=0.0).clamp(0, 1e4).detach()


def random_crops(
    pictures: Sequence[Tensor],
    sharp: Tensor,
    side: int,
    draws: Tensor,
    scales: Sequence[float] = (0.5, 0.5, 0.0),
    mask: Tensor | None = None,
    spread: float = 0.25,
) -> list[Tensor]:
    """Cut the same random square out of each of several batches of pictures, for a loss that is dear on whole faces.

    A square comes from the picture, from the picture halved, which shows four times the area, or from its quarter;
    never from a size that is smaller than the square, and of pictures that are not `sharp` never from the whole size.
    Half of the squares lie anywhere, half around the features; where a mask is, around a point of it.

    Args:
        pictures: batches (B, C, S, S).
        sharp: (B,) bool.
        side: of the squares, pixels.
        draws: (B, 6) uniform numbers in [0, 1), one row for each picture.
        scales: chances of the three sizes; they need not sum to 1.
        mask: (B, 1, S, S), above 0 where to look; a picture whose mask is empty is cut like the others.
        spread: how far the squares around the features stray from the centre, of the size.

    Returns:
        for each batch one (B, C, side, side).
    """
    size = pictures[0].shape[-1]
    crops: list[list[Tensor]] = [[] for _ in pictures]
    for i, (scale, mode, y, x, dy, dx) in enumerate(draws.tolist()):
        factor = _pick_factor(size, side, bool(sharp[i]), scales, scale)
        whole = size // factor
        cut = min(side, whole)
        # The features of an aligned face lie around its centre, a little below: y + dy - 1 is triangular in (-1, 1).
        centre = (y, x) if mode < 0.5 else (0.56 + 2 * spread * (y + dy - 1), 0.5 + 2 * spread * (x + dx - 1))
        if mask is not None and len(holes := mask[i, 0].nonzero()):
            point = (holes[int(mode * len(holes))] / size).tolist()
            centre = (point[0] + (y - 0.5) * cut / whole, point[1] + (x - 0.5) * cut / whole)
        top, left = (int(min(max(round(c * whole - cut / 2), 0), whole - cut)) for c in centre)
        for out, picture in zip(crops, pictures, strict=True):
            span = factor * cut
            patch = picture[i, :, factor * top : factor * top + span, factor * left : factor * left + span]
            out.append(F.avg_pool2d(patch[None], factor)[0] if factor > 1 else patch)
    return [torch.stack(out) for out in crops]


def _pick_factor(size: int, side: int, sharp: bool, scales: Sequence[float], draw: float) -> int:
    """Return by how much a picture is reduced, 1, 2 or 4: the factor that `draw` in [0, 1) picks of those allowed."""
    allowed = [
        chance if factor == 1 or size >= factor * side else 0.0
        for factor, chance in zip((1, 2, 4), scales, strict=True)
    ]
    if not sharp and any(allowed[1:]):
        allowed[0] = 0.0
    left, picked = draw * sum(allowed), 1
    for factor, chance in zip((1, 2, 4), allowed, strict=True):
        if chance and left >= 0:
            picked = factor
        left -= chance
    return picked


def pixel_loss(out: Tensor, hq: Tensor, sharp: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Mean absolute difference, each pixel times `weight`; of faces that were enlarged, only at half the size."""
    difference = (out - hq) * weight
    full = difference.abs().mean((1, 2, 3))
    half = F.avg_pool2d(difference, 2).abs().mean((1, 2, 3))
    return torch.where(sharp.to(full.device), full, half).mean()


def soften(pictures: Tensor, sharp: Tensor) -> Tensor:
    """Take the finest detail, at which an enlarged face tells nothing, from pictures that are not `sharp` (B,)."""
    if bool(sharp.all()):
        return pictures
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    return torch.where(sharp.to(pictures.device).view(-1, 1, 1, 1), pictures, coarse)


def by_sharpness(distance: PerceptualDistance, a: Tensor, b: Tensor, sharp: Tensor) -> Tensor:
    """Return the distance of each pair of whole pictures, (B,); of enlarged faces at half the size."""
    total = torch.zeros(len(a), device=a.device)
    chosen = sharp.to(a.device)
    for rows, factor in ((chosen, 1), (~chosen, 2)):
        if bool(rows.any()):
            pair = (F.avg_pool2d(x[rows], factor) if factor > 1 else x[rows] for x in (a, b))
            total = total.masked_scatter(rows, distance(*pair))
    return total


def stress_colour(out: Tensor, hq: Tensor, weight: Tensor) -> Tensor:
    """Return `out` with its error of colour times `weight` (B, 1, 1, 1), that of the luma (BT.601) as it is."""
    difference = out - hq
    luma = (difference * torch.from_numpy(LUMA).to(out.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return hq + luma + weight * (difference - luma)


def grid_pattern(error: Tensor, side: int, cells: int = 8) -> Tensor:
    """Return how strongly the error (B, C, S, S) repeats from one square of `side` pixels to the next.

    A network that unfolds squares and doubles grids draws faint lines between them where it does not know better, and
    VGG takes them for texture. Every pixel of the square is averaged over up to `cells` x `cells` squares; what is left
    of the square, but for a plane, is the pattern, and its mean size is returned. (In a square of 2 a plane is all but
    a checkerboard; stripes 2 pixels apart are seen with a side of 4.)
    """
    squares = error.shape[-1] // side
    cells = max(n for n in range(1, cells + 1) if squares % n == 0)
    square = F.avg_pool2d(F.pixel_unshuffle(error, side), cells).unflatten(1, (error.shape[1], side, side))
    square = square - square.mean((2, 3), keepdim=True)
    steps = torch.arange(side, device=error.device, dtype=error.dtype) - (side - 1) / 2
    for across, slope in ((3, steps.view(-1, 1, 1, 1)), (2, steps.view(-1, 1, 1))):
        along = square.mean(across, keepdim=True)
        share = (along * slope).sum((2, 3), keepdim=True) / steps.pow(2).sum()
        square = square - share * slope
    return square.abs().mean()


def part_region(size: int) -> Tensor:
    """Return 1 on the eyes, nose and mouth of an aligned face, falling to 0 around them: (1, 1, size, size)."""
    from codeformer.faces.align import TEMPLATE_512

    grid = (torch.arange(size) + 0.5) * 512 / size
    region = torch.zeros(size, size)
    for x, y in TEMPLATE_512.tolist():
        distance = (grid[:, None] - y) ** 2 + (grid[None, :] - x) ** 2
        region = torch.maximum(region, torch.exp(-distance / (2 * 32.0**2)))
    return region[None, None]
