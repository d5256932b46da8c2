"""ONNX files of a network: written, checked and compared with PyTorch before they get their name."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codeformer.environment import onnxruntime, threads
from codeformer.errors import RestorationError, UsageError, WeightsError
from codeformer.extras import require
from codeformer.files.atomic import write_atomic
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import CONFIG_KEY
from codeformer.models.file import OWN, ModelFile
from codeformer.tasks.base import Task

if TYPE_CHECKING:
    from codeformer.export.graphs import ExportPart

_OPSET = 18
_PACKAGES = "onnx onnxscript"
_LARGEST_BATCH = 64
_WEIGHTS = (0.0, 0.5, 1.0)  # fidelity weights at which files are compared
_LEAST_PSNR = 45.0  # dB, of half precision
_MOST = 1.0  # of 255, of full precision


@dataclass(frozen=True)
class ExportOptions:
    """What ``codeformer export`` was asked for.

    Attributes:
        output: the file, ``NAME.onnx``; with ``split`` its name is the beginning of two.
        precision: fp32, or fp16, of weights and arithmetic; inputs and outputs stay fp32.
        split: two files, ``NAME_encoder.onnx`` and ``NAME_decoder.onnx``.
        verify: compare with PyTorch before the files get their names.
    """

    output: Path
    precision: str = "fp32"
    split: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse names and precisions that cannot be written."""
        if self.output.suffix.lower() != ".onnx":
            raise UsageError(f"--output_path {self.output}: an exported file ends with .onnx")
        if self.precision not in ("fp32", "fp16"):
            raise UsageError(f"--precision {self.precision}: export writes fp32 or fp16")

    def paths(self) -> list[Path]:
        """Return the files that are written."""
        if not self.split:
            return [self.output]
        return [self.output.with_name(f"{self.output.stem}_{part}.onnx") for part in ("encoder", "decoder")]


@dataclass(frozen=True)
class Comparison:
    """How near the exported files come to PyTorch, over all pictures and fidelity weights.

    Attributes:
        equal_codes: share of codes that are the same.
        furthest: greatest difference of a value, of 255.
        psnr: in dB; infinite where all values are equal.
    """

    equal_codes: float
    furthest: float
    psnr: float

    def require(self, precision: str) -> None:
        """Raise RestorationError if the files are not as near as they must be."""
        if precision == "fp32" and (self.furthest > _MOST or self.equal_codes < 1):
            raise RestorationError(f"the exported network differs from PyTorch's: {self}")
        if precision == "fp16" and self.psnr < _LEAST_PSNR:
            raise RestorationError(f"in half precision the exported network differs too much: {self}")

    def __str__(self) -> str:
        share = f"{self.equal_codes:.2%} of the codes are the same"
        return f"{share}, values differ by at most {self.furthest:.3f} of 255, PSNR {self.psnr:.1f} dB"


@dataclass(frozen=True)
class Exported:
    """The files that were written, and how near they come to PyTorch (None: not compared)."""

    paths: list[Path]
    comparison: Comparison | None = field(default=None)


def export(model: ModelFile, task: Task, options: ExportOptions, pictures: np.ndarray | None = None) -> Exported:
    """Write a network as ONNX.

    Args:
        model: the weights file.
        task: restore, colorize or inpaint: decides AdaIN.
        options: where and how.
        pictures: (B, S, S, 3) float32 in [0, 1], aligned faces to compare on; None for some that the network draws.

    Raises:
        UsageError: the packages that exporting needs are missing.
        WeightsError: the file was trained for other tasks, or is a stage I autoencoder.
        RestorationError: the files differ from PyTorch by more than they may.
        OutputError: a file cannot be written.
    """
    onnx = require("onnx", "codeformer export", _PACKAGES)
    require("onnxscript", "codeformer export", _PACKAGES)
    from codeformer.export import graphs

    model.require_task(task)
    if model.architecture != OWN:
        raise WeightsError(f"{model.path}: holds {model.architecture}; only CodeFormer is exported")
    net = model.build()
    if not isinstance(net, CodeFormer):
        raise WeightsError(f"{model.path}: holds a stage I autoencoder, which restores nothing")
    adain = model.adain(task)
    parts = graphs.split(net, adain) if options.split else (graphs.whole(net, adain),)
    blobs = []
    for part in parts:
        proto = _traced(part)
        if options.precision == "fp16":
            proto = _halved(proto)
        for key, value in _metadata(model, task, options, part, adain).items():
            proto.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(proto)
        blobs.append(proto.SerializeToString())
    comparison = None
    if options.verify:
        faces = drawn(net) if pictures is None else pictures
        comparison = compare(net, adain, blobs, faces)
        comparison.require(options.precision)
    for path, blob in zip(options.paths(), blobs, strict=True):
        write_atomic(path, blob)
    return Exported(options.paths(), comparison)


def _traced(part: ExportPart) -> Any:
    """Return a graph as an ONNX model with any batch; the exporter's own words go nowhere."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    shapes: list[Any] = [{} if name == "w" else {0: batch} for name in part.inputs]
    if part.name == "decoder":  # what a star argument takes is one tuple there
        shapes = [*shapes[:3], tuple(shapes[3:])]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            part.module,
            part.example,
            dynamo=True,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=tuple(shapes),
            opset_version=_OPSET,
            verbose=False,
        )
    return program.model_proto


def _halved(proto: Any) -> Any:
    float16 = require("onnxruntime.transformers.float16", "--precision fp16", "onnxruntime onnx")
    onnx_model = require("onnxruntime.transformers.onnx_model", "--precision fp16", "onnxruntime onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that half precision rounds to nothing: the comparison decides
        halved = onnx_model.OnnxModel(float16.convert_float_to_float16(proto, keep_io_types=True))
    halved.topological_sort()  # the casts of the inputs are appended at the end
    return halved.model


def _metadata(model: ModelFile, task: Task, options: ExportOptions, part: ExportPart, adain: bool) -> dict[str, str]:
    """Return what the file says of itself: what our weights file says, and how it was made.

    AdaIN is part of the graph: where the weights file does not say how it was trained, the graph is for its task alone.
    """
    known = dict(model.metadata)
    if "adain" not in known:
        known["tasks"] = task.name
    return {
        **known,
        CONFIG_KEY: json.dumps(asdict(model.config)),
        "part": part.name,
        "task": task.name,
        "adain": str(adain).lower(),
        "precision": options.precision,
        "source_sha256": model.sha256,
        "range": "RGB in [0, 1]",
    }


def drawn(net: CodeFormer) -> np.ndarray:
    """Return two pictures (2, S, S, 3) that the network draws from codes of its own, blurred: faces of a kind."""
    import torch

    side = net.config.latent_side
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, net.config.codebook_size, (2, side * side), generator=generator)
        quant = net.quantize.lookup(codes, (side, side))
        out = (net.generator(quant).clamp(-1, 1) + 1) / 2
        out = torch.nn.functional.avg_pool2d(out, 5, 1, 2)
    return out.permute(0, 2, 3, 1).contiguous().numpy()


def session(blob: bytes | Path) -> Any:
    """Return an ONNX Runtime session on the CPU for a model's bytes, or its file; its threads do not spin."""
    module = onnxruntime()
    settings = module.SessionOptions()
    settings.intra_op_num_threads = threads()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return module.InferenceSession(
        blob if isinstance(blob, bytes) else str(blob), settings, providers=["CPUExecutionProvider"]
    )


def compare(net: CodeFormer, adain: bool, blobs: Sequence[bytes | Path], pictures: np.ndarray) -> Comparison:
    """Run exported models, whole or encoder and decoder, beside PyTorch in full precision.

    Args:
        net: the network.
        adain: as the files were exported with.
        blobs: the models' bytes, or their files.
        pictures: (B, S, S, 3) float32 in [0, 1].
    """
    import torch

    sessions = [session(blob) for blob in blobs]
    x = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2), np.float32)
    same, furthest, squares = [], 0.0, []
    with torch.inference_mode():
        lq_feat, features = net.encode_features(torch.from_numpy(x) * 2 - 1)
        codes = net.predict_logits(lq_feat).argmax(2)
        for w in _WEIGHTS:
            wanted = (net.decode_codes(codes, lq_feat, features, torch.tensor(w), adain).clamp(-1, 1) + 1) / 2
            restored, found = run(sessions, x, w)
            difference = np.abs(restored - wanted.numpy())
            furthest = max(furthest, float(difference.max()) * 255)
            squares.append(float((difference.astype(np.float64) ** 2).mean()))
            same.append(float((found == codes.numpy()).mean()))
    mean = float(np.mean(squares))
    return Comparison(float(np.min(same)), furthest, float("inf") if mean == 0 else -10 * float(np.log10(mean)))


def run(sessions: Sequence[Any], x: np.ndarray, w: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what exported models make of pictures: restored (B, 3, S, S) and codes (B, h w).

    Args:
        sessions: of the whole, or of encoder and decoder.
        x: (B, 3, S, S) float32 in [0, 1].
        w: the fidelity weight.
    """
    weight = np.array(w, np.float32)
    if len(sessions) == 1:
        restored, codes = sessions[0].run(["restored", "codes"], {"picture": x, "w": weight})
        return restored, codes
    encoder, decoder = sessions
    names = [one.name for one in encoder.get_outputs()]
    encoded = dict(zip(names, encoder.run(names, {"picture": x}), strict=True))
    codes = encoded.pop("logits").argmax(2)
    wanted = {one.name for one in decoder.get_inputs()}
    feed = {name: value for name, value in {**encoded, "codes": codes, "w": weight}.items() if name in wanted}
    (restored,) = decoder.run(["restored"], feed)
    return restored, codes
