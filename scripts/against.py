"""This tree beside another revision of it: whole processes, interleaved in one run.

``benchmark.py --against REV`` calls this. The revision is a git worktree in a temporary folder. Each case runs as a
process of its own, in this tree and in the other by turns, so that what else the machine does meets both alike. CPU
seconds are those of all threads of the process; on a shared machine they say more than the clock.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ROOT / "inputs"
CASES = ("torch", "start", "pictures", "crops", "film")
PICTURES, CROPS, FRAMES = 10, 20, 24


@dataclass(frozen=True)
class Run:
    """One process: seconds by the clock, of CPU time, and in the network's step, which only a report tells."""

    seconds: float
    cpu_seconds: float
    network: float | None = None


@dataclass(frozen=True)
class Compared:
    """The best runs of one case in both trees. A share is that of the network's step in the clock's seconds."""

    case: str
    before: Run
    after: Run

    @property
    def ratio(self) -> float:
        """How many times faster this tree is, by the clock."""
        return self.before.seconds / self.after.seconds

    @property
    def cpu_ratio(self) -> float:
        """How many times less CPU time this tree takes."""
        return self.before.cpu_seconds / self.after.cpu_seconds


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """Check a revision out below ``folder``, and take it away at the end. Exits for one that git does not know."""
    path = folder / "before"
    added = subprocess.run(
        ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(path), revision], capture_output=True, text=True
    )
    if added.returncode:
        sys.exit(f"--against {revision}: {added.stderr.strip().splitlines()[-1]}")
    try:
        yield path
    finally:
        removed = ["git", "-C", str(ROOT), "worktree", "remove", "--force", str(path)]
        subprocess.run(removed, capture_output=True, check=False)


def commands(case: str, folder: Path, device: str) -> Callable[[Path], list[str]]:
    """Return what gives a case's command for a folder of results. Its inputs are made below ``folder``."""
    program = [sys.executable, "-m", "codeformer"]
    if case == "torch":
        return lambda out: [sys.executable, "-c", "import torch"]
    inputs = folder / case
    inputs.mkdir()
    extra: list[str] = []
    if case == "film":
        _film(inputs / "film.mp4")
        return lambda out: [
            *(*program, "video", "-i", str(inputs / "film.mp4"), "-o", str(out / "film.mkv"), "-w", "0.5"),
            *("--device", device, "--quiet"),
        ]
    source, count = {
        "start": ("whole_imgs", 1),
        "pictures": ("whole_imgs", PICTURES),
        "crops": ("cropped_faces", CROPS),
    }[case]
    files = sorted(path for path in (INPUTS / source).iterdir())
    for index in range(count):
        path = files[index % len(files)]
        shutil.copy(path, inputs / f"{index:02}{path.suffix}")
    if case == "crops":
        extra = ["--has_aligned"]
    return lambda out: [
        *(*program, "restore", "-i", str(inputs), "-o", str(out), "-w", "0.5", "--device", device, "--quiet", *extra)
    ]


def _film(path: Path) -> None:
    """Write a film of a photograph that moves a little."""
    import av

    from codeformer.images.picture import read_picture

    rgb = read_picture(INPUTS / "whole_imgs" / "00_astronaut.jpg").rgb
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 480, 480, "yuv420p"
        for index in range(FRAMES):
            x, y = (round(8 + 8 * wave(index / 8)) for wave in (np.sin, np.cos))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[y : y + 480, x : x + 480]), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def run_once(command: Sequence[str], tree: Path, out: Path, cwd: Path | None = None) -> Run:
    """Run a command with a tree's code, in the folder ``cwd`` or beside the results. Exits when it fails."""
    own = os.environ.get("PYTHONPATH")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), own] if own else [str(tree)])}
    usage, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=env, cwd=cwd or out.parent, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} (with {tree}) failed: {done.stderr.strip()[-500:]}")
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    report = out / "results.json"
    network = None
    if report.is_file():
        records = json.loads(report.read_text(encoding="utf-8"))["inputs"]
        network = sum(one["seconds"].get("restore", 0.0) for one in records)
    return Run(seconds, cpu, network)


def compare(revision: str, cases: Sequence[str], repeats: int, device: str, folder: Path) -> Iterator[Compared]:
    """Run the cases in a revision and in this tree by turns, and yield the best of each.

    Args:
        revision: what git knows it by.
        cases: of ``CASES``.
        repeats: runs of each case in each tree. The best by CPU time counts.
        device: as ``--device``.
        folder: an empty one, for inputs, results and the revision's files.
    """
    with worktree(revision, folder) as before:
        for case in cases:
            command = commands(case, folder, device)
            runs: dict[Path, list[Run]] = {before: [], ROOT: []}
            for turn in range(repeats):
                for tree in (before, ROOT) if turn % 2 == 0 else (ROOT, before):
                    out = folder / f"{case}-results"
                    out.mkdir()
                    runs[tree].append(run_once(command(out), tree, out))
                    shutil.rmtree(out)
            first, second = (min(runs[tree], key=lambda run: run.cpu_seconds) for tree in (before, ROOT))
            yield Compared(case, first, second)


def table(rows: Iterator[Compared], revision: str) -> Iterator[str]:
    """Yield the lines of a table."""
    heads = [f"{what} {unit}" for unit in ("s", "CPU s") for what in (f"{revision},", "this tree,")]
    yield f"| case | {' | '.join([*heads[:2], 'ratio', *heads[2:], 'ratio'])} | network's share |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        runs = (row.before, row.after)
        cells = [row.case, *(f"{run.seconds:.2f}" for run in runs), f"{row.ratio:.2f}"]
        cells += [*(f"{run.cpu_seconds:.2f}" for run in runs), f"{row.cpu_ratio:.2f}"]
        shares = [f"{run.network / run.seconds:.0%}" for run in runs if run.network is not None]
        yield f"| {' | '.join(cells)} | {' -> '.join(shares)} |"
