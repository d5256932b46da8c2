"""``codeformer evaluate``: measure a network on faces that it has not seen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeformer.cli.console import Console
from codeformer.cli.options import add_message_options
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from codeformer.train.evaluate import Evaluation
    from codeformer.train.metrics import Identity


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a network on faces it has not seen",
        description="Degrade sharp aligned faces, always in the same way for the same seed, let a network restore "
        "them, and compare with the originals: PSNR, SSIM, perceptual distance, identity. docs/training.md explains "
        "the numbers.",
    )
    parser.add_argument("--model", default="auto", metavar="NAME|FILE", help="auto, compact, official, or a file")
    parser.add_argument("--weights_dir", type=Path, metavar="DIR", help="where downloaded weights lie")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="sharp aligned faces")
    parser.add_argument("--task", default="restore", choices=("restore", "colorize", "inpaint"))
    parser.add_argument(
        "--degradation",
        choices=("medium", "heavy", "none"),
        help="as in training's stage III (medium) or II (heavy); default: medium for restore, else none",
    )
    parser.add_argument("--seed", type=int, default=0, help="of degradations and masks (default: 0)")
    parser.add_argument(
        "-w", "--w", type=float, nargs="+", default=[0.0, 0.5, 1.0], metavar="W", help="default: 0 0.5 1"
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
    parser.add_argument("--perceptual", type=Path, metavar="FILE", help="VGG16 features; default: torchvision's")
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
        help="of relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 (default: all five)",
    )
    parser.add_argument("--no_perceptual", action="store_true", help="leave the perceptual distance out: much faster")
    parser.add_argument("--no_identity", action="store_true", help="leave the identity similarity out: faster")
    parser.add_argument("--limit", type=int, metavar="N", help="only N faces, evenly spread over the folder")
    parser.add_argument("-o", "--output_path", type=Path, metavar="DIR", help="write sheet.png and metrics.json here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics here")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Measure, and print the table. Raises CodeFormerError."""
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}: at least one face")
    if args.perceptual_size is not None and args.perceptual_size < 32:
        raise UsageError(f"--perceptual_size {args.perceptual_size}: at least 32 pixels, which VGG halves four times")
    if args.no_perceptual and (args.perceptual_size or args.perceptual_layers):
        raise UsageError("--no_perceptual leaves nothing for --perceptual_size and --perceptual_layers")
    console = Console(quiet=args.quiet, verbose=args.verbose)
    from torch import channels_last  # on a CPU VGG then takes a fifth less time

    from codeformer.files.atomic import write_atomic
    from codeformer.files.digest import sha256_of
    from codeformer.hub.store import resolve_model
    from codeformer.models.load import load_network, read_metadata
    from codeformer.pipeline.engine import trained_with_adain
    from codeformer.pipeline.restorer import pick_device
    from codeformer.tasks.table import TASKS
    from codeformer.train.data import list_faces
    from codeformer.train.evaluate import Measures, Question, evaluate, table
    from codeformer.train.perceptual import LAYERS, PerceptualDistance

    list_faces(args.data)  # a wrong folder is said before the networks are loaded
    model, notes = resolve_model(args.model, args.task, args.weights_dir)
    for note in notes:
        console.note(note)
    adain = trained_with_adain(model, TASKS[args.task].adain) if args.adain == "auto" else args.adain == "on"
    degradation = args.degradation or ("medium" if args.task == "restore" else "none")
    hole = read_metadata(model).get("hole", "white")
    question = Question(args.task, degradation, args.seed, tuple(args.w), adain, hole, tuple(args.reduced))
    device = pick_device(args.device)
    net = load_network(model)
    layers = args.perceptual_layers or tuple(LAYERS)
    perceptual = None if args.no_perceptual else PerceptualDistance(args.perceptual, layers).to(device)
    measures = Measures(
        perceptual and perceptual.to(memory_format=channels_last),
        None if args.no_identity else _identity(console),
        args.perceptual_size,
    )
    with console.progress(0, "face") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = evaluate(net, args.data, question, measures, limit=args.limit, device=device, progress=progress)

    emit(
        f"{model}: {args.task}, {_described(question.degradation)}, seed {args.seed}, AdaIN {'on' if adain else 'off'}"
    )
    emit(f"{len(result.faces)} faces of {args.data}, {net.config.img_size} x {net.config.img_size}")
    if perceptual is not None and (args.perceptual_size or args.perceptual_layers):
        side = args.perceptual_size or net.config.img_size
        emit(f"perceptual distance at {side} x {side} of {', '.join(layers)}")
    emit()
    emit(table(result))
    if result.enlarged:
        console.warning(
            f"{len(result.enlarged)} of {len(result.faces)} faces have fewer pixels and were enlarged, "
            f"so they are no sharp originals (first: {result.enlarged[0]})"
        )
    rising = result.rising()
    if rising:
        emit()
    for name, rises in rising.items():
        emit(f"{'PSNR' if name == 'psnr' else name} {'rises' if rises else 'does not rise'} from w to w")
    report = json.dumps(_report(result, model, sha256_of(model), args), indent=1).encode()
    for path in (args.json, args.output_path and args.output_path / "metrics.json"):
        if path:
            write_atomic(path, report)
    if args.output_path:
        _write_sheet(result, args.output_path / "sheet.png")
    return ExitCode.OK


def _described(degradation: str) -> str:
    return "no degradation" if degradation == "none" else f"{degradation} degradation"


def _identity(console: Console) -> Identity | None:
    from codeformer.train.metrics import Identity

    try:
        return Identity()
    except UsageError as error:
        console.warning(f"no identity column: {error}")
        return None


def _report(result: Evaluation, model: Path, digest: str, args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from codeformer import __version__

    return {
        "codeformer": __version__,
        "model": str(model),
        "model_sha256": digest,
        "data": str(args.data),
        "perceptual": None if args.no_perceptual else str(args.perceptual or "torchvision"),
        "perceptual_size": args.perceptual_size,
        "perceptual_layers": args.perceptual_layers,
        **asdict(result.question),
        "count": len(result.faces),
        "enlarged": list(result.enlarged),
        "means": result.means,
        "rises_with_w": result.rising(),
        "faces": result.faces,
    }


def _write_sheet(result: Evaluation, path: Path) -> None:
    import torch

    from codeformer.train.data import to_tensor
    from codeformer.train.sheets import write_sheet

    columns = [torch.stack([to_tensor(face) for face in faces]) for faces in result.sheet.values()]
    write_sheet(path, columns, list(result.sheet))
