"""Colorize and inpaint with the published architectures, and with the bundled model."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from codeformer import Restorer
from codeformer.errors import WeightsError
from codeformer.faces.find import find_faces, make_detector
from codeformer.images.colour import to_ycc
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.file import ModelFile, find_model, open_model
from codeformer.options import ModelOptions
from codeformer.pipeline.engine import open_restorer
from codeformer.tasks.table import TASKS
from tests.reference.fill import face, fill

GOLDEN = np.load(Path(__file__).parents[1] / "reference" / "golden.npz")
LEVELS = ["32", "64", "128"]


@pytest.mark.parametrize(
    ("task", "codes", "levels", "w", "adain"),
    [
        ("restore", 1024, [*LEVELS, "256"], 0.5, True),
        ("colorize", 1024, LEVELS, 0.0, True),
        ("inpaint", 512, LEVELS, 1.0, False),
    ],
)
def test_a_task_knows_its_published_network_by_its_architecture(
    task: str, codes: int, levels: list[str], w: float, adain: bool
) -> None:
    model = ModelFile(Path("published.pth"), "", Config(codebook_size=codes, connect_list=tuple(levels)))
    model.require_task(TASKS[task])
    for other in set(TASKS) - {task}:
        with pytest.raises(WeightsError, match=f"trained to {task}, not to {other}; run: codeformer download"):
            model.require_task(TASKS[other])
    assert (TASKS[task].default_w, TASKS[task].adain) == (w, adain)


@pytest.mark.slow  # test_golden runs these networks every day
@pytest.mark.parametrize(
    ("task", "codes", "case"),
    [
        ("colorize", 1024, "colorization|w=0.0|adain=1|seed=0|batch=1|patch"),
        ("inpaint", 512, "inpainting|w=1.0|adain=0|seed=0|batch=1|patch"),
    ],
)
def test_a_task_runs_the_published_network_as_published(task: str, codes: int, case: str, tmp_path: Path) -> None:
    path = tmp_path / "published.pth"
    torch.save({"params_ema": fill(CodeFormer(codebook_size=codes, connect_list=LEVELS)).state_dict()}, path)
    model = open_model(path)
    restorer = open_restorer(model, TASKS[task], ModelOptions(device="cpu", precision="fp32"))
    settings = TASKS[task]
    model.require_task(settings)
    crop = (face(0)[0].permute(1, 2, 0).numpy() + 1) / 2  # (512, 512, 3) in [0, 1]
    (result,) = restorer.restore([crop], w=settings.default_w, adain=settings.adain)
    golden = (np.clip(GOLDEN[case][0], -1, 1) + 1) / 2  # every 8th pixel
    np.testing.assert_allclose(result[::8, ::8].transpose(2, 0, 1), golden, atol=1e-3)


def bundled_for(task: str) -> Path:
    model = find_model("compact", TASKS[task])
    if task not in (model.tasks or ()):
        pytest.skip(f"the bundled model was not trained to {task}")
    return model.path


def test_the_bundled_model_gives_a_grey_face_the_colour_of_skin(portrait: np.ndarray) -> None:
    grey = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    model = bundled_for("colorize")
    result = Restorer(model=model, task="colorize", device="cpu", precision="fp32", parsing="none").restore(grey)
    face = result.faces[0]
    nose, mouth = face.landmarks[2], face.landmarks[3:].mean(axis=0)
    x, y = ((nose + mouth) / 2).round().astype(int)
    lip = result.picture[y - 8 : y + 8, x - 20 : x + 20].astype(np.float32) / 255
    _, blue, red = to_ycc(lip).reshape(-1, 3).mean(axis=0)
    assert red > 0.02 and blue < -0.01


def test_the_bundled_model_fills_a_painted_mouth(portrait: np.ndarray) -> None:
    model = bundled_for("inpaint")
    restorer = Restorer(model=model, task="inpaint", device="cpu", precision="fp32", parsing="none")
    detector = make_detector("retinaface_mobile0.25")
    left, right = find_faces(portrait, detector)[0].landmarks[3:].round().astype(int)
    painted = portrait.copy()
    cv2.line(painted, left.tolist(), right.tolist(), (255, 255, 255), 9, cv2.LINE_AA)
    paint = np.abs(painted.astype(int) - portrait).max(axis=-1) > 30
    result = restorer.restore(painted).picture
    errors = [np.abs(one[paint].astype(int) - portrait[paint]).mean() for one in (painted, result)]
    assert errors[1] < 0.5 * errors[0]
