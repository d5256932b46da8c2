"""One picture on a CPU: the engine that starts soonest is done first."""

from __future__ import annotations

from dataclasses import replace

from codeformer.backends.stored import is_linked
from codeformer.environment import accelerator_in_sight
from codeformer.faces.parsing import find_parser
from codeformer.models.file import ModelFile
from codeformer.options import DEFAULT_DETECTOR, FaceWork
from codeformer.tasks.base import Task


def for_one_picture(task: Task, work: FaceWork, model: ModelFile) -> FaceWork:
    """Return the work with ONNX Runtime in the place of PyTorch, where that is done sooner with one picture.

    PyTorch takes longer to start than the bundled network takes for a few faces. So where the options leave the choice
    (``--backend auto``, ``--device auto`` or ``cpu``), no accelerator is in sight, the weights file has graphs beside
    it and nothing else of the work needs PyTorch, it is left out. ONNX Runtime computes in fp32.

    Args:
        task: what is done with the picture.
        work: as it was asked for.
        model: the weights file.
    """
    asked = work.model
    free = asked.backend == "auto" and asked.device in ("auto", "cpu") and asked.precision in ("auto", "fp32")
    if not free or asked.compile or (asked.device == "auto" and accelerator_in_sight()):
        return work
    if _needs_torch(work) or not is_linked(model, task):
        return work
    return replace(work, model=replace(asked, backend="onnxruntime", device="cpu"))


def _needs_torch(work: FaceWork) -> bool:
    """Return whether something beside the network runs on PyTorch."""
    canvas, faces = work.canvas, work.faces
    if canvas.bg_upsampler or canvas.face_upsample or faces.person or work.scratches == "auto":
        return True
    if faces.aligned:
        return False
    detects = not faces.landmarks and faces.detection_model != DEFAULT_DETECTOR
    return detects or (faces.parsing != "none" and find_parser(faces.parsing, work.model.weights_dir) is not None)
