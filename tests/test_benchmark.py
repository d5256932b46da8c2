"""What scripts/benchmark.py does beside timing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

_SCRIPTS = Path(__file__).parents[1] / "scripts"


def load(name: str) -> Any:
    """Import a script as a module."""
    spec = importlib.util.spec_from_file_location(name, _SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not (_SCRIPTS.parent / ".git").exists(), reason="not a checkout")
def test_a_revision_and_this_tree_run_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    against = load("against")
    log = tmp_path / "log"
    code = f"import codeformer; print(codeformer.__file__, file=open({str(log)!r}, 'a'))"
    monkeypatch.setattr(against, "commands", lambda *_: lambda out: [sys.executable, "-c", code])
    (row,) = against.compare("HEAD", ["any"], 2, "cpu", tmp_path)
    ran = [Path(line).parents[1] for line in log.read_text().splitlines()]
    before, here = tmp_path / "before", _SCRIPTS.parent
    assert ran == [before, here, here, before]
    assert not before.exists(), "the worktree is left"
    assert row.before.seconds > 0 and row.after.cpu_seconds > 0
    assert len(list(against.table(iter([row]), "HEAD"))) == 3


def test_a_revision_that_git_does_not_know_is_named(tmp_path: Path) -> None:
    against = load("against")
    with pytest.raises(SystemExit, match="no-such-revision"), against.worktree("no-such-revision", tmp_path):
        pass


def test_engines_are_compared_with_the_first(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    engines = load("benchmark_engines")
    monkeypatch.setattr(engines, "model_of", lambda network, folder: small_model_path)
    cases = (("torch", "fp32"), ("torch", "bf16"), ("torch", "fp16"))  # fp16 needs a GPU: it is left out
    ruler, other = engines.measure("compact", 0.5, 2, cases)
    assert (ruler.backend, ruler.precision, ruler.psnr) == ("torch", "fp32", None)
    assert 20 < other.psnr < 100 and other.furthest > 0 and 0.9 < other.equal_codes <= 1 and other.cpu_seconds > 0
    assert len(list(engines.table([ruler, other]))) == 4


@pytest.mark.parametrize(("by_cpu", "chosen"), [(False, (1.0, 9.0)), (True, (3.0, 2.0))])
def test_the_best_run_is_chosen_by_one_of_two_clocks(
    by_cpu: bool, chosen: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = load("benchmark_common")
    now, runs = [0.0, 0.0], iter([(0.5, 0.5), (1.0, 9.0), (3.0, 2.0)])  # the first one does not count
    monkeypatch.setattr(common.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(common.time, "process_time", lambda: now[1])

    def action() -> None:
        now[:] = [a + b for a, b in zip(now, next(runs), strict=True)]

    assert common.best(action, 2, by_cpu=by_cpu) == pytest.approx(chosen)


@pytest.mark.parametrize(("what", "batches"), [("crops", [4, 4, 2]), ("whole", [4, 4, 2]), ("film", [4, 4, 2])])
def test_a_simulated_gpu_sees_full_batches_in_one_thread(
    what: str, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    simulation = load("simulate_gpu")
    made: list[Any] = []
    real = simulation.make_engine
    monkeypatch.setattr(simulation, "make_engine", lambda *args, **more: made.append(real(*args, **more)) or made[0])
    run = simulation.simulate(what, 4, 10)
    assert list(run.batches) == batches
    assert len(made[0][1].threads) == 1
    assert run.ideal == pytest.approx(0.2) and run.seconds >= run.ideal


def test_pauses_may_be_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    run = load("simulate_gpu").simulate("film", 4, 3, 2.0)
    assert run.ideal == pytest.approx(0.12) and run.seconds >= run.ideal


def test_what_no_step_counts_is_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    shares = load("benchmark_shares")
    report = {"inputs": [{"seconds": {"restore": 2.0, "paste": 1.0, "parse": 0.5}}, {"seconds": {"restore": 1.0}}]}
    steps = shares.by_step(report, 6.0)
    assert steps == {"network": 3.0, "find": 0, "align": 0, "paste": 1.5, "read": 0, "write": 0, "rest": 1.5}
    assert shares.by_step({"seconds": {"restore": 2.0, "align": 1.0}}, 3.0)["rest"] == 0, "a film has one record"
    (line,) = list(shares.table(iter([shares.Shares("compact", "crops", 6.0, steps, 0.9)])))[2:]
    assert line == "| crops | compact | 50% | 0% | 0% | 25% | 0% | 0% | 25% | 6.0 | 90% |"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no peak")
def test_the_peak_is_the_childs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    memory = load("benchmark_memory")
    peaks = [memory.peak_of([sys.executable, "-c", f"b'x' * {size}"]) for size in (1, 150_000_000)]
    assert peaks[0] < 60_000_000 and 145_000_000 < peaks[1] - peaks[0] < 155_000_000, "not that of this process"
    assert list(memory.table(iter([memory.Peak("film", 6000, peaks[1], 1.0)])))[2].startswith("| film | 6,000 frames |")
    with pytest.raises(SystemExit, match="ended with 3"):
        memory.peak_of([sys.executable, "-c", "raise SystemExit(3)"])
