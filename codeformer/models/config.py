"""What a network is made of: one description that travels inside the weights file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from codeformer.errors import WeightsError

CONFIG_KEY = "codeformer_config"  # of a weights file's metadata


@dataclass(frozen=True)
class Config:
    """Hyperparameters of a CodeFormer, or of the VQGAN alone (``n_layers == 0``).

    The defaults are those of the published network (Zhou et al. 2022, section 4 and appendix A).

    Attributes:
        img_size: side of the square input and output, in pixels.
        stem: side of the square of pixels that is folded into channels before the first convolution and
            unfolded after the last; 1 is the published network.
        nf: a number of channels, which ``ch_mult`` multiplies level by level, from the finest on.
        res_blocks: residual blocks in each level, of the encoder and of the generator: a number for all levels, or one
            for each from the finest on.
        attn_resolutions: grid sizes at which every residual block is followed by self-attention.
        norm_groups: groups of every GroupNorm.
        codebook_size, emb_dim: number of codes, and channels of one code.
        beta: weight of the term of the codebook loss that moves the codes. The paper (equation 2) has it on the other,
            the commitment term; the published networks were trained like this.
        dim_embd, n_head, n_layers: width, heads and depth of the Transformer.
        latent_size: length of the code sequence (the latent grid's area).
        connect_list: grid sizes, as strings, at which CFT blends encoder features in.
        pixel_skip: whether the folded input itself is blended in, gated and scaled by w, at the last convolution:
            CFT at the level of pixels, for networks whose finest grid is coarser than the picture.
        refine: channels of the convolutions that refine the unfolded picture (``Refine`` in ``vqgan.py``): of the
            first two, which see half the picture's grid with a stem of 4, and of the third, which sees all of it. None:
            the picture comes straight out of the folded cells.
    """

    img_size: int = 512
    stem: int = 1
    nf: int = 64
    ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    res_blocks: int | tuple[int, ...] = 2
    attn_resolutions: tuple[int, ...] = (16,)
    norm_groups: int = 32
    codebook_size: int = 1024
    emb_dim: int = 256
    beta: float = 0.25
    dim_embd: int = 512
    n_head: int = 8
    n_layers: int = 9
    latent_size: int = 256
    connect_list: tuple[str, ...] = ("32", "64", "128", "256")
    pixel_skip: bool = False
    refine: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_bounds(self)
        for name in ("ch_mult", "attn_resolutions", "connect_list"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.res_blocks, int):
            object.__setattr__(self, "res_blocks", tuple(self.res_blocks))
            if len(self.blocks_by_level) != len(self.ch_mult):
                raise ValueError(f"res_blocks {list(self.blocks_by_level)}: one for each of {len(self.ch_mult)} levels")
        if self.refine is not None:
            object.__setattr__(self, "refine", tuple(self.refine))
            if len(self.refine) != 2 or min(self.refine) < 1:
                raise ValueError(f"refine {list(self.refine)}: two numbers of channels, such as [32, 16]")
            if self.stem not in (2, 4, 8):
                raise ValueError(f"refine needs a stem of 2, 4 or 8, not {self.stem}")
        shrink = self.stem * 2 ** (len(self.ch_mult) - 1)
        if self.img_size % shrink:
            raise ValueError(f"img_size {self.img_size} is not a multiple of {shrink}")
        if self.n_layers and self.latent_size != self.latent_side**2:
            raise ValueError(f"latent_size {self.latent_size} is not {self.latent_side} x {self.latent_side}")

    @property
    def latent_side(self) -> int:
        """Side of the latent grid."""
        return self.img_size // self.stem // 2 ** (len(self.ch_mult) - 1)

    @property
    def square_sides(self) -> tuple[int, ...]:
        """How many pixels a cell of each grid is wide, the finest first; neither the coarsest nor single pixels."""
        return tuple(s for level in range(len(self.ch_mult) - 1) if (s := self.stem * 2**level) > 1)

    @property
    def blocks_by_level(self) -> tuple[int, ...]:
        """Residual blocks of each level, from the finest on."""
        return (self.res_blocks,) * len(self.ch_mult) if isinstance(self.res_blocks, int) else self.res_blocks

    def to_json(self) -> str:
        """Return the text that is kept in the weights file's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Read what :meth:`to_json` wrote; unknown keys are a ``ValueError``."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("a Config is a JSON object")
        known = {f.name for f in fields(cls)}
        if unknown := set(data) - known:
            raise ValueError(f"unknown hyperparameters: {', '.join(sorted(unknown))}")
        return cls(**data)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> "Config":
        """Infer the hyperparameters of a published file from its tensors' shapes.

        Only the published family (``stem=1``, a 16-pixel latent grid, 8 heads) is inferred: what shapes do
        not tell (heads, image size, groups) is the same in all its files.

        Raises:
            KeyError: a tensor that every such network has is missing.
        """
        stages = _level_channels(shapes)
        nf = stages[0]
        codebook_size, emb_dim = shapes["quantize.embedding.weight"]
        is_whole = "position_emb" in shapes
        levels = {k.split(".")[1] for k in shapes if k.startswith("fuse_convs_dict.")}
        return cls(
            img_size=16 * 2 ** (len(stages) - 1),
            nf=nf,
            ch_mult=tuple(c // nf for c in stages),
            codebook_size=codebook_size,
            emb_dim=emb_dim,
            dim_embd=shapes["position_emb"][1] if is_whole else cls.dim_embd,
            latent_size=shapes["position_emb"][0] if is_whole else cls.latent_size,
            n_layers=len({k.split(".")[1] for k in shapes if k.startswith("ft_layers.")}),
            connect_list=tuple(sorted(levels, key=int)),
        )


# The least and the most of every number. A file may ask for anything; a network of these sizes is built in a second.
_BOUNDS = {
    "img_size": (1, 8192),
    "stem": (1, 64),
    "nf": (1, 4096),
    "norm_groups": (1, 4096),
    "codebook_size": (1, 1 << 20),
    "emb_dim": (1, 1 << 14),
    "dim_embd": (1, 1 << 14),
    "n_head": (1, 1 << 10),
    "n_layers": (0, 100),
    "latent_size": (1, 1 << 20),
}
_MOST_LEVELS, _MOST_BLOCKS = 12, 100


def _check_bounds(config: Config) -> None:
    """Raise ValueError for a hyperparameter of the wrong kind or out of all proportion."""
    for name, (least, most) in _BOUNDS.items():
        _whole(name, getattr(config, name), least, most)
    for name, least, most in (("ch_mult", 1, 256), ("attn_resolutions", 1, 8192)):
        values = _list(name, getattr(config, name))
        for value in values:
            _whole(name, value, least, most)
    if not config.ch_mult:
        raise ValueError("ch_mult must have a number for each level")
    blocks = config.res_blocks
    for value in [blocks] if isinstance(blocks, int) else _list("res_blocks", blocks):
        _whole("res_blocks", value, 0, _MOST_BLOCKS)
    for value in _list("connect_list", config.connect_list):
        if not isinstance(value, str) or not value.isdecimal() or len(value) > 4:
            raise ValueError(f"connect_list must hold grid sizes as texts, not {value!r:.40}")
    for value in _list("refine", config.refine) if config.refine is not None else ():
        _whole("refine", value, 1, 4096)
    if isinstance(config.beta, bool) or not isinstance(config.beta, int | float) or not 0 <= config.beta <= 1e6:
        raise ValueError(f"beta must be a number of 0 or more, not {config.beta!r:.40}")
    if not isinstance(config.pixel_skip, bool):
        raise ValueError(f"pixel_skip must be true or false, not {config.pixel_skip!r:.40}")


def _whole(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r:.40}")


def _list(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_LEVELS:
        raise ValueError(f"{name} must be a list of at most {_MOST_LEVELS} values, not {value!r:.40}")
    return value


def config_of(shapes: Mapping[str, Sequence[int]], metadata: Mapping[str, str], path: Path) -> Config:
    """Return what a weights file's metadata says of its network, or what the shapes of its tensors tell.

    Raises:
        WeightsError: neither is a network of ours.
    """
    if CONFIG_KEY in metadata:
        try:
            return Config.from_json(metadata[CONFIG_KEY])
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            why = " ".join(str(error).split())[:150]
            raise WeightsError(f"{path}: its metadata describes no network of ours ({why})") from error
    try:
        return Config.from_shapes(shapes)
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError) as error:
        raise WeightsError(f"{path}: the weights of another network, not of CodeFormer or its VQGAN") from error


def _level_channels(shapes: Mapping[str, Sequence[int]]) -> list[int]:
    """Return the encoder's channels level by level; a level ends at a bare ``blocks.N.conv`` (downsampling)."""
    shapes["encoder.blocks.0.weight"]
    ends = sorted(
        int(k.split(".")[2]) for k in shapes if k.startswith("encoder.blocks.") and k.endswith(".conv.weight")
    )
    channels = [int(shapes[f"encoder.blocks.{i}.conv.weight"][0]) for i in ends]
    return [*channels, int(shapes[f"encoder.blocks.{ends[-1] + 1}.conv1.weight"][0])]
