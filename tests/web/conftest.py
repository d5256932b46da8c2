"""A real server on loopback, in a thread of the tests' process, with the small network."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra web is not installed")
pytest.importorskip("uvicorn", reason="the extra web is not installed")
pytest.importorskip("gradio", reason="the extra web is not installed")

import httpx
import uvicorn

from codeformer.options import ModelOptions
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


@pytest.fixture(scope="session")
def server_options(small_model_path: Path) -> ServerOptions:
    return ServerOptions(model=ModelOptions(str(small_model_path), device="cpu", precision="fp32"), max_mb=2)


@pytest.fixture(scope="session")
def server(server_options: ServerOptions) -> Iterator[Running]:
    with served(server_options) as running:
        yield running


@pytest.fixture(scope="session")
def photo(portrait: np.ndarray) -> bytes:
    return png(portrait)


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


@pytest.fixture(scope="session")
def film(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of a face that moves."""
    import av

    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 160, 160, "yuv420p"
        for i in range(24):
            frame = np.ascontiguousarray(portrait[20 + i % 8 : 180 + i % 8, 40:200])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()
