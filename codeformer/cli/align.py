"""``codeformer align``: cut aligned faces out of photographs, for training."""

from __future__ import annotations

import argparse
from pathlib import Path

from codeformer.cli.console import Console
from codeformer.cli.options import add_message_options
from codeformer.errors import ExitCode
from codeformer.options import DEFAULT_DETECTOR


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "align",
        help="cut aligned faces out of photographs, for training",
        description="Find the faces of photographs, turn and scale them to the template that the networks know, leave "
        "out the small and the blurred ones, and write the others to a folder, with a report (align.json).",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="photographs or folders")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder for the faces")
    parser.add_argument("--recursive", action="store_true", help="folders within folders too")
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
    parser.add_argument(
        "--detection_model",
        default=DEFAULT_DETECTOR,
        metavar="NAME",
        help="retinaface_mobile0.25, retinaface_resnet50 or dlib (default: %(default)s)",
    )
    parser.add_argument("--weights_dir", type=Path, metavar="DIR", help="where downloaded weights lie")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    parser.add_argument("--ext", default="png", choices=("png", "webp"), help="format (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=95, metavar="1-100", help="of WebP; 100 is lossless")
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Prepare photographs, say on stderr what became of them, and print the report's path. Raises CodeFormerError."""
    console = Console(quiet=args.quiet, verbose=args.verbose)
    from codeformer.faces.find import make_detector
    from codeformer.images.picture import SUFFIXES
    from codeformer.pipeline.restorer import pick_device
    from codeformer.run.inputs import find_inputs
    from codeformer.train.align import REPORT, Demands, align, check_apart

    demands = Demands(
        size=args.size,
        min_size=args.min_size,
        min_sharpness=args.min_sharpness,
        threshold=args.det_threshold,
        enlarge=args.enlarge,
        ext=args.ext,
        quality=args.quality,
    )
    inputs = find_inputs(args.inputs, recursive=args.recursive, suffixes=SUFFIXES, root=args.output).inputs
    check_apart(inputs, args.output)
    device = str(pick_device(args.device))
    detector = make_detector(args.detection_model, device=device, weights_dir=args.weights_dir)
    with console.progress(len(inputs)) as bar:
        outcome = align(inputs, args.output, detector, demands, progress=bar.update)
    for error in outcome.errors.values():
        console.error(str(error))
    counts = {status: outcome.count(status) for status in ("kept", "too small", "too blurred")}
    faceless = sum(entry["status"] == "done" and not entry["faces"] for entry in outcome.entries.values())
    console.note(
        f"{len(inputs)} photographs: {', '.join(f'{n} faces {status}' for status, n in counts.items())}; "
        f"{faceless} without a face, {len(outcome.errors)} failed"
    )
    if not counts["kept"] and not outcome.errors:
        console.warning("no face was kept; see the report for their sizes and sharpness")
    print(args.output / REPORT)
    return outcome.exit_code
