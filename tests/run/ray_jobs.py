"""Work for Ray's workers in tests: no network, and trouble where a name asks for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from codeformer.errors import InputError, OutputError, WeightsError
from codeformer.run.ray_pool import Opened, Sent
from codeformer.run.tally import Outcome


def make(folder: Path) -> Opened[Sent]:
    """Return what notes each input in a file of its name. Names: ``killer``, ``once``, ``full``, ``bad``."""

    def do(jobs: Iterator[Sent]) -> Iterator[Outcome]:
        for job in jobs:
            name = job.item.stem
            mark = folder / name
            if name == "killer" or (name.startswith("once") and not mark.exists()):
                mark.write_text("begun")
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "full":
                raise OutputError("the disk is full")
            if name == "slow":
                time.sleep(60)
            mark.write_text("done")
            yield Outcome(job.item.path, {"input": job.item.key}, InputError("no picture") if name == "bad" else None)

    return Opened(do, {"device": "cpu"})


def refuse() -> Opened[Sent]:
    """Fail as a worker does that finds no weights."""
    raise WeightsError("no weights here")
