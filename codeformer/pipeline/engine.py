"""What a pipeline runs on: the networks of one task, loaded once, with the options that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.backends.base import FaceNetwork, backend_of
from codeformer.backends.choose import open_exported, place_for
from codeformer.errors import UsageError, WeightsError
from codeformer.models.file import ModelFile, find_model
from codeformer.options import FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline.agreement import needs_trial, require_agreement
from codeformer.pipeline.compose import Composition
from codeformer.tasks.base import Task

if TYPE_CHECKING:
    from codeformer.faces.find import Detector
    from codeformer.faces.parsing import Parser
    from codeformer.faces.person import Person, Recogniser
    from codeformer.images.tone import Tone
    from codeformer.pipeline.mend import Mender
    from codeformer.upsampling.upsampler import Upsampler


@dataclass(frozen=True, eq=False)
class Engine:
    """The loaded networks, the task, the options and the weights file. The steps only read it."""

    task: Task
    work: FaceWork
    model: ModelFile
    restorer: FaceNetwork
    detector: Detector | None = None  # None: aligned crops, or landmarks by hand
    parser: Parser | None = None
    background: Upsampler | None = None
    face_upsampler: Upsampler | None = None
    extras: Mapping[str, str] = field(default_factory=dict)  # further networks by purpose, for the report
    recogniser: Recogniser | None = None  # says who a face is
    person: Person | None = None  # whose faces alone are worked on; None: everybody's
    mender: Mender | None = None  # None: scratches stay
    film_tone: Tone | None = None  # of all frames of a film, which is judged as a whole

    @property
    def adain(self) -> bool:
        """Whether the network was trained with AdaIN before its decoder."""
        return self.model.adain(self.task)

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
            strength=self.work.strength,
            keep_occluders=self.work.faces.keep_occluders,
        )


def open_engine(task: Task, work: FaceWork, model: ModelFile | None = None) -> Engine:
    """Load everything that ``work`` asks for.

    ``model``: the weights file, where it is open already; None opens the one that ``work`` names. Raises WeightsError
    (a file is missing or refused), UsageError (no such device), InputError (a photograph of ``--person`` shows no face,
    or several), OutOfMemoryError.
    """
    require_recognition(task, work.faces)
    model = model or find_model(work.model.model, task, work.model.weights_dir)
    model.require_task(task)
    restorer = open_restorer(model, task, work.model)
    device = companions_device(work.model.device, restorer)
    faces, canvas, weights_dir = work.faces, work.canvas, work.model.weights_dir
    extras: dict[str, str] = {}

    detector = parser = background = face_upsampler = recogniser = person = None
    if not faces.aligned:
        if not faces.landmarks:
            from codeformer.faces.find import make_detector

            detector = make_detector(faces.detection_model, device=device, weights_dir=weights_dir)
            extras["detection"] = faces.detection_model
        if faces.person:
            from codeformer.faces.person import Recogniser

            recogniser = Recogniser(device)
            person = open_wanted(faces, recogniser, detector, device, weights_dir)
            extras["recognition"] = "dlib"
        if faces.parsing != "none":
            from codeformer.faces.parsing import make_parser

            parser = make_parser(faces.parsing, device=device, weights_dir=weights_dir)
            extras["parsing"] = getattr(parser, "name", faces.parsing) if parser else "none"
            require_parser(parser, faces)
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
    mender = None
    if work.scratches == "auto":
        from codeformer.device import pick_device
        from codeformer.pipeline.mend import find_inpainting, open_mender
        from codeformer.tasks.table import TASKS

        filling, filler = model, restorer
        if task.name != "inpaint":
            filling = find_inpainting(work.model)
            own = replace(work.model, compile=False)  # it sees one face at a time
            own = own if own.backend != "auto" else replace(own, device=device)
            filler = open_restorer(filling, TASKS["inpaint"], own)
        mender = open_mender(filler, filling, pick_device(device))
        extras["scratches"] = f"scratches.safetensors, {mender.model.path.name}"
    return Engine(
        task=task.suited(model.metadata),
        work=work,
        model=model,
        restorer=restorer,
        detector=detector,
        parser=parser,
        background=background,
        face_upsampler=face_upsampler,
        recogniser=recogniser,
        person=person,
        extras=extras,
        mender=mender,
    )


def require_recognition(task: Task, faces: FaceOptions) -> None:
    """Refuse ``--person`` for a task that does not ask whose a face is. Raises UsageError."""
    if faces.person and not task.recognises:
        raise UsageError(f"--person: {task.name} works where the mask is, whoever's face that is; leave --person out")


def require_parser(parser: Parser | None, faces: FaceOptions) -> None:
    """Refuse ``--keep_occluders`` where nothing sees them. Raises WeightsError."""
    if parser is None and faces.keep_occluders:
        raise WeightsError(
            "--keep_occluders needs a network that sees what is before the face: run `codeformer download "
            "parsing` (and pip install facexlib)"
        )


def open_wanted(
    faces: FaceOptions, recogniser: Recogniser, detector: Detector | None, device: str, weights_dir: Path | None
) -> Person:
    """Return the person of ``--person``.

    Args:
        faces: name the photographs.
        recogniser: describes their faces.
        detector: finds their faces; None opens the one that ``faces`` name.
        device: where it runs then.
        weights_dir: where its weights lie.

    Raises:
        InputError: a photograph cannot be read, or shows no face, or several.
    """
    from codeformer.faces.find import make_detector
    from codeformer.faces.person import open_person

    finder = detector or make_detector(faces.detection_model, device=device, weights_dir=weights_dir)
    return open_person(faces.person, faces.person_distance, recogniser, finder, faces.det_threshold)


def companions_device(asked: str, restorer: FaceNetwork) -> str:
    """Return where PyTorch's networks run beside this one: the detector, the parser, the upsamplers.

    Args:
        asked: the ``--device`` of the run.
        restorer: the network that was opened for it.
    """
    if backend_of(restorer.device) == "torch":
        return str(restorer.device)
    return "cpu" if asked == "cpu" else "auto"  # the devices of other engines have other names


def open_restorer(model: ModelFile, task: Task, options: ModelOptions) -> FaceNetwork:
    """Return the network of a weights file, or an exported one, on the engine and device that the options ask for.

    Raises:
        WeightsError: the file is damaged, or holds a stage I autoencoder.
        UsageError: the engine, the device or the precision is not there.
        OutOfMemoryError: the network does not fit into memory.
        RestorationError: the device computes something else than the CPU does.
    """
    place = place_for(model, task, options)
    if place.backend != "torch":
        if options.compile:
            raise UsageError(f"--compile is for PyTorch, and {place.backend} runs {model.path.name}: leave it out")
        return open_exported(model, task, options, place)
    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.vqgan import VQAutoEncoder
    from codeformer.pipeline.restorer import FaceRestorer

    net = model.build()
    if isinstance(net, VQAutoEncoder) and not isinstance(net, CodeFormer):
        raise WeightsError(
            f"{model.path}: holds a stage I autoencoder, which restores nothing; give a whole CodeFormer file"
        )
    precision: str = options.precision
    if not isinstance(net, CodeFormer):
        from codeformer.device import pick_device, pick_precision

        if precision == "fp16":
            raise UsageError(f"--precision fp16 is too narrow for {model.architecture}: use bf16 or fp32")
        picked = pick_precision(precision, pick_device(options.device))
        precision = "fp32" if picked == "fp16" else picked
    twin = deepcopy(net) if needs_trial(place.device) else None  # before the network moves to the device
    restorer = FaceRestorer(net, device=options.device, precision=precision, batch_size=options.batch_size)
    if twin is not None:
        require_agreement(restorer, FaceRestorer(twin, device="cpu", precision="fp32"))
    if options.compile:
        from codeformer.pipeline.compiled import translate

        translate(restorer, w=task.default_w, adain=model.adain(task))
    return restorer
