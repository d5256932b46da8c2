"""The face detectors: RetinaFace on two backbones, and dlib.

RetinaFace: Deng et al., CVPR 2020 (arXiv 1905.00641): anchors of six sizes on three strides, boxes, five landmarks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from codeformer import environment
from codeformer.arrays import Floats, Landmarks, Matrix, Pixels, Points, Rgb
from codeformer.errors import InputError, WeightsError
from codeformer.extras import require
from codeformer.faces.align import crop_scaled, face_transform, inverse, transform_points, warp
from codeformer.faces.face import Face, groups, merged, roll_of
from codeformer.faces.identity import dlib_models

# ------------------------------------------------------------------------------- RetinaFace's input and output

_STRIDES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # stride: its anchors' sides
_MEAN_RGB = np.array([123.0, 117.0, 104.0], dtype=np.float32)
_CANDIDATES = 5000


def network_input(pictures: Pixels | Floats) -> NDArray[np.float32]:
    """(B, H, W, 3) RGB in 0..255 as (B, 3, H', W') float32 BGR without its mean, padded to the coarsest stride."""
    count, height, width, _ = pictures.shape
    padded = np.zeros((count, 3, -(-height // 32) * 32, -(-width // 32) * 32), dtype=np.float32)
    for picture, planes in zip(pictures, padded, strict=True):
        for plane, mean, into in zip(cv2.split(picture), _MEAN_RGB, planes[::-1], strict=True):
            np.subtract(plane, mean, out=into[:height, :width])
    return padded


def decode(loc: Floats, conf: Floats, points: Floats, size: tuple[int, int], threshold: float) -> list[Face]:
    """Return the network's outputs for one picture of ``size`` (width, height after padding) as faces, best first.

    ``loc`` (N, 4), ``conf`` (N, 2) after softmax, ``points`` (N, 10), in units of the N anchors. The landmarks are
    the mean, weighted by score, over the anchors that agree on a face: steadier than those of the best one.
    """
    scores = conf[:, 1]
    keep = np.flatnonzero(scores >= threshold)
    keep = keep[np.argsort(-scores[keep], kind="stable")][:_CANDIDATES]
    if keep.size == 0:
        return []
    anchors = _anchors(size)[keep]
    centre, side, scores = anchors[:, :2], anchors[:, 2:], scores[keep]
    middle = centre + loc[keep, :2] * 0.1 * side
    half = side * np.exp(np.minimum(loc[keep, 2:] * 0.2, 8.0)) / 2
    # Anchors count from the corner of the first pixel, pictures from its centre
    boxes = np.concatenate([middle - half, middle + half], axis=1) - 0.5
    marks = centre[:, None] + points[keep].reshape(-1, 5, 2) * 0.1 * side[:, None] - 0.5
    faces = []
    for group in groups(boxes, scores):
        landmarks = np.average(marks[group], axis=0, weights=scores[group]).astype(np.float32)
        x0, y0, x1, y1 = (float(v) for v in boxes[group[0]])
        faces.append(Face((x0, y0, x1, y1), min(1.0, float(scores[group[0]])), landmarks))
    return faces


def _anchors(size: tuple[int, int]) -> NDArray[np.float32]:
    """(N, 3): centre x, centre y, side of every anchor, in the network's order."""
    parts = []
    for stride, sides in _STRIDES:
        ys, xs = np.mgrid[0 : -(-size[1] // stride), 0 : -(-size[0] // stride)]
        cells = (np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) * stride
        part = np.empty((len(cells), len(sides), 3), dtype=np.float32)
        part[..., :2] = cells[:, None]
        part[..., 2] = sides
        parts.append(part.reshape(-1, 3))
    return np.concatenate(parts)


# ------------------------------------------------------------------------------------------ two looks at a face

_VIEW = 160  # side of the upright view that the second look takes
_EYES = 44.0 / 126.0  # its scale: eyes 44 pixels apart, 126 in the template; larger views lose noisy faces
_BATCH = 16
_UPRIGHT = 40.0  # degrees: a face turned further in its view was not seen upright
_STRAIGHT = 15.0  # degrees: so straight does a face stand in its view that was cut by its true landmarks
_SURE = 6.9  # logit of the score from which on nothing but an upright face was seen, of 400 looks at 15 faces
_BELIEVED = 6.0  # logit below which another side is not believed: gravel and clocks have faces from some side
_MARGIN = 1.5  # by which another side's logit must be higher before it is believed


class RetinaFace(ABC):
    """Two looks at every face: where it is, then upright and at the size that the network sees best.

    Measured on 35 portraits at random angles (to 28 degrees) and sizes (from 90 to 630 pixels): the landmarks' spread
    falls from 3.6 to 0.8 pixels of the 512 crop. And the second look hardly ever mistakes gravel, clocks or cats for
    faces, as the first one does, so that the score, the geometric mean of both, separates better: faces of 14 pixels
    that the first look scores below 0.5 pass, its mistakes with 0.9 do not.
    """

    name: str

    @abstractmethod
    def outputs(self, x: NDArray[np.float32]) -> tuple[Floats, Floats, Floats]:
        """Map (B, 3, H, W) to loc (B, N, 4), conf (B, N, 2) after softmax, and points (B, N, 10)."""

    def detect(self, pictures: Pixels | Floats, threshold: float) -> list[list[Face]]:
        """Return the faces that the network alone finds in each of (B, H, W, 3) pictures, RGB in 0..255."""
        x = network_input(pictures)
        size = (x.shape[3], x.shape[2])
        return [decode(*one, size, threshold) for one in zip(*self.outputs(x), strict=True)]

    def __call__(self, rgb: Rgb, threshold: float) -> list[Face]:
        """Return the faces of a picture (H, W, 3) that both looks score at least `threshold`, best first."""
        # The second look's score is at most 1: what is below threshold squared at first cannot pass
        first = self.detect(rgb[None], max(0.02, threshold**2))[0]
        return merged([face for face in self._confirmed(rgb, first) if face.score >= threshold])

    def _confirmed(self, rgb: Rgb, faces: list[Face]) -> list[Face]:
        """Return the faces that the second look confirms, with their landmarks and scores of both looks.

        A face that is not upright and sure in its own view is looked at from the other three sides too: upside down,
        the network takes the mouth for eyes at scores of up to 0.99, but scores the true side higher.
        """
        found = self._closer(rgb, faces)
        unsure = [i for i, view in enumerate(found) if view is None or not view.is_sure]
        if unsure:
            sides = [_turned(faces[i].landmarks, turn) for i in unsure for turn in (1, 2, 3)]
            index_of = [i for i in unsure for _ in (1, 2, 3)]
            looks = self._closer(rgb, [replace(faces[i], landmarks=m) for i, m in zip(index_of, sides, strict=True)])
            better: dict[int, _View] = {}
            for index, view in zip(index_of, looks, strict=True):
                own = better.get(index, found[index])
                margin = 0.0 if index in better else _MARGIN
                if view is None or view.certainty < _BELIEVED:
                    continue
                if own is None or view.certainty > own.certainty + margin:
                    better[index] = view
            again = self._closer(rgb, [replace(faces[i], landmarks=view.landmarks) for i, view in better.items()])
            for (index, view), closer in zip(better.items(), again, strict=True):
                found[index] = closer or view
        return [
            replace(face, score=math.sqrt(face.score * view.score), landmarks=view.landmarks)
            for face, view in zip(faces, found, strict=True)
            if view is not None
        ]

    def _closer(self, rgb: Rgb, faces: list[Face]) -> list[_View | None]:
        """Look at each face in the upright view that its landmarks give, and in the view's mirror image."""
        result: list[_View | None] = [None] * len(faces)
        for start in range(0, len(faces), _BATCH):
            views, kept = [], []
            for index, face in enumerate(faces[start : start + _BATCH], start):
                try:
                    to_view = _view_transform(face.landmarks)
                    views.append(warp(rgb, to_view, (_VIEW, _VIEW)) * 255.0)
                except InputError:  # landmarks that no face has
                    continue
                kept.append((index, inverse(to_view)))
            if not kept:
                continue
            both = np.stack([v[:, ::s] for v in views for s in (1, -1)])
            found = self.detect(both, 0.02)
            for i, (index, back) in enumerate(kept):
                plain, mirrored = _middle_face(found[2 * i]), _middle_face(found[2 * i + 1])
                if plain is None or mirrored is None:
                    continue
                turned = mirrored.landmarks[[1, 0, 2, 4, 3]]
                turned[:, 0] = _VIEW - 1 - turned[:, 0]
                seen = (plain.landmarks + turned) / 2
                landmarks = transform_points(seen, back).astype(np.float32)
                result[index] = _View(landmarks, math.sqrt(plain.score * mirrored.score), abs(roll_of(seen)))
        return result


@dataclass(frozen=True, eq=False)
class _View:
    """What the second look saw: landmarks in the picture, the score, and how far the face is turned in its view."""

    landmarks: Landmarks
    score: float
    roll: float  # degrees, 0 to 180

    @property
    def certainty(self) -> float:
        """The score's logit: of upright faces at least 7, of faces taken the wrong way round mostly below 6."""
        score = min(self.score, 1 - 1e-7)
        return math.log(max(score, 1e-7) / (1 - score)) if self.roll <= _UPRIGHT else -math.inf

    @property
    def is_sure(self) -> bool:
        return self.certainty > _SURE and self.roll <= _STRAIGHT


def _turned(landmarks: Landmarks, quarters: int) -> Landmarks:
    """Return the landmarks turned by so many quarters around their middle, for a look from another side."""
    middle = landmarks.mean(axis=0)
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters % 4]
    return ((landmarks - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle).astype(np.float32)


def _view_transform(landmarks: Landmarks) -> Matrix:
    """Picture -> the upright view whose middle is the face's."""
    matrix = crop_scaled(face_transform(landmarks), _EYES)
    matrix[:, 2] += (_VIEW - 1) / 2 - (np.array([256.0, 305.0]) * _EYES + 0.5 * _EYES - 0.5)
    return matrix


def _middle_face(faces: list[Face]) -> Face | None:
    middle = (_VIEW - 1) / 2
    near = (f for f in faces if float(np.abs(f.landmarks.mean(axis=0) - middle).max()) < 0.12 * _VIEW)
    return max(near, key=lambda f: f.score, default=None)


class MobileNetDetector(RetinaFace):
    """RetinaFace on MobileNet-0.25: an ONNX file that comes in the package (``weights/README.md``). Runs on the CPU.

    Raises:
        WeightsError: the file is missing or damaged.
    """

    name = "retinaface_mobile0.25"
    file = "retinaface_mobile0.25.onnx"

    def __init__(self, device: str = "cpu", weights_dir: Path | None = None) -> None:
        from codeformer.hub.store import read_packaged

        network = read_packaged(self.file)
        onnxruntime = environment.onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(8, environment.threads())
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # pictures differ in size
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the cores to torch
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def outputs(self, x: NDArray[np.float32]) -> tuple[Floats, Floats, Floats]:
        """Return what the network says of its anchors; see :meth:`RetinaFace.outputs`."""
        loc, conf, points = self._session.run(["loc", "conf", "landmarks"], {"input": x})
        return loc, conf, points


class ResNetDetector(RetinaFace):
    """RetinaFace on ResNet-50: facexlib's network and its published file. Finds more, at 20 times the price."""

    name = "retinaface_resnet50"
    file = "detection_Resnet50_Final.pth"

    def __init__(self, device: str = "cpu", weights_dir: Path | None = None, path: Path | None = None) -> None:
        """``path``: the weights file itself, instead of the one in the weights folder."""
        if path is None:
            from codeformer.hub.store import find

            path = find(self.file, weights_dir)
        if path is None:
            raise WeightsError(
                f"--detection_model {self.name} needs {self.file}: run `codeformer download detection`, "
                f"or take the default, {MobileNetDetector.name}"
            )
        import warnings

        from codeformer.device import pick_device
        from codeformer.models.state import load_into

        what = f"--detection_model {self.name}"
        network = require("facexlib.detection.retinaface", what, "facexlib").RetinaFace
        self._device = pick_device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's about the argument by which facexlib asks for no weights
            net = network(network_name="resnet50", device=self._device)
        load_into(net, path, of=self.name)
        self._net = net.eval()

    def outputs(self, x: NDArray[np.float32]) -> tuple[Floats, Floats, Floats]:
        """Return what the network says of its anchors; see :meth:`RetinaFace.outputs`."""
        import torch

        from codeformer.device import whole_floats

        with torch.inference_mode(), whole_floats(self._device):
            loc, conf, points = self._net(torch.from_numpy(x).to(self._device))
        return loc.float().cpu().numpy(), conf.float().cpu().numpy(), points.float().cpu().numpy()


# ---------------------------------------------------------------------------------------------------------- dlib


class DlibDetector:
    """dlib's CNN detector and its 68 landmarks, of which five are taken (the extra ``dlib``)."""

    name = "dlib"

    def __init__(self, device: str = "cpu", weights_dir: Path | None = None) -> None:
        folder = dlib_models("--detection_model dlib", library=True)
        import dlib

        self._detect: Any = dlib.cnn_face_detection_model_v1(str(folder / "mmod_human_face_detector.dat"))
        self._predict: Any = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))

    def __call__(self, rgb: Rgb, threshold: float) -> list[Face]:
        """Return the faces of a picture (H, W, 3) with a score of at least `threshold`."""
        rgb = np.ascontiguousarray(rgb)
        faces = []
        for found in self._detect(rgb, 0):
            score = min(1.0, max(0.0, float(found.confidence)))
            if score < threshold:
                continue
            r = found.rect
            points = np.array([(p.x, p.y) for p in self._predict(rgb, r).parts()], dtype=np.float32)
            box = (float(r.left()), float(r.top()), float(r.right()), float(r.bottom()))
            faces.append(Face(box, score, five_of_68(points)))
        return merged(faces)


def five_of_68(points: Points) -> Landmarks:
    """Return five of the (68, 2) of iBUG 300-W: each eye's middle, the nose's tip, the mouth's corners."""
    eyes = [points[36:42].mean(axis=0), points[42:48].mean(axis=0)]
    return np.stack([*eyes, points[30], points[48], points[54]]).astype(np.float32)
