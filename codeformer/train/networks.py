"""The networks of a run: what a stage builds, what it starts from, and what of it trains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codeformer.errors import UsageError, WeightsError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.discriminator import PatchDiscriminator
from codeformer.models.load import load_into, load_network, read_state
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.identity import IdentityDistance
from codeformer.train.losses import PerceptualDistance
from codeformer.train.metrics import dlib_models
from codeformer.train.muon import Muon
from codeformer.train.settings import Settings

TRANSFORMER = ("position_emb", "feat_emb", "ft_layers", "idx_pred_layer")


@dataclass
class Players:
    """The networks of a run. ``teacher`` is stage I's encoder and codebook, which say the sharp face's codes."""

    net: VQAutoEncoder | CodeFormer
    teacher: VQAutoEncoder | None = None
    discriminator: nn.Module | None = None
    perceptual: PerceptualDistance | None = None
    identity: IdentityDistance | None = None


def build(
    settings: Settings, device: torch.device, *, perceptual: Path | None, init: Path | None, teacher: Path | None
) -> Players:
    """Build the networks of a stage and load what it starts from.

    Raises:
        UsageError: the hyperparameters make no network, of this stage or a later one, or a file is missing.
        WeightsError: a file does not fit.
    """
    config = settings.network
    check_network(config)
    if settings.stage == 1:
        net: VQAutoEncoder | CodeFormer = VQAutoEncoder.from_config(
            replace(config, n_layers=0, connect_list=(), pixel_skip=False)
        )
        if init:
            load_into(net, init)
    else:
        if init is None:
            raise UsageError(
                f"stage {settings.stage} starts from the weights of stage {settings.stage - 1}: --init FILE"
            )
        net = CodeFormer.from_config(config)
        start_identity(net)
        load_into(net, init, partial=True)
        check_start(net, init, settings.stage)
    guide = None
    if settings.stage > 1 and (settings.cross_entropy or settings.feature):
        if settings.stage == 3 and teacher is None:
            raise UsageError(
                "cross_entropy and feature need the codes of sharp faces, which stage 1's encoder says: --teacher FILE"
            )
        source = teacher or init
        loaded = load_network(source) if source else net
        guide = VQAutoEncoder.from_config(replace(loaded.config, n_layers=0, connect_list=(), pixel_skip=False))
        own = guide.state_dict()
        guide.load_state_dict({n: t for n, t in loaded.state_dict().items() if n in own})
        guide.requires_grad_(False).eval()
    needs_pictures = settings.stage != 2
    vgg = PerceptualDistance(perceptual, settings.perceptual_layers) if needs_pictures and settings.perceptual else None
    judge = PatchDiscriminator(settings.ndf) if needs_pictures and settings.gan else None
    person = None
    if needs_pictures and settings.identity:
        person = IdentityDistance(dlib_models() / "dlib_face_recognition_resnet_model_v1.dat")
    for module in (net, guide, judge, vgg, person):
        if module is not None:
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Players(net, guide, judge, vgg, person)


def check_network(config: Config) -> None:
    """Raise UsageError if the hyperparameters make no network: in stage I already, which builds only a part of it."""
    try:
        with torch.device("meta"):  # shapes without memory
            CodeFormer.from_config(config)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(f"training settings: [network] cannot be built: {error}") from error


def check_start(net: CodeFormer, init: Path, stage: int) -> None:
    """Raise WeightsError unless the file gave the stage all that the stages before it train."""
    given = read_state(init)[0]
    homes = ("encoder", "quantize", "generator", *(TRANSFORMER if stage == 3 else ()))
    own = {name: t.shape for name, t in net.state_dict().items() if name.split(".")[0] in homes}
    lacking = [name for name, shape in own.items() if name not in given or given[name].shape != shape]
    if lacking:
        raise WeightsError(
            f"{init}: not what stage {stage} of this network starts from: {len(lacking)} of {len(own)} tensors of "
            f"{', '.join(homes)} are missing or of another shape (first: {lacking[0]})"
        )


def compile_players(players: Players) -> None:
    """Let torch.compile translate what a step spends its time in; names and weights stay as they are.

    Raises:
        UsageError: PyTorch is too old for it.
    """
    if not hasattr(torch.compiler, "set_stance"):  # without it, each validation would be translated anew
        raise UsageError("training settings: compile needs PyTorch 2.6 or newer")
    net: Any = players.net
    if isinstance(net, CodeFormer):
        for name in ("encode_features", "predict_logits", "decode_latent"):
            setattr(net, name, torch.compile(getattr(net, name)))
    else:
        net.encoder.compile()
        net.generator.compile()
    for judge in (players.perceptual, players.identity):
        if judge is not None:
            judge.compile()


@torch.no_grad()
def start_identity(net: CodeFormer) -> None:
    """Start CFT as doing nothing, and the skip of pixels, where there is one, as copying."""
    levels: Any = net.fuse_convs_dict
    for fuse in levels.values():
        for branch in (fuse.scale, fuse.shift):
            branch[-1].weight.mul_(0.1)
            branch[-1].bias.zero_()
    if net.config.pixel_skip:
        skip: Any = net.pixel_skip
        nn.init.dirac_(skip.mix.weight)
        skip.mix.bias.zero_()
        skip.gate.weight.mul_(0.1)
        skip.gate.bias.fill_(3.0)
        levels[max(levels, key=int)].scale[-1].bias.fill_(-1.0)  # at w = 1 the copied pixels stand alone at first


def choose_parameters(net: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """Let only the named modules train, and return their parameters."""
    homes = dict.fromkeys(TRANSFORMER, "transformer") | {"fuse_convs_dict": "fuse", "pixel_skip": "fuse"}
    chosen = []
    for name, parameter in net.named_parameters():
        root = name.split(".")[0]
        parameter.requires_grad_(homes.get(root, root) in names)
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


def make_optimizer(net: nn.Module, trained: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer of the network; codes and positions are tables of vectors, which Muon leaves to AdamW."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trained, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    tables = [p for name, p in net.named_parameters() if name.startswith(("quantize.", "position_emb"))]
    return Muon(trained, settings.lr, settings.betas, settings.weight_decay, tables=tables, scale=settings.muon_scale)
