"""Serving: the socket, the application with its guard, and the end."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from codeformer.errors import ExitCode, UsageError
from codeformer.files.atomic import reason
from codeformer.run.messages import Messages
from codeformer.web.options import ServerOptions

if TYPE_CHECKING:
    from codeformer.web.guard import Guard
    from codeformer.web.service import Service


def serve(server: ServerOptions, console: Messages, *, show: bool = False) -> ExitCode:
    """Serve until Ctrl-C or SIGTERM, which end with OK.

    Args:
        server: what is served, where and to whom.
        console: where the address is said.
        show: open the page in the browser.

    Raises:
        UsageError: the address is taken, or not this machine's.
    """
    door = listen(server)
    import uvicorn

    from codeformer.web.service import Service

    service = Service(server)
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(service.root / "page")  # removed with everything else
        app = application(service)
        name = f"[{server.host}]" if ":" in server.host else server.host
        address = f"http://{name}:{door.getsockname()[1]}"
        console.note(f"serving on {address} (Ctrl-C ends)")
        if show:
            _open(address + (f"/?token={server.token}" if server.token else ""))
        config = uvicorn.Config(
            app, log_level="warning", lifespan="on", server_header=False, timeout_graceful_shutdown=5
        )
        http = uvicorn.Server(config)
        log = logging.getLogger("uvicorn.error")

        def serving(_: logging.LogRecord) -> bool:
            return not http.should_exit  # the end cuts off open pages and pictures; that needs no message

        log.addFilter(serving)
        try:
            with suppress(KeyboardInterrupt):  # the usual end
                http.run(sockets=[door])
        finally:
            log.removeFilter(serving)
    finally:
        door.close()
        service.close()
    console.note("ended; uploads are deleted")
    return ExitCode.OK


def application(service: Service) -> Guard:
    """Return what answers: the API and the page behind their guard."""
    # Gradio asks its makers' servers for news otherwise
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from codeformer.web.app import create_app
    from codeformer.web.guard import Guard
    from codeformer.web.page import gradio_folder, mount
    from codeformer.web.veil import Veil

    page = mount(create_app(service), service)
    return Guard(Veil(page, gradio_folder(), service.root), service.server)


def listen(server: ServerOptions) -> socket.socket:
    """Return the socket that is served on. Raises UsageError."""
    door = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, kind, protocol)
        if os.name != "nt":  # there it would share the port
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(128)
    except OSError as error:
        if door is not None:
            door.close()
        where = f"--host {server.host} --port {server.port}"
        raise UsageError(f"{where}: cannot be served on ({reason(error)}); choose another --port") from error
    return door


def _open(address: str) -> None:
    import threading
    import webbrowser

    threading.Timer(1.5, webbrowser.open, [address]).start()
