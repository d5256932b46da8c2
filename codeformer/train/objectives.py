"""What each of the three stages descends: functions from networks and a batch to losses (paper, section 3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codeformer.models.codeformer import CodeFormer
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.networks import Networks
from codeformer.train.picture_losses import Batch, Losses, Reduce, Weighed, picture_losses
from codeformer.train.settings import Settings


def stage1(networks: Networks, batch: Batch, settings: Settings, step: int, reduce: Reduce) -> Losses:
    """Return the VQGAN's losses: L1, perceptual, hinge GAN with adaptive weight, codebook (paper, equation 4)."""
    net, hq = networks.net, batch["hq"]
    z = net.encoder(hq)
    if step < settings.vq_start:
        losses = picture_losses(networks, net.generator(z), batch, settings, step, reduce)
        losses.latents = z.detach()
        return losses
    quant, codebook, stats = net.quantize(z.float())
    out = net.generator(quant)
    losses = picture_losses(networks, out, batch, settings, step, reduce, {"codebook": (settings.codebook, codebook)})
    losses.logs["perplexity"] = stats["perplexity"]
    losses.codes, losses.latents = stats["min_encoding_indices"].flatten(), z.detach()
    return losses


def stage2(networks: Networks, batch: Batch, settings: Settings, step: int, reduce: Reduce) -> Losses:
    """Return the Transformer's losses: cross entropy with the sharp face's codes, and the feature loss (equation 6)."""
    net = _whole(networks.net)
    codes, target = sharp_codes(networks, batch["hq"])
    logits, lq_feat = net(batch["lq"], code_only=True)
    losses = _code_losses(logits, lq_feat, codes, target, settings)
    hits = (logits.argmax(2) == codes).float().mean()
    logs = {name: loss for name, (_, loss) in losses.items()} | {"hits": hits}
    total = sum((weight * loss for weight, loss in losses.values()), hits.new_zeros(()))
    return Losses(total, logs, codes=codes.flatten())


def stage3(networks: Networks, batch: Batch, settings: Settings, step: int, reduce: Reduce) -> Losses:
    """Return CFT's losses: those of the pictures at the settings' w, beside stage II's where they have a weight."""
    net = _whole(networks.net)
    lq_feat, features = net.encode_features(batch["lq"])
    logits = net.predict_logits(lq_feat)
    w = choose_fidelity(batch["draws"], settings.fidelity).to(lq_feat.device).view(-1, 1, 1, 1)
    fixed = "encoder" not in settings.train
    blended = {name: f.detach() for name, f in features.items()} if fixed or settings.detach_features else features
    style = lq_feat.detach() if fixed else lq_feat
    out = net.decode_latent(choose_vectors(net, logits, settings), style, blended, w, settings.adain)
    extra: Weighed = {}
    if settings.cross_entropy or settings.feature:
        codes, target = sharp_codes(networks, batch["hq"])
        extra = _code_losses(logits, style, codes, target, settings)
    return picture_losses(networks, out, batch, settings, step, reduce, extra)


OBJECTIVES = {1: stage1, 2: stage2, 3: stage3}


@torch.no_grad()
def sharp_codes(networks: Networks, hq: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of sharp faces, (B, h w), and their vectors on the grid, by stage I's encoder."""
    if networks.teacher is None:
        raise ValueError("the codes of sharp faces need stage I's encoder")
    codes = networks.teacher.quantize.encode(networks.teacher.encoder(hq).float())
    side = networks.teacher.config.latent_side
    return codes, networks.teacher.quantize.lookup(codes, (side, side))


def choose_fidelity(draws: Tensor, choices: tuple[Any, ...]) -> Tensor:
    """Choose one w for each face, (B,), from its last two uniform draws."""
    picks = [choices[min(int(d * len(choices)), len(choices) - 1)] for d in draws[:, -2].tolist()]
    values = [float(draw) if pick == "any" else float(pick) for pick, draw in zip(picks, draws[:, -1], strict=True)]
    return torch.tensor(values, dtype=torch.float32)


def choose_vectors(net: CodeFormer, logits: Tensor, settings: Settings) -> Tensor:
    """Return the likeliest codes' vectors on their grid, (B, emb_dim, h, w).

    With ``straight_through`` the gradient goes on to the logits, as if the mean over the codes had been taken. The
    codebook itself gets one where it trains.
    """
    side = net.config.latent_side
    hard = net.quantize.lookup(logits.argmax(2), (side, side))
    if not settings.straight_through:
        return hard
    soft = logits.float().softmax(2) @ net.quantize.embedding.weight.detach()  # (B, h w, C)
    soft = soft.transpose(1, 2).reshape(hard.shape)
    return hard + soft - soft.detach()


def _code_losses(logits: Tensor, lq_feat: Tensor, codes: Tensor, target: Tensor, settings: Settings) -> Weighed:
    entropy = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())
    return {
        "cross_entropy": (settings.cross_entropy, entropy),
        "feature": (settings.feature, F.mse_loss(lq_feat.float(), target)),
    }


def _whole(net: VQAutoEncoder | CodeFormer) -> CodeFormer:
    if not isinstance(net, CodeFormer):
        raise TypeError("stages II and III train a CodeFormer, not the autoencoder alone")
    return net
