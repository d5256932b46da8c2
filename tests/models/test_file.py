"""A weights file as a thing: what it says of itself, and that one run opens, hashes and reads it once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeformer import Restorer
from codeformer.errors import ExitCode, UsageError, WeightsError
from codeformer.images.picture import Picture, write_picture
from codeformer.models.config import Config
from codeformer.models.file import ModelFile, find_model, open_model
from codeformer.models.load import load_network, save_network
from codeformer.tasks.table import TASKS

Count = Callable[[Callable[[], object], Path], tuple[int, int, int]]


def file(**metadata: str) -> ModelFile:
    return ModelFile(Path("my.safetensors"), "", Config(), metadata)


def test_what_the_file_says_wins_over_the_task() -> None:
    silent, spoken = (
        file(),
        file(adain="false", w_restore="0.75", w_least="0.5", hole="smear", tasks="restore, inpaint"),
    )
    restore = TASKS["restore"]
    assert (silent.tasks, silent.hole, silent.w_least) == (None, None, 0)
    assert (silent.adain(restore), silent.default_w(restore), silent.choose_w(restore, 0.1)) == (True, 0.5, 0.1)
    assert (spoken.tasks, spoken.hole, spoken.w_least) == ({"restore", "inpaint"}, "smear", 0.5)
    assert (spoken.adain(restore), spoken.default_w(restore), spoken.choose_w(restore, None)) == (False, 0.75, 0.75)
    assert file(tasks="").tasks == frozenset()
    spoken.require_task(restore)
    silent.require_task(TASKS["colorize"])
    with pytest.raises(WeightsError, match=r"inpaint, restore, not to colorize; run: codeformer download colorization"):
        spoken.require_task(TASKS["colorize"])
    with pytest.raises(UsageError, match=r"^-w 0\.2 is too small for my\.safetensors .*: use -w 0\.5 or more"):
        spoken.choose_w(restore, 0.2)


def test_a_small_weight_that_changes_the_person_gets_a_warning_and_no_refusal() -> None:
    restore, colorize = TASKS["restore"], TASKS["colorize"]
    model = file(w_keeps="0.3", w_least="0.1")
    assert (model.w_keeps, file().w_keeps, model.choose_w(restore, 0.2)) == (0.3, 0.0, 0.2)
    (line,) = model.doubts(restore, 0.2)
    assert line == "-w 0.2 may give another person's face: my.safetensors keeps the person from -w 0.3 on"
    assert model.doubts(restore, 0.3) == model.doubts(colorize, 0.0) == file().doubts(restore, 0.0) == ()
    assert model.describe_w(restore) == "w 0.5 by default, at least 0.1, keeps the person from 0.3 on"
    assert file().describe_w(colorize) == "w 0 by default"
    with pytest.raises(UsageError, match=r"use -w 0\.1 or more"):
        model.choose_w(restore, 0.05)
    with pytest.raises(WeightsError, match="w_keeps"):
        file(w_keeps="some").doubts(restore, 0.5)


def test_the_warning_about_w_reaches_every_reader(tiny_model_path: Path, tmp_path: Path, capsys: Any) -> None:
    from codeformer.cli import main

    path = tmp_path / "own.safetensors"
    save_network(load_network(tiny_model_path), path, {"w_keeps": "0.3"})
    rng = np.random.default_rng(1)
    write_picture(Picture(rng.integers(0, 256, (64, 64, 3), np.uint8)), tmp_path / "a.png")
    warning = "-w 0.1 may give another person's face: own.safetensors keeps the person from -w 0.3 on"
    restorer = Restorer(path, device="cpu")
    picture = rng.integers(0, 256, (512, 512, 3), np.uint8)
    assert restorer.restore(picture, 0.1, aligned=True).notes == (warning,)
    assert restorer.restore(picture, 0.3, aligned=True).notes == ()
    command = ["restore", str(tmp_path / "a.png"), "--aligned", "--model", str(path), "--device", "cpu"]
    for more in (["-o", str(tmp_path / "out")], ["-o", str(tmp_path / "b.png")], ["-o", str(tmp_path), "--dry_run"]):
        for w, said in (("0.1", 1), ("0.3", 0)):
            assert main([*command, *more, "-w", w, "--overwrite"]) == ExitCode.OK
            assert capsys.readouterr().err.count(warning) == said, more


@pytest.mark.parametrize("said", ["lots", "1.5", "-0.1", "nan", ""])
def test_a_weight_that_is_none_is_refused(said: str) -> None:
    with pytest.raises(WeightsError, match=r"my\.safetensors: its metadata says w_restore = "):
        file(w_restore=said).default_w(TASKS["restore"])
    with pytest.raises(WeightsError, match="w_least"):
        file(w_least=said).choose_w(TASKS["restore"], 0.5)


def test_both_kinds_of_file_open_with_their_config_and_hash(small_model_path: Path, tmp_path: Path) -> None:
    from tests.models.test_load import SMALL

    net = load_network(small_model_path)
    model = open_model(small_model_path)
    assert model.config == net.config and model.build().state_dict().keys() == net.state_dict().keys()
    published = type(net).from_config(SMALL)
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save({"params_ema": published.state_dict()}, path, _use_new_zipfile_serialization=zipped)
        opened = open_model(path)
        assert opened.config == SMALL and opened.metadata == {} and len(opened.sha256) == 64
        assert all(torch.equal(t, published.state_dict()[n]) for n, t in opened.build().state_dict().items())
    assert open_model(path, sha256="known").sha256 == "known"


# --- once a run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    """Runs an action, and tells how often it opened, hashed and read a file (its header, its bytes, its tensors)."""
    import codeformer.files.digest
    import codeformer.models.file
    import codeformer.models.load

    def run(action: Callable[[], object], path: Path) -> tuple[int, int, int]:
        seen: list[str] = []

        def counted(name: str, original: Callable[..., object]) -> Callable[..., object]:
            def call(first: Any, *args: object, **kwargs: object) -> object:
                status = first.stat() if isinstance(first, Path) else os.fstat(first.fileno())
                if os.path.samestat(status, path.stat()):
                    seen.append(name)
                return original(first, *args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            hashing = codeformer.files.digest.sha256_of_open  # what every way of hashing ends in
            patch.setattr("codeformer.files.digest.sha256_of_open", counted("hash", hashing))
            patch.setattr("codeformer.models.file.read_header", counted("open", codeformer.models.file.read_header))
            patch.setattr("codeformer.models.load.read_state", counted("tensors", codeformer.models.load.read_state))
            action()
        return seen.count("open"), seen.count("hash"), seen.count("tensors")

    return run


@pytest.fixture
def model(small_model_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "model.safetensors"
    metadata = {"tasks": "restore,colorize,inpaint", "w_restore": "0.5", "w_colorize": "1", "adain": "false"}
    save_network(load_network(small_model_path), path, metadata)
    return path


@pytest.mark.parametrize("task", ["restore", "colorize", "inpaint"])
def test_a_run_over_pictures_opens_its_weights_file_once(count: Count, task: str, model: Path, tmp_path: Path) -> None:
    from codeformer.cli import main

    for name in ("a", "b"):
        rgb = np.full((64, 64, 3), 128, np.uint8)
        rgb[24:40, 24:40] = 255
        write_picture(Picture(rgb), tmp_path / "in" / f"{name}.png")
    command = [task, "--aligned", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(model)]

    def run() -> None:
        assert main([*command, "--device", "cpu", "--quiet"]) == ExitCode.OK

    assert count(run, model) == (1, 1, 1)
    assert count(run, model) == (1, 1, 0), "a run that is done builds no network"


def test_the_api_opens_its_weights_file_once(count: Count, model: Path) -> None:
    rgb = np.full((64, 64, 3), 128, np.uint8)

    def run() -> None:
        restorer = Restorer(model=model, device="cpu")
        for w in (None, 0.2, 0.9):
            restorer.restore(rgb, w=w, aligned=True)

    assert count(run, model) == (1, 1, 1)


def test_evaluate_opens_its_weights_file_once(count: Count, model: Path, tmp_path: Path) -> None:
    from codeformer.cli import main

    rng = np.random.default_rng(0)
    write_picture(Picture(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)), tmp_path / "faces" / "a.png")
    command = ["evaluate", "--model", str(model), "--data", str(tmp_path / "faces"), "--device", "cpu", "-w", "0.5"]

    def run() -> None:
        more = ["--no_perceptual", "--no_identity", "--json", str(tmp_path / "metrics.json")]
        assert main([*command, *more]) == ExitCode.OK

    assert count(run, model) == (1, 1, 1)
    (said,) = json.loads((tmp_path / "metrics.json").read_text())["models"]
    assert said["sha256"] == open_model(model).sha256


def test_a_film_opens_its_weights_file_once(count: Count, model: Path, tmp_path: Path) -> None:
    from codeformer.cli import main
    from tests.video.clips import make_film

    source = tmp_path / "film.mp4"
    make_film(source, 4)
    command = ["video", "-i", str(source), "-o", str(tmp_path / "out.mp4"), "--model", str(model)]

    def run() -> None:
        assert main([*command, "--device", "cpu", "--parsing", "none", "--quiet"]) == ExitCode.OK

    assert count(run, model) == (1, 1, 1)
    assert count(run, model) == (1, 1, 0)


def test_a_downloaded_file_is_not_hashed_again_once_it_was_verified(
    count: Count, small_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from codeformer.hub import store
    from tests.models.test_load import SMALL

    path = tmp_path / "CodeFormer" / "codeformer.pth"
    path.parent.mkdir()
    torch.save({"params_ema": type(load_network(small_model_path)).from_config(SMALL).state_dict()}, path)
    os.utime(path, (0, 0))
    digest = open_model(path).sha256
    table = tuple(replace(w, size=path.stat().st_size, sha256=digest) for w in store.WEIGHTS)
    monkeypatch.setattr(store, "WEIGHTS", table)
    found: list[ModelFile] = []
    for hashed in (1, 0):
        assert count(lambda: found.append(find_model("official", TASKS["restore"], tmp_path)), path)[1] == hashed
    assert found[0] == found[1] and found[0].sha256 == digest


def test_what_is_no_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    kinds = {str(tmp_path): "is a folder", str(tmp_path / "none.pth"): "no such weights file"}
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        kinds |= {str(tmp_path / "pipe"): "is a pipe", "/dev/zero": "is a device"}
    for path, what in kinds.items():
        with pytest.raises(WeightsError, match=f"{what}.*; --model takes"):
            find_model(path, TASKS["restore"], tmp_path)


LOADING = """
import sys
from codeformer.hub.store import bundled
from codeformer.models.file import open_model
model = open_model(bundled())
print("torch" in sys.modules)
model.build()
print("torch" in sys.modules, "torch._dynamo" in sys.modules)
"""


def test_opening_needs_no_torch_and_building_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "True", "False"]
