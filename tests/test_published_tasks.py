"""Colorize and inpaint with the published architectures: the task's own w and AdaIN give the golden pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from codeformer.engine import check_trained, open_restorer
from codeformer.errors import WeightsError
from codeformer.models.codeformer import CodeFormer
from codeformer.options import ModelOptions
from codeformer.tasks import TASKS
from tests.reference.fill import face, fill

GOLDEN = np.load(Path(__file__).parent / "reference" / "golden.npz")
LEVELS = ["32", "64", "128"]


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
    restorer = open_restorer(path, ModelOptions(device="cpu", precision="fp32"))
    settings = TASKS[task]
    check_trained(settings, path, restorer.net.config)
    for other in set(TASKS) - {task}:
        with pytest.raises(WeightsError, match=f"trained to {task}, not to {other}; run: codeformer download"):
            check_trained(TASKS[other], path, restorer.net.config)
    crop = (face(0)[0].permute(1, 2, 0).numpy() + 1) / 2  # (512, 512, 3) in [0, 1]
    (result,) = restorer.restore([crop], w=settings.default_w, adain=settings.adain)
    golden = (np.clip(GOLDEN[case][0], -1, 1) + 1) / 2  # every 8th pixel
    np.testing.assert_allclose(result[::8, ::8].transpose(2, 0, 1), golden, atol=1e-3)
