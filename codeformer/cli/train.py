"""``codeformer train``: one stage of training."""

import argparse
import os
import time
from pathlib import Path

from codeformer.cli.options import add_message_options
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode, OutOfMemoryError, UsageError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a network, one of three stages",
        description="Train one stage: 1 the codebook, 2 the Transformer, 3 Controllable Feature Transformation. "
        "See docs/training.md for a walk through all three.",
    )
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), required=True)
    parser.add_argument("--config", default="compact", metavar="PRESET", help="compact, paper, tiny, or a TOML file")
    parser.add_argument(
        "--data",
        nargs="+",
        action="extend",
        required=True,
        metavar="DIR[=WEIGHT]",
        help="folders of aligned faces, and how often each is sampled (without any weight: by the numbers of pictures)",
    )
    parser.add_argument("-o", "--output_path", type=Path, metavar="DIR", help="default: runs/<config>-stage<N>")
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights of the stage before")
    parser.add_argument(
        "--teacher", type=Path, metavar="FILE", help="stage 1's weights, for the codes; in stage 2 by default --init"
    )
    parser.add_argument("--validation", type=Path, metavar="DIR", help="faces for sample sheets and metrics")
    parser.add_argument(
        "--perceptual",
        type=Path,
        metavar="FILE",
        help="VGG16's features and LPIPS's heads; default: torchvision's and the package lpips's",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint, exactly")
    parser.add_argument("--time_limit", type=duration, metavar="TIME", help="stop cleanly after, e.g., 20m, 3h, 90s")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change settings of the preset"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Train, and print the weights file's path. Raises CodeFormerError."""
    started = time.monotonic()  # before PyTorch, whose import takes seconds
    from codeformer.device import is_out_of_memory
    from codeformer.train.data import Folder
    from codeformer.train.loop import train
    from codeformer.train.networks import Files
    from codeformer.train.settings import load_settings

    settings = load_settings(args.config, args.stage, args.set)
    name = Path(args.config).stem
    try:
        model = train(
            settings,
            [Folder.parse(text) for text in args.data],
            args.output_path or Path("runs") / f"{name}-stage{args.stage}",
            files=Files(args.init, args.teacher, args.perceptual, args.validation),
            resume=args.resume,
            time_limit=args.time_limit and args.time_limit - (time.monotonic() - started),
            device=args.device,
            quiet=args.quiet,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        share = settings.batch_size // int(os.environ.get("WORLD_SIZE", 1))
        more = next((n for n in range(settings.accumulate + 1, share + 1) if share % n == 0), None)
        way_out = f"compute it in more: --set accumulate={more}" if more else "take a smaller batch_size or network"
        raise OutOfMemoryError(
            f"a step of {settings.batch_size} faces in {settings.accumulate} part(s) does not fit into the memory; "
            f"{way_out} (with --resume if there is a checkpoint)"
        ) from error
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        emit(model)
    return ExitCode.OK


def duration(text: str) -> float:
    """Read ``90``, ``90s``, ``20m`` or ``3h`` as seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    scale = units.get(text[-1:].lower())
    try:
        seconds = float(text[:-1] if scale else text) * (scale or 1)
    except ValueError:
        seconds = 0
    if seconds <= 0:
        raise UsageError(f"--time_limit {text}: write a time like 90s, 20m or 3h")
    return seconds
