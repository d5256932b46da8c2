"""Masks: where they come from, how they act, and what is not a mask."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from codeformer.errors import InputError
from codeformer.faces.align import crop_scaled
from codeformer.images.blend import composite
from codeformer.tasks.inpainting import masks
from codeformer.tasks.inpainting.paint import from_paint

few = settings(max_examples=30, deadline=None)
WHITE, BLACK, GREEN = (255, 255, 255), (0, 0, 0), (0, 255, 0)


def scenery(size: int = 160, seed: int = 0) -> np.ndarray:
    """A picture (size, size, 3) uint8 of middle colours, smooth with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 190, (5, 5, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 3, (size, size, 1))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def brush(size: int = 160, width: int = 24, soft: float = 0.0) -> np.ndarray:
    """A bent antialiased stroke (size, size) float32 in [0, 1]; `soft` is the sigma of its edge."""
    fine = np.zeros((size * 4, size * 4), np.uint8)
    points = (np.array([[0.3, 0.3], [0.55, 0.5], [0.45, 0.7]]) * size * 4).astype(np.int32)
    cv2.polylines(fine, [points], False, 255, width * 4, cv2.LINE_AA)
    alpha = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.clip(cv2.GaussianBlur(alpha, (0, 0), soft) * 1.1, 0, 1) if soft else alpha


def painted(rgb: np.ndarray, alpha: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    top = np.iinfo(rgb.dtype).max
    mixed = rgb * (1 - alpha[..., None]) + np.array(colour) * (top / 255) * alpha[..., None]
    return np.rint(mixed).astype(rgb.dtype)


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


# --- paint -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [WHITE, BLACK, GREEN])
@pytest.mark.parametrize("soft", [0.0, 4.0])
@pytest.mark.parametrize("quality", [None, 90, 50])
def test_paint_is_found_with_its_fringe(colour, soft, quality):
    rgb, alpha = scenery(), brush(soft=soft)
    picture = painted(rgb, alpha, colour)
    found = from_paint(picture if quality is None else jpeg(picture, quality), colour)
    assert set(np.unique(found)) <= {0, 1}
    assert (found[alpha > 0.15] == 1).mean() > 0.995, "paint was left in the picture"
    near = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert found[~near].mean() < 0.005, "the mask went into the picture"


def test_sixteen_bits_give_the_same_mask():
    eight = painted(scenery(), brush(), WHITE)
    assert np.array_equal(from_paint(eight.astype(np.uint16) * 257, WHITE), from_paint(eight, WHITE))


def test_natural_white_is_no_paint():
    rgb = scenery()
    for centre in ((60, 70), (90, 70)):  # the whites of two eyes, off white and shaded
        cv2.ellipse(rgb, (centre, (18, 8), 0), (226, 222, 218), -1, cv2.LINE_AA)
    for x in range(60, 92, 8):  # teeth
        cv2.rectangle(rgb, (x, 100), (x + 6, 107), (238, 232, 220), -1)
    rgb[40:43, 50:53] = 255  # a highlight, cut off but tiny
    assert not from_paint(rgb, WHITE).any()
    assert not from_paint(jpeg(rgb, 60), WHITE).any()


def test_paint_beside_natural_white_does_not_swallow_it():
    rgb = scenery()
    shirt = rgb[110:].astype(np.float32) * 0.1 + 216  # off white, with folds
    rgb[110:] = shirt.astype(np.uint8)
    alpha = brush(width=12)
    alpha[105:115, 60:90] = 1
    found = from_paint(painted(rgb, alpha, WHITE), WHITE)
    assert (found[alpha > 0.5] == 1).all()
    assert found[125:].mean() < 0.02


def test_paint_may_run_out_of_the_picture():
    rgb = scenery()
    rgb[60:80, :50] = 255
    found = from_paint(rgb, WHITE)
    assert (found[60:80, :50] == 1).all() and not found[:50].any() and not found[:, 60:].any()


@few
@given(st.integers(0, 10_000), st.integers(16, 60))
def test_an_unpainted_picture_has_no_paint(seed, size):
    assert not from_paint(scenery(size, seed), GREEN).any()


def test_a_picture_all_of_paint():
    assert from_paint(np.full((20, 30, 3), 255, np.uint8), WHITE).all()


# --- transparency ------------------------------------------------------------------------------------------------


def test_alpha_holes_with_their_soft_edges_but_no_translucent_rest():
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[10:20, 10:20] = 0
    alpha[10:20, 20] = 100  # the hole's edge
    alpha[30:35, 40:50] = 128  # glass: not cut out
    mask = masks.from_alpha(alpha)
    assert (mask[10:20, 10:20] == 1).all() and np.allclose(mask[10:20, 20], 155 / 255)
    assert np.count_nonzero(mask) == 110
    assert np.array_equal(masks.from_alpha(alpha.astype(np.uint16) * 257), mask)
    assert not masks.from_alpha(np.full((4, 4), 200, np.uint8)).any()


# --- files -------------------------------------------------------------------------------------------------------


def test_a_mask_file_is_read_as_it_is(tmp_path):
    values = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    Image.fromarray(values).save(tmp_path / "mask.png")
    mask = masks.read_mask(tmp_path / "mask.png", (4, 256))
    assert np.allclose(mask[:, 10:245], values[:, 10:245] / 255)
    assert not mask[:, :4].any() and (mask[:, 252:] == 1).all()


def test_a_jpeg_mask_has_no_noise_around_it(tmp_path):
    values = np.zeros((64, 64), np.uint8)
    cv2.circle(values, (30, 33), 15, 255, -1)
    Image.fromarray(values).save(tmp_path / "mask.jpg", quality=75)
    mask = masks.read_mask(tmp_path / "mask.jpg", (64, 64))
    far = cv2.dilate(values, np.ones((9, 9))) == 0
    assert not mask[far].any() and (mask[cv2.erode(values, np.ones((9, 9))) > 0] == 1).all()


def test_white_strokes_on_a_transparent_layer(tmp_path):
    layer = np.full((20, 20, 4), 255, np.uint8)
    layer[..., 3] = 0
    layer[5:9, 5:9, 3] = 255
    Image.fromarray(layer, "RGBA").save(tmp_path / "mask.png")
    mask = masks.read_mask(tmp_path / "mask.png", (20, 20))
    assert np.count_nonzero(mask) == 16 and (mask[5:9, 5:9] == 1).all()


def test_a_mask_of_another_size_is_refused_naming_both(tmp_path):
    Image.new("L", (30, 20), 255).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png.*30x20.*40x20"):
        masks.read_mask(tmp_path / "mask.png", (20, 40))


def test_an_empty_mask_is_refused(tmp_path):
    Image.new("L", (30, 20), 0).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png.*empty"):
        masks.read_mask(tmp_path / "mask.png", (20, 30))


def test_masks_in_a_folder_go_by_name(tmp_path):
    for name in ("a.png", "b.jpg", "c.png", "c.webp", "d.txt"):
        (tmp_path / name).touch()
    assert masks.mask_file(tmp_path, Path("x/a.jpg")) == tmp_path / "a.png"
    assert masks.mask_file(tmp_path, Path("x/b.jpg")) == tmp_path / "b.jpg"
    assert masks.mask_file(tmp_path, Path("x/c.webp")) == tmp_path / "c.webp"
    assert masks.mask_file(tmp_path / "a.png", Path("x/z.jpg")) == tmp_path / "a.png"
    for picture, message in [("c.bmp", "several"), ("d.png", "no mask"), ("z.png", "no mask")]:
        with pytest.raises(InputError, match=f"{picture}.*{message}"):
            masks.mask_file(tmp_path, Path("x") / picture)
    with pytest.raises(InputError, match="no such"):
        masks.mask_file(tmp_path / "gone.png", Path("a.png"))


def test_masks_in_subfolders_belong_to_the_pictures_in_folders_of_that_name(tmp_path):
    for name in ("1.png", "album/1.png", "album/old/1.jpg", "two/1.png", "two/1.webp"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / name).touch()
    for picture, expected in {
        "in/1.jpg": "1.png",
        "in/album/1.jpg": "album/1.png",
        "in/album/old/1.jpg": "album/old/1.jpg",
        "in/other/1.jpg": "1.png",
        "old/1.jpg": "1.png",  # masks/old is not there, only masks/album/old
    }.items():
        assert masks.mask_file(tmp_path / "masks", tmp_path / picture) == tmp_path / "masks" / expected
    (tmp_path / "in" / "album").mkdir(parents=True)
    (tmp_path / "in" / "album" / "1.jpg").touch()
    beside = Path(os.path.relpath(tmp_path / "in" / "album" / "1.jpg"))  # leads through ".."
    assert masks.mask_file(tmp_path / "masks", beside) == tmp_path / "masks" / "album" / "1.png"
    (tmp_path / "1.png").touch()
    for name in ("in/album", "in"):  # the folder of masks is above the picture's
        (tmp_path / name / "1.png").touch()
        picture = tmp_path / name / "1.png"
        assert masks.mask_file(tmp_path, picture) == tmp_path / "1.png", "no picture is its own mask"
    with pytest.raises(InputError, match=r"several masks in .*two"):
        masks.mask_file(tmp_path / "masks", tmp_path / "in" / "two" / "1.jpg")
    with pytest.raises(InputError, match="no mask"):
        masks.mask_file(tmp_path / "masks", tmp_path / "in" / "album" / "2.jpg")


# --- how masks act -----------------------------------------------------------------------------------------------


def blob(size: int = 60) -> np.ndarray:
    mask = np.zeros((size, size), np.float32)
    mask[20:40, 25:35] = 1
    return mask


def test_grow_and_shrink_by_pixels():
    wide = masks.grow(blob(), 3)
    assert wide[17, 30] == 1 and wide[16, 30] == 0 and wide[17, 22] == 0, "a disc has round corners"
    assert masks.grow(blob(), -3).sum() == 14 * 4
    assert masks.grow(blob(), 0) is not None and np.array_equal(masks.grow(blob(), 0), blob())


@few
@given(st.integers(0, 12))
def test_feather_goes_outwards_and_no_further(pixels):
    soft = masks.feather(blob(), pixels)
    assert (soft[blob() == 1] == 1).all()
    away = cv2.distanceTransform((blob() == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert not soft[away >= pixels + 1].any()
    ramp = soft[20 - pixels : 20, 30]
    assert np.allclose(ramp, np.arange(1, pixels + 1) / (pixels + 1))


def test_soft_edges_are_respected():
    mask = blob()
    mask[20:40, 35:55] = np.linspace(0.95, 0.05, 20, dtype=np.float32)
    soft = masks.feather(mask, 3)
    assert (soft >= mask).all() and np.array_equal(soft[20:40, 39:55], mask[20:40, 39:55])
    faint = mask * np.float32(0.5)
    assert np.array_equal(masks.feather(faint, 3), faint)


@few
@given(st.integers(0, 10_000), st.sampled_from([np.uint8, np.uint16]))
def test_composite_is_exact_at_both_ends(seed, dtype):
    rng = np.random.default_rng(seed)
    before, after = (rng.integers(0, np.iinfo(dtype).max, (9, 7, 3), endpoint=True).astype(dtype) for _ in range(2))
    weight = rng.choice([0, 0, 0.3, 1, 1], (9, 7)).astype(np.float32)
    result = composite(before, after, weight)
    assert result.dtype == dtype
    assert np.array_equal(result[weight == 0], before[weight == 0])
    assert np.array_equal(result[weight == 1], after[weight == 1])
    middle = (before * 0.7 + after * 0.3)[weight == np.float32(0.3)]
    assert np.abs(result[weight == np.float32(0.3)] - middle).max(initial=0) <= 0.51


def test_composite_of_a_plane():
    weight = np.array([[0, 1, 0.5]], np.float32)
    result = composite(np.array([[7, 7, 7]], np.uint8), np.array([[255, 255, 255]], np.uint8), weight)
    assert result.tolist() == [[7, 255, 131]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_guess_covers_the_paint_and_nothing_else(dtype):
    rgb = np.full((120, 90, 3), 100, np.uint8)
    mask = np.zeros((120, 90), np.float32)
    mask[40:60, 30:50] = 1
    rgb[mask > 0] = 255
    picture = rgb if dtype == np.uint8 else rgb.astype(np.uint16) * 257
    guess = masks.guess_under(picture, mask, size=60)
    assert guess.dtype == dtype and np.array_equal(guess[mask == 0], picture[mask == 0])
    assert np.abs(guess[mask > 0] / (np.iinfo(dtype).max / 255) - 100).max() < 8
    whole = np.ones_like(mask)
    assert masks.guess_under(picture, whole) is picture


def test_the_network_gets_white_where_it_shall_invent():
    crop = np.full((4, 4, 3), 0.25, np.float32)
    hole = np.zeros((4, 4), bool)
    hole[:2] = True
    seen = masks.paint_over(crop, hole)
    assert (seen[:2] == 1).all() and (seen[2:] == 0.25).all() and seen.dtype == np.float32


def test_or_a_guess_from_around_it():
    crop = np.full((64, 64, 3), (0.25, 0.5, 0.75), np.float32)
    hole = np.zeros((64, 64), bool)
    hole[20:40, 10:50] = True
    covered = np.where(hole[..., None], np.float32(1), crop)
    seen = masks.smear(covered, hole)
    assert seen.dtype == np.float32 and np.abs(seen - crop).max() < 0.01
    assert np.array_equal(seen[~hole], crop[~hole])


def test_resized_keeps_nothing_and_everything_exact():
    large = masks.resized(blob(), 150, 147)
    assert large.shape == (147, 150)
    assert (large[51:96, 65:85] == 1).all() and not large[:47].any() and not large[:, :60].any()
    assert masks.resized(blob(), 60, 60) is not None and (masks.resized(np.ones((7, 9), np.float32), 31, 17) == 1).all()


# --- crops that overlap ------------------------------------------------------------------------------------------


def place(x: float, y: float, side: float, size: int = 64) -> np.ndarray:
    """The matrix to a crop of `size` pixels from the square of `side` picture pixels at (x, y)."""
    return crop_scaled(np.array([[1.0, 0.0, -x], [0.0, 1.0, -y]]), size / side)


def test_a_single_face_owns_its_crop_but_for_the_border():
    (region,) = masks.regions([place(10, 20, 128)], 64)
    assert (region[4:-4, 4:-4] == 1).all()
    assert not region[[0, -1]].any() and not region[:, [0, -1]].any()


def test_faces_far_apart_do_not_share():
    alone = masks.regions([place(0, 0, 100)], 64)[0]
    first, second = masks.regions([place(0, 0, 100), place(150, 0, 100)], 64)
    assert np.array_equal(first, alone) and np.array_equal(second, alone)


def test_overlapping_crops_are_divided_without_a_gap():
    first, second = masks.regions([place(0, 0, 64), place(32, 0, 64)], 64)  # half a crop further right
    assert (first[4:-4, 4:40] == 1).all(), "up to the middle between the faces the first one's"
    assert not first[:, 56:].any() and not second[:, :8].any()
    both = first[4:-4, 32:60] + second[4:-4, :28]
    assert (np.maximum(first[4:-4, 32:60], second[4:-4, :28]) == 1).all(), "one of the two fills every pixel"
    assert both.max() > 1.5, "and around the border both do"


def test_a_small_face_within_a_large_ones_crop_keeps_its_own():
    large, small = masks.regions([place(0, 0, 128), place(88, 88, 32)], 64)
    assert (small[20:-20, 20:-20] == 1).all()
    assert not large[50:54, 50:54].any(), "where the small face lies the large crop has nothing to do"
    assert (large[10:36, 10:36] == 1).all()


def test_a_fine_stroke_on_a_bright_face_takes_no_more_than_its_fringe() -> None:
    """Shading that runs away from white for forty pixels was once taken for a soft brush, and the face replaced."""
    y, x = np.mgrid[0:240, 0:240].astype(np.float32)
    face = 225 - 2.2 * np.hypot(x - 120, y - 120)  # bright skin that darkens steadily outwards
    rgb = np.repeat(np.clip(face, 0, 225)[..., None], 3, axis=2).astype(np.uint8)
    line = np.zeros((240, 240), np.uint8)
    cv2.line(line, (90, 100), (150, 135), 1, 4)
    rgb[line > 0] = 255
    mask = from_paint(rgb, (255, 255, 255))
    assert mask[line > 0].all()
    assert not mask[cv2.distanceTransform(1 - line, cv2.DIST_L2, 5) > 9].any()


@pytest.mark.parametrize(("colour", "width"), [(WHITE, 5), (BLACK, 5), (GREEN, 7), ((255, 0, 0), 5)])
@pytest.mark.parametrize("quality", [90, 75])
def test_a_fine_stroke_is_found_in_a_jpeg(colour, width, quality):
    """Of its colour JPEG leaves a fifth or so, of a saturated one less, for chroma is kept at half the size."""
    alpha = brush(size=256, width=width)
    found = from_paint(jpeg(painted(scenery(256), alpha, colour), quality), colour)
    assert (found[alpha > 0.2] == 1).mean() > 0.98
    far = cv2.distanceTransform((alpha < 0.02).astype(np.uint8), cv2.DIST_L2, 5) > 6
    assert found[far].mean() < 0.002


@pytest.mark.parametrize("quality", [None, 75])
def test_a_broad_hard_stroke_ends_where_it_ends(quality):
    """Beyond a hard edge, skin that darkens away from the stroke was once taken for the fringe of a soft brush."""
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    skin = np.repeat((215 - 1.8 * np.abs(x + y - 256) / 2**0.5)[..., None], 3, axis=2)
    line = np.zeros((256, 256), np.uint8)
    cv2.line(line, (60, 196), (196, 60), 1, 25)
    rgb = np.clip(skin, 0, 215).astype(np.uint8)
    rgb[line > 0] = 255
    found = from_paint(rgb if quality is None else jpeg(rgb, quality), WHITE)
    assert (found[line > 0] == 1).all()
    assert not found[cv2.distanceTransform(1 - line, cv2.DIST_L2, 5) > 6].any()


@pytest.mark.parametrize("quality", [None, 75])
def test_the_white_of_an_unpainted_photograph_is_no_paint(quality):
    """An officer's white cap and collar: blown out in places, with folds."""
    rgb = cv2.imread(str(Path(__file__).parents[2] / "inputs" / "whole_imgs" / "01_grace_hopper.jpg"))[..., ::-1]
    rgb = np.ascontiguousarray(rgb)
    assert (rgb.min(axis=2) >= 247).sum() > 1000
    assert not from_paint(rgb if quality is None else jpeg(rgb, quality), WHITE).any()
