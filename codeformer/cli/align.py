"""``codeformer align``: cut aligned faces out of photographs, for training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.cli.console import Console
from codeformer.cli.many import add_engine_options, add_many_options, ray_options
from codeformer.cli.options import (
    add_detector_option,
    add_device_options,
    add_dry_run_option,
    add_message_options,
    add_png_level_option,
    add_recursive_option,
    add_resume_options,
)
from codeformer.cli.stores import Spoken, places, without_file_urls
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode
from codeformer.options import AlignOptions, Demands

if TYPE_CHECKING:
    from codeformer.run.places import Place


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "align",
        help="cut aligned faces out of photographs, for training",
        description="Find the faces of photographs, turn and scale them to the template that the networks know, leave "
        "out the small and the blurred ones, and write the others to a folder, with a report (align.json).",
    )
    parser.add_argument("inputs", nargs="*", type=Path, metavar="IN", help="photographs or folders")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder for the faces")
    add_recursive_option(parser)
    add_many_options(parser)
    parser.add_argument("--size", type=int, default=512, help="side of the crops in pixels (default: %(default)s)")
    parser.add_argument(
        "--enlarge",
        action="store_true",
        help="bring smaller faces to --size, which training then takes for sharp; without, they are written smaller",
    )
    parser.add_argument(
        "--min_size",
        type=float,
        default=256.0,
        metavar="PIXELS",
        help="leave out faces whose square, about 4 eye distances, is smaller in the photograph (default: %(default)g)",
    )
    parser.add_argument(
        "--min_sharpness",
        type=float,
        default=80.0,
        metavar="N",
        help="leave out faces whose Laplacian has a smaller variance; sharp ones have 130 to 450 (default: "
        "%(default)g)",
    )
    parser.add_argument("--det_threshold", type=float, default=0.7, metavar="P", help="least score (default: 0.7)")
    add_detector_option(parser)
    add_device_options(parser, precision=False)
    parser.add_argument("--ext", default="png", choices=("png", "webp"), help="format (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=95, metavar="1-100", help="of WebP; 100 is lossless")
    add_png_level_option(parser)
    add_resume_options(parser)
    add_dry_run_option(parser)
    add_engine_options(parser)
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Cut the faces out of all photographs, and print the report's path. Raises CodeFormerError."""
    without_file_urls(args)
    console = Console(quiet=args.quiet, verbose=args.verbose)
    with places(args, console, inputs="inputs", output="output") as (place, console, spoken):
        return _run(args, console, place, spoken)


def _run(args: argparse.Namespace, console: Console, place: Place, spoken: Spoken) -> ExitCode:
    demands = Demands(
        size=args.size,
        min_size=args.min_size,
        min_sharpness=args.min_sharpness,
        threshold=args.det_threshold,
        enlarge=args.enlarge,
        ext=args.ext,
        quality=args.quality,
    )
    options = AlignOptions(
        inputs=tuple(args.inputs),
        output_path=args.output,
        recursive=args.recursive,
        demands=demands,
        detection_model=args.detection_model,
        weights_dir=args.weights_dir,
        device=args.device,
        png_level=args.png_level,
        resume=args.resume,
        shard=args.shard,
        input_list=args.input_list,
        ray=ray_options(args),
    )
    from codeformer.run.journal import journal_name
    from codeformer.train.align import REPORT, plan_align, run_align

    if args.dry_run:
        from codeformer.cli.dry_run import show_plan

        return show_plan(plan_align(options, console, place), console, spoken)
    code = run_align(options, console, place=place)
    emit(spoken(str(args.output / (REPORT if args.shard is None else journal_name(REPORT, args.shard)))))
    return code
