"""The scratch finder by its measured rates, on prints that are aged here and on photographs as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import codeformer.scratches.find as finding
from codeformer.errors import WeightsError
from codeformer.hub.catalogue import BUNDLED
from codeformer.scratches.fill import fill, wide_parts
from codeformer.scratches.find import ScratchFinder, marks, open_finder
from codeformer.scratches.network import REACH, ScratchNet, network_input
from tests.scratches.prints import script

printing = script("age_prints")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finder() -> ScratchFinder:
    return open_finder()


@pytest.fixture(scope="module")
def photographs(astronaut: np.ndarray) -> list[np.ndarray]:
    """Sharp ones that the network was not trained with."""
    from skimage import data

    hopper = cv2.imread(str(ROOT / "inputs" / "whole_imgs" / "01_grace_hopper.jpg"))[..., ::-1]
    camera = np.repeat(data.camera()[..., None], 3, axis=2)
    return [astronaut, np.ascontiguousarray(hopper), camera]


def decibels(picture: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    return float(-10 * np.log10(((picture.astype(float) - truth)[where] ** 2).mean() / 255**2))


def test_most_of_the_damage_is_found_and_filled(finder: ScratchFinder, photographs: list[np.ndarray]) -> None:
    found, gains = [], []
    for seed, rgb in enumerate(photographs):
        ageing = printing.Ageing(tone=(1.05, 0.98, 0.86) if seed == 1 else None)
        aged, damage = printing.age(rgb, np.random.default_rng(seed), ageing)
        clean, _ = printing.age(rgb, np.random.default_rng(seed), replace(ageing, scratches=0, folds=0, dust=0))
        seen = finder(aged)
        found.append((seen & damage).sum() / damage.sum())
        gains.append(decibels(fill(aged, seen), clean, damage) - decibels(aged, clean, damage))
        near = cv2.dilate(damage.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert (seen & ~near).mean() < 0.01
    assert np.mean(found) > 0.7 and min(found) > 0.5
    assert np.mean(gains) > 5 and min(gains) > 3


def test_photographs_as_they_are_are_hardly_touched(finder: ScratchFinder, photographs: list[np.ndarray]) -> None:
    assert np.mean([finder(rgb).mean() for rgb in photographs]) < 0.02
    flat = np.full((200, 200, 3), 128, np.uint8)
    assert not finder(flat).any() and not finder(flat[:5, :3]).any()


def test_a_large_picture_is_searched_in_tiles_that_do_not_show(
    finder: ScratchFinder, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged, _ = printing.age(astronaut[:301, :403], np.random.default_rng(1))
    whole = finder.probability(aged)
    monkeypatch.setattr(finding, "_TILE", 100)
    np.testing.assert_allclose(finder.probability(aged), whole, atol=1e-4)


def test_a_pixel_depends_on_none_further_away_than_said() -> None:
    torch.manual_seed(0)
    net = ScratchNet().eval()
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, -0.2, 0.3)  # so that no path is dead
    source = torch.from_numpy(network_input(np.full((256, 256, 3), 128, np.uint8)))[None].requires_grad_()
    net(source)[0, 0, 128, 128].backward()
    assert source.grad is not None
    rows = torch.nonzero(source.grad[0].abs().sum(dim=(0, 2)))
    assert int(rows.min()) >= 128 - REACH and int(rows.max()) <= 128 + REACH and len(rows) > REACH


def test_a_wide_scratch_of_a_large_scan_is_found_at_a_smaller_size(
    finder: ScratchFinder, astronaut: np.ndarray
) -> None:
    aged, damage = printing.age(astronaut[:352, :352], np.random.default_rng(3), printing.Ageing(dust=0))
    large = cv2.resize(aged, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    there = cv2.resize(damage.astype(np.uint8), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST) > 0
    assert (finder(large) & there).sum() / there.sum() > 0.6


def test_the_network_knows_where_a_parts_place_is() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (230, 310, 3), np.uint8)
    whole = network_input(rgb)
    np.testing.assert_array_equal(network_input(rgb[40:99, 7:61], 40, 7, (230, 310)), whole[:, 40:99, 7:61])
    assert whole[3, 0].max() == 0 and whole[4, :, -1].max() == 0 and whole[3:].max() == 1


def test_a_mark_needs_a_sure_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "_SURE", 0.8)
    monkeypatch.setattr(finding, "_LIKELY", 0.4)
    probability = np.array([[0.9, 0.5, 0.1, 0.5, 0.5], [0.1, 0.1, 0.4, 0.1, 0.1]], np.float32)
    assert marks(probability).tolist() == [[True, True, False, True, True], [False, False, True, False, False]]
    assert not marks(np.minimum(probability, 0.7)).any()


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = (ROOT / "weights" / finding.FILE).read_bytes()
    assert finding.FILE in BUNDLED
    (tmp_path / "x").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    monkeypatch.setattr("codeformer.hub.store.packaged", lambda file: tmp_path / "x")
    with pytest.raises(WeightsError, match="is damaged"):
        open_finder()


# --- filling --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(npst.arrays(np.bool_, (17, 23)), st.sampled_from([np.uint8, np.uint16]), st.booleans(), st.integers(0, 99))
def test_only_the_damage_changes(damage: np.ndarray, dtype: type, grey: bool, seed: int) -> None:
    top = np.iinfo(dtype).max
    rgb = np.random.default_rng(seed).integers(0, top, (17, 23, 3), dtype, endpoint=True)
    if grey:
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
    before = rgb.copy()
    filled = fill(rgb, damage)
    assert filled.dtype == dtype and (rgb == before).all() and (filled[~damage] == rgb[~damage]).all()
    assert not grey or (filled == filled[..., :1]).all()


def test_a_line_is_filled_from_both_sides() -> None:
    ramp = np.repeat(np.linspace(2000, 60000, 64).astype(np.uint16)[None, :, None], 64, axis=0).repeat(3, axis=2)
    damage = np.zeros((64, 64), bool)
    damage[:, 30:33] = True
    scratched = np.where(damage[..., None], np.uint16(65535), ramp)
    assert np.abs(fill(scratched, damage).astype(int) - ramp)[damage].max() < 2000


def test_wide_parts_are_told_from_lines() -> None:
    damage = np.zeros((80, 80), bool)
    damage[:, 20:24] = True  # a line of 4 pixels
    damage[50:, 50:] = True  # a corner
    wide = wide_parts(damage, 6)
    assert wide[60:, 60:].all() and not wide[:40].any() and not (wide & ~damage).any()
    assert wide_parts(damage, 1.5)[:, 20:24].all() and not wide_parts(damage, 100).any()


# --- the prints -----------------------------------------------------------------------------------------------------


def test_a_print_is_damaged_where_its_mask_says(astronaut: np.ndarray) -> None:
    ageing = printing.Ageing(corners=1, fading=0.0, grain=0.0)
    aged, damage = printing.age(astronaut, np.random.default_rng(5), ageing)
    again, _ = printing.age(astronaut, np.random.default_rng(5), ageing)
    assert (aged == again).all() and aged.dtype == np.uint8
    change = np.abs(aged.astype(int) - astronaut).max(axis=2)
    assert change[~damage].max() <= 9 and change[damage].min() >= 7
    assert 0.01 < damage.mean() < 0.2 and damage[[0, 0, -1, -1], [0, -1, 0, -1]].sum() == 1
    nothing = printing.Ageing(scratches=0, folds=0, dust=0, fading=0.0, grain=0.0)
    whole, none = printing.age(astronaut, np.random.default_rng(5), nothing)
    assert not none.any() and (whole == astronaut).all()


def test_what_the_network_is_trained_with(astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    training = script("train_scratches")
    rng = np.random.default_rng(0)
    pairs = [training.sample(astronaut, rng) for _ in range(12)]
    assert all(x.shape == (5, 256, 256) and y.shape == (1, 256, 256) for x, y in pairs)
    shares = [float(y.mean()) for _, y in pairs]
    assert min(shares) == 0 and 0.005 < max(shares) < 0.5, "some without damage, some with"
    row = training.measured(open_finder(), astronaut[:256, :256], 1)
    assert row["found %"] > 40 and row["gain dB"] > 0 and row["false % (clean)"] < 5
