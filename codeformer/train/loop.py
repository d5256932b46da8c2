"""The training loop: one plain loop for all stages, on one process or several."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codeformer.errors import CodeFormerError, InputError, UsageError
from codeformer.models.load import save_network
from codeformer.train import checkpoint
from codeformer.train.codebook import Codebook
from codeformer.train.data import FaceDataset, Folder, make_loader
from codeformer.train.networks import (
    Files,
    Networks,
    build,
    choose_parameters,
    compile_networks,
    make_discriminator_optimizer,
    make_optimizer,
)
from codeformer.train.picture_losses import Batch
from codeformer.train.processes import World
from codeformer.train.reporter import Reporter
from codeformer.train.settings import Settings
from codeformer.train.step import average_decay, is_sound, run_step, set_rates, update_average

MODEL = "model.safetensors"
log = logging.getLogger("codeformer")


class TrainingError(CodeFormerError):
    """A run that cannot go on: a loss that is not finite."""


def train(
    settings: Settings,
    data: Sequence[Folder],
    out: Path,
    *,
    files: Files | None = None,
    resume: bool = False,
    time_limit: float | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Path:
    """Run one stage and return its weights file, ``out/model.safetensors`` (the averaged weights, half precision).

    Args:
        settings: see :class:`Settings`.
        data: folders of aligned faces.
        out: folder of the run: checkpoints, sheets, scalars.
        files: what the run takes besides its faces.
        resume: go on from ``out/checkpoint.pt``, exactly.
        time_limit: seconds after which the run stops cleanly, with a checkpoint.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quiet: whether there is no progress bar.

    Raises:
        UsageError, InputError, WeightsError, OutputError: see the pieces.
        TrainingError: a loss is not finite; the step and its batch are saved beside the checkpoint.
    """
    started = time.monotonic()
    files, world = files or Files(), World(device)
    with ExitStack() as held:
        run = prepare(settings, data, out, world, files, resume, held)
        interrupt, stopped = _go(run, data, Reporter(settings, out, world, files, run.done, quiet), started, time_limit)
    if stopped and (interrupt.seen or run.done < settings.steps):
        log.warning("%s: stopped after step %d of %d; go on with --resume", stopped, run.done, settings.steps)
        if interrupt.seen:
            interrupt.pass_on()
    return out / MODEL


def _go(
    run: Run, data: Sequence[Folder], reporter: Reporter, started: float, time_limit: float | None
) -> tuple[Interrupt, str]:
    """Do the steps that are left, and return the signal that came, and why the run stopped before its last step."""
    settings, stopped = run.settings, ""
    if run.done >= settings.steps:  # a run that ended between its last checkpoint and its file
        run.export()
    with Interrupt() as interrupt:
        for step, batch in enumerate(readable(loader_of(run, data), run.keep), run.done):
            reporter.start(step)
            logs = take_step(run, step, batch)
            reporter.after(step, logs, run.networks, run.state.average)
            late = time_limit is not None and time.monotonic() - started > time_limit
            if run.world.any(late or interrupt.seen is not None):
                stopped = "interrupted" if interrupt.seen else "time is up"
            if stopped or run.done % settings.save_every == 0 or run.done == settings.steps:
                with reporter.pause():
                    run.keep()
                    run.export()
            if stopped:
                break
    reporter.close()
    run.world.leave()
    return interrupt, stopped


@dataclass
class Run:
    """A run as it goes: ``done`` counts its steps, ``trained`` are the parameters that move."""

    settings: Settings
    out: Path
    world: World
    networks: Networks
    state: checkpoint.State
    trained: list[nn.Parameter]
    done: int = 0

    def keep(self) -> None:
        """Write the checkpoint, on the first process."""
        if self.world.rank == 0:
            checkpoint.save(self.out, self.done, self.state, self.settings)

    def export(self) -> None:
        """Write the averaged weights as the file that `codeformer restore --model` opens, on the first process."""
        if self.world.rank == 0:
            metadata = describe(self.settings, self.done)
            save_network(self.networks.net, self.out / MODEL, metadata, state=self.state.average, below=self.out)


def prepare(
    settings: Settings, data: Sequence[Folder], out: Path, world: World, files: Files, resume: bool, held: ExitStack
) -> Run:
    """Build a run, as it begins or with `resume` as its checkpoint left it, and its folder, which `held` keeps ours."""
    if settings.batch_size % (world.size * settings.accumulate):
        raise UsageError(f"batch_size {settings.batch_size} does not divide by {world.size} x {settings.accumulate}")
    torch.manual_seed(settings.seed)
    networks = build(settings, world.device, files)
    if settings.compile:
        compile_networks(networks)
    trained = choose_parameters(networks.net, settings.train)
    codebook = Codebook(settings.network.codebook_size, settings.network.emb_dim, world.device)
    state = checkpoint.State(
        networks.net,
        {name: t.detach().clone() for name, t in networks.net.state_dict().items()},
        make_optimizer(networks.net, trained, settings),
        networks.discriminator,
        make_discriminator_optimizer(networks.discriminator, settings),
        torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16"),
        codebook,
    )
    if settings.stage == 1:
        codebook.start(networks.net)
    run = Run(settings, out, world, networks, state, trained)
    if world.rank == 0:
        held.enter_context(checkpoint.claimed(out))
    if resume:
        run.done = checkpoint.load(out / checkpoint.NAME, state, settings)
    if world.rank == 0:
        checkpoint.start(out, settings, data, anew=not resume, first=run.done)
    return run


def loader_of(run: Run, data: Sequence[Folder]) -> Iterable[Batch]:
    """Return the batches of this process that are still to be done."""
    settings, world = run.settings, run.world
    size, kinds = settings.network.img_size, settings.degradations
    faces = FaceDataset(
        data, size, kinds, settings.tasks, settings.seed, settings.hole, settings.cover, settings.strokes
    )
    share = settings.batch_size // world.size
    return make_loader(faces, run.done, settings.steps, share, rank=world.rank, workers=settings.workers)


def readable(batches: Iterable[Batch], keep: Callable[[], None]) -> Iterator[Batch]:
    """Pass the batches on; at a picture that cannot be read, keep what is done and name it."""
    try:
        yield from batches
    except InputError as error:
        keep()
        reason = str(error).strip().splitlines()[-1]  # from a loading process comes its whole traceback
        raise InputError(reason.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")) from error


def take_step(run: Run, step: int, batch: Batch) -> dict[str, Tensor]:
    """Do one step of the run with all that belongs to it, and return its numbers for the log.

    Raises:
        TrainingError: a loss or its gradient is not finite; nothing moved, and the batch is saved.
    """
    settings, state, net = run.settings, run.state, run.networks.net
    torch.manual_seed(settings.seed * 1_000_003 + step)
    set_rates(state, settings, step)
    if settings.stage == 1 and step == settings.vq_start and step:
        state.codebook.place(net)
        run.world.share(state.codebook.tensors(net))
        state.average["quantize.embedding.weight"].copy_(net.quantize.embedding.weight)
    logs = run_step(run.networks, batch, settings, step, state, run.trained, run.world)
    if not is_sound(logs, state):
        numbers = {name: float(value) for name, value in logs.items()}
        failure = checkpoint.save_failure(run.out, step, batch, numbers, run.world.rank)
        raise TrainingError(f"step {step}: a loss or its gradient is not finite; the batch is in {failure}")
    if settings.stage == 1 and step >= settings.vq_start:
        logs |= tend_codes(run, step + 1)
    update_average(state.average, net, average_decay(settings, step))
    run.done = step + 1
    return logs


def tend_codes(run: Run, done: int) -> dict[str, Tensor]:
    """Count the dead codes of stage I and revive them where that is due; return numbers for the log."""
    settings, codebook, net, logs = run.settings, run.state.codebook, run.networks.net, {}
    if done % settings.log_every == 0:
        logs["dead"] = torch.tensor(float(len(codebook.dead())))
        if not settings.revive:
            codebook.counts.zero_()
    if settings.revive and done % settings.revive == 0:
        run.world.share([codebook.counts, codebook.latents])  # so that all find the same codes dead
        logs["revived"] = torch.tensor(float(codebook.revive(net, run.state.optimizer)))
        run.world.share(codebook.tensors(net))
    return logs


def describe(settings: Settings, step: int) -> dict[str, str]:
    """Return what a weights file says of itself."""
    tasks = ",".join(name for name, share in settings.tasks.items() if share) if settings.stage > 1 else ""
    adain = "true" if settings.adain else "false"
    return {"stage": str(settings.stage), "step": str(step), "tasks": tasks, "adain": adain, "hole": settings.hole}


class Interrupt:
    """Remember Ctrl-C, SIGTERM and SIGHUP until the step is done; the second one acts at once."""

    def __init__(self) -> None:
        self.seen: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        try:
            for number in (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")):
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job of `sh`'s
                    self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: the caller handles signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on(self) -> None:
        """Let the handlers from before have the signal, now that the work is saved. Raises KeyboardInterrupt."""
        if self.seen is not None:
            signal.raise_signal(self.seen)
        raise KeyboardInterrupt

    def _handle(self, number: int, frame: object) -> None:
        if self.seen is not None:
            raise KeyboardInterrupt
        self.seen = number
