"""The Python API: its docstring's example, its values, and that it stays silent."""

from __future__ import annotations

import copy
import doctest
import gc
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

import codeformer.api
from codeformer import Restoration, Restorer, read_picture
from codeformer.errors import InputError, LossWarning, OutputError, UsageError, WeightsError
from codeformer.hub.store import Choice
from codeformer.tasks.table import TASKS


@pytest.fixture(scope="module")
def restorer(small_model_path: Path) -> Restorer:
    return Restorer(model=small_model_path, device="cpu", parsing="none")


@pytest.fixture(autouse=True)
def silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def test_the_example_of_the_docstring(small_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "codeformer.models.file.resolve_model", lambda *args: Choice(small_model_path, notes=("a note",))
    )
    result = doctest.testmod(codeformer.api)
    assert result.attempted >= 4 and result.failed == 0


def test_a_photograph(restorer: Restorer, portrait: np.ndarray) -> None:
    before = portrait.copy()
    result = restorer.restore(portrait, w=0.7)
    assert (portrait == before).all()
    assert result.picture.shape == portrait.shape and result.picture.dtype == np.uint8
    (face,) = result.faces
    assert face.chosen and face.box is not None and face.after is not None and face.matrix is not None
    x0, y0, x1, y1 = face.box
    assert 60 < x0 < x1 < 190 and 40 < y0 < y1 < 200  # Eileen Collins' face
    assert face.after.shape == (restorer.size, restorer.size, 3)
    assert (result.picture != portrait)[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.5
    assert (result.picture[:20, :20] == portrait[:20, :20]).all()
    assert result.seconds["restore"] > 0
    again = restorer.restore(portrait, w=0.7)
    assert (again.picture == result.picture).all()


def test_options(restorer: Restorer, portrait: np.ndarray) -> None:
    points = [[(100.0, 100.0), (147.0, 102.0), (123.0, 128.0), (101.0, 138.0), (144.0, 141.0)]]
    by_hand = restorer.restore(portrait.astype(np.uint16) * 257, upscale=1.5, landmarks=points)
    assert by_hand.picture.shape == (360, 360, 3) and by_hand.picture.dtype == np.uint16
    assert len(by_hand.faces) == 1
    assert restorer.restore(portrait, aligned=True).picture.shape == (64, 64, 3)
    assert (restorer.restore(portrait, strength=0.0).picture == portrait).all()


def test_the_strength_is_refused_where_it_means_nothing(restorer: Restorer, portrait: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"--strength must lie in \[0, 1\], not 1.5"):
        restorer.restore(portrait, strength=1.5)
    filler = copy.copy(restorer)
    filler._engine = replace(restorer._engine, task=TASKS["inpaint"])
    with pytest.raises(UsageError, match="not inpaint"):
        filler.restore(portrait, strength=0.5)


def test_errors_are_raised(restorer: Restorer, portrait: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fidelity_weight"):
        restorer.restore(portrait, w=2)
    with pytest.raises(InputError, match="not a picture"):
        restorer.restore(portrait[..., 0])
    with pytest.raises(InputError, match="not a picture"):
        restorer.restore(portrait / 255)
    with pytest.raises(WeightsError, match="gone"):
        Restorer(model=tmp_path / "gone.pth")


def test_importing_it_is_cheap() -> None:
    code = "import sys, codeformer; print({'torch', 'cv2', 'numpy', 'PIL'} & set(sys.modules), codeformer.__version__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("set()")


def test_six_threads_share_one_restorer(restorer: Restorer, portrait: np.ndarray) -> None:
    pictures = [np.ascontiguousarray(np.roll(portrait, shift, axis=1)) for shift in (0, 3, 6, 9, 12, 15)]
    alone = [restorer.restore(picture, w=0.5).picture for picture in pictures]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda picture: restorer.restore(picture, w=0.5).picture, pictures))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


FORKING = """
import multiprocessing, sys
import numpy as np
from codeformer import Restorer
from codeformer.errors import RestorationError

restorer = Restorer(model=sys.argv[1], device="cpu", parsing="none")
picture = np.load(sys.argv[2])
if sys.argv[3] == "used":
    restorer.restore(picture)

def child(queue):
    try:
        queue.put(len(restorer.restore(picture).faces))
    except RestorationError as error:
        queue.put(str(error))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
print(queue.get(timeout=100))
process.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("use", ["used", "loaded"])
def test_a_model_that_was_loaded_before_a_fork_says_so_at_once(
    small_model_path: Path, portrait: np.ndarray, tmp_path: Path, use: str
) -> None:
    np.save(tmp_path / "picture.npy", portrait)
    command = [sys.executable, "-c", FORKING, str(small_model_path), str(tmp_path / "picture.npy"), use]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert "was loaded before the process was forked" in done.stdout, done.stderr


# ------------------------------------------------------------------------------------- paths, images, several at a time


@pytest.fixture
def album(tmp_path: Path, portrait: np.ndarray) -> Path:
    Image.fromarray(portrait).save(tmp_path / "b.png")
    Image.fromarray(portrait[:, ::-1]).save(tmp_path / "a.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    (tmp_path / "within").mkdir()
    Image.fromarray(portrait).save(tmp_path / "within" / "d.png")
    return tmp_path


def test_paths_images_pictures_and_arrays_are_the_same(restorer: Restorer, album: Path, portrait: np.ndarray) -> None:
    path = album / "b.png"
    expected = restorer.restore(portrait, w=0.7).picture
    for source in (path, str(path), Image.open(path), read_picture(path)):
        assert (restorer.restore(source, w=0.7).picture == expected).all()


def test_images_of_pillow_keep_alpha_profile_and_their_upright(restorer: Restorer, portrait: np.ndarray) -> None:
    cut_out = np.dstack([portrait, np.full(portrait.shape[:2], 200, np.uint8)])
    image = Image.fromarray(cut_out)
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    back = restorer.restore(image).to_pil()
    assert back.mode == "RGBA" and set(np.unique(np.asarray(back)[..., 3])) == {200}
    assert back.info["icc_profile"] == image.info["icc_profile"]
    turned = Image.fromarray(portrait[:200]).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # shown a quarter turn clockwise
    assert restorer.restore(turned).picture.shape == (200, 240, 3)
    for mode, dtype in (("L", np.uint8), ("P", np.uint8), ("I;16", np.uint16)):
        given = Image.fromarray(np.full((80, 90), 7, np.uint16)) if mode == "I;16" else Image.new(mode, (90, 80))
        assert restorer.restore(given).picture.dtype == dtype
    with pytest.raises(InputError, match=r"mode CMYK .*convert\('RGB'\)"):
        restorer.restore(Image.new("CMYK", (64, 64)))
    with pytest.raises(InputError, match="not a picture: list"):
        restorer.restore([1, 2, 3])  # type: ignore[arg-type]


def test_a_result_is_saved_with_what_its_file_carried(restorer: Restorer, tmp_path: Path, portrait: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Ada"
    Image.fromarray(portrait).save(tmp_path / "in.jpg", exif=exif, quality=95)
    saved = restorer.restore(tmp_path / "in.jpg").save(tmp_path / "new" / "out.jpg", quality=80)
    assert saved == tmp_path / "new" / "out.jpg"
    assert Image.open(saved).getexif()[0x010E] == "Ada"
    with pytest.raises(OutputError, match="cannot write"):
        restorer.restore(portrait).save(tmp_path / "out.xyz")


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_what_a_format_cannot_hold_is_a_warning_with_values(
    restorer: Restorer, tmp_path: Path, portrait: np.ndarray, suffix: str
) -> None:
    deep = portrait.astype(np.uint16) * 257
    result = restorer.restore(deep, alpha=np.full(deep.shape[:2], 30000, np.uint16))
    with pytest.warns(LossWarning) as told:
        result.save(tmp_path / f"out{suffix}")
    (one,) = told
    kind = {".jpg": "JPEG", ".bmp": "BMP"}[suffix]
    assert isinstance(one.message, LossWarning) and one.filename == __file__
    assert one.message.path == str(tmp_path / f"out{suffix}")
    assert one.message.lost == (
        f"{kind} cannot hold transparency (white instead) and 16 bits a channel (8 instead); PNG can"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result.save(tmp_path / "out.png")
        result.save(tmp_path / "out.tif")


def test_images_of_pillow_keep_what_their_files_said(restorer: Restorer, tmp_path: Path, portrait: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "Ada", 6
    exif.get_ifd(0x8769)[0xA002] = 240
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">Ada</x:xmpmeta>'
    image = Image.fromarray(portrait)
    image.save(tmp_path / "in.jpg", exif=exif, xmp=xmp, dpi=(300, 200), comment=b"scanned")
    with Image.open(tmp_path / "in.jpg") as opened:
        result = restorer.restore(opened, upscale=2.0)
    output = result.output
    assert output.dpi == (400, 600) and output.text == (("Comment", "scanned"),) and output.xmp == xmp
    back = result.to_pil()
    back.save(tmp_path / "pil.jpg", **{name: back.info[name] for name in ("exif", "xmp", "dpi")})
    result.save(tmp_path / "ours.jpg")
    for name in ("pil.jpg", "ours.jpg"):
        with Image.open(tmp_path / name) as again:
            said = again.getexif()
            assert said[0x010E] == "Ada" and said.get(0x0112, 1) == 1 and said.get_ifd(0x8769)[0xA002] == 480
            assert again.info["dpi"] == (400, 600) and again.info["xmp"] == xmp


def test_many_share_batches_and_come_in_order(
    small_model_path: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = Restorer(model=small_model_path, device="cpu", parsing="none", batch_size=4)
    sizes, network = [], restorer._engine.restorer
    real = network.restore
    monkeypatch.setattr(network, "restore", lambda crops, **how: sizes.append(len(crops)) or real(crops, **how))
    steps: list[tuple[int, int]] = []
    flipped = np.ascontiguousarray(portrait[:, ::-1])
    results = restorer.restore_many([portrait, flipped], w=0.7, progress=lambda *step: steps.append(step))
    assert sizes == [2] and steps == [(1, 2), (2, 2)]
    for result, alone in zip(results, (portrait, flipped), strict=True):
        difference = np.abs(result.picture.astype(int) - restorer.restore(alone, w=0.7).picture)
        assert difference.max() <= 1  # batches may round otherwise
    assert restorer.restore_many([]) == []


def test_one_that_fails_does_not_stop_the_others(restorer: Restorer, album: Path) -> None:
    seen: list[int] = []
    paths = [album / "c.png", album / "b.png"]
    with pytest.raises(InputError, match=r"c\.png"):
        restorer.restore_many(paths, progress=lambda done, count: seen.append(done))
    assert seen == [1, 2]
    error, result = restorer.restore_many(paths, return_errors=True)
    assert isinstance(error, InputError) and isinstance(result, Restoration)


def test_a_folder(restorer: Restorer, album: Path) -> None:
    found = list(restorer.restore_folder(album))
    assert [path.name for path, _ in found] == ["a.png", "b.png", "c.png"]
    assert [type(result) for _, result in found] == [Restoration, Restoration, InputError]
    assert [path.name for path, _ in restorer.restore_folder(album, recursive=True)][-1] == "d.png"
    with pytest.raises(InputError, match="no such file or folder"):
        restorer.restore_folder(album / "gone")
    before = set(threading.enumerate())  # threads of other tests may end meanwhile, but none may be new
    for _ in restorer.restore_folder(album):
        break  # a caller that stops leaves no thread behind
    gc.collect()
    assert set(threading.enumerate()) <= before


def test_reprs_are_short(restorer: Restorer, portrait: np.ndarray) -> None:
    result = restorer.restore(portrait)
    assert repr(restorer) == f"<Restorer restore with {restorer._engine.model.path.name} on cpu>"
    assert repr(result) == "<Restoration 240 x 240, 1 of 1 face done>"
    assert repr(result.faces[0]).startswith("<RestoredFace 1 at 7") and len(repr(result.faces[0])) < 80
    twins = restorer.restore(np.hstack([portrait, portrait]), max_faces=1)
    assert "1 of 2 faces done" in repr(twins) and sum("left alone>" in repr(face) for face in twins.faces) == 1


def test_an_unknown_option_is_an_error(restorer: Restorer, portrait: np.ndarray) -> None:
    with pytest.raises(TypeError, match="there is no option upscal: upscale"):
        restorer.restore(portrait, upscal=2)  # type: ignore[call-arg]


def test_the_examples_of_the_page(tmp_path: Path, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[1]
    Image.fromarray(portrait).save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "album").mkdir()
    shutil.copy(root / "inputs/whole_imgs/01_grace_hopper.jpg", tmp_path / "album/grace.jpg")
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS
    result = doctest.testfile(str(root / "docs/api.md"), module_relative=False, optionflags=flags, encoding="utf-8")
    assert result.attempted > 20 and result.failed == 0


def test_the_tone_of_a_print_is_kept_unless_the_caller_wants_colours(restorer: Restorer, portrait: np.ndarray) -> None:
    y = portrait.mean(axis=2) / 255
    sepia = np.rint(np.stack([y**0.8, y * 0.85 + 0.02, y**1.3 * 0.75], axis=-1).clip(0, 1) * 255).astype(np.uint8)
    kept, free = restorer.restore(sepia), restorer.restore(sepia, tone="free")
    assert any("toned" in note for note in kept.notes) and not any("toned" in note for note in free.notes)
    assert (kept.picture != free.picture).any()
