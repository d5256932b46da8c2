"""Change a model's file between and after training runs, as ``weights/TRAINING.md`` tells.

    python scripts/reshape_model.py deepen IN.safetensors OUT.safetensors --res_blocks 4 1 1 1
    python scripts/reshape_model.py refine IN.safetensors OUT.safetensors --channels 32 16
    python scripts/reshape_model.py scale IN.safetensors OUT.safetensors --factor 0.8 [--set KEY=VALUE]...

``deepen`` adds residual blocks to the levels of encoder and generator. What they add starts at 0, so the new network
answers what the old one answered; train it on with ``codeformer train --stage 3 --init OUT.safetensors``. ``scale``
multiplies what CFT and the pixel skip add: w = 1 of the new file is w = FACTOR of the old one. To choose a factor,
compare ``codeformer evaluate --w 0.7 0.8 0.9 1`` on faces that are not those of the exam. ``--set`` changes what the
file says of itself, such as ``licence`` or ``w_colorize`` (the w that a task takes without ``-w``, which ``scale``
leaves as it is); an empty value takes the key out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from codeformer.errors import CodeFormerError, UsageError, WeightsError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import CONFIG_KEY
from codeformer.models.file import open_model
from codeformer.models.load import load_network, save_network
from codeformer.models.vqgan import AttnBlock, Downsample, ResBlock, Upsample


def deepen(net: CodeFormer, res_blocks: Sequence[int]) -> CodeFormer:
    """Return `net` with `res_blocks` residual blocks in its levels, from the finest on: the same function at first.

    Raises:
        UsageError: a level would lose blocks, or there are more or fewer levels; or a level grows that has attention
            and CFT, which would then see what lies behind the attention.
    """
    before = net.config.blocks_by_level
    if len(res_blocks) != len(before) or any(new < old for new, old in zip(res_blocks, before, strict=True)):
        raise UsageError(f"--res_blocks {' '.join(map(str, res_blocks))}: at least {' '.join(map(str, before))}")
    grids = [net.config.img_size // net.config.stem // 2**level for level in range(len(before))]
    for grid, old, new in zip(grids, before, res_blocks, strict=True):
        if new > old and grid in net.config.attn_resolutions and str(grid) in net.config.connect_list:
            raise UsageError(f"--res_blocks: the level of {grid} x {grid} has attention and CFT, it must stay at {old}")
    deeper = CodeFormer.from_config(replace(net.config, res_blocks=tuple(res_blocks)))
    parts = {"encoder": (1, 5), "generator": (4, 2)}
    keep(net, deeper, apart=tuple(f"{name}.blocks." for name in parts))
    for name, (head, tail) in parts.items():
        known = places(net.get_submodule(f"{name}.blocks"), head, tail)
        for place, block in places(deeper.get_submodule(f"{name}.blocks"), head, tail).items():
            if place in known:
                block.load_state_dict(known[place].state_dict())
            else:
                silence(block)
    return deeper.eval().requires_grad_(False)


def refine(net: CodeFormer, channels: Sequence[int]) -> CodeFormer:
    """Return `net` with convolutions of `channels` at the picture's own grid: the same function at first.

    Raises:
        UsageError: it has them already, or `channels` or its stem do not allow them.
    """
    if net.config.refine:
        raise UsageError(f"refine: the network has a refinement of {' '.join(map(str, net.config.refine))} already")
    try:
        config = replace(net.config, refine=tuple(channels))
    except ValueError as error:
        raise UsageError(f"refine: {error}") from error
    refined = CodeFormer.from_config(config)
    keep(net, refined)
    return refined.eval().requires_grad_(False)


def keep(old: CodeFormer, new: CodeFormer, apart: tuple[str, ...] = ()) -> None:
    """Copy the tensors of `old` into `new`, but for those whose name begins with one of `apart`."""
    state = {name: tensor for name, tensor in old.state_dict().items() if not name.startswith(apart or "\0")}
    new.load_state_dict(state, strict=False)


def places(blocks: nn.Module, head: int, tail: int) -> dict[tuple[Hashable, ...], nn.Module]:
    """Name the blocks by what stays when levels grow: their level, their kind, and which of that kind they are."""
    named: dict[tuple[Hashable, ...], nn.Module] = {}
    children = list(blocks.children())
    level = 0
    for i, block in enumerate(children):
        if i < head:
            named["head", i] = block
        elif i >= len(children) - tail:
            named["tail", i - len(children)] = block
        else:
            kind = type(block).__name__
            named[level, kind, sum(key[:2] == (level, kind) for key in named)] = block
            level += isinstance(block, Downsample | Upsample)
    return named


@torch.no_grad()
def silence(block: nn.Module) -> None:
    """Let a block that adds to its input add nothing."""
    if isinstance(block, ResBlock):
        last = block.conv2
    elif isinstance(block, AttnBlock):
        last = block.proj_out
    else:
        raise TypeError(f"a {type(block).__name__} adds nothing to its input")
    for parameter in last.parameters():
        parameter.zero_()


@torch.no_grad()
def scale(net: CodeFormer, factor: float) -> CodeFormer:
    """Multiply, in place, what CFT and the pixel skip add: their last convolutions."""
    for fuse in net.fuse_convs_dict.children():
        for branch in ("scale", "shift"):
            for parameter in list(fuse.get_submodule(branch).children())[-1].parameters():
                parameter.mul_(factor)
    if net.config.pixel_skip:
        for parameter in net.pixel_skip.mix.parameters():
            parameter.mul_(factor)
    return net


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    args = parse(words)
    net = load_network(args.source)
    if not isinstance(net, CodeFormer):
        raise WeightsError(f"{args.source}: the autoencoder of stage 1 alone; a CodeFormer is needed")
    metadata = {key: value for key, value in open_model(args.source).metadata.items() if key != CONFIG_KEY}
    if args.command == "deepen":
        net = deepen(net, args.res_blocks)
    elif args.command == "refine":
        net = refine(net, args.channels)
    else:
        if not 0 < args.factor <= 1:
            raise UsageError(f"--factor {args.factor:g}: above 0, at most 1")
        net = scale(net, args.factor)
        metadata["cft_scale"] = f"{float(metadata.get('cft_scale', 1)) * args.factor:g}"
    for change in args.set:
        key, found, value = change.partition("=")
        if not found or key == CONFIG_KEY:
            raise UsageError(f"--set {change}: write key=value")
        metadata[key] = value
    save_network(net, args.target, {key: value for key, value in metadata.items() if value})
    print(args.target)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.add_argument("source", type=Path, metavar="IN")
        command.add_argument("target", type=Path, metavar="OUT")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the metadata")
        return command

    deeper = add("deepen", "add residual blocks")
    deeper.add_argument("--res_blocks", type=int, nargs="+", required=True, help="of each level, finest first")
    finer = add("refine", "add convolutions at the picture's own grid")
    finer.add_argument("--channels", type=int, nargs=2, default=(32, 16), metavar=("COARSE", "FINE"))
    scaled = add("scale", "scale what w blends in")
    scaled.add_argument("--factor", type=float, required=True, help="above 0, at most 1")
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        main()
    except CodeFormerError as error:
        sys.exit(str(error))
