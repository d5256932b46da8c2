"""``codeformer video``: restore the faces in films."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.cli.asked import face_work
from codeformer.cli.console import Console
from codeformer.cli.many import add_engine_options, add_shard_option, ray_options
from codeformer.cli.options import (
    add_canvas_options,
    add_dry_run_option,
    add_face_options,
    add_fidelity_option,
    add_input_options,
    add_message_options,
    add_model_options,
    add_png_level_option,
    add_resume_options,
    add_strength_option,
    group_of,
)
from codeformer.cli.stores import film_places, without_file_urls
from codeformer.errors import ExitCode
from codeformer.options import RayOptions
from codeformer.tasks.table import TASKS
from codeformer.video.options import DEINTERLACE, TEMPORALS, FilmOptions, parse_time

if TYPE_CHECKING:
    from codeformer.run.places import FilmPlace

_DESCRIPTION = (
    "Restore the faces in films, with their sound, timing and metadata kept. The same command goes on after a run "
    "that was killed or interrupted."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("video", help="restore the faces in films", description=_DESCRIPTION)
    add_input_options(
        parser, "films, folders of films, URLs of these, or a folder or pattern (frame_%%05d.png) of frames"
    )
    add_shard_option(group_of(parser, "input"))
    _add_output_options(parser)
    add_resume_options(parser)
    add_dry_run_option(group_of(parser, "output"))
    _add_film_options(parser)
    add_face_options(parser)
    add_fidelity_option(parser, TASKS["restore"].default_w, by_model=True)
    add_strength_option(parser)
    add_model_options(parser)
    add_canvas_options(parser, None)
    add_engine_options(group_of(parser, "speed"))
    add_message_options(parser)
    parser.set_defaults(run=run, task="restore")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = group_of(parser, "output")
    group.add_argument(
        "-o",
        "--output_path",
        type=Path,
        metavar="FILE|DIR",
        help="the film that is made, or its folder, also as a URL (default: results/<name>_<w>/<name>.mp4)",
    )
    group.add_argument("--suffix", metavar="TEXT", help="added to the name of the result")


def _add_film_options(parser: argparse.ArgumentParser) -> None:
    group = group_of(parser, "film")
    group.add_argument(
        "--temporal",
        default="auto",
        choices=TEMPORALS,
        help="steadiness over time: tracks and smooth landmarks, steady codes too, or everything (default: auto)",
    )
    group.add_argument("--start", metavar="TIME", help="seconds, MM:SS or HH:MM:SS from which on to restore")
    group.add_argument("--end", metavar="TIME", help="up to where")
    group.add_argument(
        "--codec",
        help="h264 (default; HDR: hevc), hevc, av1, vp9 (default for .webm), prores_ks, ffv1, or a card's: hevc_nvenc",
    )
    group.add_argument("--crf", type=int, metavar="N", help="quality, smaller is better (default for h264: 16)")
    group.add_argument("--preset", help="speed of the encoder (default for h264: medium)")
    group.add_argument("--pix_fmt", help="pixel format (default: yuv420p; with hevc and av1 10 bits stay)")
    group.add_argument("--no_audio", action="store_true", help="leave the sound out")
    group.add_argument(
        "--save_video_fps", type=_rate, metavar="N", help="frames per second: of a folder (default 24), or resampled"
    )
    group.add_argument(
        "--fps",
        type=_rate,
        metavar="N",
        help="rate of an input without a clock (frames: 24, .mjpeg, .h264: 25)",
    )
    group.add_argument("--stream", type=int, metavar="N", help="which video stream is the film (default: by its merit)")
    group.add_argument(
        "--deinterlace",
        default="auto",
        choices=DEINTERLACE,
        help="make frames of an interlaced film's fields (auto: where flags or combs show them), or undo telecine",
    )
    group.add_argument("--save_frames", type=Path, metavar="DIR", help="also write every frame as PNG")
    add_png_level_option(group)
    group.add_argument(
        "--preview",
        type=int,
        default=0,
        metavar="N",
        help="write only N frames, before and after side by side, into <name>_preview beside the result",
    )
    group.add_argument(
        "--preview_w", type=float, nargs="+", default=[], metavar="W", help="a preview with several w on one sheet"
    )
    group.add_argument(
        "--compare",
        nargs="?",
        const="side",
        choices=("side", "split"),
        help="show before and after beside each other, or split: before in the left half, after in the right one",
    )
    group.add_argument(
        "--stretch", type=int, default=96, metavar="N", help="frames that are kept together over a kill (default: 96)"
    )


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a frame rate: write 25 or 30000/1001") from None


def run(args: argparse.Namespace) -> ExitCode:
    """Restore every film. Raises CodeFormerError when nothing can be done at all, or a single film fails."""
    ray = ray_options(args)
    without_file_urls(args)
    console = Console(quiet=args.quiet, verbose=args.verbose)
    with film_places(args, console) as (place, given, console):
        return _run(args, ray, console, place, given)


def _run(
    args: argparse.Namespace, ray: RayOptions | None, console: Console, place: FilmPlace, given: list[Path]
) -> ExitCode:
    sources: list[Path] = list({os.path.realpath(path): path for path in reversed(given)}.values())[::-1]
    first = FilmOptions(
        source=sources[0],
        output=args.output_path,
        work=face_work(args),
        temporal=args.temporal,
        start=None if args.start is None else parse_time(args.start),
        end=None if args.end is None else parse_time(args.end),
        fps=args.save_video_fps,
        clock=args.fps,
        stream=args.stream,
        deinterlace=args.deinterlace,
        codec=args.codec,
        crf=args.crf,
        preset=args.preset,
        pix_fmt=args.pix_fmt,
        audio=not args.no_audio,
        suffix=args.suffix or None,
        save_frames=args.save_frames,
        png_level=args.png_level,
        preview=args.preview,
        preview_w=tuple(args.preview_w),
        compare=args.compare,
        resume=args.resume,
        stretch=args.stretch,
        w_by_model=args.fidelity_weight is None,
    )
    from codeformer.video.films import run_films

    films = [replace(first, source=source) for source in sources]
    if args.dry_run:
        from codeformer.cli.dry_run import show_plan
        from codeformer.video.dry_run import plan_films

        return show_plan(plan_films(films, console, args.shard), console)
    return run_films(films, console, args.shard, ray, place)
