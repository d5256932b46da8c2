"""``--engine ray``: the same files and records as one process, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer.cli import main
from codeformer.errors import OutputError, UsageError, WeightsError
from codeformer.images.picture import Picture, write_picture
from codeformer.options import RayOptions
from codeformer.run import ray_pool
from codeformer.run.inputs import NamedInput
from codeformer.run.ray_pool import Sent, ray_outcomes
from codeformer.run.report import JOURNAL, NAME
from codeformer.run.tally import Outcome
from tests.run import ray_jobs

TWO = RayOptions(workers=2)
COUNT = 10


def jobs(*names: str) -> Iterator[Sent]:
    return (Sent(NamedInput(Path(f"{name}.png"), name, f"/{name}.png")) for name in names)


def said(outcomes: list[Outcome]) -> dict[str, str]:
    return {one.path.stem: type(one.error).__name__ if one.error else "done" for one in outcomes}


# --- without Ray -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workers", "2"], "--workers needs --engine ray"),
        (["--ray_address", "auto"], "--ray_address needs --engine ray"),
        (["--engine", "ray", "--ray_address", "there"], "must be auto, local or HOST:PORT"),
        (["--engine", "ray", "--workers", "0"], "--workers must be 1 or more"),
        (["--engine", "ray", "--cpus_per_worker", "0"], "--cpus_per_worker must be above 0"),
        (["--engine", "ray", "--watch"], "leave --engine ray out"),
        (["--engine", "ray", "-o", "-"], "needs results in files"),
    ],
)
def test_what_ray_is_told_is_checked(flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "a.png", *flags]) == 2
    assert says in capsys.readouterr().err


def test_without_ray_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'codeformer-toolkit\[ray\]'"):
        list(ray_outcomes(jobs("a"), ray_jobs.refuse, TWO))


def test_no_input_starts_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(ray_outcomes(jobs(), ray_jobs.refuse, TWO)) == []


def test_a_block_that_never_comes_is_tried_input_by_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if the worker died: Ray gives no result for the block."""
    passes = []

    def one_pass(ray: Any, left: Any, size: int, make: Any, options: Any) -> Iterator[Any]:
        passes.append((size, len(left)))
        everything = list(left)
        for number in range(-(-len(everything) // size)):
            block = everything[number * size : (number + 1) * size]
            if all(job.item.stem != "killer" for job in block):
                yield number, {"device": "x"}, [Outcome(job.item.path) for job in block], None

    monkeypatch.setattr(ray_pool, "_pass", one_pass)
    monkeypatch.setattr(ray_pool, "_workers", lambda ray, options: 1)
    monkeypatch.setattr(ray_pool, "_cluster", lambda options: _nothing())
    names = [f"n{number}" for number in range(99)]
    facts: list[Any] = []
    outcomes = list(ray_outcomes(jobs(*names, "killer"), ray_jobs.refuse, TWO, facts.append))
    assert said(outcomes) == {**dict.fromkeys(names, "done"), "killer": "RestorationError"}
    assert passes == [(32, 100), (1, 4)] and facts[0] == {"device": "x"} and len(outcomes) == 100
    assert outcomes[-1].record is not None and outcomes[-1].record["status"] == "failed"


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *exc: object) -> None: ...


def test_a_worker_sends_what_ends_the_run(tmp_path: Path) -> None:
    import pickle

    worker = ray_pool._Worker(pickle.dumps(partial(ray_jobs.make, tmp_path)), str(tmp_path))
    number, facts, outcomes, error = worker._do(3, pickle.dumps(list(jobs("a", "full", "b"))))
    assert (number, facts, said(outcomes)) == (3, {"device": "cpu"}, {"a": "done"}) and isinstance(error, OutputError)
    for make, folder, kind in (
        (ray_jobs.refuse, tmp_path, WeightsError),
        (ray_jobs.refuse, tmp_path / "x", UsageError),
    ):
        assert isinstance(ray_pool._Worker(pickle.dumps(make), str(folder))._do(0, b"")[3], kind)


# --- with Ray ----------------------------------------------------------------------------------------------------

with_ray = pytest.mark.slow


@pytest.fixture
def ray() -> Any:
    return pytest.importorskip("ray.data")


@with_ray
def test_killed_workers_lose_nothing_and_the_killer_is_named(ray: Any, tmp_path: Path) -> None:
    names = [*(f"n{number}" for number in range(20)), "once", "bad", "killer", "once more"]
    outcomes = list(ray_outcomes(jobs(*names), partial(ray_jobs.make, tmp_path), TWO))
    wanted = {**dict.fromkeys(names, "done"), "bad": "InputError", "killer": "RestorationError"}
    assert said(outcomes) == wanted and len(outcomes) == len(names), "nothing lost, nothing twice"


@with_ray
@pytest.mark.parametrize(("make", "error"), [("full", OutputError), ("refuse", WeightsError)])
def test_what_ends_a_worker_ends_the_run(ray: Any, tmp_path: Path, make: str, error: type[Exception]) -> None:
    opened = ray_jobs.refuse if make == "refuse" else partial(ray_jobs.make, tmp_path)
    with pytest.raises(error):
        list(ray_outcomes(jobs("a", "full"), opened, TWO))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(COUNT):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        write_picture(Picture(noise), tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "in"


def words(folder: Path, out: Path, model: Path) -> list[str]:
    return ["restore", str(folder), "-o", str(out), "--aligned", "--model", str(model), "-w", "0.5"]


def records(out: Path) -> list[dict[str, Any]]:
    inputs = json.loads((out / NAME).read_text())["inputs"]
    return sorted(({k: v for k, v in one.items() if k != "seconds"} for one in inputs), key=lambda one: one["input"])


def tree(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.png")}


@with_ray
def test_a_run_is_the_same_as_in_one_process_and_goes_on_when_its_driver_is_killed(
    ray: Any, folder: Path, tmp_path: Path, small_model_path: Path
) -> None:
    out, alone = tmp_path / "ray", tmp_path / "alone"
    assert main(words(folder, alone, small_model_path)) == 1
    engine = ["--engine", "ray", "--workers", "2"]
    command = [sys.executable, "-m", "codeformer", *words(folder, out, small_model_path), *engine]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while driver.poll() is None and not ((out / JOURNAL).exists() and b'"restored"' in (out / JOURNAL).read_bytes()):
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait(60)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and again.stderr.count("bad.png") == 1
    assert records(out) == records(alone) and tree(out) == tree(alone)
    report = json.loads((out / NAME).read_text())
    assert report["device"] == "cpu" and report["state"] == "finished"
    shutil.rmtree(out)
    assert main([*words(folder, out, small_model_path), *engine]) == 1, "in this process, from the beginning"
    assert records(out) == records(alone) and tree(out) == tree(alone)
