"""Exported networks as files: what they say of themselves, and the one that is made of weights and kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeformer.backends import stored
from codeformer.errors import UsageError, WeightsError
from codeformer.export import files
from codeformer.hub.store import packaged
from codeformer.models.exported import Parts, read_metadata
from codeformer.models.file import open_model
from codeformer.tasks.table import TASKS

RESTORE = TASKS["restore"]


def test_an_exported_network_is_opened_as_a_weights_file_is(exported: dict[str, Path], small_model_path: Path) -> None:
    model, source = open_model(exported["whole"]), open_model(small_model_path)
    assert model.config == source.config and model.exported == Parts(whole=exported["whole"])
    assert model.metadata["source_sha256"] == source.sha256 != model.sha256
    assert model.tasks == {"restore"} and model.adain(TASKS["inpaint"])  # AdaIN is in the graph
    with pytest.raises(WeightsError, match="an exported network, which PyTorch cannot open"):
        model.build()
    halves = open_model(exported["decoder"]).exported
    assert halves == open_model(exported["encoder"]).exported
    assert halves == Parts(encoder=exported["encoder"], decoder=exported["decoder"])


def test_halves_belong_together(exported: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(exported["encoder"], tmp_path / "a_encoder.onnx")
    with pytest.raises(WeightsError, match=r"is half a network, and a_decoder\.onnx is not beside it"):
        open_model(tmp_path / "a_encoder.onnx")
    content = exported["decoder"].read_bytes()
    mark = read_metadata(exported["decoder"])["source_sha256"].encode()
    (tmp_path / "a_decoder.onnx").write_bytes(content.replace(mark, mark[::-1]))
    with pytest.raises(WeightsError, match="are not of one export"):
        open_model(tmp_path / "a_encoder.onnx")
    shutil.copy(exported["encoder"], tmp_path / "half.onnx")
    with pytest.raises(WeightsError, match=r"call it NAME_encoder\.onnx beside NAME_decoder\.onnx"):
        open_model(tmp_path / "half.onnx")


def test_other_onnx_files_are_refused(tmp_path: Path) -> None:
    detector = packaged("retinaface_mobile0.25.onnx")
    assert detector is not None
    with pytest.raises(WeightsError, match="an ONNX file, but not of codeformer export"):
        open_model(detector)
    with pytest.raises(WeightsError, match="no such weights file"):
        open_model(tmp_path / "none.onnx")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_are_refused_or_read_as_they_are(data: Any, exported: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(exported["whole"].read_bytes())
    end = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 4))):  # most metadata lies at the end
        place = data.draw(st.integers(max(0, len(content) - 3000), len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content[: max(end, data.draw(st.sampled_from([end, len(content)])))])
    try:
        model = open_model(path)
    except WeightsError as error:
        assert str(path) in str(error)
    else:
        assert model.exported is not None and model.metadata["part"] == "whole"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **more: str(tmp_path / "cache"))
    return tmp_path / "cache" / "exported"


def test_weights_are_exported_once(
    small_model_path: Path,
    exported: dict[str, Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = []

    def export(model: Any, task: Any, options: files.ExportOptions, pictures: Any = None) -> None:
        assert options.split and options.verify
        made.append(options)
        for part, path in zip(("encoder", "decoder"), options.paths(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(exported[part], path)

    monkeypatch.setattr(files, "export", export)
    model = open_model(small_model_path)
    assert not stored.is_stored(model, RESTORE)
    parts = stored.parts_for(model, RESTORE, "fp32")
    assert stored.parts_for(model, RESTORE, "fp32") == parts and len(made) == 1 and stored.is_stored(model, RESTORE)
    assert caplog.text.count("exporting small.safetensors for other engines than PyTorch, once") == 1
    assert parts.encoder is not None and parts.encoder.parent == cache
    stored.parts_for(model, TASKS["inpaint"], "fp32")  # without AdaIN: another graph
    stored.parts_for(model, RESTORE, "fp16")
    assert len({options.output for options in made}) == 3
    assert stored.parts_for(open_model(exported["whole"]), RESTORE, "fp32") == Parts(whole=exported["whole"])
    assert len(made) == 3


def test_without_the_packages_one_line_says_what_to_install(
    small_model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "installed", lambda name: name != "onnxscript")
    with pytest.raises(UsageError, match="needs onnxscript: pip install onnxscript, or give"):
        stored.parts_for(open_model(small_model_path), RESTORE, "fp32")
    assert not cache.exists()
