"""``codeformer video``: arguments become options, options one run for each film."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from codeformer.cli.console import Console
from codeformer.cli.options import (
    add_canvas_options,
    add_face_options,
    add_fidelity_option,
    add_input_options,
    add_message_options,
    add_model_options,
    add_resume_options,
    face_work,
)
from codeformer.errors import CodeFormerError, ExitCode, UsageError
from codeformer.tasks.table import TASKS
from codeformer.video.options import TEMPORALS, FilmOptions, check_apart, parse_time

_DESCRIPTION = (
    "Restore the faces in films, with their sound, timing and metadata kept. The same command goes on after a run "
    "that was killed or interrupted."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("video", help="restore the faces in films", description=_DESCRIPTION)
    add_input_options(parser, "films, or a folder or pattern (frame_%%05d.png) of frames")
    add_fidelity_option(parser, TASKS["restore"].default_w, by_model=True)
    _add_film_options(parser)
    add_model_options(parser)
    add_face_options(parser)
    add_canvas_options(parser, 2.0)
    add_resume_options(parser)
    add_message_options(parser)
    parser.set_defaults(run=run, task="restore")


def _add_film_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("film")
    group.add_argument(
        "-o", "--output_path", type=Path, metavar="FILE|DIR", help="default: results/<name>_<w>/<name>.mp4"
    )
    group.add_argument("--suffix", metavar="TEXT", help="added to the name of the result")
    group.add_argument(
        "--temporal",
        default="auto",
        choices=TEMPORALS,
        help="steadiness over time: tracks and smooth landmarks, steady codes too, or everything (default: auto)",
    )
    group.add_argument("--start", metavar="TIME", help="seconds, MM:SS or HH:MM:SS from which on to restore")
    group.add_argument("--end", metavar="TIME", help="up to where")
    group.add_argument("--codec", help="h264 (default), hevc, av1, vp9 (default for .webm), prores_ks or ffv1")
    group.add_argument("--crf", type=int, metavar="N", help="quality, smaller is better (default for h264: 16)")
    group.add_argument("--preset", help="speed of the encoder (default for h264: medium)")
    group.add_argument("--pix_fmt", help="pixel format (default: yuv420p; with hevc and av1 10 bits stay)")
    group.add_argument("--no_audio", action="store_true", help="leave the sound out")
    group.add_argument(
        "--save_video_fps", type=_rate, metavar="N", help="frames per second: of a folder (default 24), or resampled"
    )
    group.add_argument("--save_frames", type=Path, metavar="DIR", help="also write every frame as PNG")
    group.add_argument(
        "--preview", type=int, default=0, metavar="N", help="write only N frames, before and after side by side"
    )
    group.add_argument(
        "--stretch", type=int, default=96, metavar="N", help="frames that are kept together over a kill (default: 96)"
    )


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no frame rate: write 25 or 30000/1001") from None


def run(args: argparse.Namespace) -> ExitCode:
    """Work on each film. One that fails does not stop the others; with a single one its error is raised."""
    inputs: list[Path] = list({os.path.realpath(path): path for path in reversed(args.input_path)}.values())[::-1]
    if len(inputs) > 1 and args.output_path is not None and args.output_path.suffix and not args.output_path.is_dir():
        raise UsageError("--output_path: several films need a folder, not one file")
    first = FilmOptions(
        source=inputs[0],
        output=args.output_path,
        work=face_work(args),
        temporal=args.temporal,
        start=None if args.start is None else parse_time(args.start),
        end=None if args.end is None else parse_time(args.end),
        fps=args.save_video_fps,
        codec=args.codec,
        crf=args.crf,
        preset=args.preset,
        pix_fmt=args.pix_fmt,
        audio=not args.no_audio,
        suffix=args.suffix or None,
        save_frames=args.save_frames,
        preview=args.preview,
        resume=args.resume,
        stretch=args.stretch,
    )
    from codeformer.pipeline.engine import choose_model, settle_w
    from codeformer.video.film import run_film

    task = TASKS[args.task]
    w = settle_w(task, choose_model(task, first.work.model)[0], args.fidelity_weight)
    first = replace(first, work=replace(first.work, w=w))

    console = Console(quiet=args.quiet, verbose=args.verbose)
    if len(inputs) == 1:
        return run_film(first, console)
    films = [replace(first, source=source) for source in inputs]
    check_apart(films)
    codes: list[ExitCode] = []
    for film in films:
        try:
            codes.append(run_film(film, console))
        except CodeFormerError as error:
            console.error(str(error))
            codes.append(error.exit_code)
        if codes[-1] is ExitCode.INTERRUPTED:
            return ExitCode.INTERRUPTED
    if all(code is ExitCode.OK for code in codes):
        return ExitCode.OK
    return codes[0] if len(set(codes)) == 1 else ExitCode.SOME_FAILED
