"""The training loop: one plain loop for all stages, on one process or several."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codeformer.errors import CodeFormerError, InputError, UsageError
from codeformer.models.load import save_network
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train import checkpoint
from codeformer.train.codebook import Codebook
from codeformer.train.data import Faces, Folder, make_loader
from codeformer.train.losses import hinge_discriminator, soften
from codeformer.train.networks import Players, build, choose_parameters, compile_players, make_optimizer
from codeformer.train.processes import World
from codeformer.train.reporter import Reporter
from codeformer.train.settings import Settings
from codeformer.train.stages import STAGES, Batch, Reduce

MODEL = "model.safetensors"
log = logging.getLogger("codeformer")


class TrainingError(CodeFormerError):
    """A run that cannot go on: a loss that is not finite."""


def train(
    settings: Settings,
    data: Sequence[Folder],
    out: Path,
    *,
    validation: Path | None = None,
    perceptual: Path | None = None,
    init: Path | None = None,
    teacher: Path | None = None,
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
        validation: folder of faces for sheets and metrics.
        perceptual: VGG16 features, see :class:`PerceptualDistance`.
        init: weights to start from: of the stage before.
        teacher: stage I's weights, whose encoder says the sharp face's codes; default: `init` of stage II.
        resume: go on from ``out/checkpoint.pt``, exactly.
        time_limit: seconds after which the run stops cleanly, with a checkpoint.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError, InputError, WeightsError, OutputError: see the pieces.
        TrainingError: a loss is not finite; the step and its batch are saved beside the checkpoint.
    """
    started = time.monotonic()
    world = World(device)
    if settings.batch_size % (world.size * settings.accumulate):
        raise UsageError(f"batch_size {settings.batch_size} does not divide by {world.size} x {settings.accumulate}")
    torch.manual_seed(settings.seed)
    players = build(settings, world.device, perceptual=perceptual, init=init, teacher=teacher)
    if settings.compile:
        compile_players(players)
    trained = choose_parameters(players.net, settings.train)
    optimizer = make_optimizer(players.net, trained, settings)
    judge = players.discriminator
    judge_optimizer = (
        torch.optim.AdamW(judge.parameters(), settings.lr, betas=settings.betas, weight_decay=0.0) if judge else None
    )
    average = {name: t.detach().clone() for name, t in players.net.state_dict().items()}
    scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
    codebook = Codebook(settings.network.codebook_size, settings.network.emb_dim, world.device)
    state = checkpoint.State(players.net, average, optimizer, judge, judge_optimizer, scaler, codebook)
    if settings.stage == 1:
        codebook.start(players.net)
    first = checkpoint.load(out / checkpoint.NAME, state, settings) if resume else 0
    if world.rank == 0:
        checkpoint.start(out, settings, data, anew=not resume, first=first)

    share = settings.batch_size // world.size
    size, kinds = settings.network.img_size, settings.degradations
    faces = Faces(data, size, kinds, settings.tasks, settings.seed, settings.hole, settings.cover)
    loader = make_loader(faces, first, settings.steps, share, rank=world.rank, workers=settings.workers)
    reporter = Reporter(settings, out, world, validation, perceptual, first, quiet)
    step, stopped, done = first, "", first

    def keep() -> None:
        if world.rank == 0:
            checkpoint.save(out, done, state, settings)

    if first >= settings.steps and world.rank == 0:  # a run that ended between its last checkpoint and its file
        export(players.net, average, out / MODEL, settings, first)
    with Interrupt() as interrupt:
        for step, batch in enumerate(readable(loader, keep), first):
            torch.manual_seed(settings.seed * 1_000_003 + step)
            for group in [*optimizer.param_groups, *(judge_optimizer.param_groups if judge_optimizer else ())]:
                group["lr"] = learning_rate(settings, step)
            if settings.stage == 1 and step == settings.vq_start and step:
                codebook.place(players.net)
                world.share(codebook.tensors(players.net))
                average["quantize.embedding.weight"].copy_(players.net.quantize.embedding.weight)
            logs = run_step(players, batch, settings, step, state, trained, world)
            if not is_sound(logs, state):
                failure = checkpoint.save_failure(out, step, batch, {k: float(v) for k, v in logs.items()}, world.rank)
                raise TrainingError(f"step {step}: a loss or its gradient is not finite; the batch is in {failure}")
            quantizes = settings.stage == 1 and step >= settings.vq_start
            if quantizes and (step + 1) % settings.log_every == 0:
                logs["dead"] = torch.tensor(float(len(codebook.dead())))
                if not settings.revive:
                    codebook.counts.zero_()
            if quantizes and settings.revive and (step + 1) % settings.revive == 0:
                world.share([codebook.counts, codebook.latents])  # so that all find the same codes dead
                logs["revived"] = torch.tensor(float(codebook.revive(players.net, optimizer)))
                world.share(codebook.tensors(players.net))
            update_average(average, players.net, min(settings.ema, (1 + step) / (10 + step)))
            done = step + 1
            reporter.after(step, logs, players, average)
            late = time_limit is not None and time.monotonic() - started > time_limit
            if world.any(late or interrupt.seen is not None):
                stopped = "interrupted" if interrupt.seen else "time is up"
            due = stopped or (step + 1) % settings.save_every == 0 or step + 1 == settings.steps
            if due and world.rank == 0:
                keep()
                export(players.net, average, out / MODEL, settings, step + 1)
            if stopped:
                break
    reporter.close()
    world.leave()
    if stopped and (interrupt.seen or step + 1 < settings.steps):
        log.warning("%s: stopped after step %d of %d; go on with --resume", stopped, step + 1, settings.steps)
        if interrupt.seen:
            interrupt.pass_on()
    return out / MODEL


def readable(batches: Iterable[Batch], keep: Callable[[], None]) -> Iterator[Batch]:
    """Pass the batches on; at a picture that cannot be read, keep what is done and name it."""
    try:
        yield from batches
    except InputError as error:
        keep()
        reason = str(error).strip().splitlines()[-1]  # from a loading process comes its whole traceback
        raise InputError(reason.removeprefix(f"{InputError.__module__}.{InputError.__name__}: ")) from error


def run_step(
    players: Players,
    batch: Batch,
    settings: Settings,
    step: int,
    state: "checkpoint.State",
    trained: Sequence[Tensor],
    world: World,
) -> dict[str, Tensor]:
    """Do one optimizer step, of the network and where there is one of the discriminator; return the mean losses.

    Where a loss of the network, or its gradient, is not finite, nothing moves.
    """
    device, optimizer, judge = world.device, state.optimizer, players.discriminator
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]
    players.net.train()
    parts = split(batch, settings.accumulate, device)
    optimizer.zero_grad(set_to_none=True)
    judged = judge is not None and step >= settings.gan_start
    if judge is not None:
        judge.requires_grad_(False)
    sums: dict[str, Tensor] = {}
    fakes: list[tuple[Tensor, Tensor]] = []
    seen: list[tuple[Tensor, Tensor | None]] = []
    for part in parts:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            losses = STAGES[settings.stage](players, part, settings, step, world.mean)
        state.scaler.scale(losses.total / len(parts)).backward()
        for name, value in {"loss": losses.total, **losses.logs}.items():
            sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach().float() / len(parts)
        if losses.latents is not None:
            seen.append((losses.latents, losses.codes))
        if judged and losses.fake is not None:
            fakes.append((soften(part["hq"], part["sharp"]), losses.fake.detach()))
    if seen:
        follow_codes(players.net, state.codebook, seen, settings.codebook_decay, world.total)
    world.mean_gradients(trained)  # before unscaling: an overflow anywhere must be seen everywhere
    state.scaler.unscale_(optimizer)
    sums["gradient"] = nn.utils.clip_grad_norm_(trained, settings.clip or math.inf).detach()
    sums = {name: world.mean(value) for name, value in sums.items()}
    if not is_sound(sums, state):
        return sums
    state.scaler.step(optimizer)
    if judge is not None and state.judge_optimizer is not None and fakes:
        judge.requires_grad_(True)
        state.judge_optimizer.zero_grad(set_to_none=True)
        verdict = torch.zeros((), device=device)
        for real, fake in fakes:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = hinge_discriminator(judge(real).float(), judge(fake).float())
            state.scaler.scale(loss / len(fakes)).backward()
            verdict += loss.detach() / len(fakes)
        sums["judge"] = world.mean(verdict)
        world.mean_gradients(list(judge.parameters()))
        if torch.isfinite(sums["judge"]):
            state.scaler.step(state.judge_optimizer)
    state.scaler.update()  # once for both: an overflow in either lowers the scale
    return sums


def is_sound(logs: Mapping[str, Tensor], state: "checkpoint.State") -> bool:
    """Whether a step's numbers are finite. With fp16 a gradient that overflows is no failure: the scaler skips that
    step and lowers its scale."""
    return all(bool(torch.isfinite(v)) for k, v in logs.items() if k != "gradient" or not state.scaler.is_enabled())


def follow_codes(
    net: VQAutoEncoder, codebook: Codebook, seen: Sequence[tuple[Tensor, Tensor | None]], decay: float, add: Reduce
) -> None:
    """Let the codebook take in the latents and codes that the parts of stage I's step saw."""
    latents = torch.cat([part for part, _ in seen])
    chosen = [codes for _, codes in seen if codes is not None]
    codes = torch.cat(chosen) if chosen else None
    codebook.see(latents, codes)
    if decay and codes is not None:
        codebook.follow(net, latents, codes, decay, add)


def split(batch: Batch, parts: int, device: torch.device) -> list[Batch]:
    """Move a batch to the device, its pictures with the channels last, and cut it into equal parts."""

    def move(value: Tensor) -> Tensor:
        layout = torch.channels_last if value.ndim == 4 else torch.preserve_format
        return value.to(device, non_blocking=True, memory_format=layout)

    moved = {k: move(v) if isinstance(v, Tensor) and k != "draws" else v for k, v in batch.items()}
    size = len(batch["hq"]) // parts
    return [{k: v[i * size : (i + 1) * size] for k, v in moved.items()} for i in range(parts)]


def learning_rate(settings: Settings, step: int) -> float:
    """Return the rate of a step: linear warm-up, then constant or a cosine down to a twentieth."""
    rate = settings.lr * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "cosine":
        turn = torch.pi * step / settings.steps
        rate *= 0.05 + 0.95 * 0.5 * (1 + float(torch.cos(torch.tensor(turn))))
    return rate


@torch.no_grad()
def update_average(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the network's."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - decay)


def export(net: VQAutoEncoder, average: Mapping[str, Tensor], path: Path, settings: Settings, step: int) -> Path:
    """Write the averaged weights as the file that `codeformer restore --model` opens."""
    tasks = ",".join(name for name, share in settings.tasks.items() if share) if settings.stage > 1 else ""
    adain = "true" if settings.adain else "false"
    metadata = {"stage": str(settings.stage), "step": str(step), "tasks": tasks, "adain": adain, "hole": settings.hole}
    save_network(net, path, metadata, state=average)
    return path


class Interrupt:
    """Remember Ctrl-C, SIGTERM and SIGHUP until the step is done; the second one acts at once."""

    def __init__(self) -> None:
        self.seen: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
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
