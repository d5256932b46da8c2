"""``codeformer export``: a network as ONNX, for other engines and programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.cli.console import Console
from codeformer.cli.options import add_message_options, add_weights_folder_option
from codeformer.cli.streams import emit
from codeformer.errors import ExitCode
from codeformer.tasks.table import TASKS

if TYPE_CHECKING:
    import numpy as np


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "export",
        help="write a network as ONNX",
        description="Write a network as an ONNX file that takes aligned faces and w. It is compared with PyTorch "
        "before it gets its name. docs/export.md tells how to use it in another program.",
    )
    parser.add_argument("-o", "--output_path", type=Path, required=True, metavar="FILE.onnx", help="the file")
    parser.add_argument("--model", default="auto", metavar="NAME|FILE", help="auto, compact, official, or a file")
    parser.add_argument("--task", default="restore", choices=tuple(TASKS), help="default: restore")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"), help="of weights and arithmetic")
    parser.add_argument(
        "--split", action="store_true", help="two files, FILE_encoder.onnx and FILE_decoder.onnx, with codes between"
    )
    parser.add_argument("--verify", action="store_true", default=True, help="compare with PyTorch (default)")
    parser.add_argument("--no_verify", action="store_false", dest="verify", help="leave the comparison out")
    parser.add_argument("--faces", type=Path, metavar="DIR", help="aligned faces to compare on; else pictures it draws")
    add_weights_folder_option(parser)
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Write the files, say how near they come to PyTorch, and print their paths."""
    from codeformer.export.files import ExportOptions, export
    from codeformer.models.file import find_model

    options = ExportOptions(args.output_path, args.precision, args.split, args.verify)
    console = Console(quiet=args.quiet, verbose=args.verbose)
    task = TASKS[args.task]
    model = find_model(args.model, task, args.weights_dir)
    for note in model.notes:
        console.note(note)
    result = export(model, task, options, _faces(args.faces, model.config.img_size))
    if result.comparison is not None:
        console.note(f"compared with PyTorch at w = 0, 0.5 and 1: {result.comparison}")
    for path in result.paths:
        emit(str(path))
    return ExitCode.OK


def _faces(folder: Path | None, size: int) -> np.ndarray | None:
    if folder is None:
        return None
    import numpy as np

    from codeformer.train.data import list_faces, read_face

    return np.stack([read_face(path, size)[0] for path in list_faces(folder)[:8]])
