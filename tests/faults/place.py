"""Where faults are tried: a scratch folder with a tiny network and small pictures, and the program as a process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from codeformer.errors import ExitCode
from codeformer.images.picture import Picture, write_picture
from tests.conftest import _random_network
from tests.upsampling.samples import compact_state
from tests.video.clips import make_film

CODES = frozenset(int(code) for code in ExitCode)
HANGS = 300.0  # seconds after which a process counts as hanging, on a loaded machine too


@dataclass(frozen=True)
class Trial:
    """One fault: what was tried, and why it was lost; empty if it held."""

    family: str
    what: str
    lost: str = ""


@dataclass(frozen=True)
class Ended:
    """How a process ended. ``peak`` is the most memory that it held, in bytes."""

    code: int
    out: str
    err: str
    peak: int


@dataclass
class Place:
    """A scratch folder, with what most trials need. ``seed`` decides everything that is random."""

    root: Path
    seed: int
    rng: np.random.Generator = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.model = _random_network(
            self.root / "tiny.safetensors", img_size=64, stem=4, latent_size=64, connect_list=("16",)
        )
        self.faces = self.root / "faces"
        for number in range(8):
            self.picture(self.faces / f"{number}.png")
        self.mask = self.root / "mask.png"
        rgb = np.zeros((64, 64, 3), np.uint8)
        rgb[20:40, 20:40] = 255
        write_picture(Picture(rgb), self.mask)
        self.film = make_film(self.root / "film.mp4", 24)
        self.upsampler = self.root / "upsampler.safetensors"
        save_file({key: one.contiguous() for key, one in compact_state(2, zero=False).items()}, self.upsampler)
        self.photographs = self.root / "photographs"
        self.photographs.mkdir()
        for path in sorted((Path(__file__).parents[2] / "inputs" / "whole_imgs").glob("*.jpg")):
            shutil.copy(path, self.photographs)

    def picture(self, path: Path, side: int = 64) -> Path:
        """Write a smooth picture."""
        small = self.rng.integers(0, 256, (5, 5, 3), np.uint8)
        write_picture(Picture(np.kron(small, np.ones((side // 4, side // 4, 1), np.uint8))[:side, :side].copy()), path)
        return path

    def folder(self) -> Path:
        """Make a new empty folder."""
        self.count += 1
        path = self.root / f"trial{self.count}"
        path.mkdir()
        return path

    def inputs_of(self, task: str) -> Path:
        """Return what a task is tried on: small faces, photographs to align, or the film."""
        return {"video": self.film, "align": self.photographs}.get(task, self.faces)  # training's faces are small, too

    def command(self, task: str, inputs: Path, out: Path) -> list[str]:
        """Return the words of a run over `inputs_of` the task, with the tiny network where it has one."""
        if task == "train":
            preset = ["--stage", "1", "--config", "tiny", "--resume", "--validation", str(inputs), "--device", "cpu"]
            changes = ["steps=60", "batch_size=2", "save_every=5", "validate_every=20", "sheet_every=20"]
            return ["train", "--data", str(inputs), "-o", str(out), *preset, "--set", *changes]
        if task == "align":
            return ["align", str(inputs), str(out), "--min_size", "16", "--min_sharpness", "0", "--device", "cpu"]
        if task == "upscale":
            return [
                "upscale",
                str(inputs),
                "-o",
                str(out),
                "-s",
                "2",
                "--model",
                str(self.upsampler),
                "--device",
                "cpu",
            ]
        common = ["--model", str(self.model), "--device", "cpu", "--precision", "fp32"]
        if task == "video":
            return ["video", "-i", str(inputs), "-o", str(out / "film.mp4"), *common]
        mask = ["--mask", str(self.mask)] if task == "inpaint" else []
        return [task, "-i", str(inputs), "-o", str(out), "--aligned", *mask, *common]


def start(words: list[str], *, limit: Callable[[], None] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start the program; ``limit`` runs in the child first."""
    here = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "codeformer", *words],
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=options.pop("stderr", subprocess.PIPE),
        text=True,
        errors="surrogateescape",
        env=env,
        preexec_fn=limit,
        **options,
    )


def run(words: list[str], **options: Any) -> Ended:
    """Run the program to its end. A process that hangs is killed, and its code is -9."""
    with (
        tempfile.TemporaryFile("w+", errors="surrogateescape") as out,
        tempfile.TemporaryFile("w+", errors="surrogateescape") as err,
    ):
        process = start(words, **{"stdout": out, "stderr": err, **options})
        until = time.monotonic() + HANGS
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until:
                process.kill()
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Ended(process.returncode, out.read(), err.read(), usage.ru_maxrss * 1024)


def bad_manners(ended: Ended, codes: frozenset[int] | set[int] = CODES) -> str:
    """Say what no run may do, whatever is wrong: hang, crash, show a traceback, or control the terminal."""
    if ended.code == -9:
        return "hangs"
    if ended.code not in codes:
        return f"ends with {ended.code}: {ended.err.strip()[-200:]}"
    if "Traceback" in ended.err or "unexpected " in ended.err:
        return f"unexpected: {ended.err.strip()[-200:]}"
    if found := re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", ended.err):
        return f"control character {found[0]!r} on stderr"
    return ""


def tree(folder: Path) -> Mapping[str, bytes]:
    """Return the results below a folder by name: without reports, and of training the weights and the sheets alone."""
    training = ("lock", "checkpoint.pt", "tensorboard")  # and the file of TensorBoard has the time in its name
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix not in (".json", ".jsonl")
        and path.relative_to(folder).parts[0] not in training
    }


def report_of(out: Path, name: str = "results.json") -> dict[str, Any]:
    """Return a report. Raises ValueError or OSError if it is no whole JSON."""
    report: dict[str, Any] = json.loads((out / name).read_bytes())
    return report
