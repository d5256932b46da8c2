"""What many inputs cost: records through the report, and one worker against two.

    python scripts/benchmark_scale.py records                  # 100,000 synthetic records: seconds and memory by step
    python scripts/benchmark_scale.py records --count 1000000
    python scripts/benchmark_scale.py workers FOLDER           # restore it: one process, two shards, Ray with 1 and 2

Seconds are the clock's, and in brackets the processor's; another program on the machine changes the former. For workers
the latter is the sum over all processes that a run starts, Ray's own too, looked at every second (Linux). Memory is the
most that the process has had (ru_maxrss). Everything is written below a temporary folder, which is removed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from codeformer.run.join import join
from codeformer.run.report import LARGE, NAME, Report

HEAD = {"codeformer": "0", "task": "restore", "started": "2026-01-01T00:00:00+00:00", "state": "finished"}


def record(i: int) -> dict[str, Any]:
    """Return a record of one face, of the size that a run writes."""
    landmarks = [[231.21, 240.5], [280.33, 241.74], [256.8, 268.41], [235.4, 290.2], [277.9, 291.6]]
    face = {"number": 1, "chosen": True, "box": [201.5, 180.25, 310.75, 330.5], "score": 0.9987, "landmarks": landmarks}
    return {
        "input": f"/data/crops/{i // 1000:05}/{i:09}.png",
        "name": f"{i // 1000:05}/{i:09}",
        "status": "restored",
        "fingerprint": f"{i:064x}",
        "size": [512, 512],
        "output_size": [512, 512],
        "faces": [face],
        "seconds": {
            "read": 0.0123,
            "find": 0.1021,
            "align": 0.0034,
            "restore": 0.3021,
            "paste": 0.0101,
            "write": 0.0312,
        },
        "mask": None,
        "outputs": [{"path": f"final_results/{i // 1000:05}/{i:09}.png", "bytes": 423_118}],
        "notes": [],
        "error": None,
    }


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print what a step took, and the most memory until its end."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10)
    print(f"{name:<44} {clock:8.1f} s  ({processor:6.1f} s)  {megabytes:6.0f} MB", flush=True)


def through_the_report(count: int) -> None:
    """Append records, end the run, begin it anew, end it again, and join."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "out"
        with step("nothing yet"):
            pass
        with Report(root) as report:
            with step(f"append {count:,} records"):
                for i in range(count):
                    report.append(record(i))
            what = "end: the journal stays" if count > LARGE else "end: write results.json"
            with step(what):
                report.finish(HEAD)
        with step("begin again: index what is there"):
            report = Report(root)
        with report:
            with step("ask for 10,000 of them"):
                for i in range(0, count, max(1, count // 10_000)):
                    report.is_done(f"/data/crops/{i // 1000:05}/{i:09}.png", "another")
            with step("end again"):
                report.finish(HEAD)
        with step("codeformer report: join"):
            join(root, NAME)
        print(f"results.json: {(root / NAME).stat().st_size / 1e6:.0f} MB")


def processor_seconds(roots: Iterable[int]) -> dict[int, float]:
    """Return the processor's seconds of processes and of all that they have started, by their numbers."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            seconds[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, left = {}, list(roots)
    while left:
        process = left.pop()
        found[process] = seconds.get(process, 0.0)
        left += children.get(process, ())
    return found


def workers(folder: Path, extra: list[str]) -> None:
    """Restore a folder in one process, in two shards, and by Ray with one and two workers; print the seconds."""
    with tempfile.TemporaryDirectory() as top:

        def go(name: str, *runs: list[str]) -> None:
            out = Path(top) / name.replace(" ", "_")
            base = [sys.executable, "-m", "codeformer", "restore", str(folder), "-o", str(out), "--quiet", *extra]
            env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
            start, used = time.perf_counter(), dict[int, float]()
            running = [subprocess.Popen([*base, *one], env=env) for one in runs]
            while any(one.poll() is None for one in running):
                for process, seconds in processor_seconds(one.pid for one in running).items():
                    used[process] = max(seconds, used.get(process, 0.0))
                time.sleep(1)
            codes = [one.wait() for one in running]
            clock = time.perf_counter() - start
            print(f"{name:<20} {clock:8.1f} s  ({sum(used.values()):6.1f} s)  exit codes {codes}", flush=True)

        go("one process", [])
        go("two shards", ["--shard", "0/2"], ["--shard", "1/2"])
        go("ray 1 worker", ["--engine", "ray", "--workers", "1"])
        go("ray 2 workers", ["--engine", "ray", "--workers", "2"])


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("records").add_argument("--count", type=int, default=100_000)
    several = commands.add_parser("workers")
    several.add_argument("folder", type=Path)
    args, extra = parser.parse_known_args()
    if args.command == "records":
        through_the_report(args.count)
    else:
        workers(args.folder, extra)


if __name__ == "__main__":
    main()
