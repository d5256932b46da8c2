"""dlib's face recognition network, computed by PyTorch: 128 numbers for a face, near each other for one person.

dlib's file is read into a torch network that computes the same numbers, on any device and with gradients. The file is
part of face-recognition-models (dlib's models are in the public domain, CC0), which the extra ``dlib`` brings; dlib
itself is not needed here. The network is the one of dlib's ``dnn_face_recognition_ex.cpp``: a ResNet of 29 convolutions
(He et al., arXiv 1512.03385), half as wide, whose normalisations became scales and shifts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codeformer.errors import WeightsError
from codeformer.files.opening import read_regular

FILE = "dlib_face_recognition_resnet_model_v1.dat"
CHIP = 150  # pixels a side of what the network looks at
# Where that lies in a face aligned to the FFHQ template, left, top, right, bottom in shares of its side: the median of
# where dlib's landmarks put it on 84 faces.
PLACE = (0.168, 0.268, 0.836, 0.936)
# Residual blocks of each level, and whether the level begins by halving the grid.
_LEVELS = ((3, False), (4, True), (3, True), (3, True), (1, True))
_LARGEST = 1 << 28  # bytes of the file; dlib's has 22 million
_MEAN = (122.782, 117.001, 104.298)


class RecognitionNetwork(nn.Module):
    """dlib's face recognition network, fixed.

    Args:
        path: ``dlib_face_recognition_resnet_model_v1.dat``.

    Raises:
        WeightsError: the file cannot be read, or is another network's.
    """

    mean: Tensor
    last: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        kernels, scales, last = _read(path)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()  # of the convolutions, in their order
        channels = 3
        try:
            if len(kernels) != 1 + 2 * sum(count for count, _ in _LEVELS) or len(scales) != len(kernels):
                raise ValueError(f"{len(kernels)} convolutions")
            for i, (kernel, scale) in enumerate(zip(kernels, scales, strict=True)):
                width, side = len(scale) // 2, 7 if i == 0 else 3
                gain, shift = torch.from_numpy(scale[:width].copy()), torch.from_numpy(scale[width:].copy())
                weight = torch.from_numpy(kernel[:-width].copy()).view(width, channels, side, side)
                # The scale and shift that follow are taken into the convolution
                self.weights.append(weight * gain.view(-1, 1, 1, 1))
                self.biases.append(torch.from_numpy(kernel[-width:].copy()) * gain + shift)
                channels = width
            self.register_buffer("last", torch.from_numpy(last.copy()).view(channels, 128))
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{path}: not dlib's face recognition network ({error})") from error
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, chips: Tensor) -> Tensor:
        """Map chips (B, 3, 150, 150), RGB in [0, 1], to what describes the person, (B, 128)."""
        x = (chips * 255 - self.mean) / 256
        first, *rest = zip(self.weights, self.biases, strict=True)
        x = F.max_pool2d(F.relu(self._convolve(first, x, 2)), 3, 2)
        layers = iter(rest)
        for count, halves in _LEVELS:
            for i in range(count):
                stride = 2 if halves and i == 0 else 1
                inner = self._convolve(next(layers), x, stride)
                inner = self._convolve(next(layers), F.relu(inner), 1)
                x = F.relu(_add(inner, F.avg_pool2d(x, 2, 2) if stride == 2 else x))
        return x.mean((2, 3)) @ self.last

    @staticmethod
    def _convolve(layer: tuple[Tensor, Tensor], x: Tensor, stride: int) -> Tensor:
        weight, bias = layer
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2 if stride == 1 else 0)


def chip(faces: Tensor) -> Tensor:
    """Cut out of aligned faces (B, 3, S, S) in [-1, 1] what the network looks at: (B, 3, 150, 150) in [0, 1]."""
    left, top, right, bottom = (round(share * faces.shape[-1]) for share in PLACE)
    part = (faces[..., top:bottom, left:right].float().clamp(-1, 1) + 1) / 2
    return F.interpolate(part, size=(CHIP, CHIP), mode="bilinear", antialias=True)


def _add(a: Tensor, b: Tensor) -> Tensor:
    """Add two features (B, C, h, w); where one has fewer channels, rows or columns, it counts as 0."""
    shape = [max(x, y) for x, y in zip(a.shape[1:], b.shape[1:], strict=True)]

    def fill(x: Tensor) -> Tensor:
        channels, rows, columns = (full - own for full, own in zip(shape, x.shape[1:], strict=True))
        return F.pad(x, (0, columns, 0, rows, 0, channels))

    return fill(a) + fill(b)


def _read(path: Path) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Read the parameters of the convolutions, of the scales and shifts, and of the last layer, all flat float32."""
    try:
        data = read_regular(path, _LARGEST)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        kernels, scales, (last,) = (list(_tensors(data, name)) for name in (b"con_4", b"affine_", b"fc_2"))
    except (ValueError, IndexError) as error:
        raise WeightsError(f"{path}: not dlib's face recognition network, or cut off ({error})") from error
    return kernels, scales, last


def _tensors(data: bytes, layer: bytes) -> Iterator[np.ndarray]:
    """Yield the parameters of all layers of a kind, in the file's order."""
    name = bytes([len(layer)]) + layer
    at = data.find(name)
    while at >= 0:
        at += len(name)
        if layer == b"fc_2":
            _, at = _integers(data, at, 2)  # outputs and inputs
        (version, *shape), at = _integers(data, at, 5)
        if version != 2:
            raise ValueError(f"a tensor of version {version}")
        yield np.frombuffer(data, "<f4", int(np.prod(shape)), at)
        at = data.find(name, at)


def _integers(data: bytes, at: int, count: int) -> tuple[Sequence[int], int]:
    """Read `count` of dlib's integers: a byte with their length and sign, then the bytes, lowest first."""
    values = []
    for _ in range(count):
        length, sign = data[at] & 15, -1 if data[at] & 128 else 1
        values.append(sign * int.from_bytes(data[at + 1 : at + 1 + length], "little"))
        at += 1 + length
    return values, at
