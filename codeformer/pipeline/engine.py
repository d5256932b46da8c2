"""What a pipeline runs on: the networks of one task, loaded once, with the options that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.errors import UsageError, WeightsError
from codeformer.files.digest import sha256_of
from codeformer.options import FaceWork, ModelOptions
from codeformer.pipeline.compose import Composition
from codeformer.tasks.base import Task

if TYPE_CHECKING:
    from codeformer.faces.find import Detector
    from codeformer.faces.parsing import Parser
    from codeformer.images.tone import Tone
    from codeformer.models.config import Config
    from codeformer.pipeline.restorer import FaceRestorer
    from codeformer.upsampling.upsampler import Upsampler

# The published networks differ in the number of codes and of levels with CFT.
_PUBLISHED = {(1024, 4): "restore", (1024, 3): "colorize", (512, 3): "inpaint"}


@dataclass(frozen=True, eq=False)
class Engine:
    """The loaded networks, the task and the options. The steps only read it.

    ``model`` is the weights file and ``model_hash`` its SHA-256; ``adain`` says whether the network was trained to have
    AdaIN before its decoder; ``notes`` are lines for the user about the choice.
    """

    task: Task
    work: FaceWork
    restorer: FaceRestorer
    detector: Detector | None = None  # None: aligned crops, or landmarks by hand
    parser: Parser | None = None
    background: Upsampler | None = None
    face_upsampler: Upsampler | None = None
    model: Path = Path()
    model_hash: str = ""
    adain: bool = False
    notes: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)  # further networks by purpose, for the report
    film_tone: Tone | None = None  # of all frames of a film, which is judged as a whole

    @property
    def composition(self) -> Composition:
        """What restored faces are composed with."""
        return Composition(
            task=self.task,
            parser=self.parser,
            background=self.background,
            face_upsampler=self.face_upsampler,
            upscale=self.work.canvas.upscale,
            aligned=self.work.faces.aligned,
            draw_box=self.work.canvas.draw_box,
        )


def open_engine(task: Task, work: FaceWork) -> Engine:
    """Load everything that ``work`` asks for.

    Raises WeightsError (a file is missing or refused), UsageError (no such device), OutOfMemoryError.
    """
    model, notes = choose_model(task, work.model)
    restorer = open_restorer(model, work.model)
    check_trained(task, model, restorer.net.config)
    device = str(restorer.device)
    faces, canvas, weights_dir = work.faces, work.canvas, work.model.weights_dir
    extras: dict[str, str] = {}

    detector = parser = background = face_upsampler = None
    if not faces.aligned:
        if not faces.landmarks:
            from codeformer.faces.find import make_detector

            detector = make_detector(faces.detection_model, device=device, weights_dir=weights_dir)
            extras["detection"] = faces.detection_model
        if faces.parsing != "none":
            from codeformer.faces.parsing import make_parser

            parser = make_parser(faces.parsing, device=device, weights_dir=weights_dir)
            extras["parsing"] = getattr(parser, "name", faces.parsing) if parser else "none"
        if canvas.bg_upsampler or canvas.face_upsample:
            from codeformer.upsampling.upsampler import make_upsampler

            name = canvas.bg_upsampler or "realesrgan"
            upsampler = make_upsampler(
                name,
                scale=canvas.upsampler_scale,
                device=device,
                precision=work.model.precision,
                tile="auto" if canvas.bg_tile is None else canvas.bg_tile,
                weights_dir=weights_dir,
            )
            background = upsampler if canvas.bg_upsampler else None
            face_upsampler = upsampler if canvas.face_upsample else None
            extras["upsampling"] = name
    return Engine(
        task=task.suited(_metadata(model)),
        work=work,
        restorer=restorer,
        detector=detector,
        parser=parser,
        background=background,
        face_upsampler=face_upsampler,
        model=model,
        model_hash=sha256_of(model),
        adain=trained_with_adain(model, task.adain),
        notes=tuple(notes),
        extras=extras,
    )


def choose_model(task: Task, options: ModelOptions) -> tuple[Path, tuple[str, ...]]:
    """The weights file for a task, and notes for the user. Raises WeightsError."""
    from codeformer.hub.store import resolve_model

    path, notes = resolve_model(options.model, task.name, options.weights_dir)
    return Path(path), tuple(notes)


def trained_with_adain(model: Path, published: bool) -> bool:
    """Whether to decode with AdaIN: as our training wrote into the file, else as ``published`` for the task."""
    return {"true": True, "false": False}.get(_metadata(model).get("adain", ""), published)


def settle_w(task: Task, model: Path, asked: float | None) -> float:
    """The fidelity weight: what the user asks for, else what the weights file wants, else the task's own.

    A file wants a weight by ``w_restore``, ``w_colorize`` or ``w_inpaint`` in its metadata, for a small network may
    want another one than the published. By ``w_least`` it says from which weight on it was trained.

    Raises:
        WeightsError: the file wants what does not lie in [0, 1].
        UsageError: the user asks for less than the file was trained for.
    """
    least = _weight_in(model, "w_least", 0.0)
    if asked is None:
        return _weight_in(model, f"w_{task.name}", task.default_w)
    if asked < least:
        raise UsageError(
            f"-w {asked:g}: {model.name} was trained for w from {least:g} to 1 and draws no face below; give such a w, "
            f"or run: codeformer download {task.weights_group}"
        )
    return asked


def _weight_in(model: Path, name: str, otherwise: float) -> float:
    said = _metadata(model).get(name)
    try:
        w = otherwise if said is None else float(said)
    except ValueError:
        w = -1.0
    if not 0 <= w <= 1:
        raise WeightsError(f"{model}: its metadata asks for the fidelity weight {said!r}, which does not lie in [0, 1]")
    return w


def _metadata(model: Path) -> dict[str, str]:
    from codeformer.models.load import read_metadata

    return read_metadata(model)


def open_restorer(model: Path, options: ModelOptions) -> FaceRestorer:
    """A CodeFormer file on the device that the options ask for. Raises WeightsError for any other network."""
    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.load import load_network
    from codeformer.pipeline.restorer import FaceRestorer

    net = load_network(model)
    if not isinstance(net, CodeFormer):
        raise WeightsError(
            f"{model}: holds a stage I autoencoder, which restores nothing; give a whole CodeFormer file"
        )
    return FaceRestorer(net, device=options.device, precision=options.precision, batch_size=options.batch_size)


def check_trained(task: Task, model: Path, config: Config) -> None:
    """Refuse a network that was trained for other tasks: its answer would look like one and be wrong.

    Our files say what they were trained for; of the published ones the architecture tells. A file that says nothing
    is taken at the user's word. Raises WeightsError with the way out.
    """
    said = _metadata(model).get("tasks")
    if said is not None:
        trained = {name.strip() for name in said.split(",")} - {""}
    else:
        published = _PUBLISHED.get((config.codebook_size, len(config.connect_list))) if config.stem == 1 else None
        trained = {published} if published and model.suffix != ".safetensors" else {task.name}
    if task.name not in trained:
        others = ", ".join(sorted(trained)) or "no task"
        raise WeightsError(
            f"{model}: was trained to {others}, not to {task.name}; run: codeformer download {task.weights_group}"
        )
