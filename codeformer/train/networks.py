"""The networks of a run: what a stage builds, what it starts from, and what of it trains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codeformer.errors import UsageError, WeightsError
from codeformer.faces.identity import dlib_models
from codeformer.faces.recognition import FILE
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.discriminator import PatchDiscriminator
from codeformer.models.load import load_network
from codeformer.models.state import load_into, read_state
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.adversarial import FeatureDiscriminator
from codeformer.train.identity import IdentityDistance
from codeformer.train.muon import Muon
from codeformer.train.perceptual import PerceptualDistance
from codeformer.train.settings import Settings

TRANSFORMER = ("position_emb", "feat_emb", "ft_layers", "idx_pred_layer")


@dataclass(frozen=True)
class Files:
    """The files and folders that a run takes besides its faces; each may be None.

    Attributes:
        init: weights to start from, of the stage before.
        teacher: stage I's weights, whose encoder says the sharp face's codes; in stage II `init` by default.
        perceptual: VGG16's features and LPIPS's heads, see :class:`PerceptualDistance`; None: torchvision's.
        validation: a folder of faces for sheets and metrics.
    """

    init: Path | None = None
    teacher: Path | None = None
    perceptual: Path | None = None
    validation: Path | None = None


@dataclass
class Networks:
    """The networks of a run. ``teacher`` is stage I's encoder and codebook, which say the sharp face's codes."""

    net: VQAutoEncoder | CodeFormer
    teacher: VQAutoEncoder | None = None
    discriminator: nn.Module | None = None
    perceptual: PerceptualDistance | None = None
    identity: IdentityDistance | None = None


def build(settings: Settings, device: torch.device, files: Files) -> Networks:
    """Build the networks of a stage and load what it starts from.

    Raises:
        UsageError: the hyperparameters make no network, of this stage or a later one, or a file is missing.
        WeightsError: a file does not fit.
    """
    check_network(settings.network)
    net = build_net(settings, files.init)
    networks = Networks(net, build_teacher(settings, net, files))
    if settings.stage != 2:
        if settings.perceptual:
            networks.perceptual = make_perceptual(settings, files.perceptual)
        if settings.gan:
            features = settings.discriminator == "features"
            networks.discriminator = FeatureDiscriminator() if features else PatchDiscriminator(settings.ndf)
        if settings.identity:
            networks.identity = make_identity()
    for module in vars(networks).values():
        if module is not None:
            module.to(device, memory_format=torch.channels_last)
    return networks


def build_net(settings: Settings, init: Path | None) -> VQAutoEncoder | CodeFormer:
    """Build the network that trains, of the stage before where there is one."""
    if settings.stage == 1:
        autoencoder = VQAutoEncoder.from_config(autoencoder_of(settings.network))
        if init:
            load_into(autoencoder, init)
        return autoencoder
    if init is None:
        raise UsageError(f"stage {settings.stage} starts from the weights of stage {settings.stage - 1}: --init FILE")
    net = CodeFormer.from_config(settings.network)
    start_identity(net)
    load_into(net, init, partial=True)
    check_start(net, init, settings.stage)
    return net


def build_teacher(settings: Settings, net: nn.Module, files: Files) -> VQAutoEncoder | None:
    """Build stage I's encoder and codebook, fixed, where the losses need the sharp face's codes."""
    if settings.stage == 1 or not (settings.cross_entropy or settings.feature):
        return None
    if settings.stage == 3 and files.teacher is None:
        raise UsageError(
            "cross_entropy and feature need the codes of sharp faces, which stage 1's encoder says: --teacher FILE"
        )
    source = files.teacher or files.init
    loaded: Any = load_network(source) if source else net
    teacher = VQAutoEncoder.from_config(autoencoder_of(loaded.config))
    own = teacher.state_dict()
    teacher.load_state_dict({n: t for n, t in loaded.state_dict().items() if n in own})
    return teacher.requires_grad_(False).eval()


def autoencoder_of(config: Config) -> Config:
    """Return the hyperparameters of a network's autoencoder, which stage I trains."""
    return replace(config, n_layers=0, connect_list=(), pixel_skip=False)


def make_perceptual(settings: Settings, weights: Path | None) -> PerceptualDistance:
    """Build the perceptual distance of the settings."""
    return PerceptualDistance(weights, settings.perceptual_layers, settings.perceptual_kind)


def make_identity() -> IdentityDistance:
    """Build the identity loss.

    Raises:
        UsageError: the extra that brings its network is missing.
    """
    try:
        folder = dlib_models("the identity loss")
    except UsageError as error:
        raise UsageError(f"{error}; or go without it: --set identity=0.0") from error
    return IdentityDistance(folder / FILE)


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


def compile_networks(networks: Networks) -> None:
    """Let torch.compile translate what a step spends its time in; names and weights stay as they are.

    Raises:
        UsageError: PyTorch is too old for it.
    """
    if not hasattr(torch.compiler, "set_stance"):  # without it, each validation would be translated anew
        raise UsageError("training settings: compile needs PyTorch 2.6 or newer")
    net: Any = networks.net
    if isinstance(net, CodeFormer):
        for name in ("encode_features", "predict_logits", "decode_latent"):
            setattr(net, name, torch.compile(getattr(net, name)))
    else:
        net.encoder.compile()
        net.generator.compile()
    if networks.perceptual is not None:
        networks.perceptual.vgg.compile()
    if networks.identity is not None:
        networks.identity.compile()


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
    """Return the optimizer of the network.

    Codes and positions are tables of vectors, which Muon leaves to AdamW. With ``refine_lr`` the refinement is a group
    of AdamW's with a rate of its own: ``times`` says how many times the run's.
    """
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    apart = [p for p in trained if settings.refine_lr and names[id(p)].startswith("generator.refine.")]
    chosen = {id(p) for p in apart}
    rest = [p for p in trained if id(p) not in chosen]
    if settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(rest, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    else:
        tables = [p for name, p in net.named_parameters() if name.startswith(("quantize.", "position_emb"))]
        optimizer = Muon(
            rest, settings.lr, settings.betas, settings.weight_decay, tables=tables, scale=settings.muon_scale
        )
    if apart:
        optimizer.add_param_group({"params": apart, "times": settings.refine_lr / settings.lr})
    return optimizer


def make_discriminator_optimizer(discriminator: nn.Module | None, settings: Settings) -> torch.optim.Optimizer | None:
    """Return the optimizer of the discriminator, AdamW, at its own rate or at the network's."""
    if discriminator is None:
        return None
    rate = settings.discriminator_lr or settings.lr
    optimizer = torch.optim.AdamW(
        discriminator.parameters(), rate, betas=settings.discriminator_betas, weight_decay=0.0
    )
    optimizer.param_groups[0]["times"] = rate / settings.lr
    return optimizer
