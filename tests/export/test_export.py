"""ONNX files: the same codes and faces as PyTorch, any batch, w as an input, nothing without its check."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from codeformer.cli import main
from codeformer.errors import ExitCode, RestorationError, UsageError, WeightsError
from codeformer.models.file import open_model
from codeformer.tasks.table import TASKS

pytest.importorskip("onnx", reason="exporting needs the packages onnx and onnxscript")
pytest.importorskip("onnxscript", reason="exporting needs the packages onnx and onnxscript")

from codeformer.export import files
from codeformer.export.files import Comparison, ExportOptions, compare, export, run, session

CROPS = Path(__file__).parents[2] / "inputs" / "cropped_faces"


def faces(size: int, count: int = 2) -> np.ndarray:
    """Real faces, (B, S, S, 3) in [0, 1]."""
    pictures = [cv2.imread(str(path))[..., ::-1] for path in sorted(CROPS.glob("*.png"))[:count]]
    return np.stack([cv2.resize(p, (size, size), interpolation=cv2.INTER_AREA) for p in pictures]).astype("f4") / 255


@pytest.mark.parametrize("split", [False, True])
def test_a_network_gives_the_same_codes_and_faces(small_model_path: Path, tmp_path: Path, split: bool) -> None:
    model = open_model(small_model_path)
    result = export(model, TASKS["restore"], ExportOptions(tmp_path / "net.onnx", split=split), faces(64))
    assert result.comparison is not None and result.comparison.equal_codes == 1 and result.comparison.furthest < 1
    sessions = [session(path.read_bytes()) for path in result.paths]
    one = np.ascontiguousarray(faces(64).transpose(0, 3, 1, 2))
    both, codes = run(sessions, one, 0.5)
    alone = np.concatenate([run(sessions, one[i : i + 1], 0.5)[0] for i in range(2)])
    assert both.shape == (2, 3, 64, 64) and codes.shape == (2, 64)
    np.testing.assert_allclose(both, alone, atol=1e-4)  # any batch
    assert np.abs(run(sessions, one, 1.0)[0] - both).max() > 1e-3  # w is an input, not a constant


def test_a_file_says_what_it_is(small_model_path: Path, tmp_path: Path) -> None:
    import onnx

    model = open_model(small_model_path)
    (path,) = export(model, TASKS["restore"], ExportOptions(tmp_path / "a.onnx", verify=False)).paths
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(said["codeformer_config"])["img_size"] == 64
    assert said["source_sha256"] == model.sha256 and said["part"] == "whole" and said["task"] == "restore"
    shapes = {
        one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in proto.graph.input
    }
    assert shapes["w"] == [] and shapes["picture"][1:] == [3, 64, 64] and isinstance(shapes["picture"][0], str)


def test_half_precision_is_near_and_half_as_large(small_model_path: Path, tmp_path: Path) -> None:
    model = open_model(small_model_path)
    full = export(model, TASKS["restore"], ExportOptions(tmp_path / "a.onnx", verify=False)).paths[0]
    result = export(model, TASKS["restore"], ExportOptions(tmp_path / "b.onnx", "fp16"), faces(64))
    assert result.comparison is not None and result.comparison.psnr > 45
    assert result.paths[0].stat().st_size < 0.75 * full.stat().st_size


def test_what_differs_from_pytorch_gets_no_name(
    small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "compare", lambda *args: Comparison(0.9, 30.0, 20.0))
    for precision in ("fp32", "fp16"):
        with pytest.raises(RestorationError, match="differs"):
            export(open_model(small_model_path), TASKS["restore"], ExportOptions(tmp_path / "a.onnx", precision))
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_precisions_and_tasks_are_refused(small_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends with \.onnx"):
        ExportOptions(tmp_path / "net.pt")
    with pytest.raises(UsageError, match="fp32 or fp16"):
        ExportOptions(tmp_path / "net.onnx", "int8")
    model = replace(open_model(small_model_path), metadata={"tasks": "inpaint"})
    with pytest.raises(WeightsError, match="was trained to inpaint"):
        export(model, TASKS["restore"], ExportOptions(tmp_path / "net.onnx"))


def test_the_bundled_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "compact.onnx"
    assert main(["export", "-o", str(target), "--model", "compact", "--faces", str(CROPS)]) == ExitCode.OK
    out = capsys.readouterr()
    assert out.out.strip() == str(target) and "100.00% of the codes are the same" in out.err


def test_the_examples_of_the_manual_run(small_model_path: Path, tmp_path: Path) -> None:
    """The Python example of docs/export.md needs onnxruntime, numpy and Pillow alone."""
    manual = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = manual.partition("```python\n")[2].partition("```")[0]
    export(open_model(small_model_path), TASKS["restore"], ExportOptions(tmp_path / "codeformer.onnx", verify=False))
    cv2.imwrite(str(tmp_path / "face.png"), cv2.imread(str(sorted(CROPS.glob("*.png"))[0])))
    watched = f"import sys\n{code}\nassert 'torch' not in sys.modules and 'codeformer' not in sys.modules\n"
    ran = subprocess.run([sys.executable, "-c", watched], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert cv2.imread(str(tmp_path / "restored.png")).shape == (64, 64, 3)


def test_comparing_sees_a_difference(small_model_path: Path, tmp_path: Path) -> None:
    model = open_model(small_model_path)
    (path,) = export(model, TASKS["restore"], ExportOptions(tmp_path / "a.onnx", verify=False)).paths
    net = model.build()
    near = compare(net, True, [path.read_bytes()], faces(64))  # type: ignore[arg-type]
    other = compare(net, False, [path.read_bytes()], faces(64))  # type: ignore[arg-type]
    adain = model.adain(TASKS["restore"])
    assert (near if adain else other).furthest < 1 < (other if adain else near).furthest
