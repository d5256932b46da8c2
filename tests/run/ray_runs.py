"""Runs with ``--engine ray`` in processes of their own, and what they leave."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codeformer.options import RayOptions
from codeformer.run.ray_pool import Opened
from codeformer.run.report import NAME
from codeformer.run.tally import Outcome


def running(process: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(there: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def records(out: Path, name: str = NAME) -> list[dict[str, Any]]:
    inputs = json.loads((out / name).read_text().replace(str(out), "OUT"))["inputs"]
    return sorted(({k: v for k, v in one.items() if k != "seconds"} for one in inputs), key=lambda one: one["input"])


def tree(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}


@contextmanager
def started(words: list[str], address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program in a process group of its own; what it starts can be told by its environment."""
    command = [sys.executable, "-m", "codeformer", *words, "--engine", "ray", "--ray_address", address]
    mark = str(Path(words[1]).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CODEFORMER_TEST": mark}
    if address == "local":
        environment = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
    driver = subprocess.Popen(
        [*command, "--workers", "2"], stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    try:
        yield driver
    finally:
        driver.kill()
        driver.communicate()


def marked(folder: Path) -> dict[int, str]:
    """Return the command lines of the processes that :func:`started` one way or another."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"CODEFORMER_TEST={folder}\0".encode() in (entry / "environ").read_bytes() and running(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
    return found


def in_process(
    jobs: Iterator[Any],
    make: Callable[[], Opened[Any]],
    options: RayOptions,
    lost: object,
    *,
    opened: Callable[[dict[str, Any]], None] = lambda facts: None,
    block: int = 0,
) -> Generator[Outcome, None, None]:
    """Do what ``ray_outcomes`` does with a single worker, here and without Ray; what travels is pickled."""
    worker = pickle.loads(pickle.dumps(make))()
    sent = pickle.dumps(list(jobs))
    outcomes = pickle.loads(pickle.dumps(list(worker.do(iter(pickle.loads(sent))))))
    opened(worker.facts)
    yield from outcomes
