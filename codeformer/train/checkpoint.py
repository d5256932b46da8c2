"""Checkpoints of a run: written atomically, read back exactly."""

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from codeformer.errors import InputError, OutputError, UsageError, WeightsError
from codeformer.files.atomic import reason, unwritable, write_atomic
from codeformer.files.lock import hold
from codeformer.files.opening import open_own, open_regular
from codeformer.models.state import load_checkpoint
from codeformer.train.settings import Settings

if TYPE_CHECKING:
    from codeformer.train.codebook import Codebook
    from codeformer.train.data import Folder

NAME, FAILURE, SCALARS = "checkpoint.pt", "failure.pt", "scalars.jsonl"
FOLDERS = ("sheets", "tensorboard")  # of a run's folder


@dataclass
class State:
    """Everything that a run needs to go on exactly, but for the settings and the data."""

    net: nn.Module
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    discriminator: nn.Module | None
    discriminator_optimizer: torch.optim.Optimizer | None
    scaler: torch.amp.GradScaler
    codebook: "Codebook"

    def parts(self) -> dict[str, Any]:
        """Return the objects that have a state of their own, by name."""
        named = {
            "net": self.net,
            "optimizer": self.optimizer,
            "discriminator": self.discriminator,
            "discriminator_optimizer": self.discriminator_optimizer,
            "scaler": self.scaler,
            "codebook": self.codebook,
        }
        return {name: part for name, part in named.items() if part is not None}


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other processes from working in a run's folder meanwhile; it is made if need be.

    Raises:
        OutputError: another run works in it, or it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = hold(out / "lock", f"{out}: another run writes into this folder; wait for it, or give another one by -o")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error
    with file:
        yield


def start(out: Path, settings: Settings, data: "Sequence[Folder]", anew: bool, first: int = 0) -> None:
    """Make the run's folder, or with `anew` false go on in it from step `first`, and write down what it does.

    Raises:
        UsageError: the folder holds another run already. OutputError: it cannot be written.
    """
    if anew and (out / NAME).exists():
        raise UsageError(f"{out}: holds a run already; go on with --resume, or give another --output_path")
    for folder in FOLDERS:
        if (out / folder).is_symlink():
            raise OutputError(f"{out / folder}: is a link, which a run does not follow; remove it, or give another -o")
    try:
        (out / "sheets").mkdir(parents=True, exist_ok=True)
        if anew or (out / SCALARS).is_symlink():
            (out / SCALARS).unlink(missing_ok=True)
        elif (out / SCALARS).exists():
            forget_scalars(out / SCALARS, first)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {reason(error)}") from error
    described = {"settings": asdict(settings), "data": [[str(f.path), f.weight] for f in data]}
    write_atomic(out / "settings.json", json.dumps(described, indent=1, default=str).encode(), below=out)


def save(out: Path, step: int, state: State, settings: Settings) -> None:
    """Write the checkpoint after `step` steps, in the place of the one before."""
    buffer = io.BytesIO()
    parts = {name: part.state_dict() for name, part in state.parts().items()}
    network = settings.network.to_json()
    torch.save({"step": step, "stage": settings.stage, "network": network, "average": state.average, **parts}, buffer)
    write_atomic(out / NAME, buffer.getvalue(), below=out)


def load(path: Path, state: State, settings: Settings) -> int:
    """Load a checkpoint into `state` and return the number of steps done; 0 where there is none yet.

    Raises:
        InputError: the file is damaged, or would run code. UsageError: it is of another stage or network.
    """
    if not os.path.lexists(path):
        return 0
    try:
        saved = load_checkpoint(path)
    except WeightsError as error:
        raise InputError(f"{error}; remove it to start anew") from error
    if not isinstance(saved, dict) or not {"stage", "network", "step", "average"} <= saved.keys():
        raise InputError(f"{path}: not a checkpoint of a training run; remove it to start anew")
    if (saved["stage"], saved["network"]) != (settings.stage, settings.network.to_json()):
        raise UsageError(f"{path}: of another stage or network; give another --output_path")
    try:
        for name, part in state.parts().items():
            part.load_state_dict(saved[name])
        for name, tensor in saved["average"].items():
            state.average[name].copy_(tensor)
        return int(saved["step"])
    except MemoryError:
        raise
    except Exception as error:  # what does not fit makes PyTorch raise anything at all
        raise UsageError(
            f"{path}: does not fit: --resume needs the run's own optimizer, train, precision and gan ({reason(error)})"
        ) from error


def save_failure(out: Path, step: int, batch: Mapping[str, Any], logs: Mapping[str, float], rank: int) -> Path:
    """Keep the batch that broke the run, this process's share of it, and return the file."""
    buffer = io.BytesIO()
    torch.save({"step": step, "batch": dict(batch), "logs": dict(logs)}, buffer)
    path = out / (FAILURE if rank == 0 else f"failure-{rank}.pt")
    write_atomic(path, buffer.getvalue(), below=out)
    return path


def forget_scalars(path: Path, first: int) -> None:
    """Take out the lines of steps after `first`, which a run that was killed did and that are done again."""
    kept = []
    with open_regular(path) as file:
        for line in file:
            try:
                if json.loads(line)["step"] <= first:
                    kept.append(line.rstrip(b"\r\n") + b"\n")
            except (ValueError, KeyError, TypeError, RecursionError):
                pass  # cut off when the run was killed
    write_atomic(path, b"".join(kept), below=path.parent)


def append_scalars(out: Path, step: int, scalars: Mapping[str, float]) -> None:
    """Add a line to the run's ``scalars.jsonl``. Raises OutputError."""
    try:
        with os.fdopen(open_own(out / SCALARS, os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(json.dumps({"step": step, **scalars}).encode() + b"\n")
    except OSError as error:
        raise unwritable(out / SCALARS, error) from error
