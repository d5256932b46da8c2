"""Inpainting faces: only the mask changes, in crops and in whole pictures; every wrong mask is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from codeformer.errors import ExitCode, InputError, RestorationError, UsageError, WeightsError
from codeformer.faces.align import TEMPLATE_512, crop_scaled
from codeformer.faces.find import find_faces
from codeformer.faces.paste import coverage
from codeformer.images.picture import Picture
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.pictures import Job, Result, process
from codeformer.tasks.base import CropMasks, FaceCrop
from codeformer.tasks.inpaint import Inpaint
from codeformer.tasks.inpainting.steps import fill


def work(model: Path, **faces: object) -> FaceWork:
    return FaceWork(
        w=1.0,
        model=ModelOptions(model=str(model), device="cpu"),
        faces=FaceOptions(parsing="none", **faces),  # type: ignore[arg-type]
        canvas=CanvasOptions(upscale=1),
    )


@pytest.fixture(scope="module")
def engine(tiny_model_path: Path) -> Engine:
    return open_engine(Inpaint(), work(tiny_model_path))


def run(engine: Engine, picture: Picture, task: Inpaint | None = None, **faces: object) -> Result[None]:
    settings = replace(engine.work, faces=replace(engine.work.faces, **faces))  # type: ignore[arg-type]
    return next(process([Job(None, lambda: picture)], replace(engine, task=task or Inpaint(), work=settings)))


def output(result: Result[None]) -> np.ndarray:
    if result.error:
        raise result.error
    assert result.output is not None
    return result.output.rgb


def circle(shape: tuple[int, ...], x: int, y: int, radius: int) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.circle(mask, (x, y), radius, 255, -1)
    return mask


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    """(512, 512, 3) uint8, smooth, no white."""
    coarse = np.random.default_rng(0).uniform(40, 200, (6, 6, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC), 0, 220).astype(np.uint8)


# --- grey ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paint", [None, (0, 255, 0)])
def test_a_grey_picture_is_filled_in_grey(engine, crop, tmp_path, paint):
    grey = np.repeat(crop[..., 1:2], 3, axis=2)
    hole = circle(grey.shape, 250, 240, 40)
    if paint is None:
        Image.fromarray(hole).save(tmp_path / "mask.png")
        task, picture = Inpaint(mask=tmp_path / "mask.png"), Picture(grey, grey=True)
    else:
        painted = grey.copy()
        painted[hole > 0] = paint
        task, picture = Inpaint(color=paint, grow=2), Picture(painted)
    filled = output(run(engine, picture, task, aligned=True)).astype(int)
    middle = filled[210:270, 220:280]
    assert np.abs(middle - middle[..., :1]).max() <= 1 and (filled[hole > 0] != grey[hole > 0]).any()


# --- aligned crops -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1024, 200])
def test_up_to_the_border_nothing_is_left_of_what_was_there(engine, crop, tmp_path, size):
    side = size // 8
    mask = np.zeros((size, size), np.uint8)
    mask[:side, :side] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    filled = []
    for paint in (0, 255):
        rgb, alpha = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC), np.full((size, size), 255, np.uint8)
        rgb[:side, :side], alpha[:side, :side] = paint, 0
        result = run(engine, Picture(rgb, alpha), Inpaint(mask=tmp_path / "mask.png", feather=0), aligned=True)
        filled.append(output(result)[: side // 2, : side // 2].astype(int))
        assert result.output is not None and result.output.alpha is not None
        assert (result.output.alpha[: side // 2, : side // 2] == 255).all()
    assert np.abs(filled[0] - filled[1]).max() <= 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [512, 200])
def test_outside_of_a_mask_file_every_bit_stays(engine, crop, tmp_path, dtype, size):
    small = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA).astype(dtype)
    rgb = small if dtype == np.uint8 else small * 257 + 3
    mask = circle(rgb.shape, size // 2, size // 2, size // 8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = output(run(engine, Picture(rgb), Inpaint(mask=tmp_path / "mask.png", feather=4), aligned=True))
    away = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert result.dtype == dtype and result.shape == rgb.shape
    assert np.array_equal(result[away >= 5], rgb[away >= 5])
    assert (result[mask > 0] != rgb[mask > 0]).any(axis=-1).mean() > 0.95


def test_inside_of_the_mask_are_the_networks_own_pixels(engine, crop, tmp_path):
    mask = circle(crop.shape, 256, 256, 60)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = output(run(engine, Picture(crop), Inpaint(mask=tmp_path / "mask.png", feather=0), aligned=True))
    seen = np.where(mask[..., None] > 0, 255, crop).astype(np.float32) / 255
    (face,) = engine.restorer.restore([seen], w=1.0, adain=False)
    inside = cv2.erode(mask, np.ones((3, 3))) > 0
    assert np.abs(result[inside] / 255 - np.clip(face, 0, 1)[inside]).max() < 0.02


def test_the_network_gets_white_the_published_w_and_no_adain(engine, crop, monkeypatch):
    calls = []

    def spy(crops, *, w, adain):
        calls.append((list(crops), w, adain))
        return [np.zeros_like(one) for one in crops]

    monkeypatch.setattr(engine.restorer, "restore", spy)
    painted = crop.copy()
    painted[200:260, 200:300] = 255
    result = output(run(engine, Picture(painted), Inpaint(feather=0), aligned=True))
    ((seen, w, adain),) = calls
    assert (w, adain) == (1.0, False) and Inpaint.weights_group == "inpainting"
    assert (seen[0][200:260, 200:300] == 1).all() and (seen[0][:190] < 0.9).all()
    assert not result[200:260, 200:300].any(), "inside is the network's black"


@pytest.mark.parametrize("quality", [None, 75])
def test_painted_white_is_filled_also_in_jpeg(engine, crop, tmp_path, quality):
    painted = crop.copy()
    cv2.line(painted, (150, 200), (350, 280), (255, 255, 255), 24, cv2.LINE_AA)
    path = tmp_path / ("in.png" if quality is None else "in.jpg")
    Image.fromarray(painted).save(path, **({} if quality is None else {"quality": quality}))
    loaded = np.asarray(Image.open(path).convert("RGB"))
    result = output(run(engine, Picture(loaded), aligned=True))
    stroke = (np.abs(painted.astype(int) - crop).max(axis=-1) > 20).astype(np.uint8)
    assert (result[stroke > 0].min(axis=-1) > 250).mean() < 0.02, "the paint is gone"
    assert np.array_equal(result[:100], loaded[:100]) and np.array_equal(result[400:], loaded[400:])


def test_transparent_holes_are_filled_and_become_opaque(engine, crop):
    alpha = np.full(crop.shape[:2], 255, np.uint8)
    alpha[200:300, 200:300] = 0
    alpha[:20] = 130
    result = run(engine, Picture(crop, alpha), aligned=True)
    assert np.array_equal(output(result)[:190], crop[:190])
    assert (output(result)[210:290, 210:290] != crop[210:290, 210:290]).any(axis=-1).mean() > 0.95
    assert result.output.alpha is not None and (result.output.alpha[200:300, 200:300] == 255).all()
    assert (result.output.alpha[:20] == 130).all(), "glass stays glass"


def test_a_hole_with_soft_edges_becomes_opaque_all_over(engine, crop):
    """Where the eraser left half of the picture the network gives the other half: together they are all of it."""
    alpha = np.full(crop.shape[:2], 255, np.uint8)
    alpha[200:300, 200:300] = 0
    alpha = cv2.GaussianBlur(alpha, (0, 0), 8)
    alpha[240:260, 240:260] = 0
    result = run(engine, Picture(crop, alpha), aligned=True)
    assert result.output is not None and result.output.alpha is not None
    assert (result.output.alpha >= 254).all()


def test_soft_masks_mix(engine, crop, tmp_path):
    mask = np.zeros((512, 512), np.uint8)
    mask[200:300, 200:300], mask[200:300, 300:400] = 255, 128
    Image.fromarray(mask).save(tmp_path / "mask.png")
    whole, soft = Inpaint(mask=tmp_path / "whole.png", feather=0), Inpaint(mask=tmp_path / "mask.png", feather=0)
    Image.fromarray(((mask > 0) * 255).astype(np.uint8)).save(tmp_path / "whole.png")
    half, full = (
        output(run(engine, Picture(crop), soft, aligned=True)),
        output(run(engine, Picture(crop), whole, aligned=True)),
    )
    area = np.s_[220:280, 320:380]
    mixed = crop[area] + (full[area].astype(float) - crop[area]) * (128 / 255)
    assert np.abs(half[area] - mixed).max() <= 1


def test_the_same_input_gives_the_same_bytes(engine, crop):
    painted = crop.copy()
    painted[200:260, 200:300] = 255
    first, second = (output(run(engine, Picture(painted), aligned=True)) for _ in range(2))
    assert np.array_equal(first, second)


# --- whole pictures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(portrait: np.ndarray) -> np.ndarray:
    """Two faces side by side, (240, 480, 3)."""
    return np.concatenate([portrait, portrait[:, ::-1]], axis=1).copy()


def test_of_two_faces_only_the_masked_one_changes(engine, two, tmp_path):
    mask = circle(two.shape, 120, 120, 14)  # on the left face's cheek
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = run(engine, Picture(two), Inpaint(mask=tmp_path / "mask.png", feather=3))
    changed = (output(result) != two).any(axis=-1)
    away = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    assert not changed[away >= 4].any(), "bit for bit outside of the mask"
    assert changed[mask > 0].mean() > 0.9
    assert [face.chosen for face in result.faces] == [True, False] and not result.notes


def test_a_painted_face_is_found_and_filled(engine, two):
    painted = two.copy()
    cv2.ellipse(painted, (120, 95), (26, 7), 0, 0, 360, (0, 255, 0), -1, cv2.LINE_AA)  # over an eye and the nose
    result = run(engine, Picture(painted), Inpaint(color=(0, 255, 0)))
    green = (two != painted).any(axis=-1)
    assert not (np.abs(output(result)[green].astype(int) - (0, 255, 0)).max(axis=-1) < 60).any()
    assert np.array_equal(output(result)[:, 260:], two[:, 260:])


def test_enlarged_only_the_mask_differs_from_the_enlarged_input(engine, two, tmp_path):
    mask = circle(two.shape, 120, 120, 14)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    enlarged = replace(engine, work=replace(engine.work, canvas=CanvasOptions(upscale=2)))
    result = output(run(enlarged, Picture(two), Inpaint(mask=tmp_path / "mask.png", feather=0)))
    plain = cv2.resize(two, (960, 480), interpolation=cv2.INTER_LANCZOS4)
    large = cv2.resize(mask, (960, 480), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(result[large == 0], plain[large == 0])
    assert (result[large == 255] != plain[large == 255]).any(axis=-1).mean() > 0.9


@pytest.mark.parametrize("size", [64, 128])  # 128: after a face upsampler, when the mask still has 64
def test_what_is_filled_becomes_opaque_and_what_is_not_reached_is_said(size):
    before = Picture(np.full((100, 100, 3), 50, np.uint8), np.zeros((100, 100), np.uint8))
    after = Picture(np.full((100, 100, 3), 200, np.uint8), before.alpha)
    mask = np.zeros((100, 100), np.float32)
    mask[30:40, 10:90] = 1
    matrix = crop_scaled(np.array([[1.0, 0.0, -18.0], [0.0, 1.0, -18.0]]), size / 64)  # picture pixels 18 to 82
    face = np.zeros((size, size, 3), np.float32)
    covered = coverage((100, 100), [face], [matrix], [np.ones((64, 64), np.float32)])
    result, notes = fill(before, after, mask, covered)
    assert (result.rgb[mask > 0] == 200).all() and (result.rgb[mask == 0] == 50).all()
    assert result.alpha is not None and (result.alpha[30:40, 20:80] == 255).all()
    assert not result.alpha[30:40, :16].any() and not result.alpha[30:40, 84:].any() and not result.alpha[50:].any()
    assert notes == ["20% of the mask lies outside of the faces' crops and stays as it is"]


def test_landmarks_by_hand_replace_detection(engine, portrait, tmp_path):
    rgb = np.full((400, 400, 3), 90, np.uint8)  # nothing that anybody would find
    points = tuple((float(x) / 2 + 70, float(y) / 2 + 70) for x, y in TEMPLATE_512)
    mask = circle(rgb.shape, 200, 200, 20)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    task = Inpaint(mask=tmp_path / "mask.png")
    with pytest.raises(RestorationError, match=r"no face found.*--landmarks.*--aligned"):
        output(run(engine, Picture(rgb), task))
    result = output(run(engine, Picture(rgb), task, landmarks=(points,)))
    assert (result[mask > 0] != 90).any(axis=-1).mean() > 0.9 and (result[mask == 0] == 90).mean() > 0.97


def test_a_face_under_a_mask_file_is_found_with_a_guess_in_its_place(engine, portrait, tmp_path):
    """A green rectangle hides the face from the detector; that it is paint, here only the mask says."""
    painted, mask = portrait.copy(), np.zeros(portrait.shape[:2], np.uint8)
    (face,) = find_faces(portrait, engine.detector)
    x, y = face.landmarks[:3].mean(axis=0).round().astype(int)
    painted[y - 25 : y + 55, x - 30 : x + 30] = 0, 255, 0
    mask[y - 26 : y + 56, x - 31 : x + 31] = 255
    assert not find_faces(painted, engine.detector)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = run(engine, Picture(painted), Inpaint(mask=tmp_path / "mask.png"))
    assert (output(result)[mask > 0] != painted[mask > 0]).any(axis=-1).mean() > 0.9
    assert np.linalg.norm(np.subtract(result.faces[0].face.centre, face.centre)) < 20


def test_a_mask_that_leaves_little_of_a_face_is_said(engine, crop, tmp_path):
    for radius, doubted in ((60, False), (150, True)):
        Image.fromarray(circle(crop.shape, 256, 280, radius)).save(tmp_path / "mask.png")
        notes = run(engine, Picture(crop), Inpaint(mask=tmp_path / "mask.png"), aligned=True).notes
        assert any("rough guess" in note for note in notes) == doubted


def test_what_no_face_reaches_is_said(engine, two, tmp_path):
    mask = circle(two.shape, 120, 120, 14)
    mask[:6, 440:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = run(engine, Picture(two), Inpaint(mask=tmp_path / "mask.png"), numbers=(1,))
    assert np.array_equal(output(result)[:6, 440:], two[:6, 440:])
    assert any("lies outside" in note for note in result.notes)


# --- what is not a mask ---------------------------------------------------------------------------------------------


def test_a_mask_beside_the_faces_is_an_error_that_names_it(engine, portrait, tmp_path):
    rgb = np.concatenate([portrait, np.full((240, 400, 3), 90, np.uint8)], axis=1)
    Image.fromarray(circle(rgb.shape, 600, 200, 15)).save(tmp_path / "far.png")
    with pytest.raises(RestorationError, match=r"far\.png does not touch the face .*--landmarks"):
        output(run(engine, Picture(rgb), Inpaint(mask=tmp_path / "far.png")))


def test_nothing_to_fill_is_an_error(engine, crop):
    with pytest.raises(InputError, match="no white paint and nothing transparent"):
        output(run(engine, Picture(crop), aligned=True))
    with pytest.raises(InputError, match="no paint of the colour 0,255,0"):
        output(run(engine, Picture(crop), Inpaint(color=(0, 255, 0)), aligned=True))


def test_a_mask_that_shrinks_away_is_an_error(engine, crop, tmp_path):
    Image.fromarray(circle(crop.shape, 256, 256, 5)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="--mask_grow -9"):
        output(run(engine, Picture(crop), Inpaint(mask=tmp_path / "mask.png", grow=-9), aligned=True))


def test_a_white_background_is_suspected(engine, crop):
    rgb = crop.copy()
    rgb[:150] = 255
    assert any("background" in note for note in run(engine, Picture(rgb), aligned=True).notes)


@pytest.mark.parametrize(
    "settings",
    [
        {"mask": Path("m.png"), "color": (0, 0, 0)},
        {"color": (0, 0, 256)},
        {"tolerance": 300},
        {"tolerance": float("nan")},
        {"grow": 400},
        {"feather": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match="--mask"):
        Inpaint(**settings)


def test_a_face_that_the_mask_does_not_touch_is_left_alone():
    nothing = np.zeros((8, 8), np.float32)
    crop = FaceCrop(np.zeros((8, 8, 3), np.float32), masks=CropMasks(nothing, nothing > 0, nothing + 1))
    assert Inpaint().prepare(crop) is None


def test_a_network_for_other_tasks_is_refused(tiny_model_path, tmp_path):
    from codeformer.models.load import load_network, save_network

    path = tmp_path / "other.safetensors"
    save_network(load_network(tiny_model_path), path, {"tasks": "restore,colorize"})
    with pytest.raises(WeightsError, match=r"other\.safetensors.*colorize, restore.*codeformer download inpainting"):
        open_engine(Inpaint(), work(path, aligned=True))
    save_network(load_network(tiny_model_path), path, {"tasks": "restore,inpaint"})
    open_engine(Inpaint(), work(path, aligned=True))


def test_the_weights_file_says_what_the_network_sees_in_the_hole(tiny_model_path, tmp_path):
    from codeformer.models.load import load_network, save_network

    path = tmp_path / "smear.safetensors"
    save_network(load_network(tiny_model_path), path, {"tasks": "inpaint", "hole": "smear"})
    task = open_engine(Inpaint(), work(path, aligned=True)).task
    hole = np.zeros((64, 64), np.float32)
    hole[20:40, 20:40] = 1
    pixels = np.full((64, 64, 3), 0.5, np.float32)
    pixels[hole > 0] = 1
    crop = FaceCrop(pixels, masks=CropMasks(hole, hole > 0, np.ones_like(hole)))
    seen = task.prepare(crop)
    assert seen is not None and np.abs(seen - 0.5).max() < 0.01
    assert (Inpaint().prepare(crop)[20:40, 20:40] == 1).all()


# --- the command line --------------------------------------------------------------------------------------------


def test_a_folder_with_a_folder_of_masks(tiny_model_path, crop, tmp_path, capsys):
    from codeformer.cli import main

    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(crop).save(tmp_path / "in" / f"{name}.png")
    Image.fromarray(circle(crop.shape, 256, 256, 40)).save(tmp_path / "masks" / "a.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "masks" / "b.png")
    arguments = ["inpaint", "-i", tmp_path / "in", "-o", tmp_path / "out", "--mask", tmp_path / "masks", "--aligned"]
    arguments += ["--model", tiny_model_path, "--device", "cpu"]
    assert main([str(a) for a in arguments]) == ExitCode.SOME_FAILED
    said = capsys.readouterr().err
    assert "40x30" in said and "512x512" in said and "no mask named c.*" in said
    result = np.asarray(Image.open(tmp_path / "out" / "restored_faces" / "a.png"))
    assert np.array_equal(result[:200], crop[:200]) and (result[256, 256] != crop[256, 256]).any()

    # done is done, unless the mask changes
    assert main([str(a) for a in [*arguments[:2], tmp_path / "in" / "a.png", *arguments[3:]]]) == ExitCode.OK
    assert "done already" in capsys.readouterr().err
    Image.fromarray(circle(crop.shape, 100, 100, 40)).save(tmp_path / "masks" / "a.png")
    assert main([str(a) for a in [*arguments[:2], tmp_path / "in" / "a.png", *arguments[3:]]]) == ExitCode.OK
    again = np.asarray(Image.open(tmp_path / "out" / "restored_faces" / "a.png"))
    assert np.array_equal(again[256, 256], crop[256, 256]) and (again[100, 100] != crop[100, 100]).any()
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["settings"]["task_settings"]["feather"] == 4
    taken = {Path(one["input"]).name: one["mask"] for one in report["inputs"]}
    assert taken == {
        "a.png": str(tmp_path / "masks" / "a.png"),
        "b.png": str(tmp_path / "masks" / "b.png"),
        "c.png": None,
    }


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("white", (255, 255, 255)),
        ("Black", (0, 0, 0)),
        ("#10ff00", (16, 255, 0)),
        ("1,2,3", (1, 2, 3)),
        ("0, 255, 0", (0, 255, 0)),
    ],
)
def test_colours_on_the_command_line(text, colour):
    from codeformer.cli.inpaint import parse_color

    assert parse_color(text) == colour


@pytest.mark.parametrize("text", ["whit", "#12", "#gggggg", "1,2", "1,2,256", "-1,0,0", ""])
def test_no_colours_on_the_command_line(text, capsys):
    from codeformer.cli import main

    assert main(["inpaint", "-i", "x.png", f"--mask-color={text}"]) == ExitCode.USAGE
    assert "is not a colour" in capsys.readouterr().err
