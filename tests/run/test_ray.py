"""``--engine ray``: the same files and records as one process, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import types
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
from codeformer.run import ray_cluster, ray_pool
from codeformer.run.inputs import NamedInput
from codeformer.run.ray_pool import Sent, lost_input, ray_outcomes
from codeformer.run.report import JOURNAL, NAME
from codeformer.run.tally import Outcome
from tests.run import ray_jobs
from tests.run.ray_runs import marked, records, running, started, tree, wait_for

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
        list(ray_outcomes(jobs("a"), ray_jobs.refuse, TWO, lost_input))


def test_no_input_starts_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(ray_outcomes(jobs(), ray_jobs.refuse, TWO, lost_input)) == []


def test_a_block_that_never_comes_is_tried_input_by_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if the worker died: Ray gives no result for the block."""
    passes = []

    def one_pass(ray: None, left: Any, size: int, make: Any, options: Any) -> Iterator[Any]:
        passes.append((size, len(left)))
        everything = list(left)
        for number in range(-(-len(everything) // size)):
            block = everything[number * size : (number + 1) * size]
            if all(job.item.stem != "killer" for job in block):
                yield number, {"device": "x"}, [Outcome(job.item.path) for job in block], None

    monkeypatch.setattr(ray_pool, "_pass", one_pass)
    monkeypatch.setattr(ray_pool, "_workers", lambda ray, options: 1)
    monkeypatch.setattr(ray_pool, "_require_room", lambda ray, options: None)
    monkeypatch.setattr(ray_pool, "cluster", lambda options: _nothing())
    names = [f"n{number}" for number in range(99)]
    facts: list[Any] = []
    outcomes = list(ray_outcomes(jobs(*names, "killer"), ray_jobs.refuse, TWO, lost_input, opened=facts.append))
    assert said(outcomes) == {**dict.fromkeys(names, "done"), "killer": "RestorationError"}
    assert passes == [(32, 100), (1, 4)] and facts == [{"device": "x"}] and len(outcomes) == 100
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


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_run_ends_while_its_cluster_starts(
    name: str,
    code: int,
    folder: Path,
    tmp_path: Path,
    small_model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the place of Ray's there is a process that never answers, and has a child."""
    keeper = tmp_path / "keeper.py"
    keeper.write_text(
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = os.fork()\nchild and pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child))\n"
        f"child and os.kill({os.getpid()}, signal.{name})\ntime.sleep(600)\n"
    )
    monkeypatch.setattr(ray_cluster, "_KEEPER", keeper)
    for module in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    assert main([*words(folder, tmp_path / "out", small_model_path), "--engine", "ray"]) == code
    told = capsys.readouterr().err
    assert f"interrupted: {COUNT + 1} of {COUNT + 1} left" in told and "Traceback" not in told
    assert json.loads((tmp_path / "out" / NAME).read_text())["state"] == "interrupted"
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not running(child))


def test_an_address_where_nobody_listens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UsageError, match=f"--ray_address 127.0.0.1:{port}: nobody listens there"):
        list(ray_outcomes(jobs("a"), ray_jobs.refuse, RayOptions(f"127.0.0.1:{port}"), lost_input))


def test_a_cluster_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keeper = tmp_path / "keeper.py"
    keeper.write_text("print('no', 'the node timed out')")
    monkeypatch.setattr(ray_cluster, "_KEEPER", keeper)
    for module in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    with pytest.raises(UsageError, match=r"Ray does not start on this machine \(the node timed out\)"):
        list(ray_outcomes(jobs("a"), ray_jobs.refuse, TWO, lost_input))


# --- with Ray ----------------------------------------------------------------------------------------------------


with_ray = pytest.mark.slow  # all but one run: Ray takes long to start where the machine is busy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(COUNT):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        write_picture(Picture(noise), tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "in"


def words(folder: Path, out: Path, model: Path) -> list[str]:
    return ["restore", str(folder), "-o", str(out), "--aligned", "--model", str(model), "-w", "0.5"]


def test_a_run_is_the_same_as_in_one_process(
    shared: RayOptions, folder: Path, tmp_path: Path, small_model_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, alone = tmp_path / "ray", tmp_path / "alone"
    assert main(words(folder, alone, small_model_path)) == 1
    capfd.readouterr()
    engine = ["--engine", "ray", "--ray_address", shared.address, "--workers", "2"]
    assert main([*words(folder, out, small_model_path), *engine]) == 1
    told = capfd.readouterr().err
    lines = [line for line in told.replace("\r", "\n").splitlines() if line.strip() and "picture/s" not in line]
    assert [line for line in lines if "bad.png" not in line and " restored" not in line] == [], "nothing of Ray's own"
    assert records(out) == records(alone) and tree(out) == tree(alone)
    report = json.loads((out / NAME).read_text())
    assert report["device"] == "cpu" and report["state"] == "finished"


@with_ray
@pytest.mark.parametrize(("make", "error"), [("full", OutputError), ("refuse", WeightsError)])
def test_what_ends_a_worker_ends_the_run(shared: RayOptions, tmp_path: Path, make: str, error: type[Exception]) -> None:
    opened = ray_jobs.refuse if make == "refuse" else partial(ray_jobs.make, tmp_path)
    with pytest.raises(error):
        list(ray_outcomes(jobs("a", "full"), opened, shared, lost_input))


@with_ray
def test_killed_workers_lose_nothing_and_the_killer_is_named(shared: RayOptions, tmp_path: Path) -> None:
    names = [*(f"n{number}" for number in range(20)), "once", "bad", "killer", "once more"]
    outcomes = list(ray_outcomes(jobs(*names), partial(ray_jobs.make, tmp_path), shared, lost_input))
    wanted = {**dict.fromkeys(names, "done"), "bad": "InputError", "killer": "RestorationError"}
    assert said(outcomes) == wanted and len(outcomes) == len(names), "nothing lost, nothing twice"


@with_ray
def test_one_input_in_a_hundred_is_bad(shared: RayOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows of 60 inputs: the pool begins anew with each."""
    monkeypatch.setattr(ray_pool, "_WINDOW", 60)
    names = [f"n{number}" for number in range(100)]
    names[57] = "bad"
    outcomes = list(ray_outcomes(jobs(*names), partial(ray_jobs.make, tmp_path), shared, lost_input))
    assert said(outcomes) == {**dict.fromkeys(names, "done"), "bad": "InputError"} and len(outcomes) == 100


@with_ray
@pytest.mark.parametrize("engine", ["local", "shared"])
def test_a_killed_driver_goes_on_from_its_records(
    ray: None, engine: str, shared: RayOptions, folder: Path, tmp_path: Path, small_model_path: Path
) -> None:
    out, alone = tmp_path / "ray", tmp_path / "alone"
    assert main(words(folder, alone, small_model_path)) == 1
    address = "local" if engine == "local" else shared.address
    with started(words(folder, out, small_model_path), address) as driver:
        wait_for(lambda: driver.poll() is not None or recorded(out))
        driver.kill()
        driver.wait(60)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png") if path.stem in done_in(out)}
    with started(words(folder, out, small_model_path), address) as again:
        _, told = again.communicate(timeout=600)
    assert again.returncode == 1 and told.count(b"bad.png") == 1
    assert records(out) == records(alone) and tree(out) == tree(alone)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was recorded is not done again"


@with_ray
@pytest.mark.parametrize("when", ["starts", "works"])
def test_a_group_that_is_told_to_end_says_interrupted(
    ray: None, when: str, folder: Path, tmp_path: Path, small_model_path: Path
) -> None:
    """As timeout(1) and a closed terminal do it: all processes of the group get the signal."""
    out = tmp_path / "out"
    with started(words(folder, out, small_model_path), "local") as driver:
        if when == "starts":
            wait_for(lambda: any("gcs_server" in one for one in marked(tmp_path).values()))
        else:
            wait_for(lambda: driver.poll() is not None or recorded(out))
        os.killpg(driver.pid, signal.SIGTERM)
        _, told = driver.communicate(timeout=120)
    assert driver.returncode == 143, told.decode()
    assert b"interrupted:" in told and b"Traceback" not in told
    assert json.loads((out / NAME).read_text())["state"] == "interrupted"
    wait_for(lambda: not marked(tmp_path))


def done_in(out: Path) -> set[str]:
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines() if line.endswith("}")]
    return {one["name"] for one in lines if one.get("status") == "restored"}


def recorded(out: Path) -> bool:
    journal = out / JOURNAL
    return journal.exists() and b'"restored"' in journal.read_bytes()
