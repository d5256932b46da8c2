"""``codeformer upscale``: super-resolution of whole pictures, without looking for faces."""

from __future__ import annotations

import argparse
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.cli.console import Console
from codeformer.cli.shared import add_input_options, number_or
from codeformer.errors import CodeFormerError, ExitCode, OutputError, UsageError
from codeformer.options import EXTENSIONS, PRECISIONS

if TYPE_CHECKING:
    from codeformer.inputs import Planned
    from codeformer.upsample import Upsampler


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "upscale",
        help="enlarge pictures by super-resolution",
        description="Enlarge whole pictures by super-resolution (Real-ESRGAN, or any file that spandrel knows).",
    )
    add_input_options(parser)
    parser.add_argument("-o", "--output_path", type=Path, required=True, metavar="FOLDER", help="where results go")
    parser.add_argument("-s", "--upscale", type=float, default=4.0, metavar="S", help="factor (default: %(default)g)")
    parser.add_argument("--model", default="realesrgan", metavar="realesrgan|FILE", help="default: %(default)s")
    parser.add_argument(
        "--tile", type=number_or("auto"), default=None, metavar="auto|N|0", help="pixels of a tile's side; 0: no tiles"
    )
    parser.add_argument("--ext", default="png", choices=EXTENSIONS, help="file format (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG and WebP (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="arithmetic (default: %(default)s)")
    parser.add_argument("--weights_dir", type=Path, metavar="DIR", help="where downloaded weights lie")
    parser.add_argument("--recursive", action="store_true", help="folders within folders too")
    parser.add_argument("--overwrite", action="store_true", help="also what is there already")
    parser.add_argument("--quiet", action="store_true", help="only errors on stderr")
    parser.add_argument("--verbose", action="store_true", help="more on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Enlarge every input; one that fails does not stop the others."""
    if not (isfinite(args.upscale) and 0 < args.upscale <= 16):
        raise UsageError(f"--upscale must lie in (0, 16], not {args.upscale:g}")
    if not 1 <= args.quality <= 100:
        raise UsageError(f"--quality must lie in [1, 100], not {args.quality}")
    if args.output_path.is_file():
        raise UsageError(f"--output_path is a file, not a folder: {args.output_path}")

    from codeformer.inputs import find_inputs, plan
    from codeformer.picture import SUFFIXES
    from codeformer.upsample import make_upsampler

    console = Console(quiet=args.quiet, verbose=args.verbose)
    found = find_inputs(args.input_path, recursive=args.recursive, suffixes=SUFFIXES, root=args.output_path)
    if found.ignored:
        console.note(f"{len(found.ignored)} files do not look like pictures and are left out")
    planned = plan(found.inputs, {})
    upsampler = make_upsampler(
        args.model,
        scale=args.upscale,
        device=args.device,
        precision=args.precision,
        tile=args.tile,
        weights_dir=args.weights_dir,
    )
    console.detail(f"{upsampler.name}: x{upsampler.scale}, {upsampler.device}, {upsampler.precision}")

    sources = {item.path.resolve() for item in planned}
    failed: list[CodeFormerError] = []
    done = kept = 0
    with console.progress(len(planned)) as bar:
        for item in planned:
            try:
                written = _enlarge(item, upsampler, args, sources, console)
                done, kept = done + written, kept + (not written)
            except KeyboardInterrupt:
                left = len(planned) - done - kept - len(failed)
                console.error(f"interrupted: {left} of {len(planned)} left; the same command goes on from here")
                return ExitCode.INTERRUPTED
            except CodeFormerError as error:
                if isinstance(error, OutputError) and isinstance(error.__cause__, OSError) and not done:
                    raise  # a folder that cannot be written; the next picture would fare no better
                console.error(str(error) if str(item.path) in str(error) else f"{item.path}: {error}")
                failed.append(error)
            bar.update()
    parts = [f"{done} of {len(planned)} enlarged"]
    parts += [f"{kept} were there already (--overwrite redoes them)"] if kept else []
    parts += [f"{len(failed)} failed"] if failed else []
    console.note(f"{', '.join(parts)}; results in {args.output_path}")
    return _exit_code(failed, len(planned))


def _enlarge(
    item: Planned, upsampler: Upsampler, args: argparse.Namespace, sources: set[Path], console: Console
) -> bool:
    """One picture; False if its result is there already. Writes are atomic, so what is there is whole."""
    from codeformer.outputs import final_ending
    from codeformer.picture import read_picture, write_picture
    from codeformer.upsample import upsample_picture

    def target(ending: str) -> Path:
        path: Path = args.output_path / f"{item.stem}{ending}"
        if path.resolve() in sources:
            raise UsageError(f"{path} is an input: choose another --output_path or --ext")
        return path

    if args.ext != "same" and target(f".{args.ext}").exists() and not args.overwrite:
        return False
    picture = read_picture(item.path)
    path = target(final_ending(args.ext, picture))
    if path.exists() and not args.overwrite:
        return False
    for warning in picture.warnings:
        console.warning(warning if str(item.path) in warning else f"{item.path}: {warning}")
    write_picture(upsample_picture(picture, upsampler, args.upscale), path, quality=args.quality)
    return True


def _exit_code(failed: list[CodeFormerError], total: int) -> ExitCode:
    """All well: 0. Everything failed for one kind of reason: that reason's. Else 1."""
    codes = {error.exit_code for error in failed}
    if not failed:
        return ExitCode.OK
    return codes.pop() if len(failed) == total and len(codes) == 1 else ExitCode.SOME_FAILED
