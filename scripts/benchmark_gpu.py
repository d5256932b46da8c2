"""What a CUDA card does: the networks alone, eager and translated, and whole runs of the program.

    python scripts/benchmark_gpu.py networks
    python scripts/benchmark_gpu.py runs --count 192 --model compact published --case crops whole

``networks`` has the network by itself, its faces on the card already: eager, by ``torch.compile``, and each replayed as
a CUDA graph, in milliseconds a face. ``runs`` has the program over many files in one process, from the first file on,
with what each step takes: steps overlap, so their sum is more than the time of a file. Words that it does not know go
to ``codeformer restore``, such as ``--compile`` or ``--batch_size 64``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_common import PICTURE, ROOT
from benchmark_engines import NETWORKS, model_of

from codeformer import environment
from codeformer.device import dtype_of, whole_floats

CASES = ("crops", "whole")
WAYS = ("eager", "compiled", "eager, CUDA graph", "compiled, CUDA graph")


def network_of(name: str) -> Any:
    """Return a network of the size of ``compact`` (the bundled one) or ``published``, with random weights."""
    from benchmark import network_config

    from codeformer.models.codeformer import CodeFormer

    torch.manual_seed(0)
    return CodeFormer.from_config(network_config(name))


def as_function(net: Any, precision: str, w: float = 0.5) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the whole network as one function of faces (B, 3, S, S) in [-1, 1], as the restorer computes it."""
    half = precision != "fp32"

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype_of(precision), enabled=half):
            lq_feat, features = net.encode_features(x)
        codes = net.predict_logits(lq_feat.float()).argmax(2)
        with torch.autocast("cuda", dtype_of(precision), enabled=half):
            return net.decode_codes(codes, lq_feat, features, w, True).float()

    return run


def captured(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function for faces of this shape that replays the kernels of one run."""
    held = x.clone(memory_format=torch.preserve_format)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run(held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(held)

    def replay(faces: torch.Tensor) -> torch.Tensor:
        held.copy_(faces)
        graph.replay()
        return out.clone()

    return replay


def milliseconds(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, seconds: float = 1.5) -> float:
    """Return the least milliseconds a face of several calls."""
    for _ in range(2):
        run(x)
    torch.cuda.synchronize()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run(x)
        torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return 1000 * least / len(x)


def networks(names: Sequence[str], limit: float) -> Iterator[str]:
    """Yield the lines of the first table; after ``limit`` seconds nothing new is begun."""
    started = time.perf_counter()
    yield "| network | precision | batch | way | ms a face | seconds to get ready | PSNR to eager fp32 | peak, GB |"
    yield "|---|---|---|---|---|---|---|---|"
    for batch, precision in ((16, "bf16"), (1, "bf16"), (16, "fp32"), (16, "fp16"), (64, "bf16"), (1, "fp32")):
        for name in names:
            net = network_of(name).eval().requires_grad_(False).to("cuda", memory_format=torch.channels_last)
            x = torch.rand(batch, 3, 512, 512, device="cuda").to(memory_format=torch.channels_last) * 2 - 1
            ways = WAYS if precision == "bf16" and batch < 64 else WAYS[:1]
            with whole_floats(x.device):  # as the restorer does
                for row in rows(net, (name, precision, batch), ways, x):
                    yield row
                    if time.perf_counter() - started > limit:
                        return


@torch.inference_mode()
def rows(net: Any, what: tuple[Any, ...], ways: Sequence[str], x: torch.Tensor) -> Iterator[str]:
    """Yield a line for each way of running a network on the faces ``x``."""
    eager = as_function(net, what[1])
    exact = as_function(net, "fp32")(x[:1])
    compiled = torch.compile(eager, dynamic=False)
    for way in ways:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        run = compiled if way.startswith("compiled") else eager
        run(x)
        if way.endswith("graph"):
            run = captured(run, x)
        run(x)
        torch.cuda.synchronize()
        ready = time.perf_counter() - start
        least = milliseconds(run, x)
        error = float((run(x)[:1] - exact).pow(2).mean()) / 4
        peak = torch.cuda.max_memory_allocated() / 1e9
        decibels = -10 * float(np.log10(error + 1e-20))
        cells = (*what, way, f"{least:.2f}", f"{ready:.1f}", f"{decibels:.1f}", f"{peak:.1f}")
        yield f"| {' | '.join(map(str, cells))} |"


STEPS = ("read", "find", "align", "restore", "paste", "write")


def runs(count: int, models: Sequence[str], cases: Sequence[str], more: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of the second table: aligned crops and whole pictures by the program itself.

    Args:
        count: how many files.
        models: ``compact``, ``published`` (a network of that size with random weights), or both.
        cases: ``crops``, ``whole``, or both.
        more: further words of the command line.
    """
    from codeformer.cli import main

    yield f"| model | case | files a second | s | {', '.join(STEPS)}: ms a file |"
    yield "|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        crops = sorted((ROOT / "inputs" / "cropped_faces").glob("*.png"))
        for case, files in (("crops", crops), ("whole", [PICTURE])):
            (folder / case).mkdir()
            for i in range(count):
                shutil.copy(files[i % len(files)], folder / case / f"{i:04}{files[0].suffix}")
        for model in models:
            for case in cases:
                out = folder / "results"
                shutil.rmtree(out, ignore_errors=True)
                words = ["restore", "-i", str(folder / case), "-o", str(out), "--model", str(model_of(model, folder))]
                if main([*words, *(["--has_aligned"] if case == "crops" else []), *more]):
                    raise RuntimeError(" ".join(words))
                report = json.loads((out / "results.json").read_bytes())
                seconds = report["summary"]["seconds"]
                spent = (sum(one["seconds"].get(step, 0.0) for one in report["inputs"]) for step in STEPS)
                told = ", ".join(f"{1000 * one / count:.0f}" for one in spent)
                yield f"| {model} {' '.join(more)} | {case} | {count / seconds:.1f} | {seconds:.2f} | {told} |"


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("networks", "runs"))
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which no network is begun (300)")
    parser.add_argument("--count", type=int, default=192, help="files of a run (192)")
    parser.add_argument("--model", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--case", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--switch", type=float, help="seconds of a turn of Python's threads, instead of the program's")
    args, more = parser.parse_known_args()
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA card", torch.__version__, flush=True)
    if args.switch:
        environment._TURN = args.switch
    lines = (
        networks(args.model, args.limit) if args.what == "networks" else runs(args.count, args.model, args.case, more)
    )
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
