"""The parser of all subcommands, and what is done to the words before argparse sees them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from codeformer import __version__
from codeformer.cli import align, colorize, download, evaluate, inpaint, models, restore, train, upscale, video
from codeformer.errors import UsageError
from codeformer.files.atomic import shown

#: Each adds its subcommand, in the order of ``codeformer --help``.
_MODULES = (restore, colorize, inpaint, video, upscale, download, models, train, evaluate, align)


class Parser(argparse.ArgumentParser):
    """argparse's parser, strict about names: an abbreviation that works today would break when an option is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong with the words, escaped, and end with the code for wrong usage."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {shown(' '.join(message.splitlines()))}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every subcommand. Cheap: PyTorch and OpenCV are not imported."""
    parser = Parser(prog="codeformer", description="Restore, colorize and inpaint faces in pictures and films.")
    parser.add_argument("--version", action="version", version=f"codeformer {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for module in _MODULES:
        module.add_parser(subparsers)
    return parser


def normalise(argv: Sequence[str]) -> list[str]:
    """Write options with underscores: ``--input-path=x`` becomes ``--input_path=x``."""
    result: list[str] = []
    for index, word in enumerate(argv):
        if word == "--":
            return result + list(argv[index:])
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = "--" + name[2:].replace("-", "_") + equals + value
        result.append(word)
    return result


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command that the words ask for; films given to ``restore`` are ``video``'s.

    Raises:
        UsageError: pictures and films in one run.
        SystemExit: what argparse refuses or answers itself, after it has printed why.
    """
    words = normalise(argv)
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if args.command == "restore" and _is_video(args.input_path):
        return parser.parse_args(["video", *(word for i, word in enumerate(words) if i != words.index("restore"))])
    if unknown:
        parser.parse_args(words)  # says which
    return args


def _is_video(paths: Sequence[Path]) -> bool:
    """Whether ``codeformer restore`` was given a film, by its ending."""
    from codeformer.options import VIDEO_SUFFIXES

    films = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    if films and len(films) < len(paths):
        raise UsageError(f"--input_path mixes films and pictures: {films[0]} is a film; run it by itself")
    return bool(films)
