"""What a training run does: a TOML preset, a stage, and what the command line changes."""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

from codeformer.errors import UsageError
from codeformer.files.atomic import reason
from codeformer.files.opening import read_regular
from codeformer.models.config import Config

PRECISIONS = ("fp32", "bf16", "fp16")
_KINDS: Mapping[Any, Any] = {int: (int, "a whole number"), float: ((int, float), "a number")}
MODULES = ("encoder", "quantize", "generator", "transformer", "fuse")
# What the discriminator of features sees. VGG's last block takes steps of 16 pixels: it knows faces, not hair and skin.
FEATURE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
_LARGEST = 1 << 20  # bytes of a preset
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "stage": (1, 2, 3),
    "precision": PRECISIONS,
    "optimizer": ("adamw", "muon"),
    "schedule": ("constant", "cosine"),
    "hole": ("white", "smear"),
    "discriminator": ("patch", "features"),
    "perceptual_kind": ("lpips", "vgg"),
}
_POSITIVE = (
    *("steps", "batch_size", "accumulate", "lr", "ndf", "pixel_reduced", "adaptive_limit"),
    *("log_every", "sheet_every", "validate_every", "save_every", "validation"),
)
_NOT_NEGATIVE = ("seed", "workers", "warmup", "clip", "refine_lr", "discriminator_lr", "gan_start", "gan_warmup")
Check = tuple[str, bool, str]  # a setting, whether it is right, and what is wrong otherwise


@dataclass(frozen=True)
class Settings:
    """One stage of one run. A weight of 0 switches a loss off, and what only it needs is not built.

    ``docs/training.md`` explains every setting in a table; here stands what type and default do not say.

    Attributes:
        network: the network's hyperparameters.
        stage: 1 the codebook, 2 the Transformer, 3 CFT.
        batch_size: faces a step, over all processes and accumulated parts.
        accumulate: parts that a process's share of the batch is computed in.
        optimizer: of the network, ``adamw`` or ``muon`` (:class:`Muon`); the discriminator's is AdamW.
        refine_lr, discriminator_lr: rates of their own for the refinement and the discriminator; 0 is `lr`.
        schedule: ``constant`` or ``cosine`` to a twentieth, of all rates.
        ema, ema_warmup: decay of the averaged weights, and whether it begins lower.
        degradations: names or tables of ranges, see :mod:`codeformer.train.degrade`.
        fidelity: the w of stage III: numbers, and ``"any"`` for uniform in [0, 1], each as likely.
        straight_through: whether the pictures' losses also train the codes' logits, through the softmax.
        detach_features: whether the pictures' losses stop before the features that CFT blends in.
        pixel_reduced: by how much faces are reduced before the L1 loss compares them.
        discriminator: ``patch``, which sees faces, or ``features``, which sees what the perceptual loss sees.
        perceptual_kind: ``lpips`` or ``vgg``, see :class:`PerceptualDistance`.
        perceptual_crop: side of the random square that VGG sees; 0: the whole face.
        perceptual_scales: chances that the square is cut from the face at whole, half and quarter size.
    """

    network: Config = field(default_factory=Config)
    stage: int = 1
    steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    optimizer: str = "adamw"
    muon_scale: float = 0.2
    lr: float = 1e-4
    refine_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: str = "constant"
    clip: float = 0.0
    ema: float = 0.995
    ema_warmup: bool = True
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    workers: int = 1
    degradations: tuple[Any, ...] = ("heavy",)
    tasks: Mapping[str, float] = field(default_factory=lambda: {"restore": 1.0})
    hole: str = "white"
    cover: float = 0.0
    strokes: float = 0.0
    train: tuple[str, ...] = MODULES
    fidelity: tuple[Any, ...] = (1.0,)
    adain: bool = False
    straight_through: bool = False
    detach_features: bool = False
    pixel: float = 1.0
    pixel_reduced: int = 1
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
    discriminator: str = "patch"
    discriminator_lr: float = 0.0
    discriminator_betas: tuple[float, float] = (0.9, 0.99)
    adaptive: bool = True
    adaptive_limit: float = 1.0
    gan_start: int = 0
    gan_warmup: int = 0
    perceptual_kind: str = "lpips"
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
        for name, ok, text in chain(self._types(), self._choices(), self._ranges()):
            if not ok:
                raise UsageError(f"training settings: {name}{text}")

    def _types(self) -> Iterator[Check]:
        for f in fields(self):
            value, default = getattr(self, f.name), f.default
            kind, name = _KINDS.get(f.type, (type(default) if isinstance(default, (bool, str, tuple)) else object, ""))
            right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            yield f.name, right, f" must be {name or f'like {default!r}'}, not {value!r}"

    def _choices(self) -> Iterator[Check]:
        for name, allowed in _CHOICES.items():
            yield name, getattr(self, name) in allowed, f" must be {' or '.join(map(str, allowed))}"
        yield "train", bool(self.train) and set(self.train) <= set(MODULES), f": one or more of {', '.join(MODULES)}"
        yield "tasks", isinstance(self.tasks, Mapping), ": a table of chances, such as {restore=1, inpaint=0.5}"
        yield "tasks", set(self.tasks) <= {"restore", "colorize", "inpaint"}, ": unknown name"
        shares = list(self.tasks.values())
        numbers = all(isinstance(share, int | float) and 0 <= share < math.inf for share in shares)
        yield "tasks", numbers and sum(shares) > 0, ": chances from 0 on, not all 0"
        numbers = all(w == "any" or (isinstance(w, int | float) and 0 <= w <= 1) for w in self.fidelity)
        yield "fidelity", bool(self.fidelity) and numbers, ": numbers in [0, 1] or 'any'"
        yield "degradations", bool(self.degradations), ": one or more"
        if self.perceptual and self.stage != 2:
            plain = self.perceptual_kind != "lpips" or len(set(self.perceptual_layers)) == 5
            yield "perceptual_layers", plain, ": LPIPS has all five; leave them out, or set perceptual_kind=vgg"
        if self.gan and self.discriminator == "features" and self.stage != 2:
            seen = bool(self.perceptual and self.perceptual_crop)
            yield "discriminator", seen, ": features needs perceptual and perceptual_crop above 0, whose VGG it sees"
            yield "discriminator", not self.adaptive, ": features has no adaptive weight; set adaptive=false"
            layers = set(FEATURE_LAYERS) <= set(self.perceptual_layers)
            yield "discriminator", layers, f": features needs perceptual_layers {', '.join(FEATURE_LAYERS)}"

    def _ranges(self) -> Iterator[Check]:
        for name in _POSITIVE:
            yield name, getattr(self, name) > 0, " must be positive"
        for name in _NOT_NEGATIVE:
            yield name, getattr(self, name) >= 0, " must not be negative"
        yield "grid", not self.grid or bool(self.network.square_sides), " needs a network of more grids than one"
        yield "ema", 0 <= self.ema < 1, " must be in [0, 1)"
        for name in ("cover", "strokes"):
            yield name, 0 <= getattr(self, name) <= 1, " must be in [0, 1]"
        most = self.network.img_size // 2
        right = 0 <= self.perceptual_crop <= most
        yield "perceptual_crop", right, f": at most {most}, half of img_size (0: the whole face)"
        scales = self.perceptual_scales
        right = len(scales) == 3 and min(scales) >= 0 and scales[0] > 0 and scales[1] > 0
        yield "perceptual_scales", right, ": three chances, of which the first two are above 0"


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
    try:
        data = tomllib.loads(_read_preset(preset))
    except RecursionError as error:
        raise UsageError(f"{preset}: its tables and lists are nested too deeply") from error
    except ValueError as error:  # TOML's own error, a number of thousands of digits, or no UTF-8
        raise UsageError(f"{preset}: not TOML: {reason(error)}") from error
    network = data.pop("network", {})
    by_stage = {n: data.pop(f"stage{n}", {}) for n in (1, 2, 3)}
    for name, table in (("network", network), *((f"stage{n}", table) for n, table in by_stage.items())):
        if not isinstance(table, dict):
            raise UsageError(f"{preset}: [{name}] is a table of settings")
    values: dict[str, Any] = {**data, **by_stage[stage], "stage": stage}
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


def _read_preset(preset: str) -> str:
    if preset.endswith(".toml"):
        try:
            return read_regular(Path(preset), _LARGEST).decode()
        except OSError as error:
            raise UsageError(f"{preset}: cannot be read: {reason(error)}") from error
    if preset in preset_names():
        return (resources.files("codeformer.train.presets") / f"{preset}.toml").read_text(encoding="utf-8")
    raise UsageError(f"--config {preset}: no such preset (there are {', '.join(preset_names())}, or FILE.toml)")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text
