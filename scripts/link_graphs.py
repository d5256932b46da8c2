"""Write a weights file's graphs for other engines than PyTorch, which take their weights out of that file itself.

    python scripts/link_graphs.py weights/compact.safetensors weights/compact_inpainting.safetensors

makes ``NAME_encoder.onnx`` and ``NAME_decoder.onnx`` beside each file: what ``codeformer export --split`` writes, but
every weight is a place in ``NAME.safetensors`` (ONNX's external data) and a cast to single precision, which engines do
once when they load it. So the two graphs are small, and no weight lies in two files. They belong to that very file: run
this again when it changes, and put the hashes that it prints into ``BUNDLED`` of codeformer/hub/catalogue.py. Needs the
extra ``export``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import helper, numpy_helper

from codeformer.errors import CodeFormerError, WeightsError
from codeformer.export.files import ExportOptions, compare, drawn, export
from codeformer.files.atomic import write_atomic
from codeformer.models.codeformer import CodeFormer
from codeformer.models.exported import WEIGHTS
from codeformer.models.file import ModelFile, open_model
from codeformer.tasks.table import TASKS

_OLDEST = 8  # version of the format that has all that is used here, for engines of 2023
_SMALL = 1024  # bytes: smaller tensors, such as shapes, stay in the graph


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in the weights file, and whether the graph wants it transposed."""

    offset: int
    length: int
    shape: tuple[int, ...]
    turned: bool


def places(file: Path) -> dict[str, Stored]:
    """Return where the tensors of a file in half precision lie, by the hash of their values in single precision."""
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(size))
    found = {}
    for name, value in safetensors.numpy.load_file(file).items():
        if value.dtype != np.float16:
            raise WeightsError(f"{file}: {name} is {value.dtype}; graphs are linked to weights in half precision")
        begin, end = header[name]["data_offsets"]
        for turned in (False, True) if value.ndim == 2 else (False,):
            key = _key((value.T if turned else value).astype(np.float32))
            found.setdefault(key, Stored(8 + size + begin, end - begin, value.shape, turned))
    return found


def link(proto: Any, file: Path, stored: dict[str, Stored]) -> Any:
    """Return a graph whose weights are places in a file, in half precision, cast where they come in.

    Raises:
        WeightsError: a weight of the graph does not stand in the file.
    """
    graph, casts, kept = proto.graph, [], []
    for tensor in graph.initializer:
        value = numpy_helper.to_array(tensor)
        place = stored.get(_key(value)) if value.dtype == np.float32 else None
        if place is None:
            if value.nbytes > _SMALL:
                raise WeightsError(f"{file}: does not hold {tensor.name} of the graph, {value.shape}")
            kept.append(tensor)
            continue
        half = onnx.TensorProto(name=f"{tensor.name}.half", data_type=onnx.TensorProto.FLOAT16, dims=place.shape)
        half.data_location = onnx.TensorProto.EXTERNAL
        for key, text in {"location": file.name, "offset": place.offset, "length": place.length}.items():
            half.external_data.add(key=key, value=str(text))
        kept.append(half)
        whole = f"{tensor.name}.turned" if place.turned else tensor.name
        casts.append(helper.make_node("Cast", [half.name], [whole], to=onnx.TensorProto.FLOAT))
        if place.turned:
            casts.append(helper.make_node("Transpose", [whole], [tensor.name], perm=[1, 0]))
    nodes = [*casts, *graph.node]
    for node in graph.node:  # what the exporter tells of itself is most of a graph without weights
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    proto.ir_version = _OLDEST
    proto.metadata_props.add(key=WEIGHTS, value=file.name)
    for field, values in (("initializer", kept), ("node", nodes), ("value_info", ()), ("metadata_props", ())):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    return proto


def write(file: Path) -> list[Path]:
    """Write both graphs of a weights file beside it, when they answer as PyTorch does, and return their paths."""
    model: ModelFile = open_model(file)
    task = next(task for task in TASKS.values() if model.tasks is None or task.name in model.tasks)
    stored = places(file)
    with tempfile.TemporaryDirectory() as folder:
        options = ExportOptions(Path(folder) / f"{file.stem}.onnx", split=True, verify=False)
        blobs = [link(onnx.load(path), file, stored).SerializeToString() for path in export(model, task, options).paths]
    paths = [file.with_name(path.name) for path in options.paths()]
    for path, blob in zip(paths, blobs, strict=True):
        write_atomic(path, blob)
        print(f'    "{path.name}": "{hashlib.sha256(blob).hexdigest()}",')
    net = model.build()
    assert isinstance(net, CodeFormer)
    comparison = compare(net, model.adain(task), paths, drawn(net))
    print(f"{file.name}: {comparison}; {sum(map(len, blobs))} bytes")
    comparison.require("fp32")
    return paths


def _key(value: np.ndarray) -> str:
    return f"{value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"


def main() -> int:
    """Link the graphs of the files of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", nargs="+", type=Path, metavar="FILE.safetensors")
    try:
        for file in parser.parse_args().weights:
            write(file)
    except CodeFormerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
