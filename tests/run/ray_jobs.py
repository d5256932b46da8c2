"""Work for Ray's workers in tests: no network, and trouble where a name asks for it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codeformer.errors import ExitCode, InputError, OutputError, WeightsError
from codeformer.options import AlignOptions, RayOptions, UpscaleOptions
from codeformer.run.messages import Messages
from codeformer.run.ray_pool import Opened, Sent
from codeformer.run.tally import Outcome


def make(folder: Path) -> Opened[Sent]:
    """Return what notes each input in a file of its name. Names: ``killer``, ``once``, ``full``, ``bad``, ``tick``."""

    def do(jobs: Iterator[Sent]) -> Iterator[Outcome]:
        for job in jobs:
            name = job.item.stem
            mark = folder / name
            if name == "killer" or (name.startswith("once") and not mark.exists()):
                mark.write_text("begun")
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "full":
                raise OutputError("the disk is full")
            if name.startswith("tick"):
                _note_node(folder)
                time.sleep(0.3)
            if name == "slow":
                time.sleep(60)
            mark.write_text("done")
            yield Outcome(job.item.path, {"input": job.item.key}, InputError("no picture") if name == "bad" else None)

    return Opened(do, {"device": "cpu"})


def _note_node(folder: Path) -> None:
    import ray

    with (folder / "nodes").open("a") as file:
        file.write(f"{ray.get_runtime_context().get_node_id()}\n")


def weigh() -> Opened[tuple[str, bytes]]:
    """Return what looks whether all of a job has come: a name, and bytes that are its own."""

    def do(jobs: Iterator[tuple[str, bytes]]) -> Iterator[Outcome]:
        for name, load in jobs:
            whole = load == heavy(name)[1]
            yield Outcome(Path(name), None, None if whole else InputError("something is missing"))

    return Opened(do)


def heavy(name: str) -> tuple[str, bytes]:
    """Return a job of a megabyte."""
    return name, random.Random(name).randbytes(1 << 20)


def refuse() -> Opened[Sent]:
    """Fail as a worker does that finds no weights."""
    raise WeightsError("no weights here")


def upscaler(folder: Path, options: UpscaleOptions, *more: Any) -> Opened[Any]:
    """Open what enlarges pictures, and dies once after it has written the one named ``once``."""
    import codeformer.run.upscale as module

    write = module.write_noting

    def written(picture: Any, path: Path, **how: Any) -> str:
        lost = write(picture, path, **how)
        _die_once(folder, path.stem)
        return lost

    module.write_noting = written
    return module.open_worker(options, *more)


def aligner(folder: Path, options: AlignOptions, *more: Any) -> Opened[Any]:
    """Open what cuts a face out of each photograph, and dies once after it has written that of ``once``."""
    import codeformer.train.align as module
    from tests.train.test_align import Faces, landmarks

    write = module.write_picture

    def written(picture: Any, path: Path, **how: Any) -> None:
        write(picture, path, **how)
        _die_once(folder, path.stem.rpartition("_")[0])

    module.write_picture = written
    module._open_detector = lambda options: Faces(landmarks(150, 20, 20))
    return module.open_worker(options, *more)


def _die_once(folder: Path, name: str) -> None:
    mark = folder / f"{name}.begun"
    if name == "once" and not mark.exists():
        mark.write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)


def films(folder: Path, ray: RayOptions, model: Path) -> Opened[Any]:
    """Open what restores films with the fake network, and dies in the second stretch of some.

    Each start of a film is noted in ``folder``, with how many stretches were there. Films whose names begin with
    ``once`` end the process in their first try, the one named ``killer`` in each.
    """
    import codeformer.video.films as module
    from codeformer.video import parts, restoring
    from codeformer.video.film import run_film
    from codeformer.video.options import FilmOptions, output_file
    from codeformer.video.work import work_folder
    from tests.video.fakes import engine_for

    def run(options: FilmOptions, console: Messages, *_: object, begun: bool = False, **__: object) -> ExitCode:
        name, there = options.source.stem, len(list(work_folder(output_file(options)).glob("0*.json")))
        tries = folder / f"{name}.tries"
        first = not tries.exists()
        with tries.open("a") as file:
            file.write(f"{there}\n")
        engine = engine_for(options.work)
        if name == "killer" or (first and name.startswith("once")):
            _die_after(0 if name == "killer" else 5, engine, folder / "died")
        return run_film(options, console, engine, begun=begun)

    def opened(task: object, work: Any, model: object) -> Any:  # for parts of films
        engine = engine_for(work)
        if not (folder / "killed").exists():
            _die_after(1, engine, folder / "killed")
        return engine

    module.run_film = run  # type: ignore[assignment]
    module.open_engine = opened
    parts.tells_apart = lambda: False
    restoring.with_recogniser = lambda engine: engine
    return module.open_worker(ray, model)


def _die_after(batches: int, engine: Any, mark: Path) -> None:
    """Let an engine end the process in a later batch of faces, and note that."""
    decode, left = engine.restorer.decode, iter(range(batches))

    def die(*args: Any, **more: Any) -> Any:
        if next(left, None) is None:
            mark.write_text("died")
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(*args, **more)

    engine.restorer.decode = die
