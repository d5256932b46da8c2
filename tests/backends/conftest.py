"""Exported networks, made once for all tests of the engines."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

CROPS = Path(__file__).parents[2] / "inputs" / "cropped_faces"


@pytest.fixture(scope="session")
def exported(small_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small network by ``codeformer export``: the whole, and its two halves."""
    pytest.importorskip("onnx", reason="exporting needs the packages onnx and onnxscript")
    pytest.importorskip("onnxscript", reason="exporting needs the packages onnx and onnxscript")
    from codeformer.export.files import ExportOptions, export
    from codeformer.models.file import open_model
    from codeformer.tasks.table import TASKS

    folder = tmp_path_factory.mktemp("exported")
    model, task = open_model(small_model_path), TASKS["restore"]
    (whole,) = export(model, task, ExportOptions(folder / "net.onnx", verify=False)).paths
    encoder, decoder = export(model, task, ExportOptions(folder / "net.onnx", split=True, verify=False)).paths
    return {"whole": whole, "encoder": encoder, "decoder": decoder}


@pytest.fixture(scope="session")
def small_faces() -> list[np.ndarray]:
    """A few aligned faces, (64, 64, 3) float32 in [0, 1]."""
    paths = sorted(CROPS.glob("*.png"))[:3]
    pictures = [cv2.resize(cv2.imread(str(path))[..., ::-1], (64, 64), interpolation=cv2.INTER_AREA) for path in paths]
    return [np.ascontiguousarray(picture, np.float32) / 255 for picture in pictures]
