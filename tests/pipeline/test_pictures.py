"""Pictures through the stages: in order, each for itself, and untouched where there is no face."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codeformer.errors import CodeFormerError, InputError, OutOfMemoryError, RestorationError
from codeformer.faces.choose import choose
from codeformer.faces.find import Face
from codeformer.images.alpha import enlarged
from codeformer.images.colour import luma
from codeformer.images.picture import Picture, to_uint16, write_picture
from codeformer.images.profile import made_of, to_xyz
from codeformer.images.space import in_space, in_srgb, space_in
from codeformer.images.tone import tone_in
from codeformer.models.codeformer import CodeFormer
from codeformer.models.file import ModelFile
from codeformer.models.load import load_network
from codeformer.options import CanvasOptions, FaceOptions, FaceWork
from codeformer.pipeline.compose import compose
from codeformer.pipeline.engine import Engine
from codeformer.pipeline.pictures import Job, Result, process
from codeformer.pipeline.restorer import FaceRestorer
from codeformer.tasks.table import TASKS

# Eyes, nose and mouth corners of a face of about 40 pixels, its eyes' middle at (0, 0)
POINTS = np.array([[-8, 0], [8, 0], [0, 9], [-7, 16], [7, 16]], dtype=np.float32)


def face_at(x: float, y: float, score: float = 0.9) -> Face:
    return Face((x - 16, y - 16, x + 16, y + 28), score, POINTS + np.array([x, y], dtype=np.float32))


class Marks:
    """A detector for pictures made by :func:`scene`: a face hangs below each pure red pixel."""

    name = "marks"

    def __call__(self, rgb: np.ndarray, threshold: float) -> list[Face]:
        raise AssertionError("the pipeline looks through find_faces")


@pytest.fixture(autouse=True)
def marks(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(rgb: np.ndarray, detector: object, **options: object) -> list[Face]:
        top = np.iinfo(rgb.dtype).max
        ys, xs = np.nonzero((rgb == (top, 0, 0)).all(axis=2))
        return sorted((face_at(float(x), float(y)) for x, y in zip(xs, ys, strict=True)), key=lambda f: f.centre)

    monkeypatch.setattr("codeformer.pipeline.crops.find_faces", find)


def scene(*marks: tuple[int, int], size: tuple[int, int] = (160, 200), seed: int = 0) -> np.ndarray:
    """Smooth noise with a red pixel where a face shall be found."""
    rng = np.random.default_rng(seed)
    rgb = cv2.resize(rng.integers(40, 200, (8, 10, 3), dtype=np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    for x, y in marks:
        rgb[y, x] = (255, 0, 0)
    return rgb


@pytest.fixture
def engine(small_model_path: Path) -> Engine:
    net = load_network(small_model_path)
    assert isinstance(net, CodeFormer)
    restorer = FaceRestorer(net, device="cpu", precision="fp32", batch_size=4)
    work = FaceWork(faces=FaceOptions(parsing="none"), canvas=CanvasOptions(1.0))
    model = ModelFile(small_model_path, "", net.config, {"adain": "false"})
    return Engine(TASKS["restore"], work, model, restorer, Marks())


def with_options(engine: Engine, faces: dict[str, object] | None = None, **canvas: object) -> Engine:
    work = engine.work
    changed = replace(work, faces=replace(work.faces, **(faces or {})), canvas=replace(work.canvas, **canvas))  # type: ignore[arg-type]
    return replace(engine, work=changed)


def run(engine: Engine, *pictures: Picture | Exception, ahead: int = 0) -> list[Result[int]]:
    def load(picture: Picture | Exception) -> Picture:
        if isinstance(picture, Exception):
            raise picture
        return picture

    jobs = [Job(i, lambda p=p: load(p)) for i, p in enumerate(pictures)]  # type: ignore[misc]
    results = list(process(jobs, engine, ahead=ahead))
    assert [result.key for result in results] == list(range(len(pictures)))
    return results


@pytest.mark.parametrize("ahead", [0, 2])
def test_results_come_in_order_and_an_error_stays_with_its_picture(engine: Engine, ahead: int) -> None:
    pictures = [
        Picture(scene((50, 40), (140, 60))),
        InputError("b.jpg: is not a picture"),
        Picture(scene()),
        MemoryError(),
        Picture(scene((90, 80), seed=1)),
        RuntimeError("surprise"),
        Picture(scene((60, 50), seed=2)),
    ]
    results = run(engine, *pictures, ahead=ahead)
    assert [r.done for r in results] == [2, 0, 0, 0, 1, 0, 1]
    assert [type(r.error) for r in results] == [
        type(None), InputError, type(None), OutOfMemoryError, type(None), RestorationError, type(None),
    ]  # fmt: skip
    assert "surprise" in str(results[5].error)
    assert all((r.output is None) == (r.error is not None) for r in results)
    assert {"read", "find", "align", "restore", "parse", "upsample", "paste"} == results[0].seconds.keys()


def test_faces_of_several_pictures_share_a_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    restore = engine.restorer.restore
    monkeypatch.setattr(
        engine.restorer, "restore", lambda crops, **options: batches.append(len(crops)) or restore(crops, **options)
    )
    results = run(engine, *(Picture(scene((60 + i, 50), seed=i)) for i in range(9)))
    assert batches == [4, 4, 1]
    alone = run(engine, Picture(scene((64, 50), seed=4)))[0]
    assert results[4].output is not None and alone.output is not None
    assert np.abs(results[4].output.rgb.astype(int) - alone.output.rgb).max() <= 1


def test_the_window_is_all_that_is_held(engine: Engine) -> None:
    taken = 0

    def jobs() -> Iterator[Job[int]]:
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield Job(i, lambda: Picture(scene((60, 50))))

    results = process(jobs(), engine)
    next(results)
    assert taken <= 4
    results.close()
    assert taken <= 4


def test_the_window_follows_the_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(engine.restorer, "restore", lambda crops, **_: sizes.append(len(crops)) or list(crops))
    engine.restorer.batch_size = 40
    results = run(engine, *[Picture(scene((60, 50)))] * 50, ahead=2)
    assert sizes == [40, 10]
    assert all(result.error is None for result in results)


def test_on_a_gpu_the_first_batches_are_smaller(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(engine.restorer, "device", torch.device("cuda"))
    monkeypatch.setattr(engine.restorer, "restore", lambda crops, **_: sizes.append(len(crops)) or list(crops))
    engine.restorer.batch_size = 20
    run(engine, *[Picture(scene((60, 50)))] * 70, ahead=2)
    assert sizes == [8, 16, 20, 20, 6], "the network begins when eight of them are read"


def test_large_pictures_do_not_wait_for_a_full_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(engine.restorer, "restore", lambda crops, **_: sizes.append(len(crops)) or list(crops))
    crop = 2 * engine.restorer.size**2 * 12
    monkeypatch.setattr("codeformer.pipeline.pictures._WINDOW_BYTES", 2 * (160 * 200 * 3 + crop))
    engine.restorer.batch_size = 40
    run(engine, *[Picture(scene((60, 50)))] * 5, ahead=2)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_whole_batch_is_read_while_the_network_works(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """The network waits until the next batch has been read, which nobody does if it is read only when it is wanted."""
    monkeypatch.setattr(engine.restorer, "device", torch.device(device))  # says how many threads there are
    engine.restorer.batch_size = 6
    read, waited = threading.Semaphore(0), []

    def slow(crops: list[np.ndarray], **_: object) -> list[np.ndarray]:
        waited.append([read.acquire(timeout=20) for _ in crops] if len(waited) < 2 else [])
        return list(crops)

    def load(number: int) -> Picture:
        if number >= 6:
            read.release()
        return Picture(scene((60, 50)))

    monkeypatch.setattr(engine.restorer, "restore", slow)
    jobs = [Job(i, lambda i=i: load(i)) for i in range(18)]  # type: ignore[misc]
    assert [result.key for result in process(jobs, engine, ahead=2)] == list(range(18))
    assert waited == [[True] * 6, [True] * 6, []]


def test_faces_are_pasted_while_the_network_works(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first picture is pasted when the network has begun with the second."""
    second, seen, calls = threading.Event(), [], []
    real = compose

    def late(*args: Any, **options: Any) -> Any:
        seen.append(second.wait(timeout=20))
        return real(*args, **options)

    def restore(crops: list[np.ndarray], **_: object) -> list[np.ndarray]:
        calls.append(len(crops))
        if len(calls) == 2:
            second.set()
        return list(crops)

    monkeypatch.setattr("codeformer.pipeline.pictures.compose", late)
    monkeypatch.setattr(engine.restorer, "restore", restore)
    engine.restorer.batch_size = 1
    run(engine, *[Picture(scene((60, 50)))] * 2, ahead=2)
    assert seen == [True, True] and calls == [1, 1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_but_the_network_runs_in_the_callers_thread(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(engine.restorer, "device", torch.device(device))
    monkeypatch.setattr(engine.restorer, "restore", lambda crops, **_: list(crops))
    here, elsewhere = threading.get_ident(), []
    finish, composed = engine.task.finish, compose

    def watch(*args: Any, **options: Any) -> Any:
        elsewhere.append(threading.get_ident() != here)
        return (composed if len(args) > 2 else finish)(*args, **options)

    monkeypatch.setattr(type(engine.task), "finish", lambda self, *args: watch(*args))
    monkeypatch.setattr("codeformer.pipeline.pictures.compose", watch)
    run(engine, *[Picture(scene((60, 50)))] * 6, ahead=2)
    assert elsewhere == [True] * 12


def test_what_is_restored_when_ctrl_c_comes_is_pasted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def restore(crops: list[np.ndarray], **_: object) -> list[np.ndarray]:
        calls.append(len(crops))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return list(crops)

    monkeypatch.setattr(engine.restorer, "restore", restore)
    engine.restorer.batch_size = 1
    jobs = [Job(i, lambda: Picture(scene((60, 50)))) for i in range(9)]
    done = []
    with pytest.raises(KeyboardInterrupt):
        for result in process(jobs, engine, ahead=2):
            done.append(result.key)
    assert done == [0, 1]


def test_outside_of_the_face_the_picture_is_the_input_bit_for_bit(engine: Engine) -> None:
    rgb = scene((50, 50))
    result = run(engine, Picture(rgb))[0]
    assert result.output is not None
    changed = (result.output.rgb != rgb).any(axis=2)
    assert changed[45:70, 40:60].mean() > 0.9
    assert not changed[:, 120:].any() and not changed[130:].any()
    assert (rgb == scene((50, 50))).all()  # the caller's array is left alone


def test_the_scale_holds_for_picture_alpha_and_face(engine: Engine) -> None:
    rgb = scene((50, 50))
    alpha = np.full(rgb.shape[:2], 200, np.uint8)
    result = run(with_options(engine, upscale=2.5), Picture(rgb, alpha=alpha))[0]
    assert result.output is not None and result.output.alpha is not None
    assert result.output.rgb.shape == (400, 500, 3) and result.output.alpha.shape == (400, 500)
    expected = cv2.resize(rgb, (500, 400), interpolation=cv2.INTER_LANCZOS4)
    # Through alpha the colours are enlarged in floating point, which rounds otherwise
    changed = (np.abs(result.output.rgb.astype(int) - expected) > 1).any(axis=2)
    assert changed[115:170, 105:145].mean() > 0.8
    assert not changed[:, 300:].any()


def test_sixteen_bits_stay(engine: Engine) -> None:
    rgb = scene((50, 50)).astype(np.uint16) * 257
    result = run(engine, Picture(rgb))[0]
    assert result.output is not None and result.output.rgb.dtype == np.uint16
    face = result.output.rgb[45:70, 40:60]
    assert len(np.unique(face % 257)) > 50  # not 8 bits in disguise
    assert (result.output.rgb[:, 120:] == rgb[:, 120:]).all()


@pytest.mark.parametrize("noise", [0, 2], ids=["one channel", "faint JPEG colour"])
def test_a_grey_face_stays_grey(engine: Engine, noise: int) -> None:
    by_hand = (tuple((float(x) + 50, float(y) + 50) for x, y in POINTS),)
    grey = scene()[..., :1].repeat(3, axis=2)
    grey = np.clip(grey.astype(int) + np.random.default_rng(0).integers(-noise, noise + 1, grey.shape), 0, 255)
    picture = Picture(grey.astype(np.uint8), grey=noise == 0)
    result = run(with_options(engine, {"landmarks": by_hand}), picture)[0]
    assert result.output is not None and result.done == 1
    face = result.output.rgb[50:66, 44:56].astype(int)
    assert np.ptp(face, axis=2).max() <= 2 * noise
    assert np.abs(face - picture.rgb[50:66, 44:56]).mean() > 2  # it was worked on all the same


def test_a_coloured_face_keeps_its_colour(engine: Engine) -> None:
    result = run(engine, Picture(scene((50, 50))))[0]
    assert result.faces[0].after is not None
    assert np.ptp(result.faces[0].after, axis=2).mean() > 0.02


def test_an_aligned_crop_is_one_face(engine: Engine) -> None:
    aligned = with_options(engine, {"aligned": True}, upscale=2.0)
    for side in (64, 40, 150):
        result = run(aligned, Picture(scene(size=(side, side))))[0]
        assert result.output is not None and result.output.rgb.shape == (64, 64, 3)
        assert [f.chosen for f in result.faces] == [True]
    exact = run(aligned, Picture(scene(size=(64, 64))))[0].faces[0]
    assert exact.before is not None
    assert (np.rint(exact.before * 255).astype(np.uint8) == scene(size=(64, 64))).all()


@pytest.mark.parametrize("aligned", [False, True])
def test_the_strength_blends_the_result_with_the_input(engine: Engine, aligned: bool) -> None:
    """Alpha, what lies outside of the face, and the face crops are those of the full strength."""
    size = (64, 64) if aligned else (160, 200)
    alpha = np.tile(np.arange(size[1], dtype=np.uint8), (size[0], 1))
    alpha[size[0] // 2 :] = 255
    picture = Picture(scene((20, 30) if aligned else (90, 70), size=size), None if aligned else alpha)
    engine = with_options(engine, {"aligned": aligned}, upscale=1.0 if aligned else 2.0)

    def at(strength: float) -> Result[int]:
        return run(replace(engine, work=replace(engine.work, strength=strength)), picture)[0]

    default, full, half, none = run(engine, picture)[0], at(1.0), at(0.5), at(0.0)
    assert default.output and full.output and half.output and none.output
    assert (full.output.rgb == default.output.rgb).all()
    plain = picture if aligned else enlarged(picture, 400, 320)
    assert (none.output.rgb == plain.rgb).all()
    mean = (full.output.rgb.astype(float) + plain.rgb) / 2
    assert np.abs(half.output.rgb - mean).max() <= 1.01
    assert (full.output.rgb != plain.rgb).mean() > 0.05
    if not aligned:
        assert half.output.alpha is not None and full.output.alpha is not None
        assert (half.output.alpha == full.output.alpha).all()
    assert (half.faces[0].after == full.faces[0].after).all()  # type: ignore[operator,union-attr]


def test_one_face_that_comes_out_broken_fails_its_picture_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = engine.restorer.restore

    def broken(crops: list[np.ndarray], **options: object) -> list[np.ndarray]:
        if any(crop.mean() < 0.02 for crop in crops):
            raise RestorationError("the network's output is not finite for this face")
        return restore(crops, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.restorer, "restore", broken)
    black = np.zeros((160, 200, 3), np.uint8)
    black[50, 50] = (255, 0, 0)
    results = run(engine, Picture(scene((50, 50))), Picture(black), Picture(scene((70, 60))))
    assert [r.error is None for r in results] == [True, False, True]
    assert results[1].output is None  # never an unrestored face as a result


def test_numbers_choose_faces_and_boxes_show_them(engine: Engine) -> None:
    rgb = scene((40, 50), (100, 60), (160, 50))
    result = run(with_options(engine, {"numbers": (3, 1)}), Picture(rgb))[0]
    assert [(f.number, f.chosen) for f in result.faces] == [(1, True), (2, False), (3, True)]
    assert result.output is not None
    assert (result.output.rgb[60:76, 92:108] == rgb[60:76, 92:108]).all()
    missing = run(with_options(engine, {"numbers": (4,)}), Picture(rgb))[0]
    assert isinstance(missing.error, InputError) and "only 3 faces" in str(missing.error)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_boxes_are_drawn_at_any_depth(engine: Engine, dtype: type) -> None:
    rgb = scene((40, 50), (160, 50))
    rgb = to_uint16(rgb) if dtype == np.uint16 else rgb
    result = run(with_options(engine, {"max_faces": 1}, draw_box=True), Picture(rgb))[0]
    assert result.error is None and result.output is not None and result.output.rgb.dtype == dtype
    green = (result.output.rgb == (0, np.iinfo(dtype).max, 0)).all(axis=2)
    assert green.sum() > 200  # around the face that was left alone too
    assert (result.output.rgb[-5:] == rgb[-5:]).all()


boxes = st.lists(st.tuples(st.integers(20, 180), st.integers(20, 120), st.integers(4, 60)), max_size=6)


@given(boxes, st.integers(1, 4), st.booleans())
def test_choosing_leaves_what_the_options_say(places: list[tuple[int, int, int]], most: int, centre: bool) -> None:
    faces = [Face((x, y, x + s, y + s), 0.9, POINTS) for x, y, s in places]
    chosen = choose(faces, FaceOptions(max_faces=most, only_center_face=centre), 200, 160)
    assert chosen <= set(range(1, len(faces) + 1))
    assert len(chosen) == min(len(faces), 1 if centre else most)
    if not centre and chosen:
        left = [faces[n - 1].width for n in set(range(1, len(faces) + 1)) - chosen]
        assert min(faces[n - 1].width for n in chosen) >= max(left, default=0)
    for number in range(1, len(faces) + 1):
        assert choose(faces, FaceOptions(numbers=(number,)), 200, 160) == {number}


def test_a_face_upsampler_is_used_only_where_it_shows(engine: Engine) -> None:
    sizes: list[tuple[int, ...]] = []

    def double(rgb: np.ndarray, outscale: float) -> np.ndarray:
        sizes.append(rgb.shape)
        return cv2.resize(rgb, None, fx=outscale, fy=outscale, interpolation=cv2.INTER_CUBIC)

    double.scale = 2  # type: ignore[attr-defined]
    large = replace(with_options(engine, upscale=4.0), face_upsampler=double)  # type: ignore[arg-type]
    plain = run(with_options(engine, upscale=4.0), Picture(scene((90, 60))))[0]
    result = run(large, Picture(scene((90, 60))))[0]
    assert sizes == [(64, 64, 3)]
    assert result.output is not None and plain.output is not None
    assert np.abs(result.output.rgb.astype(int) - plain.output.rgb).mean() < 3  # in the same place
    small = run(replace(large, work=engine.work), Picture(scene((90, 60))))[0]
    assert len(sizes) == 1 and any("--face_upsample" in note for note in small.notes)


def test_a_grey_face_stays_grey_under_a_face_upsampler(engine: Engine) -> None:
    def coloured(rgb: np.ndarray, outscale: float) -> np.ndarray:
        large = cv2.resize(rgb, None, fx=outscale, fy=outscale, interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, large.shape)
        return np.clip(large + noise, 0, 1).astype(np.float32)

    coloured.scale = 2  # type: ignore[attr-defined]
    points = tuple(tuple((float(x), float(y)) for x, y in POINTS + np.float32([90, 60])) for _ in range(1))
    large = replace(with_options(engine, {"landmarks": points}, upscale=4.0), face_upsampler=coloured)  # type: ignore[arg-type]
    grey = np.repeat(scene()[..., 1:2], 3, axis=2)
    result = run(large, Picture(grey, grey=True))[0]
    assert result.output is not None and result.done == 1 and not result.notes
    assert (result.output.rgb == result.output.rgb[..., :1]).all()
    colour = run(large, Picture(scene()))[0]
    assert colour.output is not None and (colour.output.rgb != colour.output.rgb[..., :1]).any()


@pytest.mark.parametrize("at", [(-90.0, 60.0), (260.0, 60.0), (90.0, 200.0)])
def test_landmarks_outside_of_the_picture_are_no_restored_face(engine: Engine, at: tuple[float, float]) -> None:
    points = (tuple((float(x), float(y)) for x, y in POINTS + np.float32(at)),)
    result = run(with_options(engine, {"landmarks": points}), Picture(scene()))[0]
    assert isinstance(result.error, InputError) and "lies outside of 200 x 160" in str(result.error)
    assert result.output is None


def test_warnings_of_the_picture_arrive(engine: Engine) -> None:
    result = run(engine, Picture(scene(), warnings=("first frame only",)))[0]
    assert "first frame only" in result.notes


def test_a_picture_that_is_searched_much_smaller_than_it_is_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any("searched" in note for note in run(engine, Picture(scene()))[0].notes)
    monkeypatch.setattr("codeformer.pipeline.pictures.smallest_face", lambda width, height: 40.0)
    monkeypatch.setattr("codeformer.pipeline.pictures.close_scale", lambda width, height: 0.3)
    (note,) = run(engine, Picture(scene()))[0].notes
    assert "30%" in note and "below about 40 pixels" in note


def test_the_task_decides_when_no_face_is_an_error(engine: Engine) -> None:
    fussy = type("Fussy", (type(TASKS["restore"]),), {"needs_face": True, "prepare": lambda self, crop: None})()
    for picture in (Picture(scene()), Picture(scene((60, 50)))):
        error = run(replace(engine, task=fussy), picture)[0].error
        assert isinstance(error, CodeFormerError) and fussy.untouched(0) in str(error)


WIDE = made_of("wide", (1.8,), to_xyz((0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001), (0.3457, 0.3585)))


@pytest.mark.parametrize("task", ["restore", "colorize"])
@pytest.mark.parametrize("keep_luma", [False, True])
def test_the_same_picture_in_another_colour_space_gives_the_same_result(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, task: str, keep_luma: bool
) -> None:
    """In ProPhoto what a network paints as skin would be scarlet if it were taken for the picture's own colours."""
    chosen = TASKS[task]
    if keep_luma:
        if task != "colorize":
            pytest.skip("only colorize keeps the brightness")
        chosen = replace(chosen, keep_luma=True)  # type: ignore[call-arg]
    found = [face_at(50, 50)]
    monkeypatch.setattr("codeformer.pipeline.crops.find_faces", lambda *_, **__: found)
    # A network of random weights jumps from code to code; this one paints skin, as smoothly as a trained one
    skin = np.array([0.42, 0.27, 0.2], np.float32)
    monkeypatch.setattr(FaceRestorer, "restore", lambda _, crops, **__: [0.5 * crop + skin for crop in crops])
    engine = replace(engine, task=chosen)
    plain = to_uint16(scene((150, 150)))
    space = space_in(WIDE)
    assert space is not None
    wide = Picture(in_space(plain, space, np.uint16), icc=WIDE)
    in_sRGB, in_wide = run(engine, Picture(plain))[0], run(engine, wide)[0]
    assert in_sRGB.output is not None and in_wide.output is not None
    assert in_wide.output.icc == WIDE and in_wide.output.rgb.dtype == np.uint16
    same = in_srgb(in_wide.output.rgb, space).astype(int)
    off = np.abs(same - in_sRGB.output.rgb)
    assert off.max() <= 12 * 257 and off[45:70, 40:60].mean() < 257, "but for interpolating in other values"
    changed = (in_wide.output.rgb != wide.rgb).any(axis=2)
    assert changed.any() and not changed[:, 120:].any(), "what no network changed stays bit for bit"
    assert np.abs(in_wide.faces[0].after - in_sRGB.faces[0].after).max() < 0.01  # type: ignore[operator]


def test_an_upsampler_gets_srgb_and_what_that_cannot_hold_stays(engine: Engine) -> None:
    class Upsampler:
        scale = 2

        def __call__(self, rgb: np.ndarray, factor: float, alpha: np.ndarray | None = None) -> np.ndarray:
            seen.append(rgb)
            return np.repeat(np.repeat(rgb, 2, axis=0), 2, axis=1)

    seen: list[np.ndarray] = []
    space = space_in(WIDE)
    assert space is not None
    wide = in_space(scene(), space, np.uint8)
    wide[:20, :20] = (0, 255, 0)  # no screen of sRGB shows this green
    engine = with_options(replace(engine, background=Upsampler()), upscale=2.0)  # type: ignore[arg-type]
    result = run(engine, Picture(wide, icc=WIDE))[0]
    assert result.output is not None and result.output.rgb.dtype == np.uint8
    np.testing.assert_array_equal(seen[0], in_srgb(wide, space))
    assert (result.output.rgb[:30, :30] == (0, 255, 0)).all(axis=2).mean() > 0.9
    far = result.output.rgb[100:, 100:].astype(int) - np.repeat(np.repeat(wide, 2, axis=0), 2, axis=1)[100:, 100:]
    assert np.abs(far).mean() < 2


def test_a_transparent_pixels_colour_is_not_in_the_faces_crop(engine: Engine) -> None:
    rgb = scene((50, 50))
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    alpha[60:75, 30:70] = 0
    hidden = rgb.copy()
    hidden[alpha == 0] = 0
    crops = [result.faces[0].before for result in run(engine, Picture(rgb), Picture(hidden, alpha), Picture(hidden))]
    whole, through, black = (crop for crop in crops if crop is not None)
    assert 5 * np.abs(through - whole).mean() < np.abs(black - whole).mean()


def sepia_scene() -> np.ndarray:
    y = luma(scene().astype(np.float32) / 255)
    return np.rint(np.stack([y**0.8, y * 0.85 + 0.02, y**1.3 * 0.75], axis=-1).clip(0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["restore", "inpaint"])
@pytest.mark.parametrize("larger", [False, True])
def test_the_faces_of_a_toned_print_keep_its_tone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, larger: bool
) -> None:
    """Whatever colours the network and the upsampler paint."""

    class Upsampler:
        scale = 2

        def __call__(self, rgb: np.ndarray, factor: float, alpha: object = None) -> np.ndarray:
            return cv2.resize(rgb, None, fx=factor, fy=factor) * np.array([1.0, 0.8, 0.8], np.float32)

    monkeypatch.setattr("codeformer.pipeline.crops.find_faces", lambda *_, **__: [face_at(50, 50)])
    sources: list[np.ndarray] = []

    def paints(_: object, crops: list[np.ndarray], **__: object) -> list[np.ndarray]:
        sources.extend(crops)
        return [0.6 * crop + np.array([0.25, 0.1, 0.1], np.float32) for crop in crops]

    monkeypatch.setattr(FaceRestorer, "restore", paints)
    task = TASKS[name]
    rgb = sepia_scene()
    if name == "inpaint":
        mask = np.zeros(rgb.shape[:2], np.uint8)
        mask[40:75, 35:70] = 255
        write_picture(Picture(np.repeat(mask[..., None], 3, axis=2)), tmp_path / "mask.png")
        task = replace(task, mask=tmp_path / "mask.png")  # type: ignore[call-arg]
    engine = replace(engine, task=task)
    if larger:
        engine = with_options(replace(engine, face_upsampler=Upsampler()), upscale=4.0)  # type: ignore[arg-type]
    result = run(engine, Picture(rgb))[0]
    assert result.output is not None and any("toned" in note for note in result.notes)
    assert (sources[0] == sources[0][..., :1]).all(), "the network sees grey"
    tone = tone_in(Picture(rgb))
    assert tone is not None
    out = result.output.rgb.astype(np.float32) / 255
    off = np.abs(tone.of(out) - out).max(axis=2)
    face = np.s_[45:70, 40:60] if not larger else np.s_[180:280, 160:240]
    assert off[face].max() < 0.03
    assert (result.output.rgb[face] != rgb[45, 40]).any()
    free = replace(engine, work=replace(engine.work, tone="free"))
    result = run(free, Picture(rgb))[0]
    assert result.output is not None and not any("toned" in note for note in result.notes)
    out = result.output.rgb.astype(np.float32) / 255
    assert np.abs(tone.of(out) - out).max(axis=2)[face].max() > 0.05


def test_colorize_says_that_the_tone_is_replaced(engine: Engine) -> None:
    result = run(replace(engine, task=TASKS["colorize"]), Picture(sepia_scene()))[0]
    assert any("is toned" in note for note in result.notes)


def test_an_aligned_crop_that_is_not_square_is_said(engine: Engine) -> None:
    engine = with_options(engine, {"aligned": True})
    square, wide = run(engine, Picture(scene(size=(64, 64))), Picture(scene(size=(64, 80))))
    assert not square.notes
    assert len(wide.notes) == 1 and "80 x 64 pixels, but an aligned crop is square" in wide.notes[0]


def test_a_halftone_print_gets_advice(engine: Engine) -> None:
    rgb = scene((50, 50), size=(300, 300))
    y, x = np.mgrid[0:300, 0:300]
    dots = 60 * (np.cos((x + y) * 2 * np.pi / 6) + np.cos((x - y) * 2 * np.pi / 6))
    printed = np.clip(rgb + dots[..., None], 0, 255).astype(np.uint8)
    printed[50, 50] = (255, 0, 0)
    for w, advice in ((0.7, "-w 0.2"), (0.2, "shrink it")):
        result = run(replace(engine, work=replace(engine.work, w=w)), Picture(printed))[0]
        assert any("halftone" in note and "4.2 pixels" in note and advice in note for note in result.notes)
    assert not any("halftone" in note for note in run(engine, Picture(rgb))[0].notes)
