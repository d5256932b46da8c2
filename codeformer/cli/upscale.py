"""``codeformer upscale``: super-resolution of whole pictures, without looking for faces."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.cli.console import Console
from codeformer.cli.many import add_engine_options, add_json_option, add_many_options, ray_options
from codeformer.cli.one_file import into_file, result_file, take_file
from codeformer.cli.options import (
    PICTURES,
    add_device_options,
    add_dry_run_option,
    add_format_options,
    add_input_options,
    add_max_pixels_option,
    add_message_options,
    add_recursive_option,
    add_resume_options,
    group_of,
)
from codeformer.cli.pictures import PIPE, is_pipe
from codeformer.cli.stores import Spoken, places, without_file_urls
from codeformer.cli.streams import stdout_for_data
from codeformer.cli.values import decimal, number_or
from codeformer.errors import ExitCode
from codeformer.options import UpscaleOptions

if TYPE_CHECKING:
    from codeformer.run.places import Place


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "upscale",
        help="enlarge pictures by super-resolution",
        description="Enlarge whole pictures by super-resolution (Real-ESRGAN, or any file that spandrel knows).",
    )
    add_input_options(parser, PICTURES)
    add_recursive_option(parser)
    add_max_pixels_option(parser)
    add_many_options(group_of(parser, "input"))
    output = group_of(parser, "output")
    output.add_argument(
        "-o",
        "--output_path",
        type=Path,
        required=True,
        metavar="DIR|FILE",
        help="a folder, or for a single picture the result's file; - for stdout",
    )
    add_format_options(output)
    add_json_option(output)
    add_resume_options(parser)
    add_dry_run_option(output)
    quality, speed = group_of(parser, "quality"), group_of(parser, "speed")
    quality.add_argument(
        "-s", "--upscale", type=decimal, default=4.0, metavar="S", help="factor (default: %(default)g)"
    )
    quality.add_argument(
        "--model",
        default="realesrgan",
        metavar="realesrgan|FILE",
        help="the published files, or any file that spandrel knows (default: %(default)s)",
    )
    add_device_options(speed)
    speed.add_argument(
        "--tile",
        type=number_or("auto"),
        default=None,
        metavar="auto|N|0",
        help="side of a tile in pixels, 0 for no tiles (default: auto, by the memory)",
    )
    add_engine_options(speed)
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Enlarge every picture. Raises CodeFormerError when nothing can be done at all."""
    without_file_urls(args)
    console = Console(quiet=args.quiet, verbose=args.verbose, json=args.json)
    with places(args, console, tars=True) as (place, console, spoken):
        return _run(args, console, place, spoken)


def _run(args: argparse.Namespace, console: Console, place: Place, spoken: Spoken) -> ExitCode:
    file = None if PIPE in args.input_path else result_file(args.output_path, args.input_path)
    if file is not None:
        take_file(file, args)
        args.output_path = file.parent
    options = UpscaleOptions(
        inputs=tuple(args.input_path),
        output_path=args.output_path,
        recursive=args.recursive,
        upscale=args.upscale,
        model=args.model,
        tile=args.tile,
        weights_dir=args.weights_dir,
        device=args.device,
        precision=args.precision,
        ext=args.ext,
        quality=args.quality,
        png_level=args.png_level,
        resume=args.resume,
        max_pixels=args.max_pixels,
        shard=args.shard,
        input_list=args.input_list,
        ray=ray_options(args),
    )
    if is_pipe(options.inputs, options.output_path, args):
        from codeformer.run.pipe import upscale_to

        with stdout_for_data() as write:
            return upscale_to(write, options, console)
    from codeformer.run.upscale import plan_upscale, run_upscale

    if args.dry_run:
        from codeformer.cli.dry_run import show_plan

        return show_plan(plan_upscale(options, console, file, place), console, spoken)
    if file is None:
        return run_upscale(options, console, place=place)

    def run(folder: Path) -> ExitCode:
        return run_upscale(replace(options, output_path=folder), console, where=file, place=place)

    return into_file(file, run)
