"""How much memory a run takes at most, for inputs of two sizes: a folder, a scan, a film.

``benchmark.py --memory`` calls this. Each case is a process of its own, whose peak of resident memory the system tells.
What must not grow are the folder's and the film's: the second one is ten times as long. The folder and the scan run the
whole program with a network of a few numbers; the scan with the real detector, the folder with landmarks by hand. The
film runs all but detector and network, whose place an array operation takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark_common import PICTURE, ROOT

CASES = ("torch", "folder", "scan", "film")
SIZES = {"torch": (1,), "folder": (200, 2000), "scan": (6000, 12000), "film": (600, 6000)}
UNITS = {"torch": "import torch", "folder": "pictures", "scan": "pixels wide", "film": "frames"}
SIDE = 160  # of a picture of the folder
FRAME = 64  # side of a frame
SCENE = 125  # frames from one cut to the next: 5 seconds
LANDMARKS = "71,53 94,55 82,68 71,74 92,75"  # of the face in each picture of the folder
_MODEL = "model.safetensors"
# The system counts what a process held when it was started for its peak, so a small one starts the program
_START = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Peak:
    """One run: what, how much of it, bytes of resident memory at most, and seconds by the clock."""

    case: str
    size: int
    bytes: int
    seconds: float


def make_model(path: Path) -> None:
    """Write a network of a few numbers for faces of 64 x 64."""
    import torch

    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.config import Config
    from codeformer.models.load import save_network

    torch.manual_seed(0)
    small = {"nf": 16, "ch_mult": (1, 2), "res_blocks": 1, "attn_resolutions": (), "norm_groups": 4}
    rest = {"codebook_size": 32, "emb_dim": 16, "dim_embd": 32, "n_head": 2, "n_layers": 2, "connect_list": ("16",)}
    save_network(CodeFormer.from_config(Config(**small, **rest, img_size=64, stem=4, latent_size=64)), path)


def make_inputs(case: str, size: int, folder: Path) -> None:
    """Write the inputs of a case below an empty folder: photographs with a face, or a film."""
    import cv2
    import numpy as np

    if case == "torch":
        return
    if case == "film":
        _make_film(size, folder / "film.mp4")
        return
    portrait = cv2.imread(str(PICTURE))[0:300, 70:370]
    if case == "folder":
        small = cv2.resize(portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for index in range(size):
            noise = np.random.default_rng(index).integers(-8, 9, small.shape)
            cv2.imwrite(str(folder / f"{index:05}.jpg"), np.clip(small + noise, 0, 255).astype(np.uint8))
        return
    tile = cv2.resize(portrait, (750, 750), interpolation=cv2.INTER_CUBIC)
    scan = np.full((size * 3 // 4, size, 3), 128, np.uint8)
    for y in range(0, scan.shape[0] - 750, 3000):  # a group photograph
        for x in range(0, size - 750, 3000):
            scan[y + 200 : y + 950, x + 200 : x + 950] = tile[: scan.shape[0] - y - 200, : size - x - 200]
    cv2.imwrite(str(folder / "scan.jpg"), scan)


def _make_film(frames: int, path: Path) -> None:
    import av
    import cv2
    import numpy as np

    blobs = np.random.default_rng(0).integers(0, 256, (FRAME // 4, FRAME // 4, 3), np.uint8)
    ground = cv2.resize(blobs, (FRAME * 4, FRAME * 4), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "35"})
        stream.width, stream.height, stream.pix_fmt = FRAME, FRAME, "yuv420p"
        for index in range(frames):
            scene, moved = divmod(index, SCENE)
            x, y = (scene * 89 + moved) % (3 * FRAME), scene * 53 % (3 * FRAME)
            part = np.ascontiguousarray(ground[y : y + FRAME, x : x + FRAME])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(part, format="rgb24")))
        out.mux(stream.encode(None))


def restore_film(source: Path, output: Path, model: Path) -> int:
    """Run a film through all but the network. Returns the exit code."""
    from dataclasses import replace

    from simulate_gpu import make_engine

    from codeformer.cli.console import Console
    from codeformer.memory import keep_freed_memory
    from codeformer.models.file import open_model
    from codeformer.video.film import run_film
    from codeformer.video.options import FilmOptions

    keep_freed_memory()  # as the program does
    engine, _ = make_engine(1, aligned=False, pause=0.0, device="cpu")
    engine = replace(engine, model=open_model(model))
    return int(run_film(FilmOptions(source=source, output=output, work=engine.work), Console(quiet=True), engine))


def _command(case: str, folder: Path) -> list[str]:
    model = str(folder.parent / _MODEL)
    if case == "torch":
        return [sys.executable, "-c", "import torch"]
    if case == "film":
        return [sys.executable, __file__, "film", str(folder / "film.mp4"), str(folder / "out.mp4"), model]
    restore = [sys.executable, "-m", "codeformer", "restore", "-i", str(folder), "-o", str(folder.parent / "results")]
    by_hand = ["--landmarks", LANDMARKS] if case == "folder" else []
    return [*restore, "--model", model, "-w", "0.5", "--device", "cpu", "--upscale", "1", "--quiet", *by_hand]


def peak_of(command: Sequence[str]) -> int:
    """Run a command with this tree's code, and return its peak of resident memory in bytes. Exits when it fails."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", _START, *command], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def measure(cases: Sequence[str], sizes: Sequence[int] = ()) -> Iterator[Peak]:
    """Yield the peaks of the cases.

    Args:
        cases: of ``CASES``.
        sizes: how much of each; by default ``SIZES``.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _own("model", str(root / _MODEL))
        for case in cases:
            for size in sizes or SIZES[case]:
                with tempfile.TemporaryDirectory(dir=root) as own:
                    folder = Path(own) / "inputs"
                    folder.mkdir()
                    os.link(root / _MODEL, folder.parent / _MODEL)
                    _own("inputs", case, str(size), str(folder))
                    start = time.perf_counter()
                    peak = peak_of(_command(case, folder))
                    yield Peak(case, size, peak, time.perf_counter() - start)


def _own(*arguments: str) -> None:
    """Run a part of this script in a process of its own, which gives its memory back."""
    subprocess.run([sys.executable, __file__, *arguments], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def table(peaks: Iterator[Peak]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| case | how much | peak, MB | seconds |"
    yield "|---|---|---|---|"
    for one in peaks:
        yield f"| {one.case} | {one.size:,} {UNITS[one.case]} | {one.bytes / 1e6:.0f} | {one.seconds:.0f} |"


def main(what: str, *arguments: str) -> int:
    """Do one part in a process of its own: make the network or the inputs, or restore the film."""
    if what == "model":
        make_model(Path(arguments[0]))
    elif what == "inputs":
        make_inputs(arguments[0], int(arguments[1]), Path(arguments[2]))
    else:
        return restore_film(*(Path(one) for one in arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
