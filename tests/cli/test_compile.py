"""--compile says what it is for, where it would do nothing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from codeformer.cli import main

PICTURE = Path(__file__).parents[2] / "inputs" / "whole_imgs" / "00_astronaut.jpg"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA card does it")
def test_one_picture_without_a_card_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By itself one picture would be left to ONNX Runtime, which translates nothing."""
    assert main(["restore", "-i", str(PICTURE), "-o", str(tmp_path / "out"), "--compile"]) == 2
    assert "--compile needs a CUDA card" in capsys.readouterr().err


@pytest.mark.skipif(not all(map(find_spec, ("gradio", "fastapi", "uvicorn"))), reason="needs the extra web")
def test_the_page_refuses_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "--compile"]) == 2
    assert "web: --compile is for runs over many files" in capsys.readouterr().err
