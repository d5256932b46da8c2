"""The VQGAN of stage I: encoder, quantizer and generator.

Paper: Zhou et al., "Towards Robust Blind Face Restoration with Codebook Lookup Transformer", NeurIPS 2022
(arXiv 2206.11253), section 3.1; the autoencoder follows Esser et al., "Taming Transformers", CVPR 2021
(arXiv 2012.09841). Parameter names and shapes are those of the published files. Written from the papers and
the files' names and shapes; Apache-2.0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.models.attention import attend
from codeformer.models.config import Config
from codeformer.models.state import load_into


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """Return the networks' normalisation layer."""
    return nn.GroupNorm(num_groups=groups, num_channels=channels, eps=1e-6)


class ResBlock(nn.Module):
    """Norm, swish, 3x3 convolution, twice, beside a shortcut: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int | None = None, groups: int = 32) -> None:
        super().__init__()
        out_channels = out_channels or in_channels
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_out = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_out(x) if hasattr(self, "conv_out") else x)


class AttnBlock(nn.Module):
    """Single-head self-attention over the grid: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        h = self.norm(x)
        # (B, 1, HW, C): one head, spelled out because the exporter to ONNX knows no attention without heads
        q, k, v = (layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        h = attend(q, k, v).squeeze(1)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halve the grid with a strided 3x3 convolution, padded right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the grid: nearest neighbour, then a 3x3 convolution.

    Computed on the small grid: each of the four output phases sees only a 2x2 neighbourhood of the input, so
    four 2x2 convolutions with summed taps give the same result with 16/36 of the multiplications.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2 h, 2 w)."""
        b, _, h, w = x.shape
        weight = self.conv.weight  # (O, C, 3, 3)
        # Along one axis, an even output sees x[i-1] by tap 0 and x[i] by taps 1+2, an odd one x[i] by 0+1, x[i+1] by 2.
        rows = (
            torch.stack((weight[:, :, 0], weight[:, :, 1] + weight[:, :, 2]), 2),
            torch.stack((weight[:, :, 0] + weight[:, :, 1], weight[:, :, 2]), 2),
        )
        padded = F.pad(x, (1, 1, 1, 1))
        out = x.new_empty(
            (b, h, 2, w, 2, weight.shape[0]), dtype=_conv_dtype(x)
        )  # channels last, as what follows likes
        for i, row in enumerate(rows):
            kernels = (
                torch.stack((row[..., 0], row[..., 1] + row[..., 2]), 3),
                torch.stack((row[..., 0] + row[..., 1], row[..., 2]), 3),
            )
            for j, kernel in enumerate(kernels):
                phase = F.conv2d(padded[:, :, i : i + h + 1, j : j + w + 1], kernel, self.conv.bias)
                out[:, :, i, :, j] = phase.permute(0, 2, 3, 1)
        return out.view(b, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


def _conv_dtype(x: Tensor) -> torch.dtype:
    """Return the type that a convolution of `x` gives, which autocast may lower."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class Encoder(nn.Module):
    """Picture to latent grid: (B, 3, S, S) in [-1, 1] -> (B, emb_dim, s, s).

    ``taps`` maps a grid size to the index of the block whose output CFT reads there: the last residual block
    of the level.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        groups, size = config.norm_groups, config.img_size // config.stem
        channels = config.nf * config.ch_mult[0]
        blocks: list[nn.Module] = [nn.Conv2d(3 * config.stem**2, channels, 3, padding=1)]
        self.stem = config.stem
        self.taps: dict[str, int] = {}
        for level, mult in enumerate(config.ch_mult):
            for _ in range(config.blocks_by_level[level]):
                blocks.append(ResBlock(channels, config.nf * mult, groups))
                self.taps[str(size)] = len(blocks) - 1
                channels = config.nf * mult
                if size in config.attn_resolutions:
                    blocks.append(AttnBlock(channels, groups))
            if level < len(config.ch_mult) - 1:
                blocks.append(Downsample(channels))
                size //= 2
        blocks += [ResBlock(channels, groups=groups), AttnBlock(channels, groups), ResBlock(channels, groups=groups)]
        blocks += [group_norm(channels, groups), nn.Conv2d(channels, config.emb_dim, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)

    def fold(self, x: Tensor) -> Tensor:
        """Fold squares of ``stem`` pixels into channels: (B, 3, S, S) -> (B, 3 stem^2, S/stem, S/stem)."""
        return F.pixel_unshuffle(x, self.stem) if self.stem > 1 else x

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, S, S) to the latent grid (B, emb_dim, h, w)."""
        x = self.fold(x)
        for block in self.blocks:
            x = block(x)
        return x


class Refine(nn.Module):
    """Convolutions at the picture's own grid, after the folded cells were unfolded.

    Pixels that come straight out of folded cells repeat the cells' grid, most of all in dark hair and skin. These see
    the decoder's last features, enlarged, beside the picture, and add what the cells could not draw. They start at
    zero: a network that gets them answers as before.
    """

    def __init__(self, channels: int, coarse: int, fine: int, stem: int) -> None:
        super().__init__()
        self.doublings = stem.bit_length() - 1  # 1 to 3
        self.conv1 = nn.Conv2d(channels, coarse, 3, padding=1)
        self.conv2 = nn.Conv2d(coarse, coarse, 3, padding=1)
        self.conv3 = nn.Conv2d(coarse, fine, 3, padding=1)
        self.conv_out = nn.Conv2d(fine + 3, 3, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: Tensor, features: Tensor) -> Tensor:
        """Refine pictures (B, 3, S, S) with the generator's features before its last block, (B, C, S/stem, S/stem)."""
        x = F.gelu(self.conv1(_double(features)))  # stem 4: (B, coarse, S/2, S/2)
        x = F.gelu(self.conv2(_double(x) if self.doublings > 2 else x))
        x = F.gelu(self.conv3(_double(x) if self.doublings > 1 else x))  # (B, fine, S, S)
        return picture + self.conv_out(torch.cat((x, picture), 1))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Generator(nn.Module):
    """Latent grid to picture: (B, emb_dim, s, s) -> (B, 3, S, S).

    ``taps`` maps a grid size to the index of the block after which CFT acts there: the first residual block of
    the level, and at the coarsest level, where the middle blocks came before, the last.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        groups, size = config.norm_groups, config.latent_side
        channels = config.nf * config.ch_mult[-1]
        blocks: list[nn.Module] = [nn.Conv2d(config.emb_dim, channels, 3, padding=1)]
        blocks += [ResBlock(channels, groups=groups), AttnBlock(channels, groups), ResBlock(channels, groups=groups)]
        self.stem = config.stem
        self.taps: dict[str, int] = {}
        coarsest = len(config.ch_mult) - 1
        for level in reversed(range(len(config.ch_mult))):
            for _ in range(config.blocks_by_level[level]):
                out = config.nf * config.ch_mult[level]
                blocks.append(ResBlock(channels, out, groups))
                if level == coarsest or str(size) not in self.taps:
                    self.taps[str(size)] = len(blocks) - 1
                channels = out
                if size in config.attn_resolutions:
                    blocks.append(AttnBlock(channels, groups))
            if level:
                blocks.append(Upsample(channels))
                size *= 2
        blocks += [group_norm(channels, groups), nn.Conv2d(channels, 3 * config.stem**2, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)
        self.refine = Refine(channels, *config.refine, config.stem) if config.refine else None

    def finish(self, folded: Tensor, features: Tensor) -> Tensor:
        """Unfold and refine the picture.

        Args:
            folded: what the last block gave, (B, 3 stem^2, S/stem, S/stem).
            features: what the last block saw, (B, C, S/stem, S/stem).

        Returns:
            the picture, (B, 3, S, S).
        """
        picture = F.pixel_shuffle(folded, self.stem) if self.stem > 1 else folded
        return self.refine(picture, features) if self.refine is not None else picture

    def forward(self, x: Tensor) -> Tensor:
        """Map a latent grid (B, emb_dim, h, w) to pictures (B, 3, S, S)."""
        *body, head = self.blocks
        for block in body:
            x = block(x)
        return self.finish(head(x), x)


class VectorQuantizer(nn.Module):
    """Nearest-neighbour lookup in the codebook (paper, equation 1), straight-through in the backward pass."""

    def __init__(self, codebook_size: int, emb_dim: int, beta: float) -> None:
        super().__init__()
        self.codebook_size, self.emb_dim, self.beta = codebook_size, emb_dim, beta
        self.embedding = nn.Embedding(codebook_size, emb_dim)
        self.embedding.weight.data.uniform_(-1.0 / codebook_size, 1.0 / codebook_size)

    def distances(self, z: Tensor) -> Tensor:
        """Return squared distances of every cell to every code: (B, C, h, w) -> (B h w, codebook_size).

        In float32, also under autocast: in bfloat16 one cell in a hundred would take another code.
        """
        with torch.autocast(z.device.type, enabled=False):
            flat = z.float().permute(0, 2, 3, 1).reshape(-1, self.emb_dim)
            codes = self.embedding.weight.float()
            return flat.pow(2).sum(1, keepdim=True) + codes.pow(2).sum(1) - 2 * flat @ codes.t()

    def encode(self, z: Tensor) -> Tensor:
        """Return the nearest codes, (B, h w) int64."""
        return self.distances(z).argmin(1).view(z.shape[0], -1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Quantize (B, emb_dim, h, w).

        Returns:
            the quantized grid of the same shape, the codebook loss (paper, equation 2: both terms), and a dict
            with ``min_encoding_indices`` (B h w, 1), ``mean_distance`` and ``perplexity``.
        """
        distances = self.distances(z)
        codes = distances.argmin(1)
        zq = self.lookup(codes.view(z.shape[0], -1), z.shape[2:])
        loss = ((zq.detach() - z) ** 2).mean() + self.beta * ((zq - z.detach()) ** 2).mean()
        zq = z + (zq - z).detach()
        used = torch.bincount(codes, minlength=self.codebook_size).float() / codes.numel()
        stats = {
            "perplexity": torch.exp(-(used * (used + 1e-10).log()).sum()),
            "min_encoding_indices": codes.unsqueeze(1),
            "mean_distance": distances.mean(),
        }
        return zq, loss, stats

    def lookup(self, codes: Tensor, grid: Sequence[int]) -> Tensor:
        """Return the codes' vectors on their grid: (B, h w) int64 -> (B, emb_dim, h, w)."""
        vectors = self.embedding(codes)  # (B, h w, C)
        return vectors.permute(0, 2, 1).reshape(codes.shape[0], self.emb_dim, *grid)


class VQAutoEncoder(nn.Module):
    """Encoder, codebook and generator, with the published arguments.

    Args:
        img_size, nf, ch_mult, res_blocks, attn_resolutions, codebook_size, emb_dim, beta: see :class:`Config`.
        quantizer: only ``"nearest"``, the one that the paper trains.
        model_path: a weights file to load, or None.
        stem, norm_groups: see :class:`Config`.
    """

    def __init__(
        self,
        img_size: int,
        nf: int,
        ch_mult: Sequence[int],
        quantizer: str = "nearest",
        res_blocks: int | tuple[int, ...] = 2,
        attn_resolutions: Sequence[int] = (16,),
        codebook_size: int = 1024,
        emb_dim: int = 256,
        beta: float = 0.25,
        model_path: str | Path | None = None,
        *,
        stem: int = 1,
        norm_groups: int = 32,
        config: Config | None = None,
    ) -> None:
        super().__init__()
        if quantizer != "nearest":
            raise ValueError(f"quantizer must be 'nearest', not {quantizer!r}")
        self.config = config or Config(
            img_size=img_size,
            nf=nf,
            ch_mult=tuple(ch_mult),
            res_blocks=res_blocks,
            attn_resolutions=tuple(attn_resolutions),
            codebook_size=codebook_size,
            emb_dim=emb_dim,
            beta=beta,
            stem=stem,
            norm_groups=norm_groups,
            n_layers=0,
            connect_list=(),
        )
        self.encoder = Encoder(self.config)
        self.quantize = VectorQuantizer(self.config.codebook_size, self.config.emb_dim, self.config.beta)
        self.generator = Generator(self.config)
        if model_path is not None:
            load_into(self, Path(model_path))

    @classmethod
    def from_config(cls, config: Config) -> "VQAutoEncoder":
        """Build the autoencoder that `config` describes."""
        return cls(config.img_size, config.nf, config.ch_mult, config=config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Encode, quantize and decode (B, 3, S, S) in [-1, 1]; return picture, codebook loss and statistics."""
        quant, loss, stats = self.quantize(self.encoder(x))
        return self.generator(quant), loss, stats
