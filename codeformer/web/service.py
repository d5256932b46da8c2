"""What the API and the page are made of: networks, queues and files of one server, without anything of HTTP."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from codeformer.errors import CodeFormerError, InputError, OutOfMemoryError, OutputError, WeightsError
from codeformer.files.atomic import shown
from codeformer.files.paths import shortened
from codeformer.images.limits import most_pixels
from codeformer.images.picture import Picture, read_opened
from codeformer.options import FaceWork, UpscaleOptions
from codeformer.pipeline.pictures import Job, Result, as_our_error, process
from codeformer.run.inputs import NamedInput
from codeformer.run.record import record_of
from codeformer.tasks.base import Task
from codeformer.upsampling.upsampler import upsample_picture
from codeformer.web.batches import Batches, BusyError
from codeformer.web.films import Films
from codeformer.web.networks import LoadedNetworks
from codeformer.web.options import ServerOptions

_PATIENCE = 5.0  # seconds for the pictures in hand when the server ends
_LONGEST_NAME = 120  # bytes


@dataclass(frozen=True, eq=False)
class Upload:
    """A picture of a client: an open file, and what the client calls it."""

    file: BinaryIO
    name: Path

    def read(self, max_pixels: int) -> Picture:
        """Read the picture. Raises InputError, OutOfMemoryError."""
        self.file.seek(0)
        return read_opened(self.file, self.name, max_pixels=max_pixels)


class Service:
    """One server's networks, queues and folder; :meth:`close` ends it and deletes what clients uploaded."""

    def __init__(self, server: ServerOptions) -> None:
        """Make a folder and start the threads; networks are opened when they are wanted."""
        self.server = server
        self.root = Path(tempfile.mkdtemp(prefix="codeformer-web-"))
        self.networks = LoadedNetworks(server)
        self.batches = Batches(server.queue)
        self.films = Films(self.root / "films", server)

    def close(self) -> None:
        """Take no more work, wait a little for what is in hand, and delete every file."""
        self.films.close()
        self.batches.close(_PATIENCE)
        shutil.rmtree(self.root, ignore_errors=True)

    def most_pixels(self, upscale: float) -> int:
        """Return how many pixels a picture may have."""
        return self.server.max_pixels or most_pixels(upscale)

    def work_on(self, upload: Upload, task: Task, work: FaceWork) -> Future[Result[None]]:
        """Restore, colorize or inpaint a picture when its turn comes. Raises BusyError."""
        load = partial(upload.read, self.most_pixels(work.canvas.upscale))

        def do(jobs: Sequence[Job[None]]) -> Iterator[Result[None]]:
            with self.networks.busy:
                yield from process(jobs, self.networks.engine(task, work))

        return self.batches.submit((task, work), Job(None, load), do)

    def enlarge(self, upload: Upload, options: UpscaleOptions) -> Future[Result[None]]:
        """Enlarge a picture when its turn comes. Raises BusyError."""

        def do(jobs: Sequence[Upload]) -> Iterator[Result[None]]:
            upsampler = self.networks.upsampler(options.upscale)
            for job in jobs:
                try:
                    picture = job.read(self.most_pixels(options.upscale))
                    with self.networks.busy:
                        output = upsample_picture(picture, upsampler, options.upscale)
                    yield Result(None, picture, output, notes=picture.warnings)
                except Exception as error:
                    yield Result(None, error=as_our_error(error, "upsample"))

        return self.batches.submit(("upscale", options.upscale), upload, do)


def safe_name(given: str | None, otherwise: str = "picture") -> Path:
    """Return the last part of a client's file name: printable, short, without folders and without control letters."""
    last = (given or "").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(c for c in shown(last) if c not in '<>:"|?*\0').strip(" .")
    path = Path(clean or otherwise)
    return Path(shortened(path.stem, _LONGEST_NAME) + path.suffix[:12])


def describe(result: Result[None], name: Path, status: str) -> dict[str, Any]:
    """Return what the report of a run would say of a picture, without files."""
    item = NamedInput(name, name.stem, str(name))
    record = record_of(item, "", status, result, (), result.seconds, None, None)
    for key in ("fingerprint", "mask", "outputs", "error"):
        record.pop(key, None)
    return record


def status_of(error: CodeFormerError) -> int:
    """Return the status of HTTP for what went wrong."""
    if isinstance(error, BusyError):
        return 429
    if isinstance(error, OutOfMemoryError | WeightsError):
        return 503
    if isinstance(error, OutputError):
        return 500
    return 422


def words_of(error: CodeFormerError, name: Path | None = None) -> str:
    """Return the command line's sentence."""
    text = str(error)
    return text if name is None or str(name) in text or not isinstance(error, InputError) else f"{name}: {text}"


def without(text: str, paths: dict[Path, str]) -> str:
    """Return a message in which a client's names stand for the server's paths."""
    for path, name in paths.items():
        text = text.replace(str(path), name)
    return text.replace(os.fspath(Path(tempfile.gettempdir()) / "codeformer-web-"), "")
