"""A real server on loopback, in a thread of the tests' process, with the small network."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

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


@contextmanager
def served(options: ServerOptions) -> Iterator[Running]:
    service = Service(options)
    door = listen(replace(options, port=0))
    config = uvicorn.Config(application(service), log_level="error", timeout_graceful_shutdown=1)
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
