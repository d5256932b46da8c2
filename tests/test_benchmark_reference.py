"""``benchmark.py --reference``: the published program beside this one, tried on a small program of the same layout."""

from __future__ import annotations

import importlib
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

_SCRIPTS = Path(__file__).parents[1] / "scripts"

# The folders, classes and weight files of the published program, with networks of a few numbers
_FILES = {
    "basicsr/__init__.py": "",
    "basicsr/archs/__init__.py": "",
    "basicsr/archs/codeformer_arch.py": """
        from torch import nn
        class CodeFormer(nn.Module):
            def __init__(self, dim_embd, codebook_size, n_head, n_layers, connect_list):
                super().__init__()
                self.quantize = nn.Embedding(codebook_size, 4)
                self.fuse = nn.ModuleDict({name: nn.Conv2d(2, 2, 1) for name in connect_list})
    """,
    "facelib/__init__.py": "",
    "facelib/parsing/__init__.py": "",
    "facelib/parsing/parsenet.py": """
        from torch import nn
        class ParseNet(nn.Module):
            def __init__(self, in_size, out_size, parsing_ch):
                super().__init__()
                self.out_mask_conv = nn.Conv2d(3, parsing_ch, 3)
    """,
    "facelib/detection/__init__.py": "",
    "facelib/detection/retinaface/__init__.py": "",
    "facelib/detection/retinaface/retinaface.py": """
        from torch import nn
        class RetinaFace(nn.Module):
            calls = 0
            def __init__(self, network_name):
                super().__init__()
                self.ClassHead = nn.ModuleList([nn.Conv2d(3, 4, 1)])
            def detect_faces(self, image):
                RetinaFace.calls += 1
                return []
    """,
    "inference_codeformer.py": """
        import argparse, json, os, glob
        import cv2, torch
        from basicsr.archs.codeformer_arch import CodeFormer
        from facelib.detection.retinaface.retinaface import RetinaFace
        from facelib.parsing.parsenet import ParseNet
        parser = argparse.ArgumentParser()
        for name in ("-i", "-o", "-w", "-s"):
            parser.add_argument(name)
        args = parser.parse_args()
        net = CodeFormer(512, 1024, 8, 9, ["32", "64", "128", "256"])
        net.load_state_dict(torch.load("weights/CodeFormer/codeformer.pth")["params_ema"], strict=True)
        ParseNet(512, 512, 19).load_state_dict(torch.load("weights/facelib/parsing_parsenet.pth"), strict=True)
        detector = RetinaFace("resnet50")
        detector.load_state_dict(torch.load("weights/facelib/detection_Resnet50_Final.pth"), strict=True)
        found = []
        for path in sorted(glob.glob(args.i + "/*")):
            image = cv2.imread(path)
            image = cv2.resize(image, None, fx=2, fy=2)
            found.append(detector.detect_faces(image).tolist())
        os.makedirs(args.o, exist_ok=True)
        json.dump({"calls": RetinaFace.calls, "found": found}, open(args.o + "/found.json", "w"))
    """,
}


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(_SCRIPTS))
    return importlib.import_module("benchmark_reference")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "CodeFormer"
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return root


def test_missing_weights_are_random_and_the_checkout_stays(reference: Any, checkout: Path, tmp_path: Path) -> None:
    own = checkout / "weights" / reference.WEIGHTS[2]
    own.parent.mkdir(parents=True)
    net = {"out_mask_conv.weight": torch.zeros(19, 3, 3, 3), "out_mask_conv.bias": torch.zeros(19)}
    torch.save(net, own)
    before = sorted(checkout.rglob("*"))
    copy, random = reference.copied(checkout, tmp_path)
    assert random == ["CodeFormer/codeformer.pth", "facelib/detection_Resnet50_Final.pth"]
    assert sorted(checkout.rglob("*")) == before
    assert (copy / "weights" / reference.WEIGHTS[2]).resolve() == own, "the file that is there is taken"
    network = torch.load(copy / "weights" / "CodeFormer" / "codeformer.pth")["params_ema"]
    assert network["quantize.weight"].shape == (1024, 4)
    assert sorted(name for name in network if "fuse" in name and "weight" in name) == [
        f"fuse.{side}.weight" for side in ("128", "256", "32", "64")
    ]
    assert network["quantize.weight"].std() > 0.5
    detector = torch.load(copy / "weights" / "facelib" / "detection_Resnet50_Final.pth")
    background, face = (detector["ClassHead.0.bias"][i::2] for i in (0, 1))
    assert (detector["ClassHead.0.weight"] == 0).all()
    assert background.min() - face.max() > 10, "a random detector sees a face everywhere"


def test_a_random_detector_runs_and_is_given_the_faces(reference: Any, checkout: Path, tmp_path: Path) -> None:
    copy, _ = reference.copied(checkout, tmp_path)
    paths = reference.inputs_of("start", tmp_path, quick=True)
    faces = reference.faces_of(paths)
    ((width, (face,)),) = faces
    assert (width, len(face)) == (512, 15)
    out = tmp_path / "out"
    command, same, bundled = reference.commands("start", copy, tmp_path, faces, out, "cpu", 0.5)
    reference.run_once(command, copy, out, cwd=copy)
    seen = json.loads((out / "found.json").read_text())
    assert seen["calls"] == len(paths) == 1
    (((*there,),),) = seen["found"]
    assert there[4] > 0.8, "the least score that the program takes"
    assert there[:4] + there[5:] == pytest.approx([2 * value for value in face[:4] + face[5:]], abs=0.01)
    assert same[: len(bundled)] == bundled
    assert same[len(bundled) :] == ["--model", str(copy / "weights" / "CodeFormer" / "codeformer.pth")]


def test_a_run_without_results_does_not_count(reference: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"the published program left no result of a\.png"):
        reference.check(tmp_path, [Path("a.png")], aligned=False, published=True)


def test_another_folder_is_no_checkout(reference: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="facelib"):
        reference.copied(tmp_path, tmp_path)
