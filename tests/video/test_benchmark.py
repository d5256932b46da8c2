"""The figures of scripts/benchmark_video.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from codeformer.faces.align import crop_face, face_transform

_SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_video.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_video", _SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_video"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_what_is_the_same_is_judged_so_and_what_shakes_is_not(script: Any) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("skimage")
    judges = script.open_judges(None)
    if judges.identity is None:
        pytest.skip("the extra dlib is not installed")
    eyes_nose_mouth = np.array([[130.0, 109], [174, 109], [151, 138], [134, 158], [168, 158]])  # in the astronaut
    crop = crop_face(script.portrait(), face_transform(eyes_nose_mouth, 256), 256)
    still = [crop] * 2
    same = script.judge(still, still, judges)
    assert (same["ssim"], same["identity"]) == (pytest.approx(1), pytest.approx(1))
    assert (same["keypoints"], same["jitter"]) == (0, 0)

    def moved(x: float) -> np.ndarray:
        return cv2.warpAffine(crop, np.array([[1, 0, x], [0, 1, 0.0]]), (256, 256), borderMode=cv2.BORDER_REFLECT)

    away = script.judge([moved(6)] * 2, still, judges)
    shaking = script.judge([moved(6), moved(-6)], still, judges)
    assert away["keypoints"] > 6
    assert away["jitter"] == 0
    assert shaking["jitter"] > 15
    assert away["ssim"] < 0.95
