"""Training: the three stages end to end on the `tiny` preset, exact resumption, several processes, and how runs end."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from codeformer.cli import main
from codeformer.cli.train import duration
from codeformer.errors import InputError, OutputError, UsageError, WeightsError
from codeformer.faces.align import TEMPLATE_512
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.file import open_model
from codeformer.models.load import load_network
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train import checkpoint, loop, objectives, picture_losses
from codeformer.train.adversarial import adaptive_weight
from codeformer.train.codebook import Codebook
from codeformer.train.crops import choose_squares, cut_all
from codeformer.train.data import FaceDataset, Folder, chances_of, make_loader, read_face, to_picture, to_tensor
from codeformer.train.losses import grid_pattern, part_region, pixel_loss, soften, stress_colour
from codeformer.train.networks import Files, Networks, build
from codeformer.train.perceptual import PerceptualDistance
from codeformer.train.settings import Settings, load_settings, preset_names
from codeformer.train.sheets import Validation
from codeformer.train.step import learning_rate


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """Bit-for-bit comparisons must not depend on how many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn faces of 64 pixels and two of 32."""
    folder = tmp_path_factory.mktemp("faces")
    for i in range(8):
        rng = np.random.default_rng(i)
        skin, shirt, hair = (rng.integers(40, 220, 3).tolist() for _ in range(3))
        picture = np.full((64, 64, 3), shirt, np.uint8)
        cv2.ellipse(picture, (32, 34), (18, 24), 0, 0, 360, hair, -1)
        cv2.ellipse(picture, (32, 38), (14, 19), 0, 0, 360, skin, -1)
        for x in (24, 40):
            cv2.circle(picture, (x, 30), 2 + i % 2, (20, 20, 20), -1)
        cv2.line(picture, (26, 47), (38, 46 + i % 3), (40, 40, 160), 2)
        if i >= 6:
            picture = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(folder / f"{i}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16's layers up to relu2_2 with random weights: all that the tiny preset looks at."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = {}
    for index, inside, outside in ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128)):
        state[f"features.{index}.weight"] = torch.randn(outside, inside, 3, 3) * (2 / (9 * inside)) ** 0.5
        state[f"features.{index}.bias"] = torch.zeros(outside)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def stage1(faces: Path, vgg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run of stage I, by the command line."""
    return run_stage(1, faces, vgg, tmp_path_factory.mktemp("run") / "one", "--validation", faces)


@pytest.fixture(scope="module")
def stage2(stage1: Path, faces: Path, vgg: Path) -> Path:
    """The same for stage II, for all three tasks."""
    tasks = "tasks={restore=0.4,colorize=0.3,inpaint=0.3}"
    return run_stage(2, faces, vgg, stage1.parent / "two", "--init", stage1 / "model.safetensors", "--set", tasks)


def train(settings: Settings, data: list[Folder], out: Path, **options: Any) -> Path:
    """Run `loop.train`, whose files are given by name among the options."""
    files = Files(**{f.name: options.pop(f.name) for f in fields(Files) if f.name in options})
    return loop.train(settings, data, out, files=files, **options)


def run_stage(stage: int, faces: Path, vgg: Path, out: Path, *more: str | Path) -> Path:
    """Train a stage of the tiny preset with 20 steps, and return its folder."""
    words = ["train", "--stage", stage, "--config", "tiny", "--data", faces, "--perceptual", vgg, "-o", out]
    words += ["--set", "perceptual=1.0", "--quiet", "--device", "cpu"]
    assert main([str(word) for word in [*words, *more]]) == 0
    return out


def tiny(stage: int, **changes: Any) -> Settings:
    return replace(load_settings("tiny", stage), **{"perceptual": 1.0, **changes})


def state_of(out: Path) -> dict[str, Any]:
    return torch.load(out / checkpoint.NAME, weights_only=True)


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Assert that two checkpoints hold the same, bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert torch.equal(a, b), f"{where}: {(a.float() - b.float()).abs().max()}"
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_close(one: Path, other: Path, loose: float) -> None:
    """Assert that two runs did the same up to rounding.

    Gradients are compared through AdamW's running means: AdamW itself divides by their size, so that rounding noise
    in a gradient near 0 may turn a weight's whole step around. Of the weights the mean difference counts, but for the
    bias of attention's keys, whose gradient is nothing but noise: it adds the same to all that softmax compares.
    """
    a, b = state_of(one), state_of(other)
    assert a["step"] == b["step"]
    for name in ("optimizer", "discriminator_optimizer"):
        if name not in a:
            continue
        means = {index: moments["exp_avg"] for index, moments in a[name]["state"].items()}
        floor = 1e-4 * max(float(x.abs().max()) for x in means.values())  # a bias before a norm has no gradient at all
        for index, x in means.items():
            y = b[name]["state"][index]["exp_avg"]
            scale = max(float(x.abs().max()), floor)
            assert float((x - y).abs().max()) < loose * scale, f"{name} {index}: {float((x - y).abs().max()) / scale}"
    for name in ("net", "average", *(["discriminator"] if "discriminator" in a else [])):
        for key, x in a[name].items():
            if key.endswith(".k.bias"):
                continue
            assert float((x - b[name][key]).abs().mean()) < 2e-5, f"{name} {key}"


# --- end to end


def test_stage_one_makes_an_autoencoder_and_reports_on_the_way(stage1: Path) -> None:
    net = load_network(stage1 / "model.safetensors")
    assert isinstance(net, VQAutoEncoder) and not isinstance(net, CodeFormer)
    assert open_model(stage1 / "model.safetensors").metadata["step"] == "20"
    lines = [json.loads(line) for line in (stage1 / checkpoint.SCALARS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 10, 15, 20, 20]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert "codebook" not in lines[0] and {"codebook", "perplexity", "perceptual"} <= set(lines[1])
    assert "discriminator" not in lines[1] and {"discriminator", "gan"} <= set(lines[3]), "the GAN starts at step 10"
    assert {"psnr codes", "perceptual codes"} <= set(lines[2])
    assert lines[3]["pixel"] < lines[0]["pixel"], "20 steps learn something"
    sheet = cv2.imread(str(stage1 / "sheets" / "0000020.png"))
    assert sheet is not None and sheet.shape == (24 + 4 * 256, 2 * 256, 3), "output and original: it sees sharp faces"
    assert json.loads((stage1 / "settings.json").read_text())["settings"]["network"]["codebook_size"] == 32


def test_stage_two_leaves_codebook_and_generator_alone(stage1: Path, stage2: Path) -> None:
    before, after = (load_network(run / "model.safetensors") for run in (stage1, stage2))
    assert isinstance(after, CodeFormer)
    fixed = {n: t for n, t in before.state_dict().items() if n.startswith(("quantize", "generator"))}
    assert fixed and all(torch.equal(after.state_dict()[n], t) for n, t in fixed.items())
    encoder = "encoder.blocks.0.weight"
    assert not torch.equal(after.state_dict()[encoder], before.state_dict()[encoder])
    assert open_model(stage2 / "model.safetensors").metadata["tasks"] == "restore,colorize,inpaint"
    scalars = [json.loads(line) for line in (stage2 / checkpoint.SCALARS).read_text().splitlines()]
    assert scalars[-1]["cross_entropy"] < scalars[0]["cross_entropy"]


def test_stage_three_trains_cft_alone_and_its_file_is_measured_by_evaluate(
    stage2: Path, faces: Path, vgg: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = stage2 / "model.safetensors"
    out = run_stage(3, faces, vgg, stage2.parent / "three", "--init", init, "--validation", faces)
    assert capsys.readouterr().out.strip() == str(out / "model.safetensors")
    before, after = load_network(init).state_dict(), load_network(out / "model.safetensors").state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fuse_convs_dict"}
    assert cv2.imread(str(out / "sheets" / "0000020.png")).shape[1] == 5 * 256  # LQ, three w, HQ
    small = faces.parent / "all64"
    small.mkdir(exist_ok=True)
    words = ["evaluate", "--model", str(out / "model.safetensors"), "--data", str(faces), "--limit", "2"]
    assert main([*words, "--no-identity", "--no-perceptual"]) == 0
    assert "w=0.5" in capsys.readouterr().out


# --- resuming


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_resuming_is_exact(stage: int, faces: Path, vgg: Path, stage2: Path, tmp_path: Path) -> None:
    """20 steps are 10 steps, and 10 more in another run, bit for bit: weights, averages, optimizers, codebook."""
    changes: dict[int, dict[str, Any]] = {
        1: {"gan_start": 6, "warmup": 15, "codebook_decay": 0.9, "clip": 1.0},
        2: {"tasks": {"restore": 0.5, "inpaint": 0.5}, "accumulate": 2, "optimizer": "muon"},
        3: {"cross_entropy": 0.1, "fidelity": (1.0, "any"), "train": ("encoder", "transformer", "generator", "fuse")},
    }
    todo = tiny(stage, straight_through=stage == 3, **changes[stage])
    todo = replace(todo, network=replace(todo.network, pixel_skip=stage == 3))
    options: dict[str, Any] = {
        "perceptual": vgg,
        "init": None if stage == 1 else stage2.parent / ("one" if stage == 2 else "two") / "model.safetensors",
        "teacher": stage2.parent / "one" / "model.safetensors" if stage == 3 else None,
        "device": "cpu",
        "quiet": True,
    }
    data = [Folder(faces)]
    train(todo, data, tmp_path / "whole", **options)
    train(replace(todo, steps=10), data, tmp_path / "parts", **options)
    assert state_of(tmp_path / "parts")["step"] == 10
    train(todo, data, tmp_path / "parts", resume=True, **options)
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert state_of(tmp_path / "whole").keys() >= {"net", "average", "optimizer", "codebook", "step"}
    assert ("discriminator" in state_of(tmp_path / "whole")) == (stage != 2)
    assert_equal(*(load_network(tmp_path / run / "model.safetensors").state_dict() for run in ("whole", "parts")))
    done = train(todo, data, tmp_path / "parts", resume=True, **options)
    assert done == tmp_path / "parts" / "model.safetensors", "nothing is left to do, and the file is there"
    written, described = load_network(done).state_dict(), open_model(done).metadata
    done.unlink()  # as when the disk was full, or the process killed, just after the last checkpoint
    train(todo, data, tmp_path / "parts", resume=True, **options)
    assert_equal(load_network(done).state_dict(), written)
    assert open_model(done).metadata == described


def test_a_killed_runs_scalars_are_not_doubled(faces: Path, stage1: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"init": stage1 / "model.safetensors", "device": "cpu", "quiet": True}
    todo = tiny(2, steps=6, save_every=2, log_every=1)
    train(replace(todo, steps=4), [Folder(faces)], tmp_path, **options)
    scalars = tmp_path / checkpoint.SCALARS
    before = scalars.read_text().splitlines()
    scalars.write_text("\n".join([*before, '{"step": 5, "loss": 9.0}', '{"step": 6, "lo']))  # killed in step 6
    train(todo, [Folder(faces)], tmp_path, resume=True, **options)
    lines = scalars.read_text().splitlines()
    assert lines[:4] == before and [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert json.loads(lines[4])["loss"] != 9.0


def test_a_time_limit_stops_cleanly_and_can_be_resumed(
    faces: Path, stage1: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    todo, data = tiny(2, steps=3), [Folder(faces)]
    options: dict[str, Any] = {"init": stage1 / "model.safetensors", "device": "cpu", "quiet": True}
    train(todo, data, tmp_path / "whole", **options)
    with caplog.at_level(logging.WARNING, "codeformer"):
        train(todo, data, tmp_path / "short", time_limit=1e-9, **options)
    assert "time is up" in caplog.text and "--resume" in caplog.text
    assert state_of(tmp_path / "short")["step"] == 1 and load_network(tmp_path / "short" / "model.safetensors")
    train(todo, data, tmp_path / "short", resume=True, **options)
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "short"))


def test_ctrl_c_finishes_the_step_and_saves(
    faces: Path, stage1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_stage = objectives.OBJECTIVES[2]

    def pressed(networks: Any, batch: Any, settings: Settings, step: int, reduce: Any) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return true_stage(networks, batch, settings, step, reduce)

    monkeypatch.setitem(objectives.OBJECTIVES, 2, pressed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    init = stage1 / "model.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(2), [Folder(faces)], tmp_path / "run", init=init, device="cpu", quiet=True)
    assert state_of(tmp_path / "run")["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler is put back"
    signal.signal(signal.SIGINT, before)


def test_sigterm_to_all_processes_saves_too(faces: Path, stage1: Path, tmp_path: Path) -> None:
    """As `timeout`, systemd and schedulers send it: the loading processes get it as well."""
    words = ["train", "--stage", "2", "--config", "tiny", "--data", faces, "--init", stage1 / "model.safetensors"]
    changes = ["--set", "steps=100000", "workers=1", "log_every=1"]
    command = [sys.executable, "-m", "codeformer", *words, "-o", tmp_path, "--device", "cpu", "--quiet", *changes]
    process = subprocess.Popen([*map(str, command)], start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        scalars = tmp_path / checkpoint.SCALARS
        while not (scalars.exists() and scalars.read_text().count("\n") > 3):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "interrupted" in said and "Traceback" not in said
    assert state_of(tmp_path)["step"] > 3


def test_a_checkpoint_that_does_not_fit(faces: Path, stage2: Path, tmp_path: Path) -> None:
    init = stage2.parent / "one" / "model.safetensors"
    options: dict[str, Any] = {"init": init, "device": "cpu", "quiet": True, "resume": True}
    (tmp_path / checkpoint.NAME).write_bytes((stage2 / checkpoint.NAME).read_bytes()[:1000])
    with pytest.raises(InputError, match="cut off"):
        train(tiny(2), [Folder(faces)], tmp_path, **options)
    options["init"] = stage2 / "model.safetensors"
    with pytest.raises(UsageError, match="another stage"):
        train(tiny(3, perceptual=0.0, gan=0.0), [Folder(faces)], stage2, **options)


# --- several processes, several parts


def test_accumulated_parts_are_the_joint_batch(faces: Path, vgg: Path, stage2: Path, tmp_path: Path) -> None:
    init = stage2 / "model.safetensors"
    todo = tiny(3, steps=2, adaptive=False, clip=1.0)
    for parts in (1, 2):
        out = tmp_path / str(parts)
        train(
            replace(todo, accumulate=parts),
            [Folder(faces)],
            out,
            perceptual=vgg,
            init=init,
            device="cpu",
            quiet=True,
        )
    assert_close(tmp_path / "1", tmp_path / "2", loose=1e-3)


@pytest.mark.slow
def test_a_compiled_run_does_what_an_eager_one_does(faces: Path, vgg: Path, stage2: Path, tmp_path: Path) -> None:
    """Up to the order of sums; a validation, which has other shapes, leaves the translated network alone.

    Without the discriminator, which is not translated and makes much of rounding.
    """
    pytest.importorskip("torch", minversion="2.6")
    for name, change in (("one", "compile=false"), ("two", "compile=true")):
        more = ["--init", stage2 / "model.safetensors", "--validation", faces, "--set", "steps=4", "gan=0", change]
        run_stage(3, faces, vgg, tmp_path / name, *more)
    assert_close(tmp_path / "one", tmp_path / "two", loose=2e-2)


def in_two_processes(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a program twice at once by torchrun, on the CPU over gloo.

    Gloo's threads abort a process now and then when it starts or ends (one in thirty runs on a busy machine), which
    torchrun reports as exit code -6 and a user answers with --resume. Such a run is repeated once, others never.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    for _ in range(2):
        done = subprocess.run(
            [*launcher, *map(str, words)], capture_output=True, text=True, timeout=500, env=environment
        )
        if "exitcode: -6)" not in done.stderr:
            break
        print(done.stderr)  # pytest shows it where the second run fails too
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_are_one_with_the_joint_batch(faces: Path, vgg: Path, tmp_path: Path) -> None:
    """Stage I with GAN, adaptive weight, clipping and codes that follow, by torchrun over gloo."""
    changes = ["steps=3", "gan_start=0", "vq_start=0", "revive=0", "clip=1.0", "codebook_decay=0.9"]
    run_stage(1, faces, vgg, tmp_path / "one", "--set", *changes)
    words = ["train", "--stage", "1", "--config", "tiny", "--data", faces, "--perceptual", vgg, "-o", tmp_path / "two"]
    changes.append("perceptual=1.0")
    done = in_two_processes("-m", "codeformer", *words, "--quiet", "--device", "cpu", "--set", *changes)
    assert done.stdout.split() == [str(tmp_path / "two" / "model.safetensors")], "one of the processes speaks"
    assert_close(tmp_path / "one", tmp_path / "two", loose=2e-3)


def test_processes_stay_the_same_when_codes_are_placed_and_revived(faces: Path, vgg: Path, tmp_path: Path) -> None:
    script = tmp_path / "each.py"
    script.write_text(
        "import os, sys, torch\n"
        "from codeformer.cli import main\n"
        "from codeformer.train import loop\n"
        "true = loop.update_average\n"
        "def spy(average, net, decay):\n"
        "    true(average, net, decay)\n"
        "    torch.save(net.state_dict(), sys.argv[1] + os.environ['RANK'] + '.pt')\n"
        "loop.update_average = spy\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    changes = ["steps=8", "vq_start=2", "revive=2", "gan=0", "codebook_decay=0", "perceptual=1.0"]
    words = ["train", "--stage", "1", "--config", "tiny", "--data", faces, "--perceptual", vgg, "-o", tmp_path / "run"]
    in_two_processes(script, tmp_path / "rank", *words, "--quiet", "--device", "cpu", "--set", *changes)
    lines = [json.loads(line) for line in (tmp_path / "run" / checkpoint.SCALARS).read_text().splitlines()]
    assert any(line.get("revived", 0) > 0 for line in lines)
    assert_equal(*(torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1)))


# --- what goes wrong


@pytest.mark.parametrize(
    "spoil",
    [lambda loss: loss * float("nan"), lambda loss: loss + (loss * 0).sqrt()],  # the root's gradient at 0 is NaN
    ids=["loss", "gradient"],
)
def test_what_is_not_finite_stops_with_step_and_batch_before_anything_moves(
    spoil: Callable[[Tensor], Tensor],
    faces: Path,
    stage1: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    true_stage = objectives.OBJECTIVES[2]

    def broken(networks: Any, batch: Any, settings: Settings, step: int, reduce: Any) -> Any:
        losses = true_stage(networks, batch, settings, step, reduce)
        return replace(losses, total=spoil(losses.total) if step == 19 else losses.total)

    monkeypatch.setitem(objectives.OBJECTIVES, 2, broken)
    words = ["train", "--stage", "2", "--config", "tiny", "--data", faces, "--init", stage1 / "model.safetensors"]
    assert main([str(w) for w in [*words, "-o", tmp_path, "--device", "cpu", "--quiet"]]) == 1
    assert "step 19" in capsys.readouterr().err
    failure = torch.load(tmp_path / checkpoint.FAILURE, weights_only=True)
    expected = FaceDataset([Folder(faces)], 64, ["heavy"], {"restore": 1}, 0)[19, 1]
    assert failure["step"] == 19 and not np.isfinite(list(failure["logs"].values())).all()
    assert torch.equal(failure["batch"]["lq"][1], expected["lq"])
    assert state_of(tmp_path)["step"] == 10, "the last good checkpoint stays"
    assert all(torch.isfinite(t).all() for t in state_of(tmp_path)["net"].values())


def test_a_picture_that_cannot_be_read_is_named_and_what_was_done_is_kept(
    faces: Path, stage1: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "faces"
    shutil.copytree(faces, folder)
    order = FaceDataset([Folder(folder)], 64, ["heavy"], {"restore": 1}, 0)
    early, late = ([order[step, 0]["hq"] for step in steps] for steps in (range(3), range(3, 8)))
    for path in sorted(folder.glob("*.png")):
        face = to_tensor(read_face(path, 64)[0])

        def shown(samples: list[Tensor], face: Tensor = face) -> bool:
            return any(torch.equal(s, face) or torch.equal(s, face.flip(2)) for s in samples)

        if shown(late) and not shown(early):
            path.write_bytes(b"")
            break
    todo = tiny(2, batch_size=1)
    options: dict[str, Any] = {"init": stage1 / "model.safetensors", "device": "cpu", "quiet": True}
    with pytest.raises(InputError) as refusal:
        train(replace(todo, workers=1), [Folder(folder)], tmp_path / "run", **options)
    assert str(refusal.value) == f"{path}: not a picture"
    assert 3 <= state_of(tmp_path / "run")["step"] < 8
    shutil.copy(faces / path.name, path)
    train(todo, [Folder(folder)], tmp_path / "run", resume=True, **options)
    train(todo, [Folder(faces)], tmp_path / "whole", **options)
    assert_equal(state_of(tmp_path / "run"), state_of(tmp_path / "whole"))


def test_what_only_looks_like_a_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name in ("folder.png", "link.png"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read"):
            read_face(tmp_path / name, 64)


def test_too_little_memory_is_said_with_the_way_out(
    faces: Path, stage1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(objectives.OBJECTIVES, 2, full)
    words = ["train", "--stage", "2", "--config", "tiny", "--data", faces, "--init", stage1 / "model.safetensors"]
    words += ["--set", "accumulate=2", "-o", tmp_path, "--device", "cpu", "--verbose"]
    assert main([str(word) for word in words]) == 5
    assert "--set accumulate=4" in capsys.readouterr().err


def test_a_run_is_not_overwritten(faces: Path, stage1: Path, stage2: Path, tmp_path: Path) -> None:
    shutil.copytree(stage2, tmp_path / "run")
    options: dict[str, Any] = {"init": stage1 / "model.safetensors", "device": "cpu", "quiet": True}
    with pytest.raises(UsageError, match="--resume"):
        train(tiny(2), [Folder(faces)], tmp_path / "run", **options)
    with pytest.raises(UsageError, match="does not fit"):
        train(tiny(2, train=("encoder",)), [Folder(faces)], tmp_path / "run", resume=True, **options)
    files = sorted(path.relative_to(stage2) for path in stage2.rglob("*") if path.is_file())
    assert all((tmp_path / "run" / file).read_bytes() == (stage2 / file).read_bytes() for file in files)


def test_two_runs_do_not_share_a_folder(faces: Path, tmp_path: Path) -> None:
    """The second one would write checkpoint and weights over the first one's."""
    with checkpoint.claimed(tmp_path), pytest.raises(OutputError, match="another run writes into this folder"):
        train(tiny(1, steps=1, perceptual=0.0), [Folder(faces)], tmp_path, resume=True, device="cpu", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
@pytest.mark.parametrize(
    "name", ["checkpoint.pt", "model.safetensors", "settings.json", "scalars.jsonl", "sheets", "tensorboard"]
)
def test_links_in_the_folder_of_a_run_lead_nowhere(faces: Path, tmp_path: Path, name: str) -> None:
    outside, out = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    out.mkdir()
    (outside / "victim").write_bytes(b"precious")
    (out / name).symlink_to(outside if name in checkpoint.FOLDERS else outside / "victim")
    todo = tiny(1, steps=1, perceptual=0.0, gan=0.0, log_every=1)
    try:
        train(todo, [Folder(faces)], out, validation=faces, device="cpu", quiet=True)
        assert not (out / name).is_symlink() and (out / "model.safetensors").is_file()
    except (OutputError, UsageError) as error:
        assert name in (*checkpoint.FOLDERS, checkpoint.NAME) and (
            "is a link" in str(error) or "--resume" in str(error)
        )
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_bytes() == b"precious"


def test_a_checkpoint_that_would_run_code_is_named(faces: Path, tmp_path: Path) -> None:
    torch.save({"stage": 1, "evil": Path("x")}, tmp_path / checkpoint.NAME)
    with pytest.raises(InputError, match="would run code when opened"):
        train(tiny(1, perceptual=0.0), [Folder(faces)], tmp_path, resume=True, device="cpu", quiet=True)


def test_a_stage_does_not_start_from_what_lacks_the_one_before(
    faces: Path, stage1: Path, stage2: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"init": stage1 / "model.safetensors", "device": "cpu", "quiet": True}
    with pytest.raises(WeightsError, match="not what stage 3 of this network starts from"):
        train(tiny(3, perceptual=0.0, gan=0.0), [Folder(faces)], tmp_path / "a", **options)
    wider = tiny(2)
    wider = replace(wider, network=replace(wider.network, nf=2 * wider.network.nf))
    with pytest.raises(WeightsError, match="of another shape"):
        train(wider, [Folder(faces)], tmp_path / "b", **options)
    options["init"] = stage2 / "model.safetensors"
    with pytest.raises(UsageError, match="--teacher"):
        train(tiny(3, perceptual=0.0, gan=0.0, feature=1.0), [Folder(faces)], tmp_path / "c", **options)


def test_settings_that_are_none() -> None:
    wrong = {
        "learning_rate=1": "unknown settings: learning_rate",
        "lr=fast": "lr",
        "steps=1.5": "steps",
        "adain=maybe": "adain",
        "stage=3": "--stage",
        "nonsense": "key=value",
        "network.depth=3": "network",
        "network.img_size=65": "img_size",
        'train=["decoder"]': "train",
        "tasks={sharpen=1}": "tasks",
        "fidelity=[2]": "fidelity",
        "schedule=step": "schedule",
        "ema=1": "ema",
        "seed=-1": "seed",
        "workers=-1": "workers",
        "fidelity=[]": "fidelity",
        'fidelity=["all"]': "fidelity",
        "degradations=[]": "degradations",
        "train=[]": "train",
        "tasks={}": "tasks",
        "tasks={restore=0}": "tasks",
        'tasks={restore="1"}': "tasks",
        'tasks=["inpaint"]': "tasks: a table",
        "perceptual_crop=33": "perceptual_crop: at most 32",
    }
    for change, word in wrong.items():
        with pytest.raises(UsageError, match=word.replace("[", r"\[")):
            load_settings("tiny", 2, [change])
    with pytest.raises(UsageError, match="grid"):
        replace(load_settings("tiny", 3), grid=1.0, network=Config(img_size=64, stem=4, ch_mult=(1,), latent_size=256))
    with pytest.raises(UsageError, match=r"compact, paper, tiny"):
        load_settings("huge", 1)


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "lr = 1e-5\nbatch_size = 6\n[stage2]\nlr = 3e-5\n"
        "[network]\nimg_size = 64\nch_mult = [1, 2]\nlatent_size = 1024\n"
    )
    ours = [load_settings(str(path), stage, ["network.nf=32", "workers=0"]) for stage in (1, 2)]
    assert [s.lr for s in ours] == [1e-5, 3e-5] and ours[0].network.nf == 32 and ours[1].workers == 0
    path.write_text("lr =")
    with pytest.raises(UsageError, match="not TOML"):
        load_settings(str(path), 1)
    with pytest.raises(UsageError, match=r"gone\.toml"):
        load_settings(str(tmp_path / "gone.toml"), 1)


def test_every_preset_has_three_stages_and_the_papers_numbers() -> None:
    for name in preset_names():
        assert [load_settings(name, stage).stage for stage in (1, 2, 3)] == [1, 2, 3]
    one, two, three = (load_settings("paper", stage) for stage in (1, 2, 3))
    assert (one.steps, two.steps, three.steps) == (1_500_000, 200_000, 20_000)
    assert (one.lr, two.lr, three.lr) == (8e-5, 8e-5, 2e-5)
    assert (one.batch_size, two.batch_size, three.batch_size) == (16, 16, 16)
    assert (two.cross_entropy, two.feature, two.degradations) == (0.5, 1.0, ("heavy",))
    assert set(three.train) == {"encoder", "transformer", "fuse"}, "codebook and generator stay as they are"
    assert (three.cross_entropy, three.feature) == (0.5, 1.0) and (three.pixel, three.perceptual) == (1.0, 1.0)
    assert three.fidelity == (1.0,) and three.degradations == ("medium",)
    assert (one.network.codebook_size, one.network.n_layers, one.network.img_size) == (1024, 9, 512)


def test_the_manual_explains_every_setting() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in manual.splitlines() if line.startswith("| `")]
    explained = {name.strip(" `"): row for row in rows for name in row[1].split(",")}
    for f in [*fields(Settings), *fields(Config)]:
        if f.name not in ("network", "stage"):
            assert f.name in explained, f"docs/training.md does not explain {f.name}"


def test_what_a_run_lacks(faces: Path, vgg: Path, tmp_path: Path) -> None:
    data, options = [Folder(faces)], {"device": "cpu", "quiet": True}
    with pytest.raises(UsageError, match="--init"):
        train(tiny(2), data, tmp_path, **options)
    with pytest.raises(UsageError, match="does not divide"):
        train(tiny(1, accumulate=3), data, tmp_path, **options)
    with pytest.raises(WeightsError, match="VGG16"):
        train(tiny(1, perceptual_layers=("relu3_3",)), data, tmp_path, perceptual=vgg, **options)
    with pytest.raises(UsageError, match="degradations"):
        train(tiny(1, degradations=("light",), perceptual=0.0), data, tmp_path, **options)
    with pytest.raises(InputError, match="no such folder"):
        train(tiny(1, perceptual=0.0), [Folder(tmp_path / "none")], tmp_path, **options)
    with pytest.raises(UsageError, match="--device"):
        train(tiny(1), data, tmp_path, device="quantum", quiet=True)
    with pytest.raises(UsageError, match="--device cuda:99: PyTorch sees"):
        train(tiny(1), data, tmp_path, device="cuda:99", quiet=True)


@pytest.mark.parametrize("change", [{"connect_list": ("16", "128")}, {"n_head": 5}, {"norm_groups": 3}])
def test_a_network_that_cannot_be_built_is_no_stage_ones_work(
    change: dict[str, Any], faces: Path, tmp_path: Path
) -> None:
    todo = tiny(1, perceptual=0.0)
    todo = replace(todo, network=replace(todo.network, **change))
    with pytest.raises(UsageError, match=r"\[network\] cannot be built"):
        train(todo, [Folder(faces)], tmp_path / "run", device="cpu", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["restore", "colorize", "inpaint"])
def test_a_validation_shows_what_the_run_trains(task: str, faces: Path, vgg: Path) -> None:
    others = {"restore": 0.1, "colorize": 0.1, "inpaint": 0.1}
    shown = Validation(
        tiny(3, tasks=others | {task: 0.5}), Files(validation=faces, perceptual=vgg), torch.device("cpu")
    )
    changed = (shown.lq - shown.hq).abs().amax(1) > 1e-6  # (B, S, S)
    grey = (shown.lq[:, 0] - shown.lq[:, 2]).abs().amax((1, 2)) < 1e-5
    assert bool(grey.all()) == (task == "colorize")
    if task == "inpaint":
        assert bool((shown.lq.permute(0, 2, 3, 1)[changed] > shown.hq.permute(0, 2, 3, 1)[changed] - 1e-6).all())
        assert 0.01 < changed.float().mean() < 0.9, "white in a hole, else the original"


def test_a_file_names_the_tasks_that_it_was_trained_for(faces: Path, stage1: Path, tmp_path: Path) -> None:
    todo = tiny(2, steps=1, tasks={"restore": 1.0, "inpaint": 0.0})
    file = train(todo, [Folder(faces)], tmp_path, init=stage1 / "model.safetensors", device="cpu", quiet=True)
    assert open_model(file).metadata["tasks"] == "restore"


# --- data


def test_samples_do_not_depend_on_the_workers(faces: Path) -> None:
    tasks = {"restore": 1.0, "colorize": 1.0, "inpaint": 1.0}
    data = FaceDataset([Folder(faces)], 64, ["medium", "heavy"], tasks, seed=3)
    batches = [list(make_loader(data, 5, 8, 3, rank=1, workers=workers)) for workers in (0, 2)]
    assert len(batches[0]) == len(batches[1]) == 3
    for one, other in zip(*batches, strict=True):
        assert_equal(one, other)
    assert torch.equal(batches[0][0]["lq"][2], data[5, 5]["lq"]), "process 1 of batches of 3 takes index 3 to 5"


def test_a_sample_is_what_it_says(faces: Path) -> None:
    data = FaceDataset([Folder(faces)], 64, ["medium"], {"restore": 1, "inpaint": 1}, seed=0)
    samples = [data[step, 0] for step in range(40)]
    assert {s["task"] for s in samples} == {"restore", "inpaint"} and {s["sharp"] for s in samples} == {True, False}
    for s in samples:
        assert s["hq"].shape == s["lq"].shape == (3, 64, 64) and s["mask"].shape == (1, 64, 64)
        assert s["hq"].abs().max() <= 1 and s["lq"].abs().max() <= 1
        assert bool(s["mask"].any()) == (s["task"] == "inpaint")
    known = [read_face(path, 64)[0] for path in sorted(faces.glob("*.png"))]
    known += [face[:, ::-1] for face in known]
    assert all(min(np.abs(to_picture(s["hq"]) - k).max() for k in known) < 1e-5 for s in samples), "maybe mirrored"


def test_folders_are_sampled_by_their_weights(faces: Path, tmp_path: Path) -> None:
    assert Folder.parse("a/b=2.5") == Folder(Path("a/b"), 2.5) and Folder.parse("a=b") == Folder(Path("a=b"), None)
    cv2.imwrite(str(tmp_path / "white.png"), np.full((64, 64, 3), 255, np.uint8))
    for weights, low, high in (
        ((1, 3), 0.6, 0.88),
        ((None, None), 0.03, 0.25),
        ((8, 1), 0.03, 0.25),
        ((1, 0), -1, 1e-9),
    ):
        data = FaceDataset([Folder(faces, weights[0]), Folder(tmp_path, weights[1])], 64, ["medium"], {"restore": 1}, 0)
        share = np.mean([bool((data[step, 0]["hq"] == 1).all()) for step in range(150)])
        assert low < share < high, weights
    for wrong in ((1, None), (0, 0), (2, -1), (float("inf"), 1)):
        with pytest.raises(UsageError, match="--data"):
            chances_of([Folder(faces, wrong[0]), Folder(tmp_path, wrong[1])], [8, 1])


# --- pieces


def test_the_learning_rate_warms_up_and_comes_down() -> None:
    todo = tiny(1, lr=1e-3, warmup=10, steps=100, schedule="cosine")
    rates = [learning_rate(todo, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == pytest.approx(1e-3, rel=0.05)
    assert rates[9] > rates[8] and all(a > b for a, b in pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(5e-5, rel=0.05)
    assert {learning_rate(tiny(1, lr=2e-4), step) for step in (0, 7, 19)} == {2e-4}


def test_dead_codes_are_moved_onto_latents_and_live_ones_stay() -> None:
    torch.manual_seed(0)
    net = VQAutoEncoder.from_config(replace(load_settings("tiny", 1).network, n_layers=0, connect_list=()))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    weight = net.quantize.embedding.weight
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    before = weight.detach().clone()
    codebook = Codebook(32, 16, torch.device("cpu"))
    latents = torch.randn(4, 16, 8, 8)
    codes = torch.arange(256) % 8  # codes 8 to 31 are dead
    codebook.see(latents, codes)
    assert codebook.revive(net, optimizer) == 24
    assert torch.equal(weight[:8], before[:8])
    flat = latents.permute(0, 2, 3, 1).reshape(-1, 16)
    assert all(any(torch.equal(code, cell) for cell in flat) for code in weight[8:].detach())
    assert not optimizer.state[weight]["exp_avg"][8:].any() and optimizer.state[weight]["exp_avg"][:8].all()
    assert not codebook.counts.any(), "the count starts anew"


def test_codes_are_placed_where_the_latents_are() -> None:
    torch.manual_seed(0)
    net = VQAutoEncoder.from_config(replace(load_settings("tiny", 1).network, n_layers=0, connect_list=()))
    centres = 5 * torch.randn(32, 16)
    codebook = Codebook(32, 16, torch.device("cpu"))
    for _ in range(4):
        latents = centres[torch.randint(32, (4, 8, 8))] + 0.01 * torch.randn(4, 8, 8, 16)
        codebook.see(latents.permute(0, 3, 1, 2), None)
    z = latents.permute(0, 3, 1, 2)
    before = net.quantize.distances(z).detach().min(1).values.mean()
    codebook.place(net)
    after = net.quantize.distances(z).detach().min(1).values.mean()
    assert after < 0.4 * before
    assert len(net.quantize.encode(z).unique()) > 12, "many of the codes are in use from the first step"


def test_pixel_loss_of_an_enlarged_face_looks_at_half_the_size() -> None:
    hq = torch.zeros(1, 3, 8, 8)
    checks = torch.zeros(1, 3, 8, 8)
    checks[..., ::2, ::2], checks[..., 1::2, 1::2] = 0.5, 0.5
    checks[..., ::2, 1::2], checks[..., 1::2, ::2] = -0.5, -0.5  # a detail that a face of half the size cannot have
    assert pixel_loss(checks, hq, torch.tensor([True])).item() == pytest.approx(0.5)
    assert pixel_loss(checks, hq, torch.tensor([False])).item() == pytest.approx(0)
    left = torch.ones(1, 1, 8, 8)
    left[..., :4] = 3
    assert pixel_loss(checks, hq, torch.tensor([True]), left).item() == pytest.approx(1.0)


def test_the_region_of_face_parts_is_where_the_template_has_them() -> None:
    region = part_region(64)[0, 0]
    for x, y in TEMPLATE_512 / 8:
        assert region[round(y), round(x)] > 0.9
    assert region[:8].max() < 0.01 and region[:, :4].max() < 0.01 and 0.05 < region.mean() < 0.35


def test_an_enlarged_face_is_judged_at_half_the_size_where_vgg_sees_it_whole(vgg: Path) -> None:
    torch.manual_seed(0)
    distance = PerceptualDistance(vgg, ("relu1_2", "relu2_2"))
    a, b = torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(2, 3, 16, 16) * 2 - 1
    found = distance.by_sharpness(a, b, torch.tensor([False, True]))
    half = [torch.nn.functional.avg_pool2d(x, 2) for x in (a, b)]
    assert found.tolist() == pytest.approx([distance(*half)[0].item(), distance(a, b)[1].item()], rel=1e-4)


def test_the_discriminator_sees_nothing_fine_of_an_enlarged_face() -> None:
    checks = (torch.arange(8).view(1, 1, 8, 1) + torch.arange(8)) % 2 * 2.0 - 1
    pictures = checks.expand(2, 3, 8, 8)
    seen = soften(pictures, torch.tensor([True, False]))
    assert torch.equal(seen[0], pictures[0]) and not seen[1].any()


def test_the_discriminator_learns_at_the_runs_rate(stage1: Path) -> None:
    state = state_of(stage1)
    rates = [group["lr"] for name in ("optimizer", "discriminator_optimizer") for group in state[name]["param_groups"]]
    assert rates == [pytest.approx(learning_rate(tiny(1), 19))] * len(rates)


def test_random_squares_are_the_same_square_of_every_picture() -> None:
    ramp = torch.arange(64.0).view(1, 1, 1, 64).expand(3, 3, 64, 64) + torch.arange(64.0).view(1, 1, 64, 1)
    draws = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    squares = choose_squares(64, 32, torch.tensor([True, True, False]), draws)
    a, b = cut_all(squares, ramp), cut_all(squares, 2 * ramp)
    assert a.shape == (3, 3, 32, 32) and torch.equal(2 * a, b)
    steps = a[:, 0, 0, 1] - a[:, 0, 0, 0]
    assert steps[2] == 2, "what was enlarged is seen at half the size"
    assert set(steps.tolist()) <= {1.0, 2.0}


def test_random_squares_come_at_the_sizes_that_are_asked_for() -> None:
    ramp = torch.arange(64.0).view(1, 1, 1, 64).expand(200, 1, 64, 64)
    draws = torch.rand(200, 6, generator=torch.Generator().manual_seed(0))
    sharp = torch.arange(200) % 2 == 0
    squares = choose_squares(64, 16, sharp, draws, (0.6, 0.3, 0.1))
    crops = cut_all(squares, ramp)
    steps = (crops[:, 0, 0, 1] - crops[:, 0, 0, 0]).round().int()
    counts = {step: int((steps[sharp] == step).sum()) for step in (1, 2, 4)}
    assert counts[1] > counts[2] > counts[4] > 0
    assert set(steps[~sharp].tolist()) == {2, 4}, "what was enlarged is never seen at its whole size"
    assert torch.equal(crops[steps == 4].mean(), torch.tensor(31.5)), "a quarter of 64 pixels is the whole face"


def test_random_squares_look_at_the_hole() -> None:
    mask = torch.zeros(2, 1, 128, 128)
    mask[0, :, 90:94, 10:14] = 1
    draws = torch.rand(2, 6, generator=torch.Generator().manual_seed(3))
    for row in draws.split(1):
        squares = choose_squares(128, 32, torch.tensor([True]), row, (1.0, 1.0, 1.0), mask[:1])
        assert cut_all(squares, mask[:1]).max() > 0
    with_empty = choose_squares(128, 32, torch.tensor([True, True]), draws, mask=mask)
    assert cut_all(with_empty, torch.rand(2, 3, 128, 128)).shape == (2, 3, 32, 32)


def test_colour_counts_apart_from_the_luma() -> None:
    hq = torch.rand(2, 3, 4, 4)
    grey, tint = torch.full_like(hq, 0.1), torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1).expand_as(hq)
    weight = torch.tensor([1.0, 4.0]).view(-1, 1, 1, 1)
    assert torch.allclose(stress_colour(hq + grey, hq, weight), hq + grey, atol=1e-6)
    assert torch.allclose(stress_colour(hq + tint, hq, weight), hq + weight * tint, atol=1e-6)


def test_inpainting_is_judged_in_the_hole_alone() -> None:
    size = 64
    mask = torch.zeros(2, 1, size, size)
    mask[0, :, :4, :4] = 1
    hq, out = torch.rand(2, 3, size, size), torch.rand(2, 3, size, size)
    shown = picture_losses.within_the_hole(out, {"hq": hq, "mask": mask})
    same = (shown == hq).all(1)[0]
    assert same[4:].all() and same[:, 4:].all() and not same[:4, :4].all()
    assert torch.equal(shown[1], out[1]), "a face without a hole is judged whole"


@pytest.mark.parametrize(("task", "counts"), [("restore", 1), ("colorize", 4), ("inpaint", 4)])
def test_colour_counts_more_where_it_is_invented(task: str, counts: float) -> None:
    torch.manual_seed(0)
    net = CodeFormer.from_config(tiny(3).network)
    size = net.config.img_size
    lq = torch.rand(1, 3, size, size) * 2 - 1
    draws = torch.full((1, 8), 0.5)
    batch = {"lq": lq, "mask": torch.ones(1, 1, size, size) * (task == "inpaint"), "task": [task], "draws": draws}
    errors = []
    for weight in (1.0, 4.0):
        settings = tiny(
            3, perceptual=0.0, gan=0.0, cross_entropy=0.0, feature=0.0, fidelity=(0.0,), colour_weight=weight
        )
        with torch.no_grad():
            out, _, _ = net(lq, w=0.0)
        tint = torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1)
        batch |= {"hq": out + tint, "sharp": torch.tensor([True])}
        errors.append(float(objectives.stage3(Networks(net), batch, settings, 0, lambda x: x).logs["pixel"].detach()))
    assert errors[1] == pytest.approx(counts * errors[0], rel=1e-3)


def test_only_what_repeats_from_square_to_square_is_a_grid() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    flat, slope = torch.full((2, 3, 64, 64), 0.7), (0.1 * rows - 0.2 * columns).expand(2, 3, 64, 64)
    assert float(grid_pattern(flat, 4)) < 1e-6 and float(grid_pattern(slope, 4)) < 1e-5
    lines = torch.tensor([1.0, -1.0, 0.0, 0.0]).repeat(16).view(1, 1, 64, 1).expand(2, 3, 64, 64)
    assert float(grid_pattern(lines, 4)) > 0.2
    assert float(grid_pattern(lines.mT, 4)) == pytest.approx(float(grid_pattern(lines, 4)), rel=1e-5)
    assert float(grid_pattern(lines + slope, 4)) == pytest.approx(float(grid_pattern(lines, 4)), rel=1e-3)
    noise = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert float(grid_pattern(noise, 4)) < 0.15, "its mean over many squares is small"
    uneven = lines[:, :, :56]  # 14 squares, not a multiple of 8
    assert float(grid_pattern(uneven[..., :56], 4)) == pytest.approx(float(grid_pattern(lines, 4)), rel=1e-5)
    edge = (columns >= 30).float().expand(2, 3, 64, 64)
    assert float(grid_pattern(edge, 4)) < 0.05, "and so is an edge's"


def test_a_loss_of_the_grid_takes_it_out(faces: Path, vgg: Path, stage2: Path, tmp_path: Path) -> None:
    """Of two runs that differ in this loss alone, the one with it ends with less of a grid."""
    batch, left = one_batch(faces, tiny(3, seed=9)), []
    for weight in (0.0, 20.0):
        todo = tiny(3, train=("generator", "fuse"), gan=0.0, perceptual=0.0, pixel=0.1, grid=weight, lr=5e-3)
        out = tmp_path / f"{weight}"
        init = stage2.parent / "two" / "model.safetensors"
        train(todo, [Folder(faces)], out, init=init, perceptual=vgg, device="cpu", quiet=True)
        net = load_network(out / "model.safetensors")
        error = net(batch["lq"], w=1.0)[0] - batch["hq"]
        left.append([float(grid_pattern(error, side)) for side in todo.network.square_sides])
    assert all(with_it < 0.7 * without for without, with_it in zip(*left, strict=True)), left


def test_the_adaptive_weight_balances_gradients() -> None:
    big, small = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5])
    assert adaptive_weight(big, small, 100).item() == pytest.approx(10, rel=1e-3)
    assert adaptive_weight(small, big).item() == pytest.approx(0.1, rel=1e-3)
    assert adaptive_weight(big, small).item() == adaptive_weight(torch.ones(2), torch.zeros(2)).item() == 1
    for odd in (float("inf"), float("nan")):  # an overflow in fp16
        for pair in ((1.0, odd), (odd, 1.0), (odd, odd)):
            assert adaptive_weight(*(torch.tensor([x]) for x in pair)).item() == 0


# --- fp16


def one_batch(faces: Path, settings: Settings) -> dict[str, Any]:
    samples = FaceDataset(
        [Folder(faces)], settings.network.img_size, settings.degradations, settings.tasks, settings.seed
    )
    batch: dict[str, Any] = default_collate([samples[0, i] for i in range(settings.batch_size)])
    return batch


def test_fp16_measures_small_gradients_for_the_adaptive_weight(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a mean over all pixels is below what fp16 can say, unless it is scaled on its way."""
    seen: dict[str, tuple[float, float]] = {}
    for precision in ("fp32", "fp16"):
        settings = tiny(1, precision=precision, gan_start=0, pixel=1e-3, perceptual=0.0)
        torch.manual_seed(0)
        networks = build(settings, torch.device("cpu"), Files())

        def record(a: Tensor, b: Tensor, limit: float, precision: str = precision) -> Tensor:
            seen[precision] = (float(a.norm()), float(b.norm()))
            return adaptive_weight(a, b)

        monkeypatch.setattr(picture_losses, "adaptive_weight", record)
        with torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
            objectives.stage1(networks, one_batch(faces, settings), settings, 0, lambda x: x)
    assert min(seen["fp32"]) > 0
    assert seen["fp16"] == pytest.approx(seen["fp32"], rel=0.05)


def test_fp16_trains_network_and_discriminator_through_overflows(
    faces: Path, vgg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: scaler(kind, 2.0**24, enabled=enabled))
    todo = tiny(1, precision="fp16", gan_start=3)
    train(todo, [Folder(faces)], tmp_path, perceptual=vgg, device="cpu", quiet=True)
    state = state_of(tmp_path)
    left_out = 24 - int(np.log2(state["scaler"]["scale"]))
    assert 1 <= left_out <= 10, "each overflow halves the scale"
    steps = [
        {int(x["step"]) for x in state[name]["state"].values()} for name in ("optimizer", "discriminator_optimizer")
    ]
    assert all(len(counts) == 1 for counts in steps), "a step is done whole or not at all"
    assert 20 - left_out <= max(steps[0]) <= 20 and 17 - left_out <= max(steps[1]) <= 17
    assert max(steps[0]) + max(steps[1]) < 37, "what overflowed did not move anything"
    for name in ("net", "discriminator"):
        assert all(torch.isfinite(t).all() for t in state[name].values())
    lines = [json.loads(line) for line in (tmp_path / checkpoint.SCALARS).read_text().splitlines()]
    assert lines[-2]["pixel"] < lines[0]["pixel"]


def test_durations() -> None:
    assert [duration(text) for text in ("90", "90s", "20m", "1.5h", "3H")] == [90, 90, 1200, 5400, 10800]
    for wrong in ("", "m", "-5", "0", "ten", "5d"):
        with pytest.raises(UsageError, match="--time_limit"):
            duration(wrong)
