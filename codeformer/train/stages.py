"""The three stages: each a function from networks and a batch to losses (paper, sections 3.1 to 3.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codeformer.models.codeformer import CodeFormer
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.losses import (
    adaptive_weight,
    by_sharpness,
    grid_pattern,
    part_region,
    pixel_loss,
    random_crops,
    soften,
    stress_colour,
)
from codeformer.train.networks import Players
from codeformer.train.settings import Settings

Batch = dict[str, Any]
Reduce = Callable[[Tensor], Tensor]
SCALE = 2.0**12  # of losses whose gradients are only measured; a power of two, so that nothing else changes


@dataclass
class Losses:
    """What a step gives: the loss to descend, the generated faces for the discriminator, numbers for the log."""

    total: Tensor
    fake: Tensor | None
    logs: dict[str, Tensor]
    codes: Tensor | None = None
    latents: Tensor | None = None


def stage1(players: Players, batch: Batch, settings: Settings, step: int, reduce: Reduce) -> Losses:
    """VQGAN: L1, perceptual, hinge GAN with adaptive weight, codebook (paper, equation 4)."""
    net, hq = players.net, batch["hq"]
    z = net.encoder(hq)
    if step < settings.vq_start:
        out = net.generator(z)
        return _picture_losses(players, out, batch, settings, step, reduce, {}, latents=z.detach())
    quant, codebook, stats = net.quantize(z.float())
    out = net.generator(quant)
    losses = _picture_losses(players, out, batch, settings, step, reduce, {"codebook": (settings.codebook, codebook)})
    losses.logs["perplexity"] = stats["perplexity"]
    losses.codes, losses.latents = stats["min_encoding_indices"].flatten(), z.detach()
    return losses


def stage2(players: Players, batch: Batch, settings: Settings, step: int, reduce: Reduce) -> Losses:
    """Transformer: cross entropy with the sharp face's codes, and the feature loss (paper, equations 5 and 6)."""
    net = _whole(players.net)
    codes, target = sharp_codes(players, batch["hq"])
    logits, lq_feat = net(batch["lq"], code_only=True)
    entropy, distance = _code_losses(logits, lq_feat, codes, target)
    total = settings.cross_entropy * entropy + settings.feature * distance
    hits = (logits.argmax(2) == codes).float().mean()
    return Losses(total, None, {"cross_entropy": entropy, "feature": distance, "hits": hits}, codes=codes.flatten())


def stage3(players: Players, batch: Batch, settings: Settings, step: int, reduce: Reduce) -> Losses:
    """CFT: L1, perceptual and GAN through the decoder at the settings' w, beside stage II's losses of the codes where
    they have a weight (paper, section 3.3)."""
    net = _whole(players.net)
    lq_feat, features = net.encode_features(batch["lq"])
    logits = net.predict_logits(lq_feat)
    if "encoder" not in settings.train:
        lq_feat, features = lq_feat.detach(), {name: f.detach() for name, f in features.items()}
    hard = net.quantize.lookup(logits.argmax(2), lq_feat.shape[2:]).detach()
    quant = hard
    if settings.straight_through:
        soft = logits.float().softmax(2) @ net.quantize.embedding.weight.detach()  # (B, h w, C)
        soft = soft.transpose(1, 2).reshape(hard.shape)
        quant = hard + soft - soft.detach()
    w = choose_fidelity(batch["draws"], settings.fidelity).to(quant.device)
    out = net.decode_latent(quant, lq_feat, features, w.view(-1, 1, 1, 1), settings.adain)
    extra: dict[str, tuple[float, Tensor]] = {}
    if settings.cross_entropy or settings.feature:
        codes, target = sharp_codes(players, batch["hq"])
        entropy, distance = _code_losses(logits, lq_feat, codes, target)
        extra = {"cross_entropy": (settings.cross_entropy, entropy), "feature": (settings.feature, distance)}
    return _picture_losses(players, out, batch, settings, step, reduce, extra)


STAGES = {1: stage1, 2: stage2, 3: stage3}


@torch.no_grad()
def sharp_codes(players: Players, hq: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of sharp faces, (B, h w), and their vectors on the grid, by stage I's encoder."""
    if players.teacher is None:
        raise ValueError("the codes of sharp faces need stage I's encoder")
    codes = players.teacher.quantize.encode(players.teacher.encoder(hq).float())
    side = players.teacher.config.latent_side
    return codes, players.teacher.quantize.lookup(codes, (side, side))


def choose_fidelity(draws: Tensor, choices: tuple[Any, ...]) -> Tensor:
    """Choose one w for each face, (B,), from its last two uniform draws."""
    picks = [choices[min(int(d * len(choices)), len(choices) - 1)] for d in draws[:, -2].tolist()]
    values = [float(draw) if pick == "any" else float(pick) for pick, draw in zip(picks, draws[:, -1], strict=True)]
    return torch.tensor(values, dtype=torch.float32)


def _code_losses(logits: Tensor, lq_feat: Tensor, codes: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    entropy = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
    return entropy, F.mse_loss(lq_feat.float(), target)


def _picture_losses(
    players: Players,
    out: Tensor,
    batch: Batch,
    settings: Settings,
    step: int,
    reduce: Reduce,
    extra: dict[str, tuple[float, Tensor]],
    latents: Tensor | None = None,
) -> Losses:
    out = out.float()
    hq, sharp, mask = batch["hq"], batch["sharp"], None
    weight: Tensor | float = 1.0
    seen = out
    if settings.stage == 3:
        # Inpainting shows the network's pixels in the hole alone; colorization may keep the input's luma.
        mask = batch["mask"]
        out = torch.where(mask.amax((1, 2, 3), keepdim=True) > 0, hq + mask * (out - hq), out)
        weight = 1 + settings.hole_weight * mask
        # Neither sees the colour that it has to give, and the perceptual loss hardly asks for it.
        colour = [1.0 if task == "restore" else settings.colour_weight for task in batch["task"]]
        seen = stress_colour(out, hq, out.new_tensor(colour).view(-1, 1, 1, 1))
    if settings.face_parts:
        weight = weight + settings.face_parts * part_region(hq.shape[-1]).to(hq.device)
    pixel = pixel_loss(seen, hq, sharp, weight)
    logs = {"pixel": pixel}
    total = settings.pixel * pixel
    if players.perceptual is not None:
        side = settings.perceptual_crop
        draws, scales = batch["draws"][:, :6], settings.perceptual_scales
        if side:
            logs["perceptual"] = players.perceptual(*random_crops((out, hq), sharp, side, draws, scales, mask)).mean()
        else:
            logs["perceptual"] = by_sharpness(players.perceptual, out, hq, sharp).mean()
        total = total + settings.perceptual * logs["perceptual"]
    if settings.grid:
        patterns = [grid_pattern(out - hq, side) for side in settings.network.square_sides]
        logs["grid"] = torch.stack(patterns).sum()
        total = total + settings.grid * logs["grid"]
    if players.identity is not None:
        logs["identity"] = players.identity(out, hq).mean()
        total = total + settings.identity * logs["identity"]
    if players.discriminator is not None and step >= settings.gan_start:
        adversarial = -players.discriminator(soften(out, sharp)).float().mean()
        share: float | Tensor = settings.gan
        if settings.adaptive:
            last = _last_layer(players.net, settings)
            # Scaled, or the small gradients of a mean over all pixels would vanish in fp16 on their way.
            by_picture, by_judge = (
                reduce(torch.autograd.grad(SCALE * loss, last, retain_graph=True)[0].float() / SCALE)
                for loss in (total, adversarial)
            )
            share = share * adaptive_weight(by_picture, by_judge)
            logs["gan_weight"] = share
        logs["gan"] = adversarial
        total = total + share * adversarial
    for name, (scale, loss) in extra.items():
        logs[name] = loss
        total = total + scale * loss
    return Losses(total, soften(out, sharp), logs, latents=latents)


def _last_layer(net: VQAutoEncoder | CodeFormer, settings: Settings) -> Tensor:
    """Return the last weight that trains: the generator's last convolution or CFT's last where that is fixed."""
    if "generator" in settings.train:
        refine = net.generator.refine
        last: Any = net.generator.blocks[-1] if refine is None else refine.conv_out
    else:
        fuse: Any = _whole(net).fuse_convs_dict
        last = fuse[max(fuse, key=int)].shift[-1]
    weight: Tensor = last.weight
    return weight


def _whole(net: VQAutoEncoder | CodeFormer) -> CodeFormer:
    if not isinstance(net, CodeFormer):
        raise TypeError("stages II and III train a CodeFormer, not the autoencoder alone")
    return net
