"""The measure of the weave, on patterns whose periods are known."""

import cv2
import numpy as np
import pytest

from codeformer.train.weave import PERIODS, REGIONS, Weave, regions_of, spectra


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
@pytest.mark.parametrize("sigma", [0.0, 3.0])
def test_a_weave_is_seen_at_its_period_in_its_region_alone(period: int, axis: int, region: str, sigma: float) -> None:
    face = portrait()
    regions = regions_of(face)
    plain = cv2.GaussianBlur(face, (0, 0), sigma) if sigma else face
    weave = Weave()
    weave.add(face, {"w=1": woven(plain, regions[region], period, axis), "same": face, "plain": plain})
    peaks, energies = weave.peaks(), weave.energies()
    assert all(value == pytest.approx(1) for value in (*peaks["same"].values(), *energies["same"].values()))
    name = f"{region} {period}"
    assert peaks["w=1"][name] > 1.4 * peaks["plain"][name]
    assert energies["w=1"][name] > 1.4 * energies["plain"][name]
    others = [other for other in peaks["w=1"] if not other.startswith(region)]
    assert all(peaks["w=1"][other] == pytest.approx(peaks["plain"][other], rel=0.1) for other in others)
    if not sigma:
        assert {other for other, value in peaks["w=1"].items() if value > 1.5} == {name}


def test_blur_takes_energy_and_noise_adds_it_and_neither_is_a_weave() -> None:
    weave = Weave()
    for seed in range(2):
        face = portrait(seed)
        noise = np.random.default_rng(9 + seed).normal(0, 0.05, face.shape).astype(np.float32)
        weave.add(face, {"blurred": cv2.GaussianBlur(face, (0, 0), 2), "noisy": face + noise})
    energies, peaks = weave.energies(), weave.peaks()
    blurred = energies["blurred"]
    assert blurred["skin 4"] < 0.1 and blurred["skin 8"] < 0.3 and blurred["hair 4"] < 0.9, blurred
    assert all(value > 1.1 for value in energies["noisy"].values())
    assert all(value < 1.3 for title in ("blurred", "noisy") for value in peaks[title].values()), peaks
    assert weave.faces == {"hair": 2, "skin": 2}


def test_hair_is_dark_and_outside_of_the_face_and_may_lack() -> None:
    face = portrait()
    regions = regions_of(face)
    assert regions["hair"][60, 256] and not regions["hair"][300, 256] and not regions["hair"][10, 10]
    assert regions["skin"][150, 256] and regions["skin"][300, 170] and not regions["skin"][240, 256]
    bald = np.full((512, 512, 3), 0.7, np.float32)
    assert not regions_of(bald)["hair"].any()
    assert set(spectra(bald, regions_of(bald))) == {"skin"}
    weave = Weave()
    weave.add(bald, {"w=1": bald})
    assert weave.faces == {"hair": 0, "skin": 1} and set(weave.peaks()["w=1"]) == {
        f"skin {period}" for period in PERIODS
    }
