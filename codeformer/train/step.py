"""One optimizer step, of the network and where there is one of the discriminator."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from codeformer.device import dtype_of
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.adversarial import discriminator_loss
from codeformer.train.checkpoint import State
from codeformer.train.codebook import Codebook
from codeformer.train.networks import Networks
from codeformer.train.objectives import OBJECTIVES
from codeformer.train.picture_losses import Batch, Evidence, Losses, Reduce
from codeformer.train.processes import World
from codeformer.train.settings import Settings


def run_step(
    networks: Networks,
    batch: Batch,
    settings: Settings,
    step: int,
    state: State,
    trained: Sequence[Tensor],
    world: World,
) -> dict[str, Tensor]:
    """Do step number `step`, and return the mean losses by name.

    Where a loss of the network, or its gradient, is not finite, nothing moves (see :func:`is_sound`).
    """
    networks.net.train()
    if networks.discriminator is not None:
        networks.discriminator.requires_grad_(False)
    state.optimizer.zero_grad(set_to_none=True)
    parts = split(batch, settings.accumulate, world.device)
    logs: dict[str, Tensor] = {}
    given = []
    for part in parts:
        with _autocast(settings, world.device):
            losses = OBJECTIVES[settings.stage](networks, part, settings, step, world.mean)
        state.scaler.scale(losses.total / len(parts)).backward()
        for name, value in {"loss": losses.total, **losses.logs}.items():
            share = value.detach().float() / len(parts)
            logs[name] = logs.get(name, torch.zeros((), device=world.device)) + share
        given.append(losses)
    follow_codes(networks.net, state.codebook, given, settings.codebook_decay, world.total)
    world.mean_gradients(trained)  # before unscaling: an overflow anywhere must be seen everywhere
    state.scaler.unscale_(state.optimizer)
    logs["gradient"] = nn.utils.clip_grad_norm_(trained, settings.clip or math.inf).detach()
    logs = {name: world.mean(value) for name, value in logs.items()}
    if not is_sound(logs, state):
        return logs
    state.scaler.step(state.optimizer)
    if networks.discriminator is not None and step >= settings.gan_start:
        evidence = [losses.evidence for losses in given if losses.evidence is not None]
        logs["discriminator"] = teach(networks.discriminator, evidence, len(parts), settings, state, world)
    state.scaler.update()  # once for both: an overflow in either lowers the scale
    return logs


def teach(
    discriminator: nn.Module,
    evidence: Sequence[Evidence],
    parts: int,
    settings: Settings,
    state: State,
    world: World,
) -> Tensor:
    """Do the discriminator's step on what the parts of the batch showed it, and return its mean loss."""
    assert state.discriminator_optimizer is not None
    discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=world.device)
    for one in evidence:
        with _autocast(settings, world.device):
            loss = one.share * discriminator_loss(discriminator, one.real, one.fake) / parts
        state.scaler.scale(loss).backward()
        total += loss.detach()
    total = world.mean(total)
    world.mean_gradients(list(discriminator.parameters()))
    moved = any(parameter.grad is not None for parameter in discriminator.parameters())
    if torch.isfinite(total) and moved:
        state.scaler.step(state.discriminator_optimizer)
    return total


def is_sound(logs: Mapping[str, Tensor], state: State) -> bool:
    """Return whether a step's numbers are finite.

    With fp16 a gradient that overflows is not a failure: the scaler skips that step and lowers its scale.
    """
    return all(bool(torch.isfinite(v)) for k, v in logs.items() if k != "gradient" or not state.scaler.is_enabled())


def follow_codes(net: VQAutoEncoder, codebook: Codebook, given: Sequence[Losses], decay: float, add: Reduce) -> None:
    """Let the codebook take in the latents and codes of the parts of stage I's step; `add` sums over the processes."""
    latents = [losses.latents for losses in given if losses.latents is not None]
    if not latents:
        return
    chosen = [losses.codes for losses in given if losses.codes is not None]
    codes = torch.cat(chosen) if chosen else None
    codebook.see(torch.cat(latents), codes)
    if decay and codes is not None:
        codebook.follow(net, torch.cat(latents), codes, decay, add)


def split(batch: Batch, parts: int, device: torch.device) -> list[Batch]:
    """Move a batch to the device, its pictures with the channels last, and cut it into equal parts."""

    def move(value: Tensor) -> Tensor:
        layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
        return value.to(device, non_blocking=True, memory_format=layout)

    moved = {k: move(v) if isinstance(v, Tensor) and k != "draws" else v for k, v in batch.items()}
    size = len(batch["hq"]) // parts
    return [{k: v[i * size : (i + 1) * size] for k, v in moved.items()} for i in range(parts)]


def set_rates(state: State, settings: Settings, step: int) -> None:
    """Give every group of both optimizers its rate of this step."""
    rate = learning_rate(settings, step)
    optimizers = [state.optimizer, *([state.discriminator_optimizer] if state.discriminator_optimizer else [])]
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = rate * group.get("times", 1.0)


def learning_rate(settings: Settings, step: int) -> float:
    """Return the network's rate of a step: linear warm-up, then constant or a cosine down to a twentieth."""
    rate = settings.lr * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "cosine":
        turn = torch.pi * step / settings.steps
        rate *= 0.05 + 0.95 * 0.5 * (1 + float(torch.cos(torch.tensor(turn))))
    return rate


@torch.no_grad()
def update_average(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)


def average_decay(settings: Settings, step: int) -> float:
    """Return the decay of the averaged weights after a step: lower in the beginning, unless the settings say no."""
    return min(settings.ema, (1 + step) / (10 + step)) if settings.ema_warmup else settings.ema


def _autocast(settings: Settings, device: torch.device) -> torch.autocast:
    dtype = dtype_of(settings.precision)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
