"""The losses of a generated picture, which stage I and stage III share, added up with their weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from codeformer.models.codeformer import CodeFormer
from codeformer.train.adversarial import adaptive_weight, generator_loss
from codeformer.train.crops import choose_squares, cut_all
from codeformer.train.losses import grid_pattern, part_region, pixel_loss, soften, stress_colour
from codeformer.train.networks import Networks
from codeformer.train.settings import FEATURE_LAYERS, Settings

Batch = dict[str, Any]
Reduce = Callable[[Tensor], Tensor]
Weighed = dict[str, tuple[float, Tensor]]  # losses by name, each with its weight
SCALE = 2.0**12  # of losses whose gradients are only measured; a power of two, so that nothing else changes


@dataclass
class Evidence:
    """What the discriminator sees of a step's real and generated faces; without gradient of the real ones.

    ``share`` of the faces are seen at all. The losses count by it, so that the result does not depend on how a batch is
    divided among processes and parts.
    """

    real: list[Tensor]
    fake: list[Tensor]
    share: float = 1.0


@dataclass
class Losses:
    """What a step gives: the loss to descend, numbers for the log, and what else of it is used.

    Attributes:
        total: the loss.
        logs: its parts by name, without their weights.
        evidence: what the discriminator learns from, if it learns from this step.
        codes, latents: of stage I, (B h w,) and (B, emb_dim, h, w), for the codebook.
    """

    total: Tensor
    logs: dict[str, Tensor]
    evidence: Evidence | None = None
    codes: Tensor | None = None
    latents: Tensor | None = None


def picture_losses(
    networks: Networks,
    out: Tensor,
    batch: Batch,
    settings: Settings,
    step: int,
    reduce: Reduce,
    extra: Mapping[str, tuple[float, Tensor]] | None = None,
) -> Losses:
    """Return the losses of generated faces against the batch's sharp ones, and `extra` ones.

    Args:
        networks: those of the run; a loss whose network is None is left out.
        out: the generated faces, (B, 3, S, S) in [-1, 1].
        batch: ``hq``, ``sharp``, ``mask``, ``task`` and ``draws`` of :class:`~codeformer.train.data.FaceDataset`.
        settings: the weights.
        step: number of the step, from 0 on: the GAN begins at ``gan_start``.
        reduce: the mean over the processes.
        extra: other losses by name, each with its weight; they do not count for the GAN's adaptive weight.
    """
    hq = batch["hq"]
    out = within_the_hole(out.float(), batch) if settings.stage == 3 else out.float()
    weighed: Weighed = {"pixel": (settings.pixel, _pixel(out, batch, settings))}
    evidence = None
    if networks.perceptual is not None:
        weighed["perceptual"], evidence = _perceptual(networks, out, batch, settings)
    if settings.grid:
        patterns = [grid_pattern(out - hq, side) for side in settings.network.square_sides]
        weighed["grid"] = settings.grid, torch.stack(patterns).sum()
    if networks.identity is not None:
        weighed["identity"] = settings.identity, networks.identity(out, hq).mean()
    logs = {name: loss for name, (_, loss) in weighed.items()}
    total = sum((weight * loss for weight, loss in weighed.values()), out.new_zeros(()))
    if networks.discriminator is None or step < settings.gan_start:
        evidence = None
    else:
        if settings.discriminator == "patch":
            evidence = Evidence([soften(hq, batch["sharp"])], [soften(out, batch["sharp"])])
        if evidence is not None:
            total = total + _adversarial(networks, evidence, total, settings, step, reduce, logs)
        logs.setdefault("gan", total.new_zeros(()))  # all processes log the same numbers
    for name, (weight, loss) in (extra or {}).items():
        logs[name] = loss
        total = total + weight * loss
    if evidence is not None:
        evidence = replace(evidence, fake=[x.detach() for x in evidence.fake])
    return Losses(total, logs, evidence)


def within_the_hole(out: Tensor, batch: Batch) -> Tensor:
    """Return inpainting's faces as the product shows them: the network's pixels in the hole alone, else the input's."""
    hq, mask = batch["hq"], batch["mask"]
    return torch.where(mask.amax((1, 2, 3), keepdim=True) > 0, hq + mask * (out - hq), out)


def _pixel(out: Tensor, batch: Batch, settings: Settings) -> Tensor:
    hq, weight = batch["hq"], torch.ones((), device=out.device)
    if settings.stage == 3:
        weight = 1 + settings.hole_weight * batch["mask"]
        # Colorization and inpainting do not see the colour that they give, and the perceptual loss hardly asks for it.
        colour = [1.0 if task == "restore" else settings.colour_weight for task in batch["task"]]
        out = stress_colour(out, hq, out.new_tensor(colour).view(-1, 1, 1, 1))
    if settings.face_parts:
        weight = weight + settings.face_parts * part_region(hq.shape[-1]).to(hq.device)
    return pixel_loss(out, hq, batch["sharp"], weight, settings.pixel_reduced)


def _perceptual(
    networks: Networks, out: Tensor, batch: Batch, settings: Settings
) -> tuple[tuple[float, Tensor], Evidence | None]:
    """Return the perceptual loss with its weight, and what the feature discriminator sees, where there is one.

    It sees those squares alone that come from faces at their whole size, where hair and skin have their grain.
    """
    perceptual, hq, sharp = networks.perceptual, batch["hq"], batch["sharp"]
    assert perceptual is not None
    if not settings.perceptual_crop:
        return (settings.perceptual, perceptual.by_sharpness(out, hq, sharp).mean()), None
    mask = batch["mask"] if settings.stage == 3 else None
    squares = choose_squares(
        hq.shape[-1], settings.perceptual_crop, sharp, batch["draws"][:, :6], settings.perceptual_scales, mask
    )
    with torch.no_grad():
        real = perceptual.vgg(cut_all(squares, hq))
    fake = perceptual.vgg(cut_all(squares, out))
    loss = settings.perceptual, perceptual.between(fake, real).mean()
    rows = [i for i, square in enumerate(squares) if square.factor == 1]
    if settings.discriminator != "features" or not rows:
        return loss, None
    count = len(FEATURE_LAYERS)
    seen_real, seen_fake = ([x[rows] for x in features[:count]] for features in (real, fake))
    return loss, Evidence(seen_real, seen_fake, len(rows) / len(squares))


def _adversarial(
    networks: Networks,
    evidence: Evidence,
    total: Tensor,
    settings: Settings,
    step: int,
    reduce: Reduce,
    logs: dict[str, Tensor],
) -> Tensor:
    """Return the GAN's loss with its weight, which depends on the `total` of the other losses; log both."""
    assert networks.discriminator is not None
    loss = evidence.share * generator_loss(networks.discriminator, evidence.fake)
    share: float | Tensor = settings.gan * min(1.0, (step + 1 - settings.gan_start) / max(settings.gan_warmup, 1))
    if settings.adaptive:
        last = last_layer(networks, settings)
        # Scaled, or the small gradients of a mean over all pixels would vanish in fp16 on their way.
        by_picture, by_discriminator = (
            reduce(torch.autograd.grad(SCALE * part, last, retain_graph=True)[0].float() / SCALE)
            for part in (total, loss)
        )
        share = share * adaptive_weight(by_picture, by_discriminator, settings.adaptive_limit)
        logs["gan_weight"] = share
    logs["gan"] = loss
    return share * loss


def last_layer(networks: Networks, settings: Settings) -> Tensor:
    """Return the last weight that trains: the generator's last convolution or CFT's last where that is fixed."""
    net: Any = networks.net
    if "generator" in settings.train:
        refine = net.generator.refine
        last: Any = net.generator.blocks[-1] if refine is None else refine.conv_out
    else:
        if not isinstance(net, CodeFormer):
            raise TypeError("stages II and III train a CodeFormer, not the autoencoder alone")
        fuse: Any = net.fuse_convs_dict
        last = fuse[max(fuse, key=int)].shift[-1]
    weight: Tensor = last.weight
    return weight
