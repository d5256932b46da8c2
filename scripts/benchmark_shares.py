"""Which step takes how much of a run's CPU time, and how much of the cores a run uses.

``benchmark.py --shares`` calls this. Whole programs run, the cases of ``against``, with the bundled network and with
one of the published size. The first run of each has one core and one thread, so that a step's CPU time is that of the
thread it is in; the second one runs as it always does, and shows how much of the cores is used. Both count from the
first picture or frame on: without Python's start, imports and weights. On a busy machine the shares hold, because CPU
time does; the use of the cores needs an idle one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from against import ROOT, commands
from benchmark_engines import NETWORKS, model_of

CASES = ("pictures", "crops", "film")
#: The steps of a report by what the table calls them; the rest is what no step counts.
STEPS = {
    "network": ("restore",),
    "find": ("find",),
    "align": ("align",),
    "paste": ("paste", "parse", "upsample"),
    "read": ("read",),
    "write": ("write",),
}


@dataclass(frozen=True)
class Shares:
    """One case with one network.

    Attributes:
        network: compact, which is the bundled one, or published.
        case: of ``CASES``.
        cpu_seconds: of the run on one core.
        steps: CPU seconds by step, as ``STEPS`` names them, and ``rest``.
        used: share of the cores that the other run used, by the clock; None: it was left out.
    """

    network: str
    case: str
    cpu_seconds: float
    steps: Mapping[str, float]
    used: float | None = None


def measure(cases: Sequence[str], networks: Sequence[str] = NETWORKS, *, quick: bool = False) -> Iterator[Shares]:
    """Yield the shares of the cases, ``quick`` without the use of the cores. Exits when a run fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases:
            command = commands(case, folder, "cpu")
            for network in networks:
                words = [*command(folder / "results")[3:], "--model", str(model_of(network, folder))]
                alone, report = _run(words, folder, one_core=True)
                used = None
                if not quick:
                    usual, _ = _run(words, folder, one_core=False)
                    used = usual["cpu"] / (usual["seconds"] * len(os.sched_getaffinity(0)))
                yield Shares(network, case, alone["cpu"], by_step(report, alone["cpu"]), used)


def by_step(report: Mapping[str, Any], cpu: float) -> dict[str, float]:
    """Return the seconds of each step of a run, and what of ``cpu`` no step counts.

    Args:
        report: what the run wrote: that of pictures, or of a film.
        cpu: all CPU seconds of the run.
    """
    records = report.get("inputs", [report])
    steps = {
        name: sum(record["seconds"].get(step, 0.0) for record in records for step in own) for name, own in STEPS.items()
    }
    return {**steps, "rest": max(0.0, cpu - sum(steps.values()))}


def _run(words: Sequence[str], folder: Path, *, one_core: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Run the program, and return its seconds and CPU seconds from the first step on, and its report."""
    results, told = folder / "results", folder / "told.json"
    results.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), **({"OMP_NUM_THREADS": "1"} if one_core else {})}
    command = [sys.executable, __file__, "steps" if one_core else "usual", str(told), *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"codeformer {' '.join(words)} failed: {done.stderr.strip()[-500:]}")
    (report,) = (json.loads(path.read_bytes()) for path in results.glob("*.json"))
    shutil.rmtree(results)
    return json.loads(told.read_bytes()), report


def run_program(how: str, told: Path, words: Sequence[str]) -> int:
    """Run the program in this process, and write down its seconds from the first step on. Returns its exit code.

    Args:
        how: ``steps``: on one core, and its report's seconds are CPU time; ``usual``: as it is.
        told: where the seconds go.
        words: of the command line.
    """
    clock = time.perf_counter
    if how == "steps":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        time.perf_counter = time.thread_time
    from codeformer.cli import main
    from codeformer.pipeline.clock import Clock

    began: list[tuple[float, float]] = []
    timed = Clock.timed

    def noticed(self: Clock, step: str) -> Any:
        if not began:
            began.append((clock(), time.process_time()))
        return timed(self, step)

    Clock.timed = noticed  # type: ignore[method-assign]
    code = main(list(words))
    start, cpu = began[0]
    told.write_text(json.dumps({"seconds": clock() - start, "cpu": time.process_time() - cpu}), encoding="utf-8")
    return code


def table(rows: Iterator[Shares]) -> Iterator[str]:
    """Yield the lines of a table."""
    names = [*STEPS, "rest"]
    yield f"| case | model | {' | '.join(names)} | CPU s | use of the cores |"
    yield f"|---|---|{'---|' * len(names)}---|---|"
    for row in rows:
        shares = [f"{row.steps[name] / row.cpu_seconds:.0%}" for name in names]
        used = "" if row.used is None else f"{row.used:.0%}"
        yield f"| {row.case} | {row.network} | {' | '.join(shares)} | {row.cpu_seconds:.1f} | {used} |"


if __name__ == "__main__":
    sys.exit(run_program(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
