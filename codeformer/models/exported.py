"""What an exported network, an ONNX file of ``codeformer export``, says of itself: read without any engine.

An ONNX file is one message of Protocol Buffers. Only its metadata is read here; the graph and its weights, nearly all
of the file, are stepped over.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from codeformer.errors import WeightsError
from codeformer.files.opening import open_regular
from codeformer.hub.store import bundled_problem, packaged
from codeformer.models.header import require_file

SUFFIX = ".onnx"
#: The key of a graph's metadata that names the file its weights stand in, where that is not the graph's own.
WEIGHTS = "weights"
_METADATA = 14  # the field of ModelProto that holds entries of a key (1) and a value (2)
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # how the bytes of a field are counted
_LARGEST = 1 << 20  # bytes of one entry


@dataclass(frozen=True)
class Parts:
    """The files of an exported network: the whole, or encoder and decoder."""

    whole: Path | None = None
    encoder: Path | None = None
    decoder: Path | None = None


def is_exported(path: Path) -> bool:
    """Return whether a file's name says that it is an exported network."""
    return path.suffix.lower() == SUFFIX


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an exported network.

    Raises:
        WeightsError: the file is missing, empty, damaged, or ``codeformer export`` did not write it.
    """
    require_file(path)
    try:
        with open_regular(path) as file:
            metadata = dict(_entry(entry) for entry in _fields(file, os.fstat(file.fileno()).st_size))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not an ONNX file, or cut off ({error})") from error
    if metadata.get("part") not in ("whole", "encoder", "decoder"):
        raise WeightsError(f"{path}: an ONNX file, but not of codeformer export, so that its inputs are not known")
    return metadata


def parts_of(path: Path, metadata: dict[str, str]) -> Parts:
    """Return the files that belong to an exported network, of which one is given; halves find each other by name.

    Raises:
        WeightsError: one half is missing, or of another network.
    """
    part = metadata["part"]
    if part == "whole":
        return Parts(whole=path)
    other = "decoder" if part == "encoder" else "encoder"
    if not path.stem.endswith(f"_{part}"):
        raise WeightsError(f"{path}: is half a network, the {part}: call it NAME_{part}.onnx beside NAME_{other}.onnx")
    companion = path.with_name(f"{path.stem.removesuffix(part)}{other}{path.suffix}")
    if not companion.exists():
        raise WeightsError(f"{path}: is half a network, and {companion.name} is not beside it")
    theirs = read_metadata(companion)
    for key in ("source_sha256", "adain", "precision"):
        if theirs.get(key) != metadata.get(key) or theirs["part"] != other:
            raise WeightsError(f"{path} and {companion.name} are not of one export: write both again")
    both = {part: path, other: companion}
    return Parts(encoder=both["encoder"], decoder=both["decoder"])


def linked_to(weights: Path, sha256: str, adain: bool) -> Parts | None:
    """Return the graphs that lie beside a weights file and take their weights from it; None where it has none.

    Args:
        weights: the file.
        sha256: its hash; graphs of another file of that name are passed over.
        adain: whether the graphs have to have AdaIN.

    Raises:
        WeightsError: a graph is damaged.
    """
    halves = {part: weights.with_name(f"{weights.stem}_{part}{SUFFIX}") for part in ("encoder", "decoder")}
    wanted = {"source_sha256": sha256, "adain": str(adain).lower(), "precision": "fp32", WEIGHTS: weights.name}
    for part, path in halves.items():
        if not path.is_file():
            return None
        if path == packaged(path.name) and (problem := bundled_problem(path.name)):
            raise WeightsError(problem)
        metadata = read_metadata(path)
        if any(metadata.get(key) != value for key, value in {**wanted, "part": part}.items()):
            return None
    return Parts(encoder=halves["encoder"], decoder=halves["decoder"])


def _fields(file: BinaryIO, size: int) -> list[bytes]:
    """Return the bytes of the metadata's entries. Raises ValueError if the file is not ONNX."""
    found = []
    while file.tell() < size:
        key = _varint(file)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            _varint(file)
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind)
        if kind == _LENGTH:
            length = _varint(file)
        if length is None or field == 0 or length > size - file.tell():
            raise ValueError("its parts do not fit into each other")
        if field == _METADATA and kind == _LENGTH:
            if length > _LARGEST:
                raise ValueError("an entry of its metadata is too large")
            found.append(file.read(length))
        else:
            file.seek(length, os.SEEK_CUR)
    return found


def _entry(content: bytes) -> tuple[str, str]:
    texts: dict[int, str] = {}
    file = io.BytesIO(content)
    while file.tell() < len(content):
        key = _varint(file)
        if key & 7 != _LENGTH:
            raise ValueError("an entry of its metadata is not text")
        texts[key >> 3] = file.read(_varint(file)).decode()
    return texts.get(1, ""), texts.get(2, "")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends too early")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number in it has no end")
