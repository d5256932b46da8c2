"""The measure of the weave, on patterns whose periods are known."""

import cv2
import numpy as np
import pytest

from codeformer.train.weave import PERIODS, REGIONS, Weave, energies, regions_of


def portrait(seed: int = 0, size: int = 512) -> np.ndarray:
    """A drawn aligned face with dark hair, with a little noise everywhere."""
    picture = np.full((size, size, 3), 0.75, np.float32)
    cv2.ellipse(picture, (256, 220), (190, 230), 0, 0, 360, (0.15, 0.1, 0.08), -1)
    cv2.ellipse(picture, (256, 290), (140, 180), 0, 0, 360, (0.85, 0.65, 0.55), -1)
    noise = np.random.default_rng(seed).normal(0, 0.02, picture.shape).astype(np.float32)
    return np.clip(picture + cv2.GaussianBlur(noise, (0, 0), 1.0), 0, 1)


def woven(face: np.ndarray, where: np.ndarray, period: int, axis: int, strength: float = 0.01) -> np.ndarray:
    """Add a sine of a period along an axis where the mask says so."""
    wave = strength * np.sin(2 * np.pi * np.arange(face.shape[0]) / period)
    pattern = wave[:, None] if axis == 0 else wave[None, :]
    return np.asarray(face + (pattern * where)[..., None], np.float32)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("region", REGIONS)
def test_a_weave_is_seen_at_its_period_in_its_region_alone(period: int, axis: int, region: str) -> None:
    face = portrait()
    regions = regions_of(face)
    weave = Weave()
    weave.add(face, {"w=1": woven(face, regions[region], period, axis), "same": face})
    ratios = weave.ratios()
    assert all(value == pytest.approx(1) for value in ratios["same"].values())
    loud = {name for name, value in ratios["w=1"].items() if value > 1.5}
    assert loud == {f"{region} {period}"}


def test_a_blurred_face_has_less_and_noise_more_at_every_period() -> None:
    weave = Weave()
    for seed in range(2):
        face = portrait(seed)
        noise = np.random.default_rng(9 + seed).normal(0, 0.05, face.shape).astype(np.float32)
        weave.add(face, {"blurred": cv2.GaussianBlur(face, (0, 0), 4), "noisy": face + noise})
    ratios = weave.ratios()
    fine = {name: value for name, value in ratios["blurred"].items() if not name.endswith("16")}  # not outlines
    assert all(value < 0.9 for value in fine.values()) and fine["skin 4"] < 0.1, fine
    assert all(value > 1.1 for value in ratios["noisy"].values())
    assert weave.faces == {"hair": 2, "skin": 2}


def test_hair_is_dark_and_outside_of_the_face_and_may_lack() -> None:
    face = portrait()
    regions = regions_of(face)
    assert regions["hair"][60, 256] and not regions["hair"][300, 256] and not regions["hair"][10, 10]
    assert regions["skin"][150, 256] and regions["skin"][300, 170] and not regions["skin"][240, 256]
    bald = np.full((512, 512, 3), 0.7, np.float32)
    assert not regions_of(bald)["hair"].any()
    assert {name for name, _ in energies(bald, regions_of(bald))} == {"skin"}
    weave = Weave()
    weave.add(bald, {"w=1": bald})
    assert set(weave.ratios()["w=1"]) == {f"skin {period}" for period in PERIODS}
