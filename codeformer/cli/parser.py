"""The parser of all subcommands, and what is done to the words before argparse sees them."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from codeformer.cli import (
    align,
    colorize,
    completion,
    doctor,
    download,
    evaluate,
    export,
    inpaint,
    models,
    report,
    restore,
    train,
    upscale,
    video,
    web,
)
from codeformer.cli import help as topics
from codeformer.cli.options import commands_of, group_of
from codeformer.cli.settings import words_of
from codeformer.cli.values import decimal
from codeformer.errors import UsageError
from codeformer.files.atomic import shown
from codeformer.files.paths import is_file
from codeformer.version import __version__

#: Each adds its subcommand, in the order of ``codeformer --help``.
_MODULES = (
    *(restore, colorize, inpaint, video, upscale, web, download, models, train, evaluate, align, export),
    *(report, doctor, topics, completion),
)


class _Formatter(argparse.HelpFormatter):
    """Wraps descriptions, and leaves the examples at the end as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, strict about names: an abbreviation that works today would break when an option is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong with the words, and end with the code for wrong usage."""
        line = shown(" ".join(message.splitlines()))
        self.exit(2, f"codeformer: error: {line} (see: {self.prog} --help)\n")


_OUTPUT = ("-o", "--output_path", "--save_frames")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every subcommand. Cheap: PyTorch and OpenCV are not imported."""
    parser = CommandParser(
        prog="codeformer",
        description="Restore, colorize and inpaint faces in pictures and films.",
        epilog="codeformer COMMAND --help shows a command's options, codeformer help its topics.",
    )
    parser.add_argument("--version", action="version", version=f"codeformer {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=CommandParser)
    for module in _MODULES:
        module.add_parser(subparsers)
    for name, command in subparsers.choices.items():
        command.epilog = topics.examples(name)
        _finish(name, command)
    for name in ("help", "completion"):  # these two are about the parser itself
        subparsers.choices[name].set_defaults(parser=parser)
    return parser


def _finish(name: str, command: argparse.ArgumentParser) -> None:
    """Add what all commands have, and what the environment says."""
    if name not in ("train", "help", "completion"):  # train's --config is its preset
        group = group_of(command, "messages and settings")
        group.add_argument(
            "--config", type=Path, metavar="FILE", help="options from a TOML file; codeformer help settings"
        )
        group.add_argument(
            "--save_config", type=Path, metavar="FILE", help="write the options given here to FILE, and do nothing else"
        )
    for action in command._actions:
        if action.dest == "device" and os.environ.get("CODEFORMER_DEVICE"):
            action.default = os.environ["CODEFORMER_DEVICE"]
    required = [a for a in command._actions if a.required and a.option_strings]
    places = [a.metavar if a.nargs is None else f"{a.metavar} ..." for a in command._actions if not a.option_strings]
    if len(command._actions) > 8:  # else argparse's own line is short enough
        flags = [f"{a.option_strings[0]} {a.metavar or a.dest.upper()}" for a in required]
        command.usage = " ".join([f"codeformer {name}", *flags, *map(str, places), "[options]"])


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


def weights_last(words: Sequence[str]) -> tuple[list[str], int]:
    """Return restore's words with ``-w`` and its weights behind the others, and the number of weights.

    argparse would take ``photo.jpg`` in ``-w 0.3 0.5 photo.jpg`` for a weight too. The first word after ``-w`` is a
    weight, and so are numbers behind it, but for a file or folder whose name is a number that no weight can be.
    """
    others: list[str] = []
    weights: list[str] = []
    cut = words.index("--") if "--" in words else len(words)
    behind: int | None = None  # how many weights have come after the last -w; None behind other words
    for word in words[:cut]:
        if word in ("-w", "--fidelity_weight"):
            weights, behind = [word], 0
        elif behind is not None and (behind == 0 or _is_weight(word)):
            weights.append(word)
            behind += 1
        else:
            others.append(word)
            behind = None
    return [*others, *weights, *words[cut:]], max(0, len(weights) - 1)


def _is_weight(word: str) -> bool:
    try:
        return 0 <= decimal(word) <= 1 or not os.path.lexists(word)
    except argparse.ArgumentTypeError:
        return False


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the command that the words ask for, and its words with those of ``--config``.

    Films that are given to restore are video's.

    Raises:
        CodeFormerError: pictures and films in one run; a settings file that cannot be read or does not fit.
        SystemExit: what argparse refuses or answers itself, after it has printed why.
    """
    words = normalise(argv)
    parser = build_parser()
    commands = commands_of(parser)
    _check_command(parser, commands, words)
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name == "restore":
        rest, count = weights_last(rest)
    if name not in commands:
        if words:
            parser.parse_args(words)  # --version, --help, or an option before the command
        parser.error("no command: begin with codeformer restore photo.jpg")
    if name == "restore" and _names_film(rest):
        if count > 1:
            raise UsageError(
                "-w takes one weight for films; --preview 4 --preview_w 0.3 0.5 0.7 shows several of a film"
            )
        args, whole = _parse("video", rest, commands)
        _refuse_a_mixture(args.input_path)
        return args, whole
    return _parse(name, rest, commands)


def _parse(
    name: str, words: Sequence[str], commands: Mapping[str, argparse.ArgumentParser]
) -> tuple[argparse.Namespace, list[str]]:
    command = commands[name]
    whole = [*_settings(name, words, commands), *words]
    if name == "restore":
        whole, _ = weights_last(whole)
    last: list[str] = []
    if "--" in whole and any(action.dest == "paths" for action in command._actions):
        cut = whole.index("--")  # what follows are inputs, whatever they look like
        args, unknown = command.parse_known_args(whole[:cut])
        last = whole[cut + 1 :]
    else:
        args, unknown = command.parse_known_args(whole)
    args.command = name
    stray = [word for word in unknown if word.startswith("-") and word != "-"]
    if stray:
        options = [option for action in command._actions for option in action.option_strings]
        near = difflib.get_close_matches(stray[0].partition("=")[0], options, 1)
        command.error(f"no option {stray[0]}{f'; did you mean {near[0]}?' if near else ''}")
    if not hasattr(args, "paths"):
        if unknown:
            command.error(f"unrecognized arguments: {' '.join(unknown)}")
        return args, whole
    # argparse looks for inputs in one place: before the first option, or after the last
    args.input_path = [*args.input_path, *args.paths, *map(Path, [*unknown, *last])]
    if not (args.input_path or getattr(args, "input_list", None) or args.save_config):
        example = "film.mp4" if name == "video" else "photo.jpg"
        command.error(f"no input: name pictures or folders, as in codeformer {name} {example}")
    return args, whole


def _settings(name: str, words: Sequence[str], commands: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """Return the words that ``--config`` stands for."""
    if name == "train":
        return []
    finder = CommandParser(add_help=False, prog=commands[name].prog)
    finder.add_argument("--config", type=Path)
    file = finder.parse_known_args(list(words))[0].config
    return [] if file is None else words_of(file, name, commands, words)


def _check_command(
    parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser], words: Sequence[str]
) -> None:
    if not words or words[0].startswith("-") or words[0] in commands:
        return
    near = difflib.get_close_matches(words[0], commands, 1)
    if near:
        parser.error(f"no command {words[0]}; did you mean {near[0]}?")
    if is_file(Path(words[0])):
        parser.error(f"{words[0]} is a file, not a command: codeformer restore {words[0]}")
    parser.error(f"no command {words[0]}; there are {', '.join(commands)}")


def _names_film(words: Sequence[str]) -> bool:
    """Return whether the words after ``codeformer restore`` name a film to read, by its ending."""
    from codeformer.options import VIDEO_SUFFIXES

    before = ["", *words]
    return any(
        Path(word).suffix.lower() in VIDEO_SUFFIXES and not word.startswith("-") and last not in _OUTPUT
        for last, word in zip(before, words, strict=False)
    )


def _refuse_a_mixture(paths: Sequence[Path]) -> None:
    """Raise UsageError where pictures stand among the films."""
    from codeformer.options import VIDEO_SUFFIXES

    films = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    if films and len(films) < len(paths):
        raise UsageError(f"--input_path mixes films and pictures: {films[0]} is a film; run it by itself")
