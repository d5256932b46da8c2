"""Colorizing faces: grey in, colour out; the rest of a picture stays; brightness and strength as asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from codeformer.errors import ExitCode, UsageError, WeightsError
from codeformer.faces.align import TEMPLATE_512
from codeformer.images import colour
from codeformer.images.picture import Picture, read_picture
from codeformer.models.file import open_model
from codeformer.options import CanvasOptions, FaceOptions, FaceWork, ModelOptions
from codeformer.pipeline.engine import Engine, open_engine
from codeformer.pipeline.pictures import Job, Result, process
from codeformer.tasks.base import FaceCrop
from codeformer.tasks.colorize import Colorize
from codeformer.tasks.inpaint import Inpaint


def work(model: Path, *, aligned: bool = False) -> FaceWork:
    return FaceWork(
        w=Colorize.default_w,
        model=ModelOptions(model=str(model), device="cpu", precision="fp32"),
        faces=FaceOptions(parsing="none", aligned=aligned),
        canvas=CanvasOptions(upscale=1),
    )


@pytest.fixture(scope="module")
def engine(tiny_model_path: Path) -> Engine:
    return open_engine(Colorize(), work(tiny_model_path))


def run(engine: Engine, picture: Picture, task: Colorize | None = None, *, aligned: bool = False) -> Result[None]:
    settings = replace(engine.work, faces=replace(engine.work.faces, aligned=aligned))
    result = next(process([Job(None, lambda: picture)], replace(engine, task=task or Colorize(), work=settings)))
    if result.error:
        raise result.error
    return result


def chroma(rgb: np.ndarray) -> np.ndarray:
    unit = np.iinfo(rgb.dtype).max if rgb.dtype.kind == "u" else 1
    return np.linalg.norm(colour.to_ycc(rgb.astype(np.float32) / np.float32(unit))[..., 1:], axis=-1)


@pytest.fixture(scope="module")
def grey(portrait: np.ndarray) -> np.ndarray:
    """(240, 240, 3) uint8 with a face, without colour."""
    return np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_face_gets_colour_and_the_rest_stays_bit_for_bit(engine, grey, dtype):
    wide = np.concatenate([grey, grey[:, :1].repeat(200, axis=1)], axis=1)
    rgb = wide if dtype == np.uint8 else wide.astype(np.uint16) * 257
    result = run(engine, Picture(rgb, grey=True))
    assert result.output is not None and result.output.rgb.dtype == dtype
    (one,) = result.faces
    x0, y0, x1, y1 = (round(v) for v in one.face.box)
    assert chroma(result.output.rgb[y0:y1, x0:x1]).mean() > 0.03
    assert np.array_equal(result.output.rgb[:, 240:], rgb[:, 240:])


def test_the_face_has_a_soft_edge(engine, monkeypatch):
    """With a flat picture and one tint all over the crop, what shows is where and how much of it was pasted."""
    tint = np.full((512, 512, 3), (0.7, 0.45, 0.4), np.float32)
    monkeypatch.setattr(engine.restorer, "restore", lambda crops, *, w, adain: [tint for _ in crops])
    points = tuple((float(x) / 2 + 70, float(y) / 2 + 70) for x, y in TEMPLATE_512)
    faces = replace(engine.work.faces, landmarks=(points,))
    by_hand = replace(engine, work=replace(engine.work, faces=faces))
    result = run(by_hand, Picture(np.full((400, 400, 3), 128, np.uint8), grey=True))
    pasted = chroma(result.output.rgb)
    steps = [np.abs(np.diff(pasted, axis=axis)).max() for axis in (0, 1)]
    assert pasted.max() > 0.03 and max(steps) < 0.2 * pasted.max(), steps


def test_sepia_and_colour_are_colorized_from_their_brightness(engine, portrait):
    task = Colorize()
    face = cv2.resize(portrait[20:180, 40:200], (512, 512)).astype(np.float32) / 255
    sepia = colour.with_chroma(colour.luma(face), np.full((512, 512, 2), (-0.06, 0.05), np.float32))
    seen = [task.prepare(FaceCrop(one)) for one in (colour.to_grey(face), sepia, face)]
    assert all(np.ptp(one, axis=-1).max() == 0 for one in seen)
    assert np.abs(seen[0] - seen[2]).max() < 1e-5
    assert np.abs(seen[0] - seen[1]).mean() < 0.02


def test_a_picture_in_full_colour_is_done_with_a_note(engine, portrait, grey):
    assert any("in colour already" in note for note in run(engine, Picture(portrait)).notes)
    assert not run(engine, Picture(grey, grey=True)).notes


def test_keep_luma_keeps_the_brightness_of_every_pixel(engine, grey):
    result = run(engine, Picture(grey, grey=True), Colorize(keep_luma=True))
    old, new = (colour.luma(rgb.astype(np.float32) / 255) for rgb in (grey, result.output.rgb))
    assert np.abs(old - new).max() < 1.01 / 255
    assert chroma(result.output.rgb).max() > 0.03


def test_without_keep_luma_the_networks_brightness_shows(engine, grey):
    result = run(engine, Picture(grey, grey=True))
    old, new = (colour.luma(rgb.astype(np.float32) / 255) for rgb in (grey, result.output.rgb))
    assert np.abs(old - new).max() > 0.1


def test_color_strength_scales_the_colour(engine, grey):
    crop = cv2.resize(grey[20:180, 40:200], (512, 512))
    amounts = [
        chroma(run(engine, Picture(crop), Colorize(strength=s, keep_luma=True), aligned=True).output.rgb).mean()
        for s in (0.0, 0.5, 1.0)
    ]
    assert amounts[0] < 0.003 and amounts[1] == pytest.approx(amounts[2] / 2, rel=0.25) and amounts[2] > 0.02


def test_a_faded_face_stays_as_faded_as_its_picture(engine, portrait):
    faded = (portrait * 0.35 + 90).astype(np.uint8)
    result = run(engine, Picture(faded))
    assert result.output.rgb.min() >= 80 and result.output.rgb.max() <= 190


def test_the_same_input_gives_the_same_bytes(engine, grey):
    first, second = (run(engine, Picture(grey, grey=True)).output.rgb for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(UsageError, match="--color_strength"):
        Colorize(strength=strength)


def test_a_network_for_other_tasks_is_refused(tiny_model_path, tmp_path):
    from codeformer.models.load import load_network, save_network

    path = tmp_path / "other.safetensors"
    save_network(load_network(tiny_model_path), path, {"tasks": "restore"})
    with pytest.raises(WeightsError, match=r"other\.safetensors.*not to colorize.*codeformer download colorization"):
        open_engine(Colorize(), work(path, aligned=True))


def test_the_weights_file_may_want_another_w(tiny_model_path, grey, tmp_path):
    from codeformer.cli import main
    from codeformer.models.load import load_network, save_network

    path = tmp_path / "own.safetensors"
    save_network(load_network(tiny_model_path), path, {"tasks": "colorize", "w_colorize": "0.75"})
    Image.fromarray(cv2.resize(grey, (64, 64))).save(tmp_path / "a.png")

    def w_of(*more: str) -> float:
        command = ["colorize", "--aligned", "-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
        assert main([*command, "--model", str(path), "--device", "cpu", *more]) == ExitCode.OK
        return json.loads((tmp_path / "out" / "results.json").read_text())["settings"]["w"]

    assert w_of() == 0.75 and w_of("-w", "0.25") == 0.25
    assert open_model(tiny_model_path).choose_w(Colorize(), None) == 0
    save_network(load_network(tiny_model_path), path, {"w_colorize": "lots"})
    with pytest.raises(WeightsError, match=r"own\.safetensors.*'lots'"):
        open_model(path).choose_w(Colorize(), None)


def test_a_weight_that_the_file_was_not_trained_for_is_refused(tiny_model_path, grey, tmp_path, capsys):
    from codeformer.cli import main
    from codeformer.models.load import load_network, save_network

    path = tmp_path / "own.safetensors"
    save_network(load_network(tiny_model_path), path, {"tasks": "inpaint", "w_inpaint": "1", "w_least": "0.5"})
    model = open_model(path)
    assert (model.w_least, model.choose_w(Inpaint(), None), model.choose_w(Inpaint(), 0.5)) == (0.5, 1, 0.5)
    command = ["inpaint", "--aligned", "-i", str(tmp_path / "a.png"), "--model", str(path), "--device", "cpu"]
    assert main([*command, "-w", "0.2"]) == ExitCode.USAGE
    assert (
        "-w 0.2 is too small for own.safetensors (trained for 0.5 to 1): use -w 0.5 or more" in capsys.readouterr().err
    )


def test_a_grey_file_with_a_grey_profile_becomes_a_colour_file(tiny_model_path, grey, tmp_path, capsys):
    from codeformer.cli import main

    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    fake_grey = xyz[:16] + b"GRAY" + xyz[20:]  # a grey profile by its header
    Image.fromarray(grey[..., 0]).save(tmp_path / "old.png", icc_profile=fake_grey)
    command = ["colorize", "-i", tmp_path / "old.png", "-o", tmp_path / "out", "--model", tiny_model_path]
    command += ["--device", "cpu", "--compare", "--keep-luma", "--color-strength=0.8"]
    assert main([str(word) for word in command]) == ExitCode.OK
    assert "only the faces are colorized; the rest of a picture stays as it is" in capsys.readouterr().err
    result = read_picture(tmp_path / "out" / "final_results" / "old.png")
    assert not result.grey and result.icc is None and chroma(result.rgb).max() > 0.02
    assert (tmp_path / "out" / "compare" / "old.png").is_file()
    assert read_picture(tmp_path / "out" / "cropped_faces" / "old_00.png").rgb.shape == (512, 512, 3)
