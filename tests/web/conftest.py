"""Fixtures of the page and the API. What needs the extra ``web`` is imported where it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from codeformer.web.options import ServerOptions
    from tests.web.serving import Running


@pytest.fixture(scope="session")
def server_options(small_model_path: Path) -> ServerOptions:
    from codeformer.options import ModelOptions
    from codeformer.web.options import ServerOptions

    return ServerOptions(model=ModelOptions(str(small_model_path), device="cpu", precision="fp32"), max_mb=2)


@pytest.fixture(scope="session")
def server(server_options: ServerOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from tests.web.serving import served

    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("page"))  # one for all servers of this process
    with served(server_options) as running:
        yield running


@pytest.fixture(scope="session")
def photo(portrait: np.ndarray) -> bytes:
    from tests.web.serving import png

    return png(portrait)


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
