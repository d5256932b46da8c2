"""The examples of docs/web.md do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from codeformer.cli.parser import build_parser
from codeformer.images.picture import Picture, read_picture, write_picture
from tests.web.serving import Running

_PAGE = Path(__file__).parents[2] / "docs" / "web.md"


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def folder(tmp_path: Path, portrait) -> Path:  # type: ignore[no-untyped-def]
    for name in ("old.jpg", "party.jpg", "anna.jpg"):
        write_picture(Picture(portrait), tmp_path / name)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: Running, folder: Path) -> None:
    lines = [line for block in _blocks("sh") for line in block.splitlines() if line.startswith("curl")]
    assert len(lines) == 3
    if find_spec("face_recognition_models") is None:
        lines.pop()
    for line in lines:
        words = line.replace("http://127.0.0.1:7860", server.url)
        subprocess.run(words, shell=True, cwd=folder, check=True, timeout=120)
    assert read_picture(folder / "new.png").rgb.shape == (480, 480, 3)
    assert [face["chosen"] for face in json.loads((folder / "faces.json").read_text())["faces"]] == [True]


def test_python(server: Running, folder: Path) -> None:
    (block,) = _blocks("python")
    script = block.replace("http://127.0.0.1:7860", server.url)
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "1 faces\n"), done.stderr
    assert read_picture(folder / "new.jpg").rgb.shape == (480, 480, 3)


def test_flags() -> None:
    """Every flag in the table is one of the command."""
    table = _PAGE.read_text(encoding="utf-8").split("## API")[0]
    known = build_parser().parse_args(["web"])
    for flag in set(re.findall(r"--([a-z_]+)", table)):
        assert hasattr(known, flag), flag
