"""Scratches are filled before faces are worked on, in pictures of every kind, and told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codeformer import Restorer
from codeformer.cli import main
from codeformer.errors import ExitCode, InputError, UsageError
from codeformer.images.picture import Picture, read_picture, to_uint16, write_picture
from codeformer.models.codeformer import CodeFormer
from codeformer.models.file import ModelFile
from codeformer.models.load import load_network
from codeformer.options import CanvasOptions, FaceOptions, FaceWork
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.mend import MOST, Mender
from codeformer.pipeline.opened import open_picture
from codeformer.pipeline.pictures import Job, Result, process
from codeformer.pipeline.restorer import FaceRestorer
from codeformer.tasks.base import Task
from codeformer.tasks.inpaint import Inpaint
from codeformer.tasks.table import TASKS

FACE = ((60.0, 60.0), (100.0, 60.0), (80.0, 82.0), (64.0, 105.0), (96.0, 105.0))  # eyes 40 pixels apart


def finder(damage: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A finder that knows where the damage is; it gets 8 bits."""

    def find(rgb: np.ndarray) -> np.ndarray:
        assert rgb.dtype == np.uint8
        return damage.copy()

    return find


def engine(path: Path, task: Task, damage: np.ndarray, **faces: object) -> Engine:
    net = load_network(path)
    assert isinstance(net, CodeFormer)
    restorer = FaceRestorer(net, device="cpu", precision="fp32")
    model = ModelFile(path, "", net.config, {"adain": "false"})
    options = FaceOptions(parsing="none", **faces)  # type: ignore[arg-type]
    work = FaceWork(faces=options, canvas=CanvasOptions(1.0), scratches="auto")
    mender = Mender(finder(damage), Inpaint(), restorer, model)  # type: ignore[arg-type]
    return Engine(task, work, model, restorer, None, mender=mender)


def run(of: Engine, picture: Picture) -> Result[None]:
    (result,) = process([Job(None, lambda: picture)], of)
    return result


@pytest.fixture
def smooth() -> np.ndarray:
    y, x = np.mgrid[0:160, 0:160]
    return np.stack([60 + x // 2, 90 + y // 3, 200 - x // 3], axis=-1).astype(np.uint8)


@pytest.fixture
def lines() -> np.ndarray:
    damage = np.zeros((160, 160), bool)
    damage[30:33] = damage[:, 140:142] = True
    return damage


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("task", [TASKS["restore"], Inpaint()])
def test_a_picture_without_a_face_is_mended(
    small_model_path: Path, smooth: np.ndarray, lines: np.ndarray, dtype: type, task: Task
) -> None:
    whole = smooth if dtype == np.uint8 else to_uint16(smooth)
    scratched = np.where(lines[..., None], np.iinfo(dtype).max, whole).astype(dtype)
    alpha = np.full((160, 160), np.iinfo(dtype).max, dtype)
    alpha[:, 150:] = 0
    result = run(engine(small_model_path, task, lines), Picture(scratched, alpha))
    assert result.error is None and result.output is not None and result.damage is not None
    assert not result.without_face and result.done == 0
    assert (result.damage == (lines & (alpha > 0))).all(), "what is transparent is no damage"
    assert (result.output.rgb[~result.damage] == scratched[~result.damage]).all()
    error = np.abs(result.output.rgb.astype(int) - whole)[result.damage].max() / np.iinfo(dtype).max
    assert error < 0.06 and result.output.rgb.dtype == dtype and (result.output.alpha == alpha).all()
    assert any("scratches, dust and creases were filled: 2.98%" in note for note in result.notes)
    assert "mend" in result.seconds


@pytest.mark.parametrize("task", [TASKS["restore"], Inpaint()])
def test_the_wide_part_of_a_scratch_in_a_face_is_drawn(
    small_model_path: Path, smooth: np.ndarray, lines: np.ndarray, task: Task
) -> None:
    """The network here draws nonsense, which shows where it drew."""
    damage = lines.copy()
    damage[70:90, 60:100] = True
    of = engine(small_model_path, task, damage, landmarks=(FACE,))
    only = replace(of, task=Inpaint())
    result = run(only, Picture(smooth))
    assert result.output is not None
    wide = np.zeros_like(damage)
    wide[72:88, 62:98] = True
    change = np.abs(result.output.rgb.astype(int) - smooth).max(axis=2)
    assert (change[~damage] == 0).all() and change[lines].max() <= 6, "thin ones are filled from both sides"
    assert (change[wide] > 6).mean() > 0.8
    assert result.notes[1] == "what is wide of them in 1 face was drawn by the inpainting network"
    if task.name == "restore":
        restored = run(of, Picture(smooth))
        assert restored.done == 1 and restored.faces[0].before is not None
    opened = open_picture(Picture(smooth), of)
    picture, _ = opened.render(of, of.work.w, opened.chosen)
    same = run(of, Picture(smooth)).output
    assert same is not None and (picture.rgb == same.rgb).all() and opened.study.notes[:2] == result.notes[:2]


def test_an_aligned_crop_is_one_face(small_model_path: Path) -> None:
    crop = np.full((64, 64, 3), 120, np.uint8)
    damage = np.zeros((64, 64), bool)
    damage[20:40, 20:40] = True
    result = run(engine(small_model_path, Inpaint(), damage, aligned=True), Picture(crop))
    assert result.output is not None and (result.output.rgb[~damage] == 120).all()
    assert (result.output.rgb[25:35, 25:35] != 120).any()


def test_what_cannot_be_a_prints_damage_stays(small_model_path: Path, smooth: np.ndarray) -> None:
    damage = np.zeros((160, 160), bool)
    damage[: int(160 * MOST) + 1] = True
    result = run(engine(small_model_path, TASKS["restore"], damage), Picture(smooth))
    assert result.output is not None and (result.output.rgb == smooth).all() and result.without_face
    assert any("more than a print can have: nothing is filled" in note for note in result.notes)
    nothing = run(engine(small_model_path, Inpaint(), np.zeros_like(damage)), Picture(smooth))
    assert nothing.notes == ("no scratches were found",) and not nothing.without_face
    painted = run(engine(small_model_path, Inpaint(color=(9, 9, 9)), damage), Picture(smooth))
    assert isinstance(painted.error, InputError), "a mask that is named must be there"


def test_a_mask_and_scratches_go_together(
    small_model_path: Path, smooth: np.ndarray, lines: np.ndarray, tmp_path: Path
) -> None:
    mask = np.zeros((160, 160, 3), np.uint8)
    mask[64:80, 70:90] = 255
    write_picture(Picture(mask), tmp_path / "mask.png")
    task = Inpaint(mask=tmp_path / "mask.png", feather=0)
    result = run(engine(small_model_path, task, lines, landmarks=(FACE,)), Picture(smooth))
    assert result.output is not None and result.done == 1
    change = (result.output.rgb != smooth).any(axis=2)
    assert change[64:80, 70:90].mean() > 0.8 and not (change & ~lines & (mask[..., 0] == 0)).any()


# --- the command line and the Python API ----------------------------------------------------------------------------


@pytest.fixture
def scratched(portrait: np.ndarray, tmp_path: Path) -> Path:
    rgb = portrait.copy()
    rgb[198:201] = 250
    rgb[:, 20:22] = 15
    write_picture(Picture(rgb), tmp_path / "in" / "a.png")
    return tmp_path / "in" / "a.png"


@pytest.mark.parametrize("command", ["restore", "inpaint"])
def test_the_mask_is_written_and_can_be_given_back(
    command: str, scratched: Path, portrait: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [command, str(scratched), "-o", str(out), "--device", "cpu", "--scratches", "-s", "1"]
    assert main(words) == ExitCode.OK
    assert "a.png: scratches, dust and creases were filled:" in capsys.readouterr().err
    mask = read_picture(out / "masks" / "a.png")
    assert set(np.unique(mask.rgb)) == {0, 255} and mask.grey
    there = np.zeros((240, 240), bool)
    there[198:201] = there[:, 20:22] = True
    assert (mask.rgb[..., 0] > 0)[there].mean() > 0.7
    result, before = read_picture(out / "final_results" / "a.png").rgb, read_picture(scratched).rgb
    errors = [np.abs(rgb.astype(int) - portrait)[there].mean() for rgb in (before, result)]
    assert errors[1] < 0.4 * errors[0]
    assert main(words) == ExitCode.OK
    assert "already (--overwrite does that again)" in capsys.readouterr().err
    assert main([*words, "--only_final", "--dry_run"]) == ExitCode.OK
    assert "masks" not in capsys.readouterr().out
    if command == "inpaint":
        again = ["inpaint", str(scratched), "-o", str(tmp_path / "again"), "--mask", str(out / "masks")]
        assert main([*again, "--device", "cpu"]) == ExitCode.OK


def test_without_the_option_nothing_is_looked_for(
    scratched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["restore", str(scratched), "-o", str(tmp_path / "out"), "--device", "cpu"]) == ExitCode.OK
    assert "scratches" not in capsys.readouterr().err and not (tmp_path / "out" / "masks").exists()
    assert main(["restore", str(scratched), "--scratches", "some"]) == ExitCode.USAGE
    assert main(["colorize", str(scratched), "--scratches", "auto"]) == ExitCode.USAGE


def test_the_python_api_tells_the_damage(scratched: Path) -> None:
    result = Restorer("compact", "cpu", scratches="auto").restore(scratched)
    assert result.damage is not None and result.damage[198:201].mean() > 0.7
    assert any(note.startswith("scratches, dust and creases were filled") for note in result.notes)
    assert Restorer("compact", "cpu").restore(scratched).damage is None
    with pytest.raises(UsageError, match="restore and inpaint, not colorize"):
        Restorer("compact", "cpu", task="colorize", scratches="auto")
