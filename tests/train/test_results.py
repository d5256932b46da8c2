"""Comparisons: folders of anybody's results, several networks in one table, measures by pyiqa, the set of strokes."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from codeformer.cli import main
from codeformer.errors import InputError, UsageError, WeightsError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.load import save_network
from codeformer.train import iqa
from codeformer.train.evaluate import Candidate, compare, evaluate, titles_of
from codeformer.train.metrics import psnr
from codeformer.train.samples import Question
from codeformer.train.scores import Measures
from tests.train.test_evaluate import SMALL, face

QUIET = ["--no_perceptual", "--no_identity"]


def save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (picture[..., ::-1] * 255).round().astype(np.uint8))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Three sharp faces; two tools' results for two of them; a third result without a face."""
    for i in range(3):
        save(face(i), tmp_path / "sharp" / f"{i}.png")
    for i in range(2):
        save(np.clip(face(i) + 0.1, 0, 1), tmp_path / "good" / "out" / f"{i}.png")
        save(np.clip(face(i) + 0.3, 0, 1), tmp_path / "bad" / "out" / f"{i}.bmp")
    save(face(9), tmp_path / "good" / "out" / "9.png")
    return tmp_path


def test_results_are_paired_by_name_and_scored_in_one_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--results", home / "good" / "out", home / "bad" / "out", "--data", home / "sharp", *QUIET]
    assert main([str(word) for word in [*words, "--size", 64, "--json", home / "m.json"]]) == 0
    said = capsys.readouterr()
    assert "2 faces of" in said.out and "1 results are left out" in said.err and "first: 9" in said.err
    report = json.loads((home / "m.json").read_text())
    assert set(report["means"]) == {"good/out", "bad/out"} and set(report["faces"]) == {"0", "1"}
    good, bad = (report["means"][title]["psnr"] for title in ("good/out", "bad/out"))
    assert good > bad + 5
    shown = np.clip(face(0) + 0.1, 0, 1)
    assert report["faces"]["0"]["good/out"]["psnr"] == pytest.approx(psnr(shown, face(0)), abs=0.2)
    lines = said.out.splitlines()
    assert any(line.split()[:1] == ["good/out"] for line in lines) and not any("- input" in line for line in lines)


def test_results_of_inpainting_are_scored_inside_their_masks(home: Path) -> None:
    mask = np.zeros((64, 64, 3), np.float32)
    mask[:, :32] = 1
    for i in range(2):
        save(mask, home / "masks" / f"{i}.png")
        half = face(i)
        half[:, 32:] = 0.5
        save(half, home / "half" / f"{i}.png")
    folder, measures = home / "half", Measures()
    inside, _ = compare([folder], home / "sharp", measures, size=64, masks=home / "masks")
    whole, _ = compare([folder], home / "sharp", measures, size=64)
    assert inside.means["half"]["psnr"] > whole.means["half"]["psnr"] + 10
    (home / "masks" / "1.png").unlink()
    with pytest.raises(InputError, match=r"no mask named 1\.\*"):
        compare([folder], home / "sharp", measures, size=64, masks=home / "masks")


def test_results_without_a_pair_are_no_results(home: Path) -> None:
    save(face(0), home / "other" / "x.png")
    with pytest.raises(InputError, match="no result has the name of a face"):
        compare([home / "other"], home / "sharp", Measures())
    assert main(["evaluate", "--masks", str(home), "--data", str(home / "sharp"), *QUIET]) == 2
    assert main(["evaluate", "--results", str(home / "gone"), "--data", str(home / "sharp"), *QUIET]) == 3


def test_several_networks_stand_in_one_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("a/net", "b/net")):
        torch.manual_seed(seed)
        (home / name).parent.mkdir()
        save_network(CodeFormer.from_config(SMALL), home / f"{name}.safetensors", {"adain": "false"}, half=False)
    models = [home / "a" / "net.safetensors", home / "b" / "net.safetensors"]
    words = ["evaluate", "--model", *models, "--data", home / "sharp", "--w", 0, 1, "--json", home / "m.json", *QUIET]
    assert main([str(word) for word in words]) == 0
    report = json.loads((home / "m.json").read_text())
    titles = ["input", "bicubic", "a/net w=0", "a/net w=1", "b/net w=0", "b/net w=1"]
    assert list(report["means"]) == titles and [m["file"] for m in report["models"]] == [str(m) for m in models]
    assert list(report["rises_with_w"]) == ["a/net", "b/net"]
    printed = capsys.readouterr().out
    assert printed.count("is not above the input's at any w") == 2, "untrained networks gain nothing"
    assert "rises from w to w" not in printed
    torch.manual_seed(1)
    alone = evaluate([Candidate(CodeFormer.from_config(SMALL))], home / "sharp", Question(), Measures())
    assert report["means"]["b/net w=1"]["psnr"] == pytest.approx(alone.means["w=1"]["psnr"], abs=1e-4)


def test_titles_are_as_short_as_they_can_be() -> None:
    assert titles_of([Path("x/a.safetensors"), Path("x/b.safetensors")]) == ["a", "b"]
    assert titles_of([Path("x/a.pth"), Path("y/a.pth")]) == ["x/a.pth", "y/a.pth"]


# --- pyiqa


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the package, whose weights of musiq cannot be had."""

    def create_metric(name: str, device: Any) -> Any:
        if name == "musiq":
            raise OSError("Network is unreachable\nand more")
        if name == "fid":
            return lambda one, other: len(list(Path(one).iterdir())) + 100 * len(list(Path(other).iterdir()))
        return (lambda x, y: (x - y).abs().mean()) if name == "dists" else (lambda x: x.mean())

    module = SimpleNamespace(create_metric=create_metric)
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


def test_pyiqas_measures_are_columns_and_one_without_weights_is_left_out(
    home: Path, pyiqa: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--results", home / "good" / "out", "--data", home / "sharp", *QUIET, "--size", 64]
    words += ["--json", home / "m.json", "--metrics", "dists", "niqe", "musiq", "fid"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    assert "MUSIQ is left out" in said.err and "Network is unreachable" in said.err and "and more" not in said.err
    scores = json.loads((home / "m.json").read_text())["means"]["out"]
    assert scores["dists"] == pytest.approx(0.1, abs=0.03) and "musiq" not in scores and scores["fid"] == 202
    assert {"DISTS", "NIQE", "FID"} <= set(said.out.split())


def test_pyiqa_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UsageError, match="pip install pyiqa"):
        iqa.Iqa("dists", torch.device("cpu"))
    with pytest.raises(UsageError, match="there are dists"):
        iqa.Iqa("beauty", torch.device("cpu"))


def test_weights_that_cannot_be_had_are_said_in_one_line(pyiqa: SimpleNamespace) -> None:
    with pytest.raises(WeightsError, match=r"MUSIQ is left out: its weights cannot be had \(Network is unreachable\)$"):
        iqa.Iqa("musiq", torch.device("cpu"))


# --- the set of strokes


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "make_stroke_set.py"
    spec = importlib.util.spec_from_file_location("make_stroke_set", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_set_of_strokes_is_what_evaluate_paints(home: Path, script: ModuleType) -> None:
    script.main([str(home / "sharp"), str(home / "set"), "--size", "64"])
    names = {path.name for path in (home / "set" / "painted").iterdir()}
    assert names == {"0.png", "1.png", "2.png"}
    files = (cv2.imread(str(home / "set" / kind / "1.png")) for kind in ("original", "painted", "masks", "telea"))
    original, painted, mask, telea = (np.asarray(file) for file in files)
    hole = mask[..., 0] > 127
    assert (painted[hole] == 255).all() and not mask[~hole].any()
    for filled in (painted, telea):
        assert np.array_equal(filled[~hole], original[~hole])
    net = CodeFormer.from_config(SMALL)
    asked = evaluate([Candidate(net)], home / "sharp", Question("inpaint", "none", holes="strokes"), Measures())
    found, _ = compare(
        [home / "set" / "telea"], home / "set" / "original", Measures(), size=64, masks=home / "set" / "masks"
    )
    assert found.means["telea"]["psnr"] == pytest.approx(asked.means["telea"]["psnr"], abs=0.05)
