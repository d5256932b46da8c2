"""``codeformer upscale``: super-resolution of whole pictures, without looking for faces."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer import __version__
from codeformer.cli.console import Console
from codeformer.cli.options import add_input_options, number_or
from codeformer.errors import CodeFormerError, ExitCode, OutputError, UsageError
from codeformer.files.digest import sha256_of
from codeformer.files.paths import file_id, is_file
from codeformer.options import EXTENSIONS, PRECISIONS

if TYPE_CHECKING:
    from codeformer.files.paths import FileId
    from codeformer.run.inputs import Planned
    from codeformer.run.report import Report
    from codeformer.upsampling.upsampler import Upsampler


_REPORT = "upscale.json"  # beside a results.json, which restore and the others may keep in the same folder


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
    parser.add_argument(
        "--overwrite", action="store_true", help="also what is done already, and files of the same names"
    )
    parser.add_argument("--quiet", action="store_true", help="only errors on stderr")
    parser.add_argument("--verbose", action="store_true", help="more on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Enlarge every input; one that fails does not stop the others. Raises CodeFormerError."""
    if not (isfinite(args.upscale) and 0 < args.upscale <= 16):
        raise UsageError(f"--upscale must lie in (0, 16], not {args.upscale:g}")
    if not 1 <= args.quality <= 100:
        raise UsageError(f"--quality must lie in [1, 100], not {args.quality}")
    if is_file(args.output_path):
        raise UsageError(f"--output_path is a file, not a folder: {args.output_path}")

    from codeformer.run.report import Report

    with Report(args.output_path, _REPORT) as report:
        return _run(args, report, Console(quiet=args.quiet, verbose=args.verbose))


def _run(args: argparse.Namespace, report: Report, console: Console) -> ExitCode:
    from codeformer.images.picture import SUFFIXES
    from codeformer.run.inputs import find_inputs, plan
    from codeformer.run.record import now
    from codeformer.upsampling import ncnn as ncnn_weights
    from codeformer.upsampling.networks import find_realesrgan
    from codeformer.upsampling.upsampler import make_upsampler

    if report.damaged:
        console.warning(f"{report.root / report.name} was damaged, is kept as {report.damaged.name} and written anew")
    made = [report.name, report.journal, *(name for known in report.known.values() for name, _ in known.outputs)]
    found = find_inputs(args.input_path, recursive=args.recursive, suffixes=SUFFIXES, root=report.root, results=made)
    if found.ignored:
        console.note(f"{len(found.ignored)} files do not look like pictures and are left out")
    planned = plan(found.inputs, {key: known.stem for key, known in report.known.items()})
    weights_dir = args.weights_dir
    network = find_realesrgan(args.upscale, weights_dir) if args.model == "realesrgan" else Path(args.model)
    upsampler = make_upsampler(
        network,
        scale=args.upscale,
        device=args.device,
        precision=args.precision,
        tile=args.tile,
        weights_dir=weights_dir,
    )
    console.detail(f"{upsampler.name}: x{upsampler.scale}, {upsampler.device}, {upsampler.precision}")

    digest = ncnn_weights.fingerprint(network) if network.suffix == ".param" else sha256_of(network)
    model = {"file": str(network), "sha256": digest}
    settings = {name: getattr(args, name) for name in ("upscale", "ext", "quality", "precision")}
    stamp = hashlib.sha256(json.dumps([settings, model["sha256"], __version__]).encode()).hexdigest()
    header = {"codeformer": __version__, "task": "upscale", "started": now(), "model": model, "settings": settings}
    sources = {identity for item in planned if (identity := file_id(item.path)) is not None}
    tally = _Tally(len(planned))
    try:
        with console.progress(len(planned)) as bar:
            for item in planned:
                _settle(item, stamp, upsampler, args, sources, report, tally, console)
                bar.update()
        tally.state = "finished"
    except KeyboardInterrupt:
        tally.state = "interrupted"
    finally:
        report.finish({**header, "state": tally.state, "finished": now(), "summary": tally.summary()})
    if tally.state == "interrupted":
        left = f"{tally.left} of {tally.total} left"
        console.error(f"interrupted: {left}; the same command goes on from here")
        return ExitCode.INTERRUPTED
    parts = [f"{tally.done} of {tally.total} enlarged"]
    parts += [f"{tally.kept} were there already (--overwrite redoes them)"] if tally.kept else []
    parts += [f"{len(tally.failed)} failed"] if tally.failed else []
    console.note(f"{', '.join(parts)}; results in {report.root}")
    return _exit_code(tally.failed, tally.total)


@dataclass
class _Tally:
    """What came of the inputs so far."""

    total: int
    done: int = 0
    kept: int = 0
    failed: list[CodeFormerError] = field(default_factory=list)
    state: str = "failed"

    @property
    def left(self) -> int:
        return self.total - self.done - self.kept - len(self.failed)

    def summary(self) -> dict[str, int]:
        failed = len(self.failed)
        return {
            "inputs": self.total,
            "done": self.done,
            "done_before": self.kept,
            "failed": failed,
            "left": self.left,
        }


def _settle(
    item: Planned,
    stamp: str,
    upsampler: Upsampler,
    args: argparse.Namespace,
    sources: set[FileId],
    report: Report,
    tally: _Tally,
    console: Console,
) -> None:
    """Do one input, or find it done, and write down what became of it.

    Raises OutputError if nothing could be written so far: the next picture would fare no better.
    """
    from codeformer.run.record import fingerprint_of, naming

    fingerprint, _ = fingerprint_of(item.path, None, stamp)
    known = report.known.get(item.key)
    done = known and fingerprint and known.fingerprint == fingerprint and known.complete(report.root)
    if done and not args.overwrite:
        tally.kept += 1
        return
    made = known.outputs if known else ()

    def note(name: str, status: str, size: int) -> None:
        """Write down what becomes of it, with the results under other settings, which stay ours."""
        others = [{"path": path, "bytes": n} for path, n in made if path != name and (report.root / path).is_file()]
        record = {"input": item.key, "name": item.stem, "status": status, "fingerprint": fingerprint}
        report.append({**record, "outputs": [*others, {"path": name, "bytes": size}], "error": None})

    try:
        mine = {name for name, _ in made}
        name = _enlarge(item, upsampler, args, sources, mine, console, begin=lambda name: note(name, "failed", -1))
    except CodeFormerError as error:
        if isinstance(error, OutputError) and isinstance(error.__cause__, OSError) and not tally.done:
            raise
        console.error(naming(item.path, error))
        tally.failed.append(error)
        return
    note(name, "enlarged", (report.root / name).stat().st_size)
    tally.done += 1


def _enlarge(
    item: Planned,
    upsampler: Upsampler,
    args: argparse.Namespace,
    sources: set[FileId],
    mine: set[str],
    console: Console,
    begin: Callable[[str], None],
) -> str:
    """Enlarge one picture and return its file's name below the output folder, after telling ``begin`` that name.

    What is there and not in ``mine``, the names of this input's earlier results, is somebody else's: UsageError.
    """
    from codeformer.images.picture import read_picture, write_picture
    from codeformer.run.outputs import final_ending
    from codeformer.upsampling.upsampler import upsample_picture

    picture = read_picture(item.path)
    name = f"{item.stem}{final_ending(args.ext, picture)}"
    path: Path = args.output_path / name
    if file_id(path) in sources:
        raise UsageError(f"{path} is an input: choose another --output_path or --ext")
    if name not in mine and os.path.lexists(path) and not args.overwrite:
        raise UsageError(f"{path} is there, but not as its result: choose another --output_path, or --overwrite it")
    for warning in picture.warnings:
        console.warning(warning if str(item.path) in warning else f"{item.path}: {warning}")
    enlarged = upsample_picture(picture, upsampler, args.upscale)
    begin(name)  # a file that a kill leaves is known as ours
    write_picture(enlarged, path, quality=args.quality)
    return name


def _exit_code(failed: list[CodeFormerError], total: int) -> ExitCode:
    """All well: 0. Everything failed for one kind of reason: that reason's. Else 1."""
    codes = {error.exit_code for error in failed}
    if not failed:
        return ExitCode.OK
    return codes.pop() if len(failed) == total and len(codes) == 1 else ExitCode.SOME_FAILED
