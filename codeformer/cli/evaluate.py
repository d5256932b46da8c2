"""``codeformer evaluate``: measure networks on faces that they have not seen, or anybody's results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeformer.cli.console import Console
from codeformer.cli.options import add_backend_option, add_message_options
from codeformer.cli.streams import emit
from codeformer.cli.values import decimal
from codeformer.errors import ExitCode, UsageError, WeightsError

if TYPE_CHECKING:
    import torch

    from codeformer.models.file import ModelFile
    from codeformer.options import Precision
    from codeformer.train.evaluate import Candidate, Evaluation
    from codeformer.train.iqa import Fid
    from codeformer.train.metrics import Identity
    from codeformer.train.samples import Question
    from codeformer.train.scores import Measures


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a network on faces it has not seen",
        description="Degrade sharp aligned faces, always in the same way for the same seed, let networks restore "
        "them, and compare with the originals: PSNR, SSIM, LPIPS, identity, and the weave of the networks' grids. Or "
        "compare anybody's results with the originals of the same names. docs/training.md explains the numbers.",
    )
    parser.add_argument(
        "--model", nargs="+", default=["auto"], metavar="NAME|FILE", help="auto, compact, official, or files"
    )
    parser.add_argument("--weights_dir", type=Path, metavar="DIR", help="where downloaded weights lie")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="sharp aligned faces")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="compare the pictures in these folders, whoever made them, with the faces of the same name in --data",
    )
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="with --results: holes by name; PSNR and LPIPS look into them only"
    )
    parser.add_argument("--size", type=int, default=512, metavar="PX", help="with --results: compare at PX x PX (512)")
    parser.add_argument("--task", default="restore", choices=("restore", "colorize", "inpaint"))
    parser.add_argument(
        "--degradation",
        choices=("medium", "heavy", "none"),
        help="as in training's stage III (medium) or II (heavy); default: medium for restore, else none",
    )
    parser.add_argument(
        "--holes",
        default="shapes",
        choices=("shapes", "strokes"),
        help="what inpaint has to fill: thin strokes and small shapes, or thick strokes over 5 to 60 %% of the face "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of degradations and masks (default: 0)")
    parser.add_argument(
        "-w", "--w", type=decimal, nargs="+", default=[0.0, 0.5, 1.0], metavar="W", help="default: 0 0.5 1"
    )
    parser.add_argument("--adain", choices=("auto", "on", "off"), default="auto", help="default: as the file was made")
    parser.add_argument(
        "--reduced",
        type=int,
        nargs="+",
        default=[],
        metavar="PX",
        help="also measure the sharp faces, reduced to PX x PX pixels and enlarged again: a ruler for the other lines",
    )
    _add_measures(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only N faces, evenly spread over the folder")
    parser.add_argument("-o", "--output_path", type=Path, metavar="DIR", help="write sheet.png and metrics.json here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics here")
    add_backend_option(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add_message_options(parser)
    parser.set_defaults(run=run)


def _add_measures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distance",
        choices=("lpips", "vgg"),
        default="lpips",
        help="LPIPS as published, or the plain distance of VGG16's features (default: %(default)s)",
    )
    parser.add_argument(
        "--perceptual",
        type=Path,
        metavar="FILE",
        help="VGG16's features and LPIPS's heads; default: torchvision's, and those of the package lpips",
    )
    parser.add_argument(
        "--perceptual_size",
        type=int,
        metavar="PX",
        help="take the perceptual distance of the pictures reduced to PX x PX pixels, as some papers do (default: as "
        "they are)",
    )
    parser.add_argument(
        "--perceptual_layers",
        nargs="+",
        metavar="LAYER",
        help="with --distance vgg: of relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 (default: all five)",
    )
    parser.add_argument("--no_perceptual", action="store_true", help="leave the perceptual distance out: much faster")
    parser.add_argument("--no_identity", action="store_true", help="leave the identity similarity out: faster")
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        choices=("dists", "niqe", "musiq", "fid"),
        metavar="NAME",
        help="further measures by the package pyiqa: dists, niqe, musiq, fid",
    )


def run(args: argparse.Namespace) -> ExitCode:
    """Measure, and print the tables. Raises CodeFormerError."""
    _check(args)
    console = Console(quiet=args.quiet, verbose=args.verbose)
    from codeformer.device import pick_device
    from codeformer.files.atomic import write_atomic
    from codeformer.train.data import list_faces

    for folder in (args.data, *(args.results or ())):
        list_faces(folder)  # a wrong folder is said before the networks are loaded
    other = args.backend in ("onnxruntime", "openvino") and args.device != "cpu"
    device = pick_device("auto" if other else args.device)  # of the measures, which PyTorch computes
    if args.results:
        result, said = _compare(args, console, device)
    else:
        result, said = _evaluate(args, console, device)
    _show(result, args, console)
    report = json.dumps(said | _numbers(result, args), indent=1).encode()
    if args.json:
        write_atomic(args.json, report)
    if args.output_path:
        write_atomic(args.output_path / "metrics.json", report, below=args.output_path)
    if args.output_path and result.sheet:
        _write_sheet(result, args.output_path / "sheet.png")
    return ExitCode.OK


def _check(args: argparse.Namespace) -> None:
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}: at least one face")
    if args.perceptual_size is not None and args.perceptual_size < 32:
        raise UsageError(f"--perceptual_size {args.perceptual_size}: at least 32 pixels, which VGG halves four times")
    if args.no_perceptual and (args.perceptual_size or args.perceptual_layers):
        raise UsageError("--no_perceptual leaves nothing for --perceptual_size and --perceptual_layers")
    if args.perceptual_layers and args.distance == "lpips":
        raise UsageError("--perceptual_layers: LPIPS has all five layers; add --distance vgg")
    if args.masks and not args.results:
        raise UsageError("--masks goes with --results; a network's holes are random: --task inpaint --holes strokes")
    if args.results and args.size < 32:
        raise UsageError(f"--size {args.size}: at least 32 pixels")


def _evaluate(args: argparse.Namespace, console: Console, device: torch.device) -> tuple[Evaluation, dict[str, Any]]:
    """Measure the networks, say what was measured, and return the scores and the report's head."""
    from codeformer.models.file import find_model
    from codeformer.tasks.table import TASKS
    from codeformer.train.evaluate import evaluate, titles_of
    from codeformer.train.samples import Question

    degradation = args.degradation or ("medium" if args.task == "restore" else "none")
    question = Question(args.task, degradation, args.seed, tuple(args.w), args.holes, tuple(args.reduced))
    files = [find_model(word, TASKS[args.task], args.weights_dir) for word in args.model]
    for note in (note for file in files for note in file.notes):
        console.note(note)
    names = titles_of([file.path for file in files]) if len(files) > 1 else [""]
    candidates = [_open(file, name, args) for file, name in zip(files, names, strict=True)]
    measures, fid = _measures(args, console, device)
    with _bar(console) as progress:
        result = evaluate(
            candidates, args.data, question, measures, fid=fid, limit=args.limit, device=device, progress=progress
        )
    for file, candidate in zip(files, candidates, strict=True):
        emit(f"{file.path}: {_described(question)}, AdaIN {'on' if candidate.adain else 'off'}")
    size = candidates[0].size
    emit(f"{len(result.faces)} faces of {args.data}, {size} x {size}")
    models = [
        {"file": str(file.path), "sha256": file.sha256, "adain": candidate.adain, "hole": candidate.hole}
        for file, candidate in zip(files, candidates, strict=True)
    ]
    return result, {"models": models, **asdict(question)}


def _open(file: ModelFile, name: str, args: argparse.Namespace) -> Candidate:
    from codeformer.tasks.table import TASKS
    from codeformer.train.evaluate import Candidate

    adain = file.adain(TASKS[args.task]) if args.adain == "auto" else args.adain == "on"
    return Candidate(_network(file, args), name, adain, file.hole or "white")


def _network(file: ModelFile, args: argparse.Namespace) -> Any:
    """Return a network of PyTorch's, or one on the engine that the options ask for."""
    from codeformer.backends.choose import open_exported, place_for
    from codeformer.options import ModelOptions
    from codeformer.tasks.table import TASKS

    task = TASKS[args.task]
    own = file.exported is not None and args.backend != "openvino"  # ONNX Runtime computes as the file does
    precision: Precision = "auto" if own else "fp32"
    options = ModelOptions(str(file.path), args.weights_dir, args.device, precision, None, args.backend)
    place = place_for(file, task, options)
    return file.build() if place.backend == "torch" else open_exported(file, task, options, place)


def _compare(args: argparse.Namespace, console: Console, device: torch.device) -> tuple[Evaluation, dict[str, Any]]:
    """Measure folders of results, say what was measured, and return the scores and the report's head."""
    from codeformer.train.evaluate import compare

    measures, fid = _measures(args, console, device)
    with _bar(console) as progress:
        result, apart = compare(
            args.results,
            args.data,
            measures,
            size=args.size,
            masks=args.masks,
            fid=fid,
            limit=args.limit,
            device=device,
            progress=progress,
        )
    if apart:
        console.warning(
            f"{len(apart)} results are left out: they have no face of their name in {args.data}, or lack in one of the "
            f"folders (first: {apart[0]})"
        )
    emit(f"{len(result.faces)} faces of {args.data}, {args.size} x {args.size}")
    return result, {"results": [str(folder) for folder in args.results], "masks": args.masks and str(args.masks)}


def _measures(args: argparse.Namespace, console: Console, device: torch.device) -> tuple[Measures, Fid | None]:
    from torch import channels_last  # on a CPU VGG then takes a fifth less time

    from codeformer.train.iqa import Fid, Iqa
    from codeformer.train.perceptual import LAYERS, PerceptualDistance
    from codeformer.train.scores import Measures

    perceptual = None
    if not args.no_perceptual:
        layers = args.perceptual_layers or tuple(LAYERS)
        perceptual = PerceptualDistance(args.perceptual, layers, args.distance).to(device)
        perceptual = perceptual.to(memory_format=channels_last)
    identity = None if args.no_identity else _identity(console)
    iqa, fid = [], None
    for name in args.metrics:
        try:
            if name == "fid":
                fid = Fid(device)
            else:
                iqa.append(Iqa(name, device))
        except WeightsError as error:
            console.warning(str(error))
    return Measures(perceptual, identity, args.perceptual_size, iqa), fid


def _identity(console: Console) -> Identity | None:
    from codeformer.train.metrics import Identity

    try:
        return Identity()
    except UsageError as error:
        console.warning(f"no identity column: {error}")
        return None


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    with console.progress(0, "face") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _show(result: Evaluation, args: argparse.Namespace, console: Console) -> None:
    """Print the tables, and below them whether w keeps its promise."""
    from codeformer.train.scores import ratio_table, table

    if not args.no_perceptual and (args.perceptual_size or args.perceptual_layers):
        of = f" of {', '.join(args.perceptual_layers)}" if args.perceptual_layers else ""
        at = f" at {args.perceptual_size} x {args.perceptual_size}" if args.perceptual_size else ""
        emit(f"perceptual distance{at}{of}")
    emit()
    emit(table(result.means))
    weave = {
        "energy at periods of 4, 8 and 16 pixels in hair and skin, as a ratio to the sharp faces'": result.energies,
        "its peaks over the periods around them, as a ratio to the sharp faces' (above 1.1: a weave)": result.peaks,
    }
    for heading, ratios in weave.items():
        if any(ratios.values()):
            emit()
            emit(heading)
            emit(ratio_table(ratios))
    if by_coverage := result.by_coverage():
        emit()
        emit("distance in the hole, as a ratio to cv2.inpaint's, by the share of the face that is covered (faces)")
        emit(ratio_table(by_coverage))
    if lines := [line for name in result.names for line in _verdicts(result, name)]:
        emit()
        for line in lines:
            emit(line)
    if result.enlarged:
        console.warning(
            f"{len(result.enlarged)} of {len(result.faces)} faces have fewer pixels and were enlarged, "
            f"so they are not sharp originals (first: {result.enlarged[0]})"
        )


def _verdicts(result: Evaluation, name: str) -> Iterator[str]:
    """Say of one network whether PSNR and identity rise with w, and where nothing is gained."""
    by_w, base = result.by_w(name), result.means.get("input", {})
    for measure, rises in result.rising(name).items():
        label = f"{name}: {'PSNR' if measure == 'psnr' else measure}".removeprefix(": ")
        best = max(by_w, key=lambda w: by_w[w][measure])
        behind = base.get(measure, float("-inf")) - by_w[best][measure]
        if behind >= 0:
            gap = f"{behind:.2f} dB" if measure == "psnr" else f"{behind:.4f}"
            yield f"{label} is not above the input's at any w (nearest at w={best:g}, {gap} below)"
        else:
            yield f"{label} {'rises' if rises else 'does not rise'} from w to w"


def _described(question: Question) -> str:
    degradation = question.degradation
    words = [question.task, "no degradation" if degradation == "none" else f"{degradation} degradation"]
    if question.task == "inpaint":
        words.append(f"holes of {question.holes}")
    return ", ".join([*words, f"seed {question.seed}"])


def _numbers(result: Evaluation, args: argparse.Namespace) -> dict[str, Any]:
    from codeformer.version import __version__

    perceptual = None if args.no_perceptual else str(args.perceptual or "torchvision")
    return {
        "codeformer": __version__,
        "data": str(args.data),
        "distance": None if args.no_perceptual else args.distance,
        "perceptual": perceptual,
        "perceptual_size": args.perceptual_size,
        "perceptual_layers": args.perceptual_layers,
        "count": len(result.faces),
        "enlarged": list(result.enlarged),
        "means": result.means,
        "weave": {"energies": result.energies, "peaks": result.peaks},
        "hole_by_coverage": result.by_coverage(),
        "rises_with_w": {name: result.rising(name) for name in result.names},
        "faces": result.faces,
    }


def _write_sheet(result: Evaluation, path: Path) -> None:
    import torch

    from codeformer.train.data import to_tensor
    from codeformer.train.sheets import write_sheet

    columns = [torch.stack([to_tensor(face) for face in faces]) for faces in result.sheet.values()]
    write_sheet(path, columns, list(result.sheet))
