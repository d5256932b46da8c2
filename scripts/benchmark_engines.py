"""One network on all engines, by turns: seconds, CPU seconds, and how far each is from PyTorch in fp32.

    python scripts/benchmark.py --engines
    python scripts/benchmark.py --engines --network compact --json engines.json

Each round runs every engine once on the same face, so that a load of the machine falls on all alike; of the rounds the
fastest counts. Close other programs; on a busy machine CPU seconds distort least. ``published`` is the published
network's shape with random weights: its time is right, its codes mean nothing. Networks are exported as for
``--backend``, into the cache. A second table has whole programs, start included: one picture, crops, and a film, with
the bundled network by each engine in turn.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from against import CROPS, FRAMES, Run, commands, run_once

ROOT = Path(__file__).resolve().parents[1]
FACES = ROOT / "inputs" / "cropped_faces"
NETWORKS = ("compact", "published")
#: ``--backend`` and ``--precision`` of what is compared; the first is the ruler.
CASES = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)
#: Whole programs: the cases of ``against``, as a reader knows them.
PROGRAMS = {"start": "one picture", "crops": f"{CROPS} aligned crops", "film": f"a film of {FRAMES} frames"}
BACKENDS = ("torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Engine:
    """One engine's row.

    Attributes:
        network: compact or published.
        backend, precision: what ran.
        load: seconds until the first face could begin: importing, exporting aside, and compiling.
        seconds, cpu_seconds: of the fastest round, one face.
        psnr: against the ruler over all faces, dB; None of the ruler itself.
        furthest: greatest difference, of 255.
        equal_codes: share of codes that are the ruler's.
    """

    network: str
    backend: str
    precision: str
    load: float
    seconds: float
    cpu_seconds: float
    psnr: float | None = None
    furthest: float | None = None
    equal_codes: float | None = None


def measure(network: str, w: float, rounds: int, cases: Sequence[tuple[str, str]] = CASES) -> Iterator[Engine]:
    """Yield a row for each engine that is installed, the ruler first."""
    from codeformer.errors import UsageError
    from codeformer.models.file import open_model
    from codeformer.options import ModelOptions
    from codeformer.pipeline.engine import open_restorer
    from codeformer.tasks.table import TASKS

    task = TASKS["restore"]
    with tempfile.TemporaryDirectory() as folder:
        model = open_model(model_of(network, Path(folder)))
        crops = faces(model.config.img_size)
        opened: list[tuple[str, str, float, Any]] = []
        for backend, precision in cases:
            options = ModelOptions(str(model.path), device="cpu", precision=precision, backend=backend, batch_size=1)  # type: ignore[arg-type]
            try:
                _exported(model, task, backend)
                began = time.perf_counter()
                restorer = open_restorer(model, task, options)
            except UsageError as error:
                print(f"{backend} {precision}: {error}", flush=True)
                continue
            opened.append((backend, precision, time.perf_counter() - began, restorer))
        adain = model.adain(task)
        made = [_answers(restorer, crops, w, adain) for *_, restorer in opened]  # the first run of each does not count
        best = [(float("inf"), float("inf"))] * len(opened)
        for number in range(rounds):
            for index, (*_, restorer) in enumerate(opened):
                began, cpu = time.perf_counter(), time.process_time()
                restorer.restore([crops[number % len(crops)]], w=w, adain=adain)
                spent = (time.perf_counter() - began, time.process_time() - cpu)
                best[index] = (min(best[index][0], spent[0]), min(best[index][1], spent[1]))
        for (backend, precision, load, _), (pictures, codes), spent in zip(opened, made, best, strict=True):
            row = Engine(network, backend, precision, load, *spent)
            yield row if (backend, precision) == opened[0][:2] else _compared(row, made[0], pictures, codes)


def programs(rounds: int) -> Iterator[tuple[str, dict[str, Run]]]:
    """Yield each case of ``PROGRAMS`` with the best run, by CPU time, of each engine that is installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, what in PROGRAMS.items():
            command = commands(case, folder, "cpu")
            runs: dict[str, list[Run]] = {}
            for turn in range(rounds + 1):
                for backend in BACKENDS if turn % 2 == 0 else BACKENDS[::-1]:
                    if not find_spec(backend):
                        continue
                    out = folder / f"{case}-{backend}"
                    out.mkdir()
                    run = run_once([*command(out), "--model", "compact", "--backend", backend], ROOT, out)
                    shutil.rmtree(out)
                    runs.setdefault(backend, [])
                    if turn:  # the first may have exported
                        runs[backend].append(run)
            yield what, {backend: min(done, key=lambda run: run.cpu_seconds) for backend, done in runs.items()}


def table_of_programs(rows: Iterator[tuple[str, dict[str, Run]]]) -> Iterator[str]:
    """Yield the whole programs as a table of Markdown: seconds, and CPU seconds behind a slash."""
    yield f"| s / CPU s | {' | '.join(BACKENDS)} |"
    yield "|---" * (len(BACKENDS) + 1) + "|"
    for what, runs in rows:
        cells = (f"{run.seconds:.2f} / {run.cpu_seconds:.2f}" if (run := runs.get(one)) else "" for one in BACKENDS)
        yield f"| {what} | {' | '.join(cells)} |"


def faces(size: int) -> list[np.ndarray]:
    """Return real faces, (S, S, 3) float32 in [0, 1]."""
    import cv2

    found = []
    for path in sorted(FACES.glob("*.png")):
        face = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        face = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
        found.append(np.ascontiguousarray(face, np.float32) / 255)
    return found


def table(rows: Sequence[Engine]) -> Iterator[str]:
    """Yield the rows as a table of Markdown."""
    heads = ("network", "engine", "precision", "load, s", "s a face", "CPU s a face", "PSNR, dB", "furthest of 255")
    yield f"| {' | '.join(heads)} | equal codes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        apart = ("", "", "")
        if row.psnr is not None and row.furthest is not None and row.equal_codes is not None:
            apart = (f"{row.psnr:.1f}", f"{row.furthest:.2f}", f"{row.equal_codes:.2%}")
        numbers = f"{row.load:.2f} | {row.seconds:.3f} | {row.cpu_seconds:.3f}"
        yield f"| {row.network} | {row.backend} | {row.precision} | {numbers} | {' | '.join(apart)} |"


def model_of(network: str, folder: Path) -> Path:
    """Return the bundled weights, or the published network's shape with random ones."""
    from codeformer.hub.store import bundled

    if network == "compact":
        return bundled()
    import torch

    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.config import Config
    from codeformer.models.load import save_network

    torch.manual_seed(0)
    path = folder / "published.safetensors"
    save_network(CodeFormer.from_config(Config()), path, {"tasks": "restore"})
    return path


def _exported(model: Any, task: Any, backend: str) -> None:
    """Export outside of what is timed."""
    if backend != "torch":
        from codeformer.backends.stored import parts_for

        parts_for(model, task, "fp32")


def _answers(restorer: Any, crops: Sequence[np.ndarray], w: float, adain: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return an engine's faces (B, S, S, 3), and their codes (B, h*w)."""
    pictures = np.stack(restorer.restore(crops, w=w, adain=adain))
    codes = np.concatenate([np.asarray(restorer.encode([crop]).logits.argmax(2)) for crop in crops])
    return pictures, codes


def _compared(row: Engine, ruler: tuple[np.ndarray, np.ndarray], pictures: np.ndarray, codes: np.ndarray) -> Engine:
    difference = np.abs(pictures.astype(np.float64) - ruler[0])
    mean = float((difference**2).mean())
    psnr = float("inf") if mean == 0 else float(-10 * np.log10(mean))
    return replace(
        row, psnr=psnr, furthest=float(difference.max()) * 255, equal_codes=float((codes == ruler[1]).mean())
    )
