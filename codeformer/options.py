"""What the user asked for: frozen dataclasses, validated once, before any work.

A value out of range raises :class:`~codeformer.errors.UsageError`, which names the flag that sets it. Nothing heavy is
imported here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Literal, get_args

from codeformer.errors import UsageError
from codeformer.files.paths import is_file

Backend = Literal["auto", "torch", "onnxruntime", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Parsing = Literal["auto", "bisenet", "parsenet", "none"]
TonePolicy = Literal["auto", "keep", "free"]
NoFace = Literal["skip", "copy", "error"]
ScratchPolicy = Literal["auto", "off"]
Extension = Literal["png", "jpg", "webp", "avif", "tiff", "same"]

TONES: tuple[str, ...] = get_args(TonePolicy)
BACKENDS: tuple[str, ...] = get_args(Backend)
PRECISIONS: tuple[str, ...] = get_args(Precision)
PARSINGS: tuple[str, ...] = get_args(Parsing)
NO_FACE: tuple[str, ...] = get_args(NoFace)
SCRATCHES: tuple[str, ...] = get_args(ScratchPolicy)
EXTENSIONS: tuple[str, ...] = get_args(Extension)
#: From 0 to 9. Level 4 took half as long again for files that are a tenth smaller.
DEFAULT_PNG_LEVEL = 2
DEFAULT_DETECTOR = "retinaface_mobile0.25"
#: Low enough for small and turned faces, high enough to leave badges and statues on clothes alone.
DEFAULT_THRESHOLD = 0.7
#: How far the descriptions of two faces of one person may be apart, by dlib's authors.
PERSON_DISTANCE = 0.6
#: Endings by which ``codeformer restore`` hands an input over to ``codeformer video``.
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})


def _require(good: bool, flag: str, message: str) -> None:
    if not good:
        raise UsageError(f"{flag} {message}")


def _choice(value: str, choices: tuple[str, ...], flag: str) -> None:
    _require(value in choices, flag, f"must be one of {', '.join(choices)}, not {value!r}")


def _device(value: str, backend: str = "torch") -> None:
    words, known = _DEVICES[backend]
    _require(re.fullmatch(words, value) is not None, "--device", f"must be {known}, not {value!r}")


#: The devices of each engine, as a pattern and in words. What ``auto`` stands for is known when the model is.
_TORCH = (r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:N or mps")
_ONNXRUNTIME = (
    r"auto|cpu|coreml|openvino|(cuda|tensorrt|rocm|directml)(:\d+)?",
    "auto, cpu, cuda, tensorrt, rocm, directml (each also with a number, such as cuda:1), coreml or openvino "
    "for --backend onnxruntime",
)
_OPENVINO = (r"auto|cpu|gpu(:\d+)?", "auto, cpu, gpu or gpu:N for --backend openvino")
_DEVICES = {
    "torch": _TORCH,
    "onnxruntime": _ONNXRUNTIME,
    "openvino": _OPENVINO,
    "auto": ("|".join((_TORCH[0], _ONNXRUNTIME[0])), _TORCH[1]),
}


def _folder(path: Path | None) -> None:
    _require(path is None or not is_file(path), "--output_path", f"is a file, not a folder: {path}")


def _max_pixels(value: int | None) -> None:
    _require(value is None or value >= 1, "--max_pixels", f"must be auto or at least 1, not {value}")


def _quality(value: int) -> None:
    _require(1 <= value <= 100, "--quality", f"must lie in [1, 100], not {value}")


def _png_level(value: int) -> None:
    _require(0 <= value <= 9, "--png_level", f"must lie in [0, 9], not {value}")


def _tile(value: int | None, flag: str) -> None:
    good = value is None or value == 0 or value >= 32
    _require(good, flag, f"must be auto, 0 (no tiles) or at least 32 pixels, not {value}")


@dataclass(frozen=True)
class ModelOptions:
    """Which network runs, where, and how."""

    model: str = "auto"  # auto | compact | official | a file
    weights_dir: Path | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps, or a device of another engine
    precision: Precision = "auto"
    batch_size: int | None = None  # None: by the device
    backend: Backend = (
        "auto"  # auto: PyTorch for weights, ONNX Runtime for exported networks and where it starts sooner
    )
    compile: bool = False  # let torch.compile translate the network, on a CUDA card

    def __post_init__(self) -> None:
        _require(bool(self.model), "--model", "must be auto, compact, official or a file")
        _choice(self.backend, BACKENDS, "--backend")
        _device(self.device, self.backend)
        _choice(self.precision, PRECISIONS, "--precision")
        _require(self.batch_size is None or self.batch_size >= 1, "--batch_size", "must be auto or at least 1")
        _require(
            not self.compile or (self.backend in ("auto", "torch") and self.device not in ("cpu", "mps")),
            "--compile",
            "is for PyTorch on a CUDA card: leave it out, or --backend and --device",
        )


@dataclass(frozen=True)
class FaceOptions:
    """Which faces of a picture are worked on."""

    detection_model: str = DEFAULT_DETECTOR
    det_threshold: float = DEFAULT_THRESHOLD
    min_face_size: float = 0.0  # pixels of the picture, the shorter side of the face's box
    max_face_size: float | None = None  # the same; larger faces are left alone
    max_faces: int | None = None
    only_center_face: bool = False
    numbers: tuple[int, ...] = ()  # --face: 1-based, left to right
    landmarks: tuple[tuple[tuple[float, float], ...], ...] = ()  # by hand: faces of five points each, picture pixels
    aligned: bool = False  # the pictures are aligned crops: nothing is detected
    parsing: Parsing = "auto"
    person: tuple[Path, ...] = ()  # photographs of the one person whose faces are wanted
    keep_occluders: bool = False  # what hangs before a face stays as it is in the picture
    person_distance: float = PERSON_DISTANCE  # how far a face may be from them, see codeformer.faces.person

    def __post_init__(self) -> None:
        _require(0 <= self.det_threshold <= 1, "--det_threshold", f"must lie in [0, 1], not {self.det_threshold}")
        _require(
            isfinite(self.min_face_size) and self.min_face_size >= 0,
            "--min_face_size",
            f"must be 0 or more pixels, not {self.min_face_size}",
        )
        _require(
            self.max_face_size is None or (isfinite(self.max_face_size) and self.max_face_size >= self.min_face_size),
            "--max_face_size",
            f"must not be less than --min_face_size, not {self.max_face_size}",
        )
        _require(self.max_faces is None or self.max_faces >= 1, "--max_faces", "must be at least 1")
        _require(all(n >= 1 for n in self.numbers), "--face", "counts faces from 1, left to right")
        _require(not (self.numbers and self.only_center_face), "--face", "and --only_center_face contradict each other")
        _require(
            all(len(face) == 5 for face in self.landmarks), "--landmarks", 'needs five points "x,y x,y x,y x,y x,y"'
        )
        _require(
            all(isfinite(value) for face in self.landmarks for point in face for value in point),
            "--landmarks",
            "must be finite numbers",
        )
        _require(not (self.aligned and self.landmarks), "--aligned", "and --landmarks contradict each other")
        _require(
            not (self.aligned and (self.numbers or self.only_center_face)),
            "--aligned",
            "takes each picture as one face, so --face and --only_center_face have no meaning",
        )
        _choice(self.parsing, PARSINGS, "--parsing")
        _require(
            not (self.keep_occluders and self.aligned),
            "--keep_occluders",
            "needs whole pictures, into which faces are pasted; with --aligned the result is the network's crop",
        )
        _require(
            not (self.keep_occluders and self.parsing == "none"),
            "--keep_occluders",
            "needs a network that sees what is before the face: leave --parsing none out",
        )
        _require(
            not (self.person and self.numbers),
            "--person",
            "and --face contradict each other: one chooses faces by who they are, the other by their place",
        )
        _require(
            not (self.person and self.aligned),
            "--person",
            "needs whole pictures, in which it chooses faces; with --aligned give it the crops of that person alone",
        )
        _require(
            0 < self.person_distance <= 2,
            "--person_distance",
            f"must lie above 0 and up to 2, not {self.person_distance:g}; 0.6 is usual",
        )


@dataclass(frozen=True)
class CanvasOptions:
    """The picture around the faces."""

    upscale: float = 2.0
    bg_upsampler: str | None = None  # realesrgan, or a file; None: Lanczos
    face_upsample: bool = False
    bg_tile: int | None = None  # pixels; None: by the device's memory; 0: no tiles
    draw_box: bool = False

    def __post_init__(self) -> None:
        _require(1 <= self.upscale <= 4, "--upscale", f"must lie in [1, 4], not {self.upscale}")
        _tile(self.bg_tile, "--bg_tile")

    @property
    def upsampler_scale(self) -> float:
        """The enlargement that an upsampler is chosen for: faces may be shown larger than their picture."""
        return max(self.upscale, 2.0) if self.face_upsample else self.upscale


@dataclass(frozen=True)
class FaceWork:
    """Everything that decides how a picture's faces come out: what a pipeline is opened with."""

    w: float = 0.5
    model: ModelOptions = field(default_factory=ModelOptions)
    faces: FaceOptions = field(default_factory=FaceOptions)
    canvas: CanvasOptions = field(default_factory=CanvasOptions)
    tone: TonePolicy = "auto"  # keep: faces get the picture's one colour for each brightness; free: the network's
    strength: float = 1.0  # share of the restored faces in the result; the rest is the picture as it was
    more_w: tuple[float, ...] = ()  # further fidelity weights, each with results of its own
    scratches: ScratchPolicy = "off"  # auto: scratches, dust and creases are found and filled first

    @property
    def weights(self) -> tuple[float, ...]:
        """All fidelity weights, ``w`` first."""
        return (self.w, *self.more_w)

    def __post_init__(self) -> None:
        _require(0 <= self.strength <= 1, "--strength", f"must lie in [0, 1], not {self.strength}")
        for w in self.weights:
            _require(0 <= w <= 1, "--fidelity_weight", f"must lie in [0, 1], not {w}")
        names = [f"{w:g}" for w in self.weights]  # results are named so
        _require(len({*names}) == len(names), "--fidelity_weight", f"has a weight twice: {' '.join(names)}")
        _choice(self.tone, TONES, "--tone")
        _choice(self.scratches, SCRATCHES, "--scratches")


@dataclass(frozen=True)
class OutputOptions:
    """Where results go and what they look like."""

    output_path: Path | None = None  # None: results/<input name>_<w>
    suffix: str | None = None
    ext: Extension = "png"
    quality: int = 95
    png_level: int = DEFAULT_PNG_LEVEL  # the same pixels: no reason to do a picture again
    compare: bool = False
    only_final: bool = False
    no_face: NoFace = "copy"
    resume: bool = True

    def __post_init__(self) -> None:
        _choice(self.ext, EXTENSIONS, "--ext")
        _choice(self.no_face, NO_FACE, "--no_face")
        _quality(self.quality)
        _png_level(self.png_level)
        _require(
            self.suffix is None or not re.search(r'[/\\\0:*?"<>|]', self.suffix),
            "--suffix",
            "becomes part of a file name and cannot hold path characters",
        )


@dataclass(frozen=True)
class Shard:
    """One of several processes that work on one output folder: each input is taken by exactly one of them.

    ``index`` counts from 0, as schedulers count; ``count`` is how many there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        _require(1 <= self.count <= 100_000, "--shard", f"I/N needs N from 1 to 100000, not {self.count}")
        last = f"0/{self.count} to {self.count - 1}/{self.count}"
        _require(0 <= self.index < self.count, "--shard", f"{self}: I counts from 0, so there are {last}")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, key: str) -> bool:
        """Return whether an input is this one's: by a digest of its key, whatever other inputs there are."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


@dataclass(frozen=True)
class RayOptions:
    """Which Ray cluster does a run, and what each of its workers gets.

    Attributes:
        address: ``local`` starts one on this machine, ``auto`` takes the one that it belongs to; or HOST:PORT.
        workers: how many; None for as many as fit.
        cpus_per_worker: cores, also the threads of a worker.
        gpus_per_worker: GPUs, also parts of one; None for one where there are any.
    """

    address: str = "local"
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        named = self.address in ("auto", "local") or (host and colon and port.isdecimal())
        _require(bool(named), "--ray_address", f"must be auto, local or HOST:PORT, not {self.address!r}")
        _require(self.workers is None or self.workers >= 1, "--workers", f"must be 1 or more, not {self.workers}")
        _require(self.cpus_per_worker > 0, "--cpus_per_worker", f"must be above 0, not {self.cpus_per_worker:g}")
        gpus = self.gpus_per_worker
        _require(gpus is None or gpus >= 0, "--gpus_per_worker", f"must be 0 or more, not {gpus}")


@dataclass(frozen=True)
class RunOptions:
    """One run over files and folders.

    ``w_by_model`` says that nobody asked for ``work.w``: a weights file that wants another fidelity weight gets it.
    """

    inputs: tuple[Path, ...]
    work: FaceWork = field(default_factory=FaceWork)
    output: OutputOptions = field(default_factory=OutputOptions)
    recursive: bool = False
    w_by_model: bool = False
    max_pixels: int | None = None  # of an input; None: by the machine's memory
    shard: Shard | None = None  # None: this process does all inputs
    input_list: Path | None = None  # a file that names further inputs; see codeformer.run.input_list
    ray: RayOptions | None = None  # None: this process does the work

    def __post_init__(self) -> None:
        _max_pixels(self.max_pixels)
        _require(bool(self.inputs or self.input_list), "--input_path", "is needed: a picture, a folder, or several")
        _folder(self.output.output_path)

    @property
    def given(self) -> tuple[Path, ...]:
        """What the user named: the inputs, or the list of them, after which the output folder is called."""
        return self.inputs or (Path("stdin") if self.input_list == Path("-") else self.input_list or Path("inputs"),)


@dataclass(frozen=True)
class UpscaleOptions:
    """One run of super-resolution over files and folders."""

    inputs: tuple[Path, ...]
    output_path: Path
    recursive: bool = False
    upscale: float = 4.0
    model: str = "realesrgan"  # or a file
    tile: int | None = None  # pixels; None: by the device's memory; 0: no tiles
    weights_dir: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"
    ext: Extension = "png"
    quality: int = 95
    png_level: int = DEFAULT_PNG_LEVEL
    resume: bool = True  # False: also what is done already, and over files of the same names
    max_pixels: int | None = None  # of an input; None: by the machine's memory
    shard: Shard | None = None  # None: this process does all inputs
    input_list: Path | None = None  # a file that names further inputs; see codeformer.run.input_list
    ray: RayOptions | None = None  # None: this process does the work

    def __post_init__(self) -> None:
        _max_pixels(self.max_pixels)
        _require(bool(self.inputs or self.input_list), "--input_path", "is needed: a picture, a folder, or several")
        _folder(self.output_path)
        _require(0 < self.upscale <= 16, "--upscale", f"must lie in (0, 16], not {self.upscale:g}")
        _require(bool(self.model), "--model", "must be realesrgan or a file")
        _tile(self.tile, "--tile")
        _device(self.device)
        _choice(self.precision, PRECISIONS, "--precision")
        _choice(self.ext, EXTENSIONS, "--ext")
        _quality(self.quality)
        _png_level(self.png_level)


@dataclass(frozen=True)
class Demands:
    """What a face of a photograph must be like so that training can use it, and how it is written.

    Attributes:
        size: side of the crops, pixels. A face that has fewer pixels in its photograph is written that much smaller,
            unless `enlarge`: training takes any sizes, and learns the finest detail from faces that have it.
        min_size: least side of the aligned square in the photograph, pixels (about 4 times the eyes' distance).
        min_sharpness: least variance of the Laplacian, see `codeformer.train.align.sharpness`.
        threshold: least score of the detector.
        ext, quality: format of the files, png or webp, and WebP's quality.
    """

    size: int = 512
    min_size: float = 256.0
    min_sharpness: float = 80.0
    threshold: float = DEFAULT_THRESHOLD
    enlarge: bool = False
    ext: str = "png"
    quality: int = 95

    def __post_init__(self) -> None:
        _require(16 <= self.size <= 4096, "--size", f"must lie in [16, 4096] pixels, not {self.size}")
        _require(self.min_size >= 0, "--min_size", f"must be 0 or more pixels, not {self.min_size:g}")
        _require(self.min_sharpness >= 0, "--min_sharpness", f"must be 0 or more, not {self.min_sharpness:g}")
        _require(0 <= self.threshold <= 1, "--det_threshold", f"must lie in [0, 1], not {self.threshold:g}")
        _choice(self.ext, ("png", "webp"), "--ext")
        _quality(self.quality)


@dataclass(frozen=True)
class AlignOptions:
    """One run that cuts aligned faces out of photographs."""

    inputs: tuple[Path, ...]
    output_path: Path
    recursive: bool = False
    demands: Demands = field(default_factory=Demands)
    detection_model: str = DEFAULT_DETECTOR
    weights_dir: Path | None = None
    device: str = "auto"
    png_level: int = DEFAULT_PNG_LEVEL
    resume: bool = True
    shard: Shard | None = None  # None: this process does all inputs
    input_list: Path | None = None  # a file that names further inputs; see codeformer.run.input_list
    ray: RayOptions | None = None  # None: this process does the work

    def __post_init__(self) -> None:
        _png_level(self.png_level)
        _require(bool(self.inputs or self.input_list), "IN", "is needed: a photograph, a folder, or several")
        _folder(self.output_path)
        _device(self.device)
