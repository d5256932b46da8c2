"""Face parsing: label numbers to masks, the two published layouts, batches, files that are missing or wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codeformer.errors import OutOfMemoryError, UsageError, WeightsError
from codeformer.faces.parsing import LAYOUTS, NetworkParser, face_mask, make_parser

# CelebAMask-HQ's names in the order of each network's outputs
_BISENET = "background skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip l_lip neck neck_l cloth"
_PARSENET = "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l"
BISENET = [*_BISENET.split(), "hair", "hat"]
PARSENET = [*_PARSENET.split(), "neck", "cloth"]
ORDERS = {"bisenet": BISENET, "parsenet": PARSENET}


def scene(order: list[str], size: int = 512) -> np.ndarray:
    """A head by hand: hair above, skin with features, a neck, cloth, and a hand (background) before a cheek."""
    unit = size / 512
    y, x = np.mgrid[0:size, 0:size] / unit
    labels = np.full((size, size), order.index("background"), np.uint8)

    def paint(name: str, where: np.ndarray) -> None:
        labels[where] = order.index(name)

    paint("cloth", y > 490)
    paint("neck", (np.abs(x - 256) < 70) & (y > 380) & (y <= 490))
    paint("hair", np.hypot((x - 256) / 190, (y - 230) / 200) < 1)
    paint("skin", np.hypot((x - 256) / 140, (y - 290) / 170) < 1)
    for side, eye, brow in ((193, "l_eye", "l_brow"), (319, "r_eye", "r_brow")):
        paint(eye, np.hypot((x - side) / 22, (y - 240) / 10) < 1)
        paint(brow, np.hypot((x - side) / 30, (y - 210) / 8) < 1)
    paint("nose", np.hypot((x - 256) / 22, (y - 300) / 35) < 1)
    paint("mouth", np.hypot((x - 256) / 50, (y - 371) / 14) < 1)
    paint("u_lip", np.hypot((x - 256) / 55, (y - 358) / 9) < 1)
    paint("l_lip", np.hypot((x - 256) / 55, (y - 386) / 9) < 1)
    paint("background", (np.abs(x - 390) < 40) & (y > 330) & (y < 430))  # the hand
    paint("hat", y < 130)
    return labels


@pytest.mark.parametrize("name", ORDERS)
def test_the_published_numbers_are_the_faces_parts(name: str) -> None:
    parts = {ORDERS[name][number] for number in LAYOUTS[name].face}
    assert parts == {
        *("skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "nose", "mouth", "u_lip", "l_lip")
    }


@pytest.mark.parametrize("size", [512, 256])
@pytest.mark.parametrize("name", ORDERS)
def test_the_mask_follows_the_face_and_leaves_hair_hat_hand_and_neck(name: str, size: int) -> None:
    order = ORDERS[name]
    labels = scene(order, size)
    mask = face_mask(labels, LAYOUTS[name].face)
    assert mask.shape == (size, size) and mask.dtype == np.float32 and mask.min() >= 0 and mask.max() <= 1
    for leaves in ("background", "hair", "hat", "neck", "cloth"):
        assert mask[labels == order.index(leaves)].max() == 0, leaves
    for keeps in ("l_eye", "r_eye", "l_brow", "r_brow", "nose", "mouth", "u_lip", "l_lip"):
        assert mask[labels == order.index(keeps)].min() > 0.9, keeps
    # Soft: from the contour inwards it takes its time
    assert np.abs(np.diff(mask, axis=1)).max() < 0.15 * 512 / size


def test_of_two_faces_the_one_in_the_middle_counts() -> None:
    labels = scene(BISENET)
    y, x = np.mgrid[0:512, 0:512]
    neighbour = np.hypot(x - 500, y - 120) < 75
    labels[neighbour] = 1
    mask = face_mask(labels, LAYOUTS["bisenet"].face)
    assert mask[neighbour].max() == 0 and mask[300, 256] > 0.9


def test_a_face_that_the_crop_cuts_fades_before_the_border() -> None:
    mask = face_mask(np.ones((512, 512), np.uint8), {1})
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() == 0
    assert mask[256, 256] == pytest.approx(1)


def test_a_small_hole_is_a_mistake_and_a_large_one_is_something_before_the_face() -> None:
    labels = np.zeros((512, 512), np.uint8)
    labels[100:450, 100:400] = 1
    labels[300:312, 250:262] = 17
    labels[180:240, 150:220] = 0
    mask = face_mask(labels, {1})
    assert mask[306, 256] > 0.99 and mask[210, 185] == 0


@pytest.mark.parametrize("fill", [0, 17])
def test_no_face_gives_an_empty_mask(fill: int) -> None:
    labels = np.full((512, 512), fill, np.uint8)
    assert face_mask(labels, LAYOUTS["bisenet"].face).max() == 0
    labels[250:270, 250:270] = 1  # a speck is not a face
    assert face_mask(labels, LAYOUTS["bisenet"].face).max() == 0


# ------------------------------------------------------------------------------------------------------ the networks


class Brightness(torch.nn.Module):
    """A stand-in with the networks' interface: label 1 where the red channel exceeds a threshold, else 17."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []
        self.limit = 99

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        if x.shape[0] > self.limit:
            raise torch.cuda.OutOfMemoryError("pretended")
        self.batches.append(x.shape[0])
        scores = torch.zeros(x.shape[0], 19, *x.shape[2:])
        scores[:, 1] = x[:, 0] - self.threshold
        scores[:, 17] = 1e-6
        scores[:, [k for k in range(19) if k not in (1, 17)]] = -100
        return scores, None


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[NetworkParser, Brightness]:
    for name, layout in LAYOUTS.items():
        monkeypatch.setitem(LAYOUTS, name, replace(layout, build=Brightness))
    file = tmp_path / "parsing_parsenet.pth"
    torch.save({"module.threshold": torch.zeros(1)}, file)
    parser = make_parser("parsenet", path=file)
    assert isinstance(parser, NetworkParser)
    return parser, parser._net


def face_crop(left: int, size: int = 512) -> np.ndarray:
    """Dark, with a bright square from column ``left`` on."""
    crop = np.zeros((size, size, 3), np.float32)
    crop[size // 4 : size * 7 // 8, left : left + size // 2] = 1.0
    return crop


def test_a_batch_gives_each_crop_its_own_mask_in_order(stand_in: tuple[NetworkParser, Brightness]) -> None:
    parser, net = stand_in
    lefts = [90, 100, 110, 120, 130, 140]
    masks = parser([face_crop(left) for left in lefts])
    assert len(masks) == 6 and sum(net.batches) == 6 and max(net.batches) > 1
    for left, mask in zip(lefts, masks, strict=True):
        assert mask.shape == (512, 512) and mask.dtype == np.float32
        assert np.flatnonzero(mask.max(axis=0)).min() == pytest.approx(left, abs=4)
    assert parser([]) == []


def test_crops_of_another_size_are_parsed_at_512(stand_in: tuple[NetworkParser, Brightness]) -> None:
    parser, _ = stand_in
    small, plain, large = parser([face_crop(25, 128), face_crop(100), face_crop(200, 1024)])
    assert small.shape == large.shape == (512, 512)
    assert np.abs(small - plain).mean() < 0.02 and np.abs(large - plain).mean() < 0.02


def test_out_of_memory_halves_the_batch_and_only_one_face_is_an_error(
    stand_in: tuple[NetworkParser, Brightness],
) -> None:
    parser, net = stand_in
    net.limit = 1
    assert len(parser([face_crop(100)] * 3)) == 3 and net.batches == [1, 1, 1]
    net.limit = 0
    with pytest.raises(OutOfMemoryError, match="--parsing none"):
        parser([face_crop(100)])


def test_bisenet_from_its_file(tmp_path: Path) -> None:
    """facexlib's own definition, random weights in a file: what the file says is what is computed."""
    pytest.importorskip("facexlib")
    torch.manual_seed(1)
    net = LAYOUTS["bisenet"].build().eval()
    file = tmp_path / "parsing_bisenet.pth"
    torch.save(net.state_dict(), file)
    parser = make_parser("bisenet", path=file)
    assert isinstance(parser, NetworkParser) and parser.name == "bisenet"
    crop = np.random.default_rng(0).random((512, 512, 3), dtype=np.float32)
    labels = parser._labels([crop])
    x = (torch.from_numpy(crop) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net(x.permute(2, 0, 1)[None])[0].argmax(1).numpy()
    assert labels is not None and np.mean(labels == expected) > 0.999


@pytest.mark.slow
def test_parsenet_from_its_file(tmp_path: Path) -> None:
    pytest.importorskip("facexlib")
    net = LAYOUTS["parsenet"].build().eval()
    file = tmp_path / "parsing_parsenet.pth"
    torch.save(net.state_dict(), file)
    parser = make_parser("parsenet", path=file)
    assert parser is not None and parser([np.zeros((512, 512, 3), np.float32)])[0].shape == (512, 512)


# ---------------------------------------------------------------------------------------------------------- choosing


def test_auto_takes_bisenet_then_parsenet_then_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stand_in: tuple[NetworkParser, Brightness],
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = tmp_path / "parsing_parsenet.pth"
    there = {"parsing_bisenet.pth": file, "parsing_parsenet.pth": file}
    monkeypatch.setattr("codeformer.hub.store.find", lambda name, folder=None, verify=True: there.get(name))
    monkeypatch.setattr("codeformer.faces.parsing.find_spec", lambda name: object())  # facexlib may not be installed
    assert make_parser().name == "bisenet"  # type: ignore[union-attr]
    del there["parsing_bisenet.pth"]
    assert make_parser().name == "parsenet"  # type: ignore[union-attr]
    with pytest.raises(WeightsError, match="codeformer download parsing"):
        make_parser("bisenet")
    monkeypatch.setattr("codeformer.faces.parsing.find_spec", lambda name: None)
    with caplog.at_level("WARNING"):
        assert make_parser() is None  # the file alone is of no use, and a line says so
    assert "parsing_parsenet.pth is here" in caplog.text and "pip install facexlib" in caplog.text
    there.clear()
    assert make_parser() is None and make_parser("none") is None


def test_a_folder_without_files_has_no_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_parser("auto", weights_dir=tmp_path) is None


def test_wrong_names_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bisenet, parsenet"):
        make_parser("segformer")
    with pytest.raises(UsageError, match="needs its name"):
        make_parser("auto", path=tmp_path / "x.pth")


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("facexlib")
    other, junk = tmp_path / "other.pth", tmp_path / "junk.pth"
    torch.save({"a": torch.zeros(1)}, other)
    junk.write_bytes(b"no weights at all")
    for file in (other, junk, tmp_path / "missing.pth"):
        with pytest.raises(WeightsError, match=file.name) as refusal:
            make_parser("bisenet", path=file)
        assert "\n" not in str(refusal.value)
