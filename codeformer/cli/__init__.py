"""The command line: one parser, one error boundary.

:func:`program` is the program without error handling; :func:`main` turns what it raises into one line on stderr and an
exit code (``codeformer.errors.ExitCode``). The parser and the commands are imported when the environment is prepared.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from codeformer.cli.console import Console, library_messages
from codeformer.cli.failures import check_process, explain
from codeformer.cli.signals import stop_signals
from codeformer.cli.streams import safe_streams
from codeformer.environment import prepare_process
from codeformer.errors import ExitCode
from codeformer.memory import keep_freed_memory


def program(argv: Sequence[str]) -> ExitCode:
    """Run the command that the words ask for. Raises CodeFormerError; argparse's own errors are SystemExit(2)."""
    from codeformer.cli.options import commands_of
    from codeformer.cli.parser import build_parser, parse

    args, words = parse(argv)
    quiet, verbose = getattr(args, "quiet", False), getattr(args, "verbose", False)
    if getattr(args, "save_config", None):
        from codeformer.cli.settings import save

        save(args.save_config, args.command, commands_of(build_parser())[args.command], words)
        note = f"settings written; use them with: codeformer {args.command} --config {args.save_config}"
        Console(quiet=quiet).note(note)
        return ExitCode.OK
    if args.command not in ("models", "download", "help", "completion"):
        check_process()
    with library_messages(Console(quiet=quiet, verbose=verbose)):
        return ExitCode(args.run(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program as the console script does, and return its exit code. Never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    prepare_process()
    keep_freed_memory()
    # Pillow warns about damaged files in two lines without their name; what we say about them is one line with it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with safe_streams() as out, stop_signals() as stop:
        code = _guarded(words)
        out.flush()
        if code is ExitCode.OK and out.lost:
            Console().error(f"stdout cannot be written ({out.lost}): what was printed there is lost")
            code = ExitCode.OUTPUT
        return int(stop.code if code is ExitCode.INTERRUPTED else code)


def _guarded(words: list[str]) -> ExitCode:
    """Return the one place where an exception becomes a message and an exit code."""
    try:
        return program(words)
    except SystemExit as end:  # argparse: --help, --version, and usage errors, already printed
        return ExitCode(end.code) if isinstance(end.code, int) else ExitCode.USAGE
    except KeyboardInterrupt:
        Console().error("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:
        message, code = explain(error)
        Console().error(message)
        if "--verbose" in words:
            Console().traceback(error)
        return code
