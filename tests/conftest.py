"""What tests of several modules share: a tiny network, sample pictures, the command line in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# No test asserts a time: by itself Hypothesis fails an example that takes 200 ms, as on a busy machine
settings.register_profile("no clock", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

# A shell ignores Ctrl-C for what it runs in the background, and children inherit that: the tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# nohup ignores SIGHUP for what it starts
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _random_network(path: Path, **sizes: object) -> Path:
    import torch

    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.config import Config
    from codeformer.models.load import save_network

    config = Config(
        nf=16,
        ch_mult=(1, 2),
        res_blocks=1,
        attn_resolutions=(),
        norm_groups=4,
        codebook_size=32,
        emb_dim=16,
        dim_embd=32,
        n_head=2,
        n_layers=2,
        **sizes,  # type: ignore[arg-type]
    )
    torch.manual_seed(0)
    save_network(CodeFormer.from_config(config), path)
    return path


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CodeFormer file with random weights: 512 x 512 as the published one, but milliseconds for a face.

    Its faces are nonsense, so it shows where a face was pasted, not how well it was restored.
    """
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    return _random_network(path, img_size=512, stem=16, latent_size=256, connect_list=("32",))


@pytest.fixture(scope="session")
def small_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``tiny_model_path``, but for faces of 64 x 64: for tests of what happens around the network."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return _random_network(path, img_size=64, stem=4, latent_size=64, connect_list=("16",))


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A photograph with one face, (512, 512, 3) uint8 RGB (NASA, public domain)."""
    from skimage import data

    return np.asarray(data.astronaut())


@pytest.fixture(scope="session")
def portrait(astronaut: np.ndarray) -> np.ndarray:
    """The astronaut's face and shoulders alone, (240, 240, 3) uint8 RGB: quick to detect."""
    return np.ascontiguousarray(astronaut[0:240, 100:340])


@pytest.fixture(scope="session")
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``codeformer`` in its own process: ``cli("restore", "-i", path, cwd=folder)``."""

    def run(*args: str | Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "codeformer", *map(str, args)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **kwargs.pop("env", {})}  # type: ignore[dict-item]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, **kwargs)  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of small super-resolution networks by what they are."""
    from safetensors.torch import save_file

    from tests.upsampling.samples import compact_state, rrdb_state

    folder = tmp_path_factory.mktemp("networks")
    states = {
        "nearest": compact_state(),
        "compact": compact_state(2, zero=False),
        "rrdb": rrdb_state(),
        "shuffled": rrdb_state(shuffle=2),
        "grey": compact_state(channels=1),
        "same size": compact_state(1),
    }
    for name, state in states.items():
        save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in states}


@pytest.fixture
def restore(small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``codeformer restore`` on aligned crops, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def run(*words: str) -> int:
        from codeformer.cli import main

        return main(["restore", *words, "--has_aligned", "--model", str(small_model_path), "--device", "cpu"])

    return run
