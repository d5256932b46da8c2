"""CodeFormer: a Transformer predicts the codes of the sharp face, CFT blends the input back in.

Paper: Zhou et al., "Towards Robust Blind Face Restoration with Codebook Lookup Transformer", NeurIPS 2022
(arXiv 2206.11253), sections 3.2 and 3.3. Parameter names and shapes are those of the published files, which
are under the S-Lab License 1.0. Written from the paper and the files' names and shapes; Apache-2.0.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.models.attention import self_attend
from codeformer.models.config import Config
from codeformer.models.state import load_into
from codeformer.models.vqgan import ResBlock, VQAutoEncoder


def adaptive_instance_normalization(content: Tensor, style: Tensor, eps: float = 1e-5) -> Tensor:
    """Give `content` the per-channel mean and standard deviation of `style`, both (B, C, h, w).

    Huang and Belongie, ICCV 2017 (arXiv 1703.06868), equation 8.
    """

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.float()
        return x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + eps).sqrt()

    content_mean, content_std = statistics(content)
    style_mean, style_std = statistics(style)
    return ((content - content_mean) / content_std * style_std + style_mean).to(content.dtype)


class TransformerSALayer(nn.Module):
    """Self-attention and feed-forward, each normalised first; the position is added to queries and keys only."""

    def __init__(self, embed_dim: int, nhead: int = 8, dim_mlp: int = 2048) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(embed_dim, nhead)
        self.linear1 = nn.Linear(embed_dim, dim_mlp)
        self.linear2 = nn.Linear(dim_mlp, embed_dim)
        self.norm1 = nn.LayerNorm(embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Map (N, B, C) to (N, B, C), with `position` (N, 1, C)."""
        h = self.norm1(x)
        q = h + position
        x = x + self_attend(self.self_attn, q, h)
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class FuseSFTBlock(nn.Module):
    """Controllable Feature Transformation (paper, equation 5): ``dec + w (scale * dec + shift)``."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * channels, channels, groups)
        self.scale, self.shift = (
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, enc: Tensor, dec: Tensor, w: float | Tensor = 1.0) -> Tensor:
        """Blend encoder into decoder features, both (B, C, h, w); `w` a number or (B, 1, 1, 1)."""
        enc = self.encode_enc(torch.cat((enc, dec), 1))
        if isinstance(w, Tensor):
            w = w.to(dec.dtype)  # a float32 weight would turn all that follows to float32 under autocast
        return dec + w * (dec * self.scale(enc) + self.shift(enc))


class PixelSkip(nn.Module):
    """The folded input, mixed and gated by what the decoder knows, for networks whose finest grid is coarse.

    Where the input is noisy or blurred the gate closes, and what the decoder draws stands alone.
    """

    def __init__(self, channels: int, folded: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, folded, 1)
        self.mix = nn.Conv2d(folded, folded, 1)

    def forward(self, pixels: Tensor, dec: Tensor) -> Tensor:
        """Map the folded input (B, folded, h, w) and the decoder's last features (B, channels, h, w) to a residual."""
        return torch.sigmoid(self.gate(dec)) * self.mix(pixels)


class CodeFormer(VQAutoEncoder):
    """The whole network, with the published arguments.

    Args:
        dim_embd, n_head, n_layers, codebook_size, latent_size, connect_list: see :class:`Config`.
        fix_modules: names of modules whose parameters do not train (the codebook and the generator).
        vqgan_path: a stage I weights file to start from, or None.
        config: describes everything, for other sizes than the published; the arguments above are then ignored.
    """

    def __init__(
        self,
        dim_embd: int = 512,
        n_head: int = 8,
        n_layers: int = 9,
        codebook_size: int = 1024,
        latent_size: int = 256,
        connect_list: Sequence[str] = ("32", "64", "128", "256"),
        fix_modules: Sequence[str] | None = ("quantize", "generator"),
        vqgan_path: str | Path | None = None,
        *,
        config: Config | None = None,
    ) -> None:
        config = config or Config(
            dim_embd=dim_embd,
            n_head=n_head,
            n_layers=n_layers,
            codebook_size=codebook_size,
            latent_size=latent_size,
            connect_list=tuple(connect_list),
        )
        super().__init__(config.img_size, config.nf, config.ch_mult, config=config)
        if vqgan_path is not None:
            load_into(self, Path(vqgan_path), partial=True)
        for name in fix_modules or ():
            getattr(self, name).requires_grad_(False)

        dim = config.dim_embd
        self.position_emb = nn.Parameter(torch.zeros(config.latent_size, dim))
        self.feat_emb = nn.Linear(config.emb_dim, dim)
        self.ft_layers = nn.ModuleList(
            TransformerSALayer(dim, config.n_head, dim_mlp=2 * dim) for _ in range(config.n_layers)
        )
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, config.codebook_size, bias=False))
        grids = [config.img_size // config.stem // 2**i for i in range(len(config.ch_mult))]
        channels = {str(g): config.nf * m for g, m in zip(grids, config.ch_mult, strict=True)}
        if unknown := set(config.connect_list) - set(channels):
            raise ValueError(f"connect_list {sorted(unknown)}: this network's grids are {sorted(channels, key=int)}")
        self.fuse_convs_dict = nn.ModuleDict(
            {size: FuseSFTBlock(channels[size], config.norm_groups) for size in config.connect_list}
        )
        if config.pixel_skip:
            self.pixel_skip = PixelSkip(config.nf * config.ch_mult[0], 3 * config.stem**2)

    @classmethod
    def from_config(cls, config: Config, *, fix_modules: Sequence[str] | None = None) -> "CodeFormer":
        """Build the network that `config` describes; everything trains unless `fix_modules` says otherwise."""
        return cls(config=replace(config), fix_modules=fix_modules)

    def encode_features(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Encode faces (B, 3, S, S) in [-1, 1].

        Returns:
            the latent grid (B, emb_dim, h, w), and the features that CFT blends in, by grid size; with
            ``pixel_skip`` also ``"pixels"``, the folded input.
        """
        x = self.encoder.fold(x)
        wanted = {self.encoder.taps[size]: size for size in self.fuse_convs_dict}
        features = {"pixels": x} if self.config.pixel_skip else {}
        for i, block in enumerate(self.encoder.blocks):
            x = block(x)
            if i in wanted:
                features[wanted[i]] = x
        return x, features

    def predict_logits(self, lq_feat: Tensor) -> Tensor:
        """Predict the code sequence's logits: (B, emb_dim, h, w) -> (B, h w, codebook_size). Paper, section 3.2."""
        position = self.position_emb.unsqueeze(1)  # (h w, 1, C)
        x = self.feat_emb(lq_feat.flatten(2).permute(2, 0, 1))  # (h w, B, C)
        for layer in self.ft_layers:
            x = layer(x, position)
        return self.idx_pred_layer(x).permute(1, 0, 2)

    def decode_codes(
        self,
        codes: Tensor,
        lq_feat: Tensor,
        features: dict[str, Tensor],
        w: float | Tensor = 0.0,
        adain: bool = False,
    ) -> Tensor:
        """Decode codes (B, h w) int64 into faces (B, 3, S, S); the other arguments as :meth:`encode_features` gave."""
        quant = self.quantize.lookup(codes, lq_feat.shape[2:])
        return self.decode_latent(quant, lq_feat, features, w, adain)

    def decode_latent(
        self,
        quant: Tensor,
        lq_feat: Tensor,
        features: dict[str, Tensor],
        w: float | Tensor = 0.0,
        adain: bool = False,
    ) -> Tensor:
        """Decode a latent grid (B, emb_dim, h, w), with CFT scaled by `w` (paper, section 3.3).

        Args:
            quant: the latent grid, of codes' vectors.
            lq_feat: the input's own, (B, emb_dim, h, w), as :meth:`encode_features` gave it.
            features: what CFT blends in, by grid size, as :meth:`encode_features` gave it.
            w: fidelity weight in [0, 1]: a number, or (B, 1, 1, 1), one for each face. At the number 0 CFT is skipped.
            adain: whether the grid takes the statistics of `lq_feat` first.
        """
        x = adaptive_instance_normalization(quant, lq_feat) if adain else quant
        blends = isinstance(w, Tensor) or w > 0
        wanted = {self.generator.taps[size]: size for size in self.fuse_convs_dict} if blends else {}
        *body, head = self.generator.blocks
        for i, block in enumerate(body):
            x = block(x)
            if i in wanted:
                x = self.fuse_convs_dict[wanted[i]](features[wanted[i]], x, w)
        out = head(x)
        if self.config.pixel_skip and blends:
            out = out + w * self.pixel_skip(features["pixels"], x)
        return self.generator.finish(out, x)

    def forward(  # type: ignore[override]
        self, x: Tensor, w: float = 0, detach_16: bool = True, code_only: bool = False, adain: bool = False
    ) -> tuple[Tensor, ...]:
        """Restore faces, as the published network does.

        Args:
            x: (B, 3, S, S) RGB in [-1, 1]; S is 512 for the published network.
            w: fidelity weight in [0, 1]; small is cleaner, large is closer to the input.
            detach_16: whether gradients stop at the code vectors.
            code_only: return before decoding (stage II).
            adain: whether the code vectors take the statistics of the input's latent grid.

        Returns:
            ``(out, logits, lq_feat)``: faces like `x` (not clamped), (B, h w, codebook_size), (B, emb_dim, h, w);
            with `code_only`, ``(logits, lq_feat)``.
        """
        lq_feat, features = self.encode_features(x)
        logits = self.predict_logits(lq_feat)
        if code_only:
            return logits, lq_feat
        quant = self.quantize.lookup(logits.argmax(2), lq_feat.shape[2:])
        if detach_16:
            quant = quant.detach()
        features = {name: feature.detach() for name, feature in features.items()}
        return self.decode_latent(quant, lq_feat, features, w, adain), logits, lq_feat
