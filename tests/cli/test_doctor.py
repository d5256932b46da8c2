"""``codeformer doctor``: what it says is true, and it ends with 1 where something is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codeformer import __version__
from codeformer import cli as command_line
from codeformer.hub import store
from codeformer.pipeline.restorer import FaceRestorer


def report(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> dict[str, Any]:
    assert command_line.main(["doctor", "--json", *words]) == code
    return json.loads(capsys.readouterr().out)


def test_a_sound_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEFORMER_MIRROR", "https://me:secret@example.org/weights")
    found = report(capsys, 0, "--weights_dir", str(tmp_path))
    assert found["system"]["codeformer"] == __version__ and found["problems"] == []
    assert found["system"]["variables"]["CODEFORMER_MIRROR"] == "https://***@example.org/weights"
    assert found["packages"]["torch"] and found["packages"]["onnxruntime"]
    (compact,) = [one for one in found["weights"] if one["name"] == "compact"]
    assert compact["sha256"] == hashlib.sha256(Path(compact["path"]).read_bytes()).hexdigest()
    tried = {one["backend"]: one for one in found["devices"]}
    assert {"torch", "onnxruntime"} <= tried.keys()
    assert all(one["device"] == "cpu" and one["seconds"] > 0 for one in tried.values())
    assert found["engines"]["torch"][0] == "cpu" and "cpu" in found["engines"]["onnxruntime"]
    assert "PNG" in found["codecs"]["pictures"] and "ffv1" in found["codecs"]["films"]
    assert found["folders"]["results"]["free"] > 0
    assert command_line.main(["doctor", "--weights_dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "engines: torch on cpu" in text and "; onnxruntime on cpu" in text
    assert "no problem found" in text and compact["sha256"][:16] in text


def test_a_device_that_computes_wrongly(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As some versions of PyTorch do on MPS: the numbers come, and they are others."""
    right, calls = FaceRestorer.restore, []

    def wrong(self: FaceRestorer, crops: list[np.ndarray], *args: Any, **options: Any) -> list[np.ndarray]:
        calls.append(1)
        made = right(self, crops, *args, **options)
        return [1 - face for face in made] if len(calls) == 2 else made

    monkeypatch.setattr(FaceRestorer, "restore", wrong)
    (problem,) = report(capsys, 1)["problems"]
    assert problem.startswith("torch on cpu: its result is off by")


def test_weights_that_are_gone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "packaged", lambda file: None)
    problems = report(capsys, 1)["problems"]
    assert any(line.startswith("weights compact: this installation") for line in problems)


def test_a_flipped_bit(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tensor, where safetensors looks at nothing."""
    right = store.packaged
    content = bytearray(store.bundled("compact").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "compact.safetensors").write_bytes(content)
    own = tmp_path / "compact.safetensors"
    monkeypatch.setattr(store, "packaged", lambda file: own if file == own.name else right(file))
    found = report(capsys, 1)
    assert any(f"{own}: is damaged, by its SHA-256" in line for line in found["problems"])
    assert {one["name"]: one["state"] for one in found["weights"]}["compact"] == "wrong"
