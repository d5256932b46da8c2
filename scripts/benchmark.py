"""Where the time goes: every stage on its own, the whole, and the ratio to the published program.

    python scripts/benchmark.py --quick
    python scripts/benchmark.py --reference ../CodeFormer
    python scripts/benchmark.py --against 065decb --case start pictures

Networks have random weights where only speed counts (a network's speed does not depend on its weights); the upsampler
has real ones, because its seams are measured too. Close other programs: each number is the best of its repeats.
``--reference`` runs a checkout of github.com/sczhou/CodeFormer beside this program: see benchmark_reference.py.
``--against`` runs whole programs instead, of this tree and of a git revision by turns: see against.py.
``--simulate_gpu`` shows how well the steps overlap where the network runs elsewhere: see simulate_gpu.py.
``--shares`` shows which step takes how much of the CPU time: see benchmark_shares.py.
``--memory`` tells the peak of memory of folders, scans and films of two sizes: see benchmark_memory.py.
``--engines`` compares PyTorch, ONNX Runtime and OpenVINO: see benchmark_engines.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from against import CASES, Compared, Run, compare, table
from benchmark_common import ROOT, Row, Settings, best, photograph
from benchmark_engines import NETWORKS, programs, table_of_programs
from benchmark_engines import measure as measure_engines
from benchmark_engines import table as table_of_engines
from benchmark_upsampling import upsample_rows

STAGES = ("detect", "align", "network", "paste", "upsample", "write", "whole")


def machine(settings: Settings) -> dict[str, Any]:
    """Processor, memory, and the versions that matter."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model n")]
        model = names[0] if names else model
    described = {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": settings.device,
    }
    if settings.device.startswith("cuda"):
        described["gpu"] = torch.cuda.get_device_name(settings.device)
    return described


# --- faces ---------------------------------------------------------------------------------------------------------


def detect_rows(settings: Settings) -> Iterator[Row]:
    """Time the detectors."""
    from codeformer.faces.find import find_faces, make_detector

    rgb = photograph()
    detector = make_detector("retinaface_mobile0.25", device=settings.device)
    seconds = best(lambda: find_faces(rgb, detector), settings.repeats)
    yield Row("detect", f"retinaface_mobile0.25, {rgb.shape[1]}x{rgb.shape[0]}", *seconds)


def align_and_paste_rows(settings: Settings, stage: str) -> Iterator[Row]:
    """Time aligning and pasting."""
    from codeformer.faces.align import TEMPLATE_512, crop_face, face_transform, inverse, scaled, transform_points
    from codeformer.faces.paste import geometric_mask, paste_faces

    rgb = photograph()
    # A face of 180 pixels in the middle: no detector needed
    centre = np.array([rgb.shape[1] / 2, rgb.shape[0] / 2])
    points = (TEMPLATE_512 - 256) * (180 / 512) + centre
    matrix = face_transform(points)
    assert np.allclose(transform_points(transform_points(points, matrix), inverse(matrix)), points)
    if stage == "align":
        yield Row("align", "one face, 512x512", *best(lambda: crop_face(rgb, face_transform(points)), settings.repeats))
        return
    crop = crop_face(rgb, matrix)
    mask = geometric_mask(transform_points(points, matrix), 512)
    enlarged = rgb.repeat(2, 0).repeat(2, 1)
    doubled = scaled(matrix, 2)
    what = f"one face into {enlarged.shape[1]}x{enlarged.shape[0]}"
    yield Row("paste", what, *best(lambda: paste_faces(enlarged, [crop], [doubled], [mask]), settings.repeats))


def network_config(name: str) -> Any:
    """Return the published network's hyperparameters, or those of the compact model's training preset."""
    from codeformer.models.config import Config

    if name == "published":
        return Config()
    import tomllib

    preset = tomllib.loads((ROOT / "codeformer" / "train" / "presets" / "compact.toml").read_text(encoding="utf-8"))
    return Config(**preset["network"])


def network_rows(settings: Settings) -> Iterator[Row]:
    """Time the networks."""
    import torch

    from codeformer.models.codeformer import CodeFormer
    from codeformer.pipeline.restorer import FaceRestorer

    crop = np.random.default_rng(0).random((512, 512, 3), np.float32)
    for name in ("compact", "published"):
        for precision in settings.precisions:
            torch.manual_seed(0)
            net = CodeFormer.from_config(network_config(name))
            restorer = FaceRestorer(net, device=settings.device, precision=precision, batch_size=1)
            # One face by itself and the sorts of w that differ in work: 0 needs no CFT
            for w in dict.fromkeys((settings.w,) if settings.quick else (settings.w, 0.0)):

                def run(restorer: FaceRestorer = restorer, w: float = w) -> None:
                    restorer.restore([crop], w=w, adain=True)

                seconds = best(run, settings.repeats, warm=not (settings.quick and name == "published"))
                yield Row("network", f"{name} network, {restorer.precision}, w={w:g}, one face", *seconds)
            if settings.quick and name == "published":
                continue
            restorer = FaceRestorer(net, device=settings.device, precision=precision)
            faces = 4 * restorer.batch_size
            many = partial(restorer.restore, [crop] * faces, w=settings.w, adain=True)
            clock, cpu = best(many, settings.repeats)
            what = f"{name} network, {restorer.precision}, w={settings.w:g}, {restorer.batch_size} at a time, a face"
            yield Row("network", what, clock / faces, cpu / faces)


def write_rows(settings: Settings) -> Iterator[Row]:
    """Time the encoding of a result."""
    import cv2

    from codeformer.images.picture import Picture, encode_picture

    rgb = np.asarray(cv2.resize(photograph(), (1024, 1024), interpolation=cv2.INTER_LANCZOS4))
    for kind, options in (*(("PNG", {"png_level": level}) for level in (0, 2, 3, 4, 6, 9)), ("JPEG", {"quality": 95})):
        encode = partial(encode_picture, Picture(rgb), kind, **options)
        ((name, value),) = options.items()
        seconds = best(encode, settings.repeats)
        yield Row("write", f"{kind}, {name} {value}, 1024x1024", *seconds, note=f"{len(encode()) / 1e6:.2f} MB")


# --- the whole -----------------------------------------------------------------------------------------------------


def whole_rows(settings: Settings) -> Iterator[Row]:
    """Time whole pictures."""
    import torch

    from codeformer.api import Restorer
    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.load import save_network

    rgb = photograph()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("compact",) if settings.quick else ("compact", "published"):
            path = Path(folder) / f"{name}.safetensors"
            torch.manual_seed(0)
            save_network(CodeFormer.from_config(network_config(name)), path)
            for precision in settings.precisions:
                restorer = Restorer(model=path, device=settings.device, precision=precision, parsing="none")
                faces = len(restorer.restore(rgb, w=settings.w).faces)
                seconds = best(lambda r=restorer: r.restore(rgb, w=settings.w), settings.repeats, warm=False)  # type: ignore[misc]
                what = f"{name} network, {precision}, {rgb.shape[1]}x{rgb.shape[0]}, faces: {faces}"
                yield Row("whole", what, *seconds, note="detect, align, network, paste")


# --- the table -----------------------------------------------------------------------------------------------------


def measure(stage: str, settings: Settings) -> Iterator[Row]:
    """Time one stage."""
    rows: dict[str, Callable[[], Iterator[Row]]] = {
        "detect": lambda: detect_rows(settings),
        "align": lambda: align_and_paste_rows(settings, "align"),
        "network": lambda: network_rows(settings),
        "paste": lambda: align_and_paste_rows(settings, "paste"),
        "upsample": lambda: upsample_rows(settings),
        "write": lambda: write_rows(settings),
        "whole": lambda: whole_rows(settings),
    }
    try:
        yield from rows[stage]()
    except Exception as error:  # a stage that cannot run here must not cost the others' numbers
        yield Row(stage, "", None, note=f"did not run: {type(error).__name__}: {error}")


def against(args: argparse.Namespace) -> int:
    """Compare this tree with a revision."""
    print(f"load {os.getloadavg()[0]:.2f}, cores {len(os.sched_getaffinity(0))}\n", flush=True)
    rows: list[Compared] = []

    def measured(folder: Path) -> Iterator[Compared]:
        cases = [case for case in CASES if not args.case or case in args.case]
        for row in compare(args.against, cases, 1 if args.quick else 3, args.device, folder):
            rows.append(row)
            yield row

    with tempfile.TemporaryDirectory() as folder:
        for line in table(measured(Path(folder)), args.against):
            print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def reference(args: argparse.Namespace) -> int:
    """Compare the published program with this one."""
    import benchmark_reference
    import torch

    from codeformer.device import pick_device
    from codeformer.memory import keep_freed_memory
    from codeformer.models.codeformer import CodeFormer
    from codeformer.pipeline.restorer import FaceRestorer

    keep_freed_memory()
    device = pick_device(args.device)
    settings = Settings(str(device), ("auto",), args.w, args.repeats or (1 if args.quick else 3), args.quick)
    print("; ".join(f"{key} {value}" for key, value in machine(settings).items()) + "\n", flush=True)

    def own(name: str) -> Run:
        torch.manual_seed(0)
        restorer = FaceRestorer(CodeFormer.from_config(network_config(name)), device=str(device), batch_size=1)
        crop = np.random.default_rng(0).random((512, 512, 3), np.float32)
        run = partial(restorer.restore, [crop], w=args.w, adain=True)
        return Run(*best(run, settings.repeats, by_cpu=True))  # as the published program's best run is chosen

    rows: list[Any] = []

    def measured(folder: Path) -> Iterator[Any]:
        cases = [case for case in benchmark_reference.CASES if not args.case or case in args.case]
        for row in benchmark_reference.measure(
            args.reference,
            cases,
            folder,
            device=str(device),
            w=args.w,
            quick=args.quick,
            repeats=settings.repeats,
            own=own,
        ):
            rows.append(row)
            yield row

    with tempfile.TemporaryDirectory() as folder:
        for line in benchmark_reference.table(measured(Path(folder))):
            print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def engines(args: argparse.Namespace) -> int:
    """Time the networks on all engines."""
    from codeformer.memory import keep_freed_memory

    keep_freed_memory()
    rows = []
    for network in args.network:
        rows += measure_engines(network, args.w, 3 if args.quick else 12)
    print("\n".join(table_of_engines(rows)), flush=True)
    print()
    for line in table_of_programs(programs(1 if args.quick else 3)):
        print(line, flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Time what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once each, small pictures")
    parser.add_argument(
        "--repeats", type=int, metavar="N", help="with --reference: the best of N runs (default: 3, with --quick 1)"
    )
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument(
        "--precision", nargs="+", default=None, help="fp32, bf16, fp16 (default: fp32 and the device's)"
    )
    parser.add_argument("-w", type=float, default=0.5, help="fidelity weight (default: 0.5)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of PyTorch and ncnn on the CPU")
    parser.add_argument(
        "--reference", type=Path, metavar="PATH", help="a checkout of the published repository, run beside this program"
    )
    parser.add_argument("--against", metavar="REV", help="whole programs, of this tree and of a git revision by turns")
    parser.add_argument(
        "--case",
        nargs="+",
        choices=("network", *CASES, "folder", "scan"),
        metavar="CASE",
        help=f"with --against: {', '.join(CASES)}; with --reference: network, start, pictures, crops; with --memory: "
        "folder, scan, film; with --shares and --simulate_gpu: crops, pictures, film",
    )
    parser.add_argument("--simulate_gpu", action="store_true", help="how well reading, network and pasting overlap")
    parser.add_argument(
        "--slower",
        type=float,
        default=1.0,
        metavar="N",
        help="with --simulate_gpu: pauses N times as long (1)",
    )
    parser.add_argument("--shares", action="store_true", help="which step takes how much of the CPU time")
    parser.add_argument("--memory", action="store_true", help="peaks of memory, for inputs of two sizes")
    parser.add_argument("--sizes", nargs="+", type=int, default=(), metavar="N", help="with --memory: other sizes")
    parser.add_argument("--engines", action="store_true", help="PyTorch, ONNX Runtime and OpenVINO by turns")
    parser.add_argument(
        "--network",
        nargs="+",
        choices=NETWORKS,
        default=NETWORKS,
        metavar="NAME",
        help="with --engines and --shares: compact, published",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the numbers and the machine")
    args = parser.parse_args()
    if args.against:
        return against(args)
    if args.reference:
        return reference(args)
    if args.simulate_gpu:
        import simulate_gpu

        names = {"pictures": "whole"}
        kinds = [names.get(case, case) for case in args.case or ("crops", "pictures", "film")]
        for line in simulate_gpu.table(args.slower, 1 if args.quick else 3, kinds):
            print(line, flush=True)
        return 0
    if args.shares:
        import benchmark_shares

        cases = [case for case in benchmark_shares.CASES if not args.case or case in args.case]
        for line in benchmark_shares.table(benchmark_shares.measure(cases, args.network, quick=args.quick)):
            print(line, flush=True)
        return 0
    if args.memory:
        import benchmark_memory

        cases = [case for case in benchmark_memory.CASES if not args.case or case in args.case]
        for line in benchmark_memory.table(benchmark_memory.measure(cases, args.sizes)):
            print(line, flush=True)
        return 0
    if args.engines:
        return engines(args)

    import torch

    from codeformer.device import pick_device, pick_precision
    from codeformer.memory import keep_freed_memory

    keep_freed_memory()  # as the program does
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    precisions = tuple(args.precision or dict.fromkeys(("fp32", pick_precision("auto", device))))
    settings = Settings(str(device), precisions, args.w, 1 if args.quick else 3, args.quick)

    described = machine(settings)
    print("; ".join(f"{key} {value}" for key, value in described.items()), flush=True)
    print("\n| stage | what | seconds | CPU s | ratio | note |\n|---|---|---|---|---|---|", flush=True)
    rows = []
    for stage in args.stage:
        for row in measure(stage, settings):
            rows.append(row)
            seconds, cpu = ("" if value is None else f"{value:.3g}" for value in (row.seconds, row.cpu_seconds))
            print(f"| {row.stage} | {row.what} | {seconds} | {cpu} | {row.ratio or ''} | {row.note} |", flush=True)
    if args.json:
        settled = {"machine": described, "repeats": settings.repeats, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(settled, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
