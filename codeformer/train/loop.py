"""The training loop: one plain loop for all stages, on one process or several."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codeformer.errors import CodeFormerError, InputError, UsageError, WeightsError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.discriminator import PatchDiscriminator
from codeformer.models.load import load_into, load_network, read_state, save_network
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train import checkpoint
from codeformer.train.codebook import Codebook
from codeformer.train.data import Faces, Folder, make_loader
from codeformer.train.identity import IdentityDistance
from codeformer.train.losses import PerceptualDistance, hinge_discriminator, soften
from codeformer.train.metrics import dlib_models
from codeformer.train.muon import Muon
from codeformer.train.reporter import Reporter
from codeformer.train.settings import Settings
from codeformer.train.stages import STAGES, Batch, Players, Reduce
from codeformer.train.world import World

MODEL = "model.safetensors"
TRANSFORMER = ("position_emb", "feat_emb", "ft_layers", "idx_pred_layer")
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
        checkpoint.start(out, settings, data, anew=not resume)

    share = settings.batch_size // world.size
    size, kinds = settings.network.img_size, settings.degradations
    faces = Faces(data, size, kinds, settings.tasks, settings.seed, settings.hole, settings.cover)
    loader = make_loader(faces, first, settings.steps, share, rank=world.rank, workers=settings.workers)
    reporter = Reporter(settings, out, world, validation, perceptual, first, quiet)
    step, stopped, done = first, "", first

    def keep() -> None:
        if world.rank == 0:
            checkpoint.save(out, done, state, settings)

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
            if world.any(late or interrupt.seen):
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
            raise KeyboardInterrupt
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


def build(
    settings: Settings, device: torch.device, *, perceptual: Path | None, init: Path | None, teacher: Path | None
) -> Players:
    """Build the networks of a stage and load what it starts from."""
    config = settings.network
    if settings.stage == 1:
        net: VQAutoEncoder | CodeFormer = VQAutoEncoder.from_config(
            replace(config, n_layers=0, connect_list=(), pixel_skip=False)
        )
        if init:
            load_into(net, init)
    else:
        if init is None:
            raise UsageError(
                f"stage {settings.stage} starts from the weights of stage {settings.stage - 1}: --init FILE"
            )
        net = CodeFormer.from_config(config)
        start_identity(net)
        load_into(net, init, partial=True)
        check_start(net, init, settings.stage)
    guide = None
    if settings.stage > 1 and (settings.cross_entropy or settings.feature):
        if settings.stage == 3 and teacher is None:
            raise UsageError(
                "cross_entropy and feature need the codes of sharp faces, which stage 1's encoder says: --teacher FILE"
            )
        source = teacher or init
        loaded = load_network(source) if source else net
        guide = VQAutoEncoder.from_config(replace(loaded.config, n_layers=0, connect_list=(), pixel_skip=False))
        own = guide.state_dict()
        guide.load_state_dict({n: t for n, t in loaded.state_dict().items() if n in own})
        guide.requires_grad_(False).eval()
    needs_pictures = settings.stage != 2
    vgg = PerceptualDistance(perceptual, settings.perceptual_layers) if needs_pictures and settings.perceptual else None
    judge = PatchDiscriminator(settings.ndf) if needs_pictures and settings.gan else None
    person = None
    if needs_pictures and settings.identity:
        person = IdentityDistance(dlib_models() / "dlib_face_recognition_resnet_model_v1.dat")
    for module in (net, guide, judge, vgg, person):
        if module is not None:
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Players(net, guide, judge, vgg, person)


def check_start(net: CodeFormer, init: Path, stage: int) -> None:
    """Raise WeightsError unless the file gave the stage all that the stages before it train."""
    given = read_state(init)[0]
    homes = ("encoder", "quantize", "generator", *(TRANSFORMER if stage == 3 else ()))
    own = {name: t.shape for name, t in net.state_dict().items() if name.split(".")[0] in homes}
    lacking = [name for name, shape in own.items() if name not in given or given[name].shape != shape]
    if lacking:
        raise WeightsError(
            f"{init}: not what stage {stage} of this network starts from: {len(lacking)} of {len(own)} tensors of "
            f"{', '.join(homes)} are missing or of another shape (first: {lacking[0]})"
        )


def compile_players(players: Players) -> None:
    """Let torch.compile translate what a step spends its time in; names and weights stay as they are.

    Raises:
        UsageError: PyTorch is too old for it.
    """
    if not hasattr(torch.compiler, "set_stance"):  # without it, each validation would be translated anew
        raise UsageError("training settings: compile needs PyTorch 2.6 or newer")
    net: Any = players.net
    if isinstance(net, CodeFormer):
        for name in ("encode_features", "predict_logits", "decode_latent"):
            setattr(net, name, torch.compile(getattr(net, name)))
    else:
        net.encoder.compile()
        net.generator.compile()
    for judge in (players.perceptual, players.identity):
        if judge is not None:
            judge.compile()


@torch.no_grad()
def start_identity(net: CodeFormer) -> None:
    """Start CFT as doing nothing, and the skip of pixels, where there is one, as copying."""
    levels: Any = net.fuse_convs_dict
    for fuse in levels.values():
        for branch in (fuse.scale, fuse.shift):
            branch[-1].weight.mul_(0.1)
            branch[-1].bias.zero_()
    if net.config.pixel_skip:
        skip: Any = net.pixel_skip
        nn.init.dirac_(skip.mix.weight)
        skip.mix.bias.zero_()
        skip.gate.weight.mul_(0.1)
        skip.gate.bias.fill_(3.0)
        levels[max(levels, key=int)].scale[-1].bias.fill_(-1.0)  # at w = 1 the copied pixels stand alone at first


def choose_parameters(net: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """Let only the named modules train, and return their parameters."""
    homes = dict.fromkeys(TRANSFORMER, "transformer") | {"fuse_convs_dict": "fuse", "pixel_skip": "fuse"}
    chosen = []
    for name, parameter in net.named_parameters():
        root = name.split(".")[0]
        parameter.requires_grad_(homes.get(root, root) in names)
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


def make_optimizer(net: nn.Module, trained: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """Return the optimizer of the network; codes and positions are tables of vectors, which Muon leaves to AdamW."""
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trained, settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    tables = [p for name, p in net.named_parameters() if name.startswith(("quantize.", "position_emb"))]
    return Muon(trained, settings.lr, settings.betas, settings.weight_decay, tables=tables, scale=settings.muon_scale)


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


def export(
    net: VQAutoEncoder | CodeFormer, average: Mapping[str, Tensor], path: Path, settings: Settings, step: int
) -> Path:
    """Write the averaged weights as the file that `codeformer restore --model` opens."""
    tasks = ",".join(settings.tasks) if settings.stage > 1 else ""
    adain = "true" if settings.adain else "false"
    metadata = {"stage": str(settings.stage), "step": str(step), "tasks": tasks, "adain": adain, "hole": settings.hole}
    save_network(net, path, metadata, state=average)
    return path


class Interrupt:
    """Remember Ctrl-C and SIGTERM until the step is done; the second one acts at once."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: the caller handles signals
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True
