"""What a training run does: a TOML preset, a stage, and what the command line changes."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from codeformer.errors import UsageError
from codeformer.models.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRECISIONS = ("fp32", "bf16", "fp16")
_KINDS: Mapping[Any, Any] = {int: (int, "a whole number"), float: ((int, float), "a number")}
MODULES = ("encoder", "quantize", "generator", "transformer", "fuse")


@dataclass(frozen=True)
class Settings:
    """One stage of one run. A weight of 0 switches a loss off, and what only it needs is not built.

    Attributes:
        network: the network's hyperparameters.
        stage: 1 the codebook, 2 the Transformer, 3 CFT.
        steps: optimizer steps; batch_size: faces a step, over all processes and accumulated parts; accumulate: parts
            that a process's share is computed in.
        optimizer: of the network, ``adamw`` or ``muon`` (see :class:`Muon`, with its `scale` as muon_scale); the
            discriminator's is AdamW.
        lr, betas, weight_decay, warmup (steps), schedule (``constant`` or ``cosine`` to a twentieth): of both.
        clip: greatest gradient norm, 0 for none. ema: decay of the averaged weights.
        precision: of the forward pass. compile: whether torch.compile translates networks and losses first.
        seed: everything random follows from it. workers: loading processes.
        degradations: names or tables of ranges; hole: what inpainting sees where it fills, ``white`` or ``smear``;
            cover: chance that the hole covers an eye, the nose or the mouth; tasks: chance of each.
        train: which of encoder, quantize, generator, transformer, fuse train.
        fidelity: the w of stage III: a number, or a list of numbers and ``"any"`` (uniform in [0, 1]), each as likely.
        adain: whether stage III decodes with AdaIN. straight_through: whether the pictures' losses also train the
            codes' logits, through the softmax (not in the paper, which keeps the Transformer fixed then).
        pixel, perceptual, identity, gan, codebook, cross_entropy, feature: weights of the losses; identity is the
            squared distance of dlib's descriptions of the person (stage I and III).
        grid: weight of :func:`grid_pattern`, summed over the network's grids but the coarsest (stage I and III).
        face_parts: extra weight of the pixel loss on eyes, nose and mouth.
        adaptive: whether the GAN's weight is scaled by the ratio of gradients. gan_start: its first step.
        hole_weight: extra weight of the pixel loss where inpainting fills. colour_weight: how often the error of colour
            counts in colorization and inpainting, which invent it, against once for the luma.
        perceptual_layers, perceptual_crop: VGG layers, and the side of the random square it sees (0: everything);
            perceptual_scales: chances that the square is cut from the face at whole, half and quarter size.
        vq_start: first step of stage I that quantizes; the codebook is then placed by k-means on the latents.
        codebook_decay: above 0, the codes are moving averages of their latents instead of descending the codebook loss.
        revive: every so many steps codes that are hardly chosen are moved onto latents of the batch; 0: never.
        ndf: width of the discriminator.
        log_every, sheet_every, validate_every, save_every: steps.
        validation: faces a validation looks at.
    """

    network: Config = field(default_factory=Config)
    stage: int = 1
    steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    optimizer: str = "adamw"
    muon_scale: float = 0.2
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: str = "constant"
    clip: float = 0.0
    ema: float = 0.995
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    workers: int = 1
    degradations: tuple[Any, ...] = ("heavy",)
    tasks: Mapping[str, float] = field(default_factory=lambda: {"restore": 1.0})
    hole: str = "white"
    cover: float = 0.0
    train: tuple[str, ...] = MODULES
    fidelity: tuple[Any, ...] = (1.0,)
    adain: bool = False
    straight_through: bool = False
    pixel: float = 1.0
    perceptual: float = 1.0
    identity: float = 0.0
    grid: float = 0.0
    gan: float = 0.0
    codebook: float = 1.0
    cross_entropy: float = 0.5
    feature: float = 1.0
    face_parts: float = 0.0
    hole_weight: float = 3.0
    colour_weight: float = 1.0
    adaptive: bool = True
    gan_start: int = 0
    perceptual_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    perceptual_crop: int = 0
    perceptual_scales: tuple[float, ...] = (0.5, 0.5, 0.0)
    vq_start: int = 0
    codebook_decay: float = 0.0
    revive: int = 0
    ndf: int = 64
    log_every: int = 20
    sheet_every: int = 1000
    validate_every: int = 1000
    save_every: int = 1000
    validation: int = 16

    def __post_init__(self) -> None:
        def check(ok: bool, text: str) -> None:
            if not ok:
                raise UsageError(f"training settings: {text}")

        for f in fields(self):
            value, default = getattr(self, f.name), f.default
            kind, name = _KINDS.get(f.type, (type(default) if isinstance(default, (bool, str, tuple)) else object, ""))
            right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            check(right, f"{f.name} must be {name or f'like {default!r}'}, not {value!r}")
        check(self.stage in (1, 2, 3), f"stage must be 1, 2 or 3, not {self.stage}")
        check(self.steps > 0 and self.batch_size > 0 and self.accumulate > 0, "steps, batch_size, accumulate: positive")
        check(self.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}")
        for name in ("log_every", "sheet_every", "validate_every", "save_every", "validation"):
            check(getattr(self, name) > 0, f"{name} must be positive")
        check(self.hole in ("white", "smear"), "hole must be white or smear")
        check(self.optimizer in ("adamw", "muon"), "optimizer must be adamw or muon")
        check(self.schedule in ("constant", "cosine"), "schedule must be constant or cosine")
        check(not self.grid or bool(self.network.square_sides), "grid needs a network of more grids than one")
        check(0 <= self.ema < 1, "ema must be in [0, 1)")
        check(self.seed >= 0 and self.workers >= 0, "seed and workers: whole numbers from 0 on")
        check(
            bool(self.train) and set(self.train) <= set(MODULES),
            f"train: one or more of {', '.join(MODULES)}",
        )
        check(bool(self.degradations), "degradations: one or more")
        check(isinstance(self.tasks, Mapping), "tasks: a table of chances, such as {restore=1, inpaint=0.5}")
        check(set(self.tasks) <= {"restore", "colorize", "inpaint"}, "tasks: unknown name")
        shares = list(self.tasks.values())
        check(
            all(isinstance(share, int | float) and 0 <= share < math.inf for share in shares) and sum(shares) > 0,
            "tasks: chances from 0 on, not all 0",
        )
        check(
            0 <= self.perceptual_crop <= self.network.img_size // 2,
            f"perceptual_crop: at most {self.network.img_size // 2}, half of img_size (0: the whole face)",
        )
        check(
            len(self.perceptual_scales) == 3
            and min(self.perceptual_scales) >= 0
            and self.perceptual_scales[0] > 0
            and self.perceptual_scales[1] > 0,
            "perceptual_scales: three chances, of which the first two are above 0",
        )
        check(0 <= self.cover <= 1, "cover must be in [0, 1]")
        check(
            bool(self.fidelity)
            and all(w == "any" or (isinstance(w, int | float) and 0 <= w <= 1) for w in self.fidelity),
            "fidelity: numbers in [0, 1] or 'any'",
        )


def preset_names() -> list[str]:
    """Return the names of the presets in the package."""
    folder = resources.files("codeformer.train.presets")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_settings(preset: str, stage: int, changes: Sequence[str] = ()) -> Settings:
    """Read a preset (a name in the package, or a TOML file), for one stage, with ``key=value`` changes on top.

    The file's top level holds what the stages share, ``[network]`` the :class:`Config`, ``[stage1]`` to ``[stage3]``
    what differs.

    Raises:
        UsageError: no such preset, no TOML, an unknown key, or a value out of range.
    """
    if preset.endswith(".toml"):
        try:
            text = Path(preset).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{preset}: cannot be read: {error.strerror}") from error
    elif preset in preset_names():
        text = (resources.files("codeformer.train.presets") / f"{preset}.toml").read_text(encoding="utf-8")
    else:
        raise UsageError(f"--config {preset}: no such preset (there are {', '.join(preset_names())}, or FILE.toml)")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{preset}: not TOML: {error}") from error
    network = data.pop("network", {})
    stages = {n: data.pop(f"stage{n}", {}) for n in (1, 2, 3)}
    values: dict[str, Any] = {**data, **stages[stage], "stage": stage}
    for change in changes:
        key, found, value = change.partition("=")
        if not found:
            raise UsageError(f"--set {change}: write key=value")
        if key == "stage":
            raise UsageError(f"--set {change}: the stage is chosen with --stage")
        target, key = (network, key.removeprefix("network.")) if key.startswith("network.") else (values, key)
        target[key] = _value(value)
    try:
        config = Config(**network)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{preset}: [network]: {error}") from error
    known = {f.name for f in fields(Settings)} - {"network"}
    if unknown := set(values) - known:
        raise UsageError(f"{preset}: unknown settings: {', '.join(sorted(unknown))}")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return replace(Settings(network=config), **values)
    except TypeError as error:
        raise UsageError(f"{preset}: {error}") from error


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text
