"""A real server on loopback, in a thread of the tests' process, with the small network."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("uvicorn", reason="the extra web is not installed")
pytest.importorskip("gradio", reason="the extra web is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

import httpx
import uvicorn

from codeformer.web.options import ServerOptions
from codeformer.web.server import application, listen
from codeformer.web.service import Service

LANDMARKS = "103.1,100.0 147.0,102.5 123.4,128.1 101.1,138.5 144.5,141.0"
FIELDS = {"landmarks": LANDMARKS, "parsing": "none", "upscale": "1"}


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    url: str
    service: Service

    def post(self, path: str, data: bytes = b"", name: str = "a.png", **more: object) -> httpx.Response:
        fields = {**FIELDS, **more}  # type: ignore[dict-item]
        headers = fields.pop("headers", {})
        kind = fields.pop("kind", "picture")
        files = {kind: (name, data)}
        return httpx.post(self.url + path, files=files, data=fields, headers=headers, timeout=120, trust_env=False)  # type: ignore[arg-type]


def server_paths(service: Service) -> list[str]:
    """Paths that no client may see."""
    from gradio.utils import get_upload_folder

    return [str(service.root), get_upload_folder(), str(Path(__file__).parents[2]), sys.prefix]


class Watch:
    """An ASGI application that notes where an answer of the application within it names a path of the server."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app = app
        self.paths = [path.encode() for path in server_paths(service)]
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        last = b""

        async def looked(message: Any) -> None:
            nonlocal last
            head = b"".join(name + value for name, value in message.get("headers", ()))
            text = last + head + message.get("body", b"")
            self.seen += [f"{scope['path']}: {path.decode()}" for path in self.paths if path in text]
            last = text[-300:]
            await send(message)

        if scope["type"] == "http":
            plain = [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]
            await self.app({**scope, "headers": plain}, receive, looked)
        else:
            await self.app(scope, receive, send)


@contextmanager
def served(options: ServerOptions) -> Iterator[Running]:
    service = Service(options)
    door = listen(replace(options, port=0))
    watch = Watch(application(service), service)
    config = uvicorn.Config(watch, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    try:
        yield Running(f"http://127.0.0.1:{door.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not service.root.exists(), "what clients uploaded is deleted"
        assert watch.seen == [], "an answer names a path of the server"


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def until(true: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.03)
