"""The networks that all requests share, each opened when it is wanted first."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from codeformer.models.file import ModelFile, find_model
from codeformer.options import CanvasOptions, FaceOptions, FaceWork
from codeformer.pipeline.engine import (
    Engine,
    companions_device,
    open_engine,
    open_wanted,
    require_parser,
    require_recognition,
)
from codeformer.tasks.base import Task
from codeformer.tasks.table import TASKS
from codeformer.upsampling.networks import find_realesrgan
from codeformer.upsampling.upsampler import Upsampler, make_upsampler
from codeformer.web.options import ServerOptions

if TYPE_CHECKING:
    from codeformer.faces.person import Person, Recogniser


class LoadedNetworks:
    """Engines by task, for any options of requests. Several threads may ask."""

    def __init__(self, server: ServerOptions) -> None:
        """Open nothing yet."""
        self._server = server
        self._lock = threading.RLock()
        self._models: dict[str, ModelFile] = {}
        self._engines: dict[str, Engine] = {}
        self._upsamplers: dict[str, Upsampler] = {}
        self._recogniser: Recogniser | None = None
        #: Held by whoever finds faces or runs a batch: a detector serves one at a time, and the machine is one.
        self.busy = threading.Lock()

    def model(self, task: Task) -> ModelFile:
        """Return a task's weights file. Raises WeightsError."""
        with self._lock:
            if task.name not in self._models:
                asked = self._server.model
                self._models[task.name] = find_model(asked.model, task, asked.weights_dir)
            return self._models[task.name]

    def engine(self, task: Task, work: FaceWork) -> Engine:
        """Return the networks with the options of a request.

        Raises:
            CodeFormerError: a file is missing or refused, or the device lacks memory.
        """
        with self._lock:
            base = self._engines.get(task.name)
            if base is None:
                model = self.model(task)
                plain_faces = FaceOptions(detection_model=work.faces.detection_model)
                plain = replace(work, faces=plain_faces, canvas=CanvasOptions(upscale=1.0))
                base = open_engine(TASKS[task.name], plain, model)
                self._engines[task.name] = base
            faces, canvas = work.faces, work.canvas
            upsampler = None
            if (canvas.bg_upsampler or canvas.face_upsample) and not faces.aligned:
                upsampler = self.upsampler(canvas.upsampler_scale)
            parser = None if faces.aligned or faces.parsing == "none" else base.parser
            require_parser(parser, faces)
            recogniser, person = self._wanted(task, faces, base)
            return replace(
                base,
                task=task.suited(base.model.metadata),
                work=work,
                detector=None if faces.aligned or faces.landmarks else base.detector,
                parser=parser,
                background=upsampler if canvas.bg_upsampler else None,
                face_upsampler=upsampler if canvas.face_upsample else None,
                recogniser=recogniser,
                person=person,
            )

    def _wanted(self, task: Task, faces: FaceOptions, base: Engine) -> tuple[Recogniser | None, Person | None]:
        """Return who says whose a face is, and the person of a request.

        Whoever asks holds ``busy``, as the detector runs.
        """
        if not faces.person:
            return None, None
        require_recognition(task, faces)
        from codeformer.faces.person import Recogniser

        device = self._device()
        if self._recogniser is None:
            self._recogniser = Recogniser(device)
        person = open_wanted(faces, self._recogniser, base.detector, device, self._server.model.weights_dir)
        return self._recogniser, person

    def _device(self) -> str:
        """Return where PyTorch's networks run; those of another engine have devices of other names."""
        asked = self._server.model.device
        for engine in self._engines.values():
            return companions_device(asked, engine.restorer)
        return asked

    def upsampler(self, scale: float) -> Upsampler:
        """Return the network that enlarges by a factor. Raises WeightsError."""
        with self._lock:
            options = self._server.model
            path = find_realesrgan(scale, options.weights_dir)
            if str(path) not in self._upsamplers:
                self._upsamplers[str(path)] = make_upsampler(
                    path,
                    scale=scale,
                    device=self._device(),
                    precision=options.precision,
                    tile="auto",
                    weights_dir=options.weights_dir,
                )
            return self._upsamplers[str(path)]
