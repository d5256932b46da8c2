"""`scripts/ray_train.py`: the workers of Ray Train are the processes of one training, also if one of them is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from codeformer.cli import main
from codeformer.errors import ExitCode
from codeformer.extras import installed
from tests.train.test_train import assert_close

SCRIPT = Path(__file__).parents[2] / "scripts" / "ray_train.py"
MARK = "CODEFORMER_TEST_OF_RAY_TRAIN"


def workers(mark: str) -> list[int]:
    """Return the process ids of the workers of Ray Train that the run of this test has."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            named = b"ray::RayTrainWorker" in (folder / "cmdline").read_bytes()
            if named and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Wait until the callable says yes, as long as the process runs."""
    end = time.monotonic() + seconds
    while not what() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it finds the workers in /proc")
def test_two_workers_of_which_one_is_killed_train_what_one_process_does(tmp_path: Path) -> None:
    if not installed("ray"):
        pytest.skip("Ray is not installed: pip install 'ray[train]'")
    (tmp_path / "faces").mkdir()
    for index in range(8):
        rng = np.random.default_rng(index)
        picture = np.full((64, 64, 3), rng.integers(40, 220, 3), np.uint8)
        cv2.ellipse(picture, (32, 38), (14, 19), 0, 0, 360, rng.integers(40, 220, 3).tolist(), -1)
        cv2.imwrite(str(tmp_path / "faces" / f"{index}.png"), picture)
    words = ["--stage", "1", "--config", "tiny", "--data", str(tmp_path / "faces"), "--quiet", "--device", "cpu"]
    changes = ["perceptual=0", "steps=6", "save_every=1", "gan_start=0", "vq_start=0", "revive=0"]
    assert main(["train", *words, "-o", str(tmp_path / "one"), "--set", *changes]) == ExitCode.OK
    mark, out = str(tmp_path), tmp_path / "two"
    command = [str(SCRIPT), "--workers", "2", "--ray_address", "local", "--", *words, "-o", str(out), "--set", *changes]
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    with subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: len(workers(mark)) == 2, run)
        victim = workers(mark)[0]
        wait_for((out / "checkpoint.pt").exists, run)
        os.kill(victim, signal.SIGKILL)
        _, err = run.communicate(timeout=500)
    assert run.returncode == ExitCode.OK, err
    assert len(list((out / "tensorboard").glob("events*"))) == 2, "it began twice"
    assert_close(tmp_path / "one", out, loose=2e-2)
