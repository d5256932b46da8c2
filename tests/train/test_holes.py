"""Holes as people paint them: thick strokes, seeded, of the share that is asked for."""

from pathlib import Path

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.train.data import FaceDataset, Folder
from codeformer.train.holes import LEAST, MOST, fill, random_hole, stroke_mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((64, 256, 512)))
def test_strokes_cover_what_they_should_and_follow_from_the_seed(seed: int, size: int) -> None:
    mask = stroke_mask(np.random.default_rng(seed), size)
    assert mask.shape == (size, size) and set(np.unique(mask)) == {0, 1}
    assert LEAST <= mask.mean() <= MOST
    assert np.array_equal(mask, stroke_mask(np.random.default_rng(seed), size))


def test_strokes_are_thick_reach_the_border_and_differ() -> None:
    masks = [stroke_mask(np.random.default_rng(i), 256) for i in range(60)]
    border = np.mean([m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any() for m in masks])
    # The widest disc inside of a stroke is as wide as its brush.
    widths = [2 * cv2.distanceTransform((m > 0).astype(np.uint8), cv2.DIST_L2, 5).max() / 256 for m in masks]
    assert border > 0.5 and np.median(widths) > 0.12 and np.std([m.mean() for m in masks]) > 0.1
    ranged = [float(stroke_mask(np.random.default_rng(i), 256, 0.3, 0.55).mean()) for i in range(20)]
    assert min(ranged) >= 0.3 and max(ranged) <= 0.55


def test_a_fill_is_white_or_a_guess_and_leaves_the_rest() -> None:
    face = np.full((128, 128, 3), (0.6, 0.4, 0.3), np.float32)
    mask = random_hole(np.random.default_rng(1), 128, "strokes")
    white, guess = fill(face, mask, "white"), fill(face, mask, "smear")
    assert (white[mask > 0] == 1).all() and np.array_equal(white[mask == 0], face[mask == 0])
    assert np.allclose(guess, face, atol=0.02), "around is the same colour everywhere"


def test_training_paints_strokes_with_the_chance_that_is_set(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), 128, np.uint8))

    def covered(strokes: float) -> float:
        faces = FaceDataset([Folder(tmp_path)], 64, ["medium"], {"inpaint": 1.0}, 0, strokes=strokes)
        return float(np.mean([faces[step, 0]["mask"].mean() for step in range(60)]))

    shapes, mixed, thick = (covered(chance) for chance in (0.0, 0.5, 1.0))
    assert shapes < mixed < thick and 0.28 < thick < 0.42
