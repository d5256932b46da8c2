"""``codeformer web``: the page and the API over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from importlib.util import find_spec

from codeformer.cli.asked import model_options
from codeformer.cli.console import Console
from codeformer.cli.options import (
    add_detector_option,
    add_max_pixels_option,
    add_message_options,
    add_model_options,
)
from codeformer.errors import ExitCode, UsageError

_NEEDED = ("fastapi", "uvicorn", "multipart", "gradio")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "web",
        help="serve a page in the browser, and an API over HTTP",
        description="Serve a page in the browser, and an API over HTTP (docs/web.md), until Ctrl-C.",
    )
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s, only this machine)")
    group.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: %(default)s)")
    group.add_argument("--open", action="store_true", help="open the page in the browser")
    group.add_argument(
        "--token", metavar="TEXT", help="what clients must show (default: $CODEFORMER_TOKEN); needed for other hosts"
    )
    group.add_argument(
        "--root_path", default="", metavar="/FOLDER", help="where a reverse proxy serves this, if not at its root"
    )
    group.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests that wait, and films, at most (default: 64)"
    )
    group.add_argument(
        "--max_mb", type=int, default=200, metavar="N", help="megabytes of an upload at most (default: %(default)s)"
    )
    group.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="for one picture (default: %(default)g)"
    )
    add_max_pixels_option(parser)
    add_model_options(parser)
    add_detector_option(parser.add_argument_group("faces"))
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Serve until Ctrl-C. Raises UsageError if the extra is missing, or the address is taken."""
    if any(find_spec(name) is None for name in _NEEDED):
        packages = "gradio fastapi uvicorn python-multipart"
        raise UsageError(f"web needs packages that are not installed: pip install {packages}")
    if args.compile:
        raise UsageError("web: --compile is for runs over many files, since it takes a minute to begin: leave it out")
    from codeformer.web.options import ServerOptions

    server = ServerOptions(
        host=args.host,
        port=args.port,
        queue=args.queue,
        max_mb=args.max_mb,
        max_pixels=args.max_pixels,
        timeout=args.timeout,
        token=args.token or os.environ.get("CODEFORMER_TOKEN") or None,
        model=model_options(args),
        root_path=args.root_path,
        detection_model=args.detection_model,
    )
    from codeformer.web.server import serve

    code = serve(server, Console(quiet=args.quiet, verbose=args.verbose), show=args.open)
    if any(thread.name.startswith(("codeformer-", "AnyIO worker")) for thread in threading.enumerate()):
        # A network cannot be stopped within a picture: Python would wait for it, or abort the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))
    return code
