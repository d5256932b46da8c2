"""Sharp faces that are larger than the network's crop keep their fine detail; what is degraded gets none of it back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from codeformer import Restorer
from codeformer.cli.parser import build_parser
from codeformer.errors import UsageError
from codeformer.faces.choose import choose
from codeformer.faces.detail import Detail, detail_of, with_detail
from codeformer.faces.face import Face
from codeformer.options import FaceOptions

SIZE, SCALE = 256, 0.5
MATRIX = np.array([[SCALE, 0.0, 0.5 * SCALE - 0.5], [0.0, SCALE, 0.5 * SCALE - 0.5]])
WHERE = np.ones((SIZE, SIZE), np.float32)


def structure(seed: int, side: int = round(SIZE / SCALE)) -> np.ndarray:
    """Noise that has as much of each octave, as faces have roughly; (side, side, 3) in 255 levels."""
    rng = np.random.default_rng(seed)
    total = np.full((side, side), 128.0, np.float32)
    for octave in range(1, 7):
        small = rng.standard_normal((side >> octave, side >> octave)).astype(np.float32) * 0.7 * 2.1**octave
        total += cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.repeat(total[..., None], 3, axis=2), 20, 235)


def eight(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def judged(picture: np.ndarray, restored: np.ndarray | None = None) -> Detail:
    """What is said of a picture whose restored face is the sharp structure, a little softer."""
    clean = cv2.resize(structure(0), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    after = cv2.GaussianBlur(clean if restored is None else restored, (0, 0), 0.3) / 255
    before = cv2.resize(picture.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255
    return detail_of(before, after, WHERE, picture, MATRIX)


def noisy(sigma: float) -> np.ndarray:
    return eight(structure(0) + sigma * np.random.default_rng(9).standard_normal((512, 512, 1)))


def fine(picture: np.ndarray, margin: int = 110) -> float:
    grey = picture[..., 1].astype(np.float32)
    return float((grey - cv2.GaussianBlur(grey, (0, 0), 2))[margin:-margin, margin:-margin].std())


def test_detail_of_a_sharp_face_is_kept() -> None:
    for picture in (eight(structure(0)), noisy(3)):
        found = judged(picture)
        assert found.weight is not None and found.weight.min() > 0.8 and found.lost == ""
    flat = WHERE[..., None].repeat(3, axis=2)
    small = detail_of(flat, flat, WHERE, noisy(3), MATRIX * 2)
    assert small.weight is None and small.lost == "", "a small face has no more detail than its crop"


def test_noise_and_blocks_and_another_face_stay_out_and_are_named() -> None:
    jpeg = cv2.imdecode(cv2.imencode(".jpg", eight(structure(0)), [cv2.IMWRITE_JPEG_QUALITY, 8])[1], cv2.IMREAD_COLOR)
    other = cv2.resize(structure(5), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    for picture, restored, why in (
        (noisy(20), None, "noise"),
        (jpeg, None, "JPEG's blocks"),
        (eight(structure(0)), other, "not the restored face's"),
    ):
        found = judged(picture, restored)
        assert found.weight is None and found.lost == why


def test_a_blurred_face_has_no_detail_to_lose() -> None:
    found = judged(eight(cv2.GaussianBlur(structure(0), (0, 0), 5)))
    assert found.weight is None and found.lost == ""


def soft(sigma: float, grain: float) -> np.ndarray:
    """The structure, blurred by this many pixels of the crop, with grain in its brightness."""
    blurred = cv2.GaussianBlur(structure(0), (0, 0), sigma / SCALE)
    return eight(blurred + grain * np.random.default_rng(9).standard_normal((512, 512, 1)))


def test_a_soft_face_gets_its_grain_alone() -> None:
    found = judged(soft(0.7, 3))
    assert found.weight is not None and found.grain is not None and found.lost == ""
    assert found.weight.max() < 0.3 and found.grain.min() > 0.5
    for picture, why in ((soft(0.7, 8), "noise"), (soft(2, 3), "")):  # the second is blurred
        found = judged(picture)
        assert found.grain is None and found.weight is None and found.lost == why


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grain_comes_on_top_of_the_restored_structure(dtype: type) -> None:
    unit = np.iinfo(dtype).max / 255
    restored = np.rint(structure(5) * unit).astype(dtype)
    plain = cv2.GaussianBlur(structure(0), (0, 0), 6)
    before = np.rint(np.clip(plain + 3 * np.random.default_rng(9).standard_normal((512, 512, 1)), 0, 255) * unit)
    pasted = restored.copy()
    none, one = np.zeros((SIZE, SIZE), np.float32), np.ones((SIZE, SIZE), np.float32)
    with_detail(pasted, before.astype(dtype), none, one, MATRIX, one)
    added = (pasted.astype(np.float64) - restored)[100:-100, 100:-100] / unit
    assert 2 < added.std() < 3.2, "all grain but what the crop holds of it"
    assert abs(added - added.mean(axis=2, keepdims=True)).max() <= 1.01, "in brightness alone"
    coarse = cv2.GaussianBlur(added, (0, 0), 6)
    assert np.abs(coarse).max() < 0.4, "what is coarser stays the restored face's"


def test_a_place_that_was_drawn_anew_is_left_out() -> None:
    clean = cv2.resize(structure(0), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    clean[110:140, 110:140] = cv2.resize(structure(5), (SIZE, SIZE), interpolation=cv2.INTER_AREA)[110:140, 110:140]
    found = judged(eight(structure(0)), clean)
    assert found.weight is not None
    assert found.weight[118:132, 118:132].mean() < 0.4 < 0.8 < found.weight[200:, 200:].mean()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_detail_is_put_back_where_the_face_is_and_nowhere_else(dtype: type) -> None:
    top = np.iinfo(dtype).max
    before = np.rint(structure(0) / 255 * top).astype(dtype)
    smooth = np.rint(cv2.GaussianBlur(structure(0) + 10, (0, 0), 3) / 255 * top).astype(dtype)
    where = np.zeros((SIZE // 2, SIZE // 2), np.float32)  # of another size than the crop
    where[20:100, 20:100] = 1
    pasted = smooth.copy()
    with_detail(pasted, before, np.ones((SIZE, SIZE), np.float32), where, MATRIX)
    assert fine(pasted) > 0.8 * fine(before) > 1.5 * fine(smooth)
    outside = cv2.resize(where, (512, 512), interpolation=cv2.INTER_NEAREST) == 0
    far = cv2.erode(outside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert (pasted[far] == smooth[far]).all()
    low = [cv2.GaussianBlur(p.astype(np.float32), (0, 0), 8)[100:-100, 100:-100].mean() / top for p in (pasted, smooth)]
    assert low[0] == pytest.approx(low[1], abs=2e-3), "its brightness is the restored face's"


def test_a_large_sharp_photograph_keeps_its_detail(astronaut: np.ndarray) -> None:
    """With the bundled network: a face of 360 pixels, sharp, noisy and blurred."""
    face = np.ascontiguousarray(astronaut[10:220, 120:330])
    large = cv2.resize(face, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    large += 0.8 * (large - cv2.GaussianBlur(large, (0, 0), 4))
    rng = np.random.default_rng(0)
    sharp = eight(large + 3 * rng.standard_normal((*large.shape[:2], 1)))
    restorer = Restorer("compact", "cpu")

    def result(rgb: np.ndarray) -> tuple[float, tuple[str, ...]]:
        done = restorer.restore(rgb)
        (one,) = done.faces
        assert one.box is not None
        x, y = round((one.box[0] + one.box[2]) / 2), round((one.box[1] + one.box[3]) / 2)
        part = slice(y - 130, y + 130), slice(x - 100, x + 100)
        return fine(done.picture[part], 6) / fine(rgb[part], 6), done.notes

    kept, notes = result(sharp)
    assert kept > 0.8 and notes == ()
    kept, notes = result(eight(large + 25 * rng.standard_normal(large.shape)))
    assert kept < 0.3 and len(notes) == 1 and "its finest detail was left out, as noise" in notes[0]
    kept, notes = result(eight(cv2.GaussianBlur(large, (0, 0), 12)))
    assert kept > 1 and notes == (), "a blurred face gains detail"


def test_larger_faces_are_left_alone_on_demand(astronaut: np.ndarray) -> None:
    faces = [Face((0, 0, 30, 40), 0.9, np.zeros((5, 2))), Face((50, 0, 90, 60), 0.9, np.zeros((5, 2)))]
    assert choose(faces, FaceOptions(max_face_size=30), 100, 100) == {1}
    assert choose(faces, FaceOptions(max_face_size=40), 100, 100) == {1, 2}
    assert choose(faces, FaceOptions(max_face_size=39, max_faces=1), 100, 100) == {1}
    with pytest.raises(UsageError, match="--max_face_size must not be less than --min_face_size"):
        FaceOptions(min_face_size=50, max_face_size=40)
    assert build_parser().parse_args(["restore", "a.png", "--max_face_size", "800"]).max_face_size == 800
    face = np.ascontiguousarray(astronaut[0:240, 100:340])
    pair = np.concatenate([face, np.zeros_like(face)], axis=1)
    pair[60:180, 300:420] = cv2.resize(face, (120, 120), interpolation=cv2.INTER_AREA)
    restorer = Restorer("compact", "cpu")
    result = restorer.restore(pair, max_face_size=70)
    assert [one.chosen for one in result.faces] == [False, True]
    assert any(
        note.startswith("larger than --max_face_size 70, and left as they are: face 1 (") for note in result.notes
    )
    alone = restorer.restore(face, max_face_size=50)
    assert (alone.picture == face).all() and not any(one.chosen for one in alone.faces)
