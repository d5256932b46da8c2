"""What hangs before a face stays as it is where a parsing network sees it in the input (--keep_occluders)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from codeformer.errors import UsageError
from codeformer.faces.face import Face
from codeformer.faces.parsing import face_mask
from codeformer.faces.paste import seen_in_both
from codeformer.images.picture import Picture
from codeformer.options import FaceOptions
from codeformer.pipeline.clock import Clock
from codeformer.pipeline.compose import Composition, compose
from codeformer.pipeline.crops import align
from codeformer.tasks.base import Study
from codeformer.tasks.table import TASKS

POINTS = [[93, 104], [147, 104], [120, 136], [96, 160], [144, 160]]
FACE = Face((60, 50, 180, 200), 0.9, np.array(POINTS, np.float32))
GREEN = (20, 220, 20)
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


class SeesGreen:
    """Takes an ellipse for the face, without what is green before it; a dark crop shows no face at all."""

    name = "bisenet"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, crops: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.calls += 1
        masks = []
        for crop in crops:
            labels = np.zeros((512, 512), np.uint8)
            cv2.ellipse(labels, (256, 290), (150, 180), 0, 0, 360, 1, -1)
            seen = cv2.resize(crop, (512, 512))
            labels[(seen[..., 1] > 0.6) & (seen[..., 0] < 0.4)] = 17  # as hair
            labels[seen.max(axis=2) < 0.2] = 0
            masks.append(face_mask(labels, {1}))
        return masks


def _picture(shade: int = 180) -> np.ndarray:
    """A face's place, and a green stripe across it."""
    rgb = np.full((240, 240, 3), shade, np.uint8)
    rgb[:, 125:140] = GREEN
    return rgb


def _composed(rgb: np.ndarray, *, keep: bool) -> tuple[np.ndarray, list[str], SeesGreen]:
    parser = SeesGreen()
    task = TASKS["restore"]
    study = Study(Picture(rgb))
    aligned = align(study, [FACE], {1}, task, 512)
    restored = [np.full((512, 512, 3), (0.8, 0.5, 0.4), np.float32)]  # skin all over, over the stripe too
    how = Composition(task, parser, keep_occluders=keep)
    picture, notes = compose(study, [FACE], aligned, restored, how, Clock())
    return picture.rgb, notes, parser


def test_a_thing_before_the_face_stays_bit_for_bit_and_the_face_is_restored() -> None:
    rgb = _picture()
    plain, _, once = _composed(rgb, keep=False)
    kept, notes, twice = _composed(rgb, keep=True)
    assert (once.calls, twice.calls) == (1, 2) and notes == []
    assert (plain[140, 130] != GREEN).any(), "without the option skin is drawn over it"
    np.testing.assert_array_equal(kept[:, 126:139], rgb[:, 126:139])
    cheek = (150, 90)
    np.testing.assert_array_equal(kept[cheek], plain[cheek])
    assert (kept[cheek] != rgb[cheek]).any(), "beside it the face is restored"
    edge = kept[140, 100:125].astype(int)
    assert np.abs(np.diff(edge, axis=0)).max() < 60, "and there is no hard edge towards it"


def test_an_input_in_which_no_face_is_seen_decides_nothing() -> None:
    rgb = _picture(shade=20)
    plain, _, _ = _composed(rgb, keep=False)
    kept, (note,), _ = _composed(rgb, keep=True)
    np.testing.assert_array_equal(kept, plain)
    assert note.startswith("face 1: too little of it is seen in the input")


def test_the_smaller_weight_counts_and_a_doubtful_one_does_not() -> None:
    restored, original = np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)
    original[:2] = 0.25
    both = seen_in_both(restored, original)
    assert both is not None
    np.testing.assert_array_equal(both, original)
    assert seen_in_both(restored, original * 0.5) is None


def test_it_needs_a_parsing_network_and_whole_pictures(cli: Cli, tmp_path: Path, portrait: np.ndarray) -> None:
    with pytest.raises(UsageError, match="leave --parsing none out"):
        FaceOptions(keep_occluders=True, parsing="none")
    with pytest.raises(UsageError, match="--keep_occluders needs whole pictures"):
        replace(FaceOptions(keep_occluders=True), aligned=True)
    cv2.imwrite(str(tmp_path / "a.png"), portrait[..., ::-1])
    ran = cli("restore", "a.png", "--keep_occluders", "--weights_dir", "none", "-o", "out", cwd=tmp_path)
    assert ran.returncode == 4
    assert "--keep_occluders needs a network that sees what is before the face: run `codeformer download" in ran.stderr
