"""The command line: one parser, one error boundary.

:func:`program` is the program without error handling; :func:`main` turns what it raises into one line on stderr and an
exit code (``codeformer.errors.ExitCode``).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codeformer import __version__
from codeformer.cli import align, colorize, download, evaluate, inpaint, models, restore, train, upscale, video
from codeformer.cli.console import Console, library_messages
from codeformer.errors import CodeFormerError, ExitCode
from codeformer.memory import keep_freed_memory

#: Each adds its subcommand, in the order of ``codeformer --help``.
_MODULES = (restore, colorize, inpaint, video, upscale, download, models, train, evaluate, align)


class _Parser(argparse.ArgumentParser):
    """Options are spelled out: an abbreviation that works today would break when an option is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every subcommand. Cheap: nothing heavy is imported."""
    parser = _Parser(prog="codeformer", description="Restore, colorize and inpaint faces in pictures and films.")
    parser.add_argument("--version", action="version", version=f"codeformer {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for module in _MODULES:
        module.add_parser(subparsers)
    return parser


def normalise(argv: Sequence[str]) -> list[str]:
    """Options may be written with dashes or underscores: ``--input-path=x`` becomes ``--input_path=x``."""
    result: list[str] = []
    for index, word in enumerate(argv):
        if word == "--":
            return result + list(argv[index:])
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = "--" + name[2:].replace("-", "_") + equals + value
        result.append(word)
    return result


def program(argv: Sequence[str] | None = None) -> ExitCode:
    """Run the command that ``argv`` asks for. Raises CodeFormerError; argparse's own errors are SystemExit(2)."""
    words = normalise(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if args.command == "restore" and _is_video(args.input_path):
        args = parser.parse_args(["video", *(word for i, word in enumerate(words) if i != words.index("restore"))])
    elif unknown:
        args = parser.parse_args(words)  # says which
    quiet, verbose = getattr(args, "quiet", False), getattr(args, "verbose", False)
    with library_messages(Console(quiet=quiet, verbose=verbose)):
        return ExitCode(args.run(args))


def main(argv: Sequence[str] | None = None) -> int:
    """The console script: the one place where an exception becomes a message and an exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Pillow warns about damaged files in two lines without their name; what we say about them is one line with it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    keep_freed_memory()
    try:
        code = int(program(words))
        sys.stdout.flush()
        return code
    except CodeFormerError as error:
        _complain(str(error))
        if "--verbose" in words:
            _traceback()
        return int(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # "codeformer models | head": the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except MemoryError:
        _complain("not enough memory; shrink the pictures or close other programs")
        return int(ExitCode.OUT_OF_MEMORY)
    except SystemExit as stop:  # argparse: --help, --version, and usage errors, already printed
        return stop.code if isinstance(stop.code, int) else int(ExitCode.USAGE)
    except ImportError as error:
        if "cannot open shared object file" in str(error):  # OpenCV's wheel on a server without a desktop
            _complain(f"a system library is missing ({error}); on Debian: apt install libgl1 libglib2.0-0 libxcb1")
        else:
            _complain(f"the installation is incomplete ({error}); reinstall codeformer")
        if "--verbose" in words:
            _traceback()
        return int(ExitCode.SOME_FAILED)
    except Exception as error:
        _complain(f"unexpected {type(error).__name__}: {error or 'no message'} (--verbose shows where)")
        if "--verbose" in words:
            _traceback()
        return int(ExitCode.SOME_FAILED)


def _complain(message: str) -> None:
    print(f"codeformer: error: {' '.join(message.split())}", file=sys.stderr)


def _traceback() -> None:
    import traceback

    traceback.print_exc()


def _is_video(paths: Sequence[Path]) -> bool:
    """Whether ``codeformer restore`` was given a film, by its ending."""
    from codeformer.errors import UsageError
    from codeformer.options import VIDEO_SUFFIXES

    films = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    if films and len(films) < len(paths):
        raise UsageError(f"--input_path mixes films and pictures: {films[0]} is a film; run it by itself")
    return bool(films)
