"""Evaluation: measures against known values and skimage's, a set that its seed fixes, the command's table and files."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeformer.cli import main
from codeformer.errors import InputError, RestorationError, UsageError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.load import save_network
from codeformer.models.vqgan import VQAutoEncoder
from codeformer.train.data import read_face, to_picture, to_tensor
from codeformer.train.evaluate import Candidate, Evaluation
from codeformer.train.evaluate import evaluate as evaluate_all
from codeformer.train.metrics import chroma_error, colourfulness, cosine, psnr, ssim
from codeformer.train.perceptual import PerceptualDistance
from codeformer.train.samples import Question, make_sample, shrunk, spread
from codeformer.train.scores import Measures, means_of, table

SMALL = Config(
    img_size=64,
    stem=2,
    nf=8,
    ch_mult=(1, 2, 2),
    res_blocks=1,
    attn_resolutions=(8,),
    norm_groups=4,
    codebook_size=32,
    emb_dim=16,
    dim_embd=32,
    n_head=4,
    n_layers=1,
    latent_size=64,
    connect_list=("16", "32"),
)


def evaluate(
    net: CodeFormer | VQAutoEncoder, folder: Path, question: Question, measures: Measures, **options: Any
) -> Evaluation:
    """Measure one network."""
    chosen = {name: options.pop(name) for name in ("adain", "hole") if name in options}
    return evaluate_all([Candidate(net, **chosen)], folder, question, measures, **options)


@pytest.fixture(scope="module")
def network() -> CodeFormer:
    torch.manual_seed(0)
    return CodeFormer.from_config(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five coloured pictures of 64 pixels, one of them in a folder below."""
    root = tmp_path_factory.mktemp("faces")
    (root / "more").mkdir()
    for i in range(5):
        cv2.imwrite(str(root / ("more/4.png" if i == 4 else f"{i}.png")), (face(i) * 255).round().astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16's first two layers with random weights, as the file that --perceptual takes."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = {
        "features.0.weight": torch.randn(64, 3, 3, 3) * 0.2,
        "features.0.bias": torch.zeros(64),
        "features.2.weight": torch.randn(64, 64, 3, 3) * 0.05,
        "features.2.bias": torch.zeros(64),
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(state, path)
    return path


def face(seed: int, size: int = 64) -> np.ndarray:
    """A smooth coloured blob with edges, different for each seed: (size, size, 3) float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((6, 6, 3), dtype=np.float32)
    smooth = np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    cv2.circle(smooth, (size // 2, size // 2), size // 5, rng.random(3).tolist(), -1)
    return smooth


# --- measures


def test_psnr_of_a_known_error() -> None:
    black, grey = np.zeros((8, 8, 3), np.float32), np.full((8, 8, 3), 0.1, np.float32)
    assert psnr(black, grey) == pytest.approx(20, abs=1e-4)
    assert psnr(black, black) == 100
    mask = np.zeros((8, 8), np.float32)
    assert psnr(black, grey, mask) == 100, "nothing to fill, nothing wrong"
    mask[0, 0], grey[0, 0] = 1, 1.0
    assert psnr(black, grey, mask) == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 10_000), st.floats(0.01, 0.5))
@settings(max_examples=15, deadline=None)
def test_psnr_and_ssim_are_skimages(seed: int, noise: float) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    a = face(seed)
    b = np.clip(a + noise * np.random.default_rng(seed).standard_normal(a.shape), 0, 1).astype(np.float32)
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-3)
    grey_a, grey_b = (x.astype(np.float64) @ [0.299, 0.587, 0.114] for x in (a, b))
    expected = structural_similarity(
        grey_a, grey_b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-5)
    assert ssim(a, a) == pytest.approx(1)


def test_chroma_error_sees_colour_and_not_brightness() -> None:
    from skimage.color import rgb2lab

    a, b = face(1), face(2)
    lab_a, lab_b = rgb2lab(a), rgb2lab(b)
    expected = np.hypot(*np.moveaxis(lab_a - lab_b, 2, 0)[1:]).mean()
    assert chroma_error(a, b) == pytest.approx(expected, rel=2e-3)
    grey = np.repeat(a.mean(2, keepdims=True), 3, axis=2)
    assert chroma_error(grey, grey * 0.5) == pytest.approx(0, abs=0.05)
    assert colourfulness(grey, a) == pytest.approx(0, abs=0.01)
    assert colourfulness(a, a) == pytest.approx(1)


def test_perceptual_distance_to_known_maps_and_inside_a_mask(vgg: Path) -> None:
    distance = PerceptualDistance(vgg, ["relu1_2"])
    a, b = (to_tensor(face(i))[None] for i in (1, 2))
    whole = distance(a, b)
    assert torch.equal(distance.between(distance.vgg(a), distance.vgg(b)), whole) and whole > 0
    assert distance(b, b).item() == pytest.approx(0, abs=1e-6)
    changed = b.clone()
    changed[..., :32] = a[..., :32]
    right = torch.zeros(1, 1, 64, 64)
    right[..., 40:] = 1
    assert distance(changed, b, right).item() == pytest.approx(0, abs=1e-6), "the change lies outside the mask"
    assert distance(changed, b, 1 - right).item() > 0
    with pytest.raises(UsageError, match="perceptual_layers"):
        PerceptualDistance(vgg, ["relu9_9"])


def test_without_torchvision_one_line_says_what_to_install_or_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UsageError, match=r"pip install torchvision; or give a safetensors file .* --perceptual FILE"):
        PerceptualDistance(None, ["relu1_2"])


def test_identity_tells_a_blurred_face_from_another_person(astronaut: np.ndarray) -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("skimage")
    from codeformer.faces.align import crop_face, face_transform
    from codeformer.train.metrics import Identity

    points = [[202.7, 99.6], [246.0, 101.9], [223.4, 127.5], [202.2, 138.0], [244.2, 140.3]]
    sharp = crop_face(astronaut, face_transform(points, 256), 256)
    identity = Identity()
    place = identity.place(sharp)
    person = identity.describe(sharp, place)
    assert person.shape == (128,) and cosine(person, identity.describe(sharp, place)) == pytest.approx(1)
    blurred = cosine(person, identity.describe(cv2.GaussianBlur(sharp, (0, 0), 2), place))
    nobody = cosine(person, identity.describe(np.full_like(sharp, 0.5), place))
    assert 0.97 < blurred < 1 and nobody < 0.9
    eyes = np.mean([(p.x, p.y) for p in list(place.parts())[:4]], axis=0)  # dlib's five: corners of the eyes, nose
    assert np.linalg.norm(eyes - [128, 120]) < 8, "the landmarks lie where the template has the eyes"


# --- the set


def test_the_degraded_set_is_fixed_by_its_seed_and_a_limit_takes_a_part_of_it(
    network: CodeFormer, folder: Path
) -> None:
    every = evaluate(network, folder, Question(), Measures())
    again = evaluate(network, folder, Question(), Measures())
    some = evaluate(network, folder, Question(), Measures(), limit=2)
    assert not every.enlarged
    other = evaluate(network, folder, Question(seed=1), Measures())
    assert every.faces == again.faces and len(every.faces) == 5 and "more/4.png" in every.faces
    assert dict(some.faces) == {name: every.faces[name] for name in ("0.png", "2.png")}
    assert all(every.faces[name]["input"] != other.faces[name]["input"] for name in every.faces)


@given(st.integers(1, 200), st.integers(1, 200))
def test_spread_is_even_and_has_no_doubles(count: int, limit: int) -> None:
    chosen = spread(count, limit)
    assert len(chosen) == min(count, limit) == len(set(chosen)) and chosen[0] == 0 and max(chosen) < count
    gaps = np.diff(chosen)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_bicubic_is_the_same_small_picture_enlarged_otherwise() -> None:
    sample = make_sample(face(0), Question(degradation="medium"), np.random.default_rng(0))
    assert np.array_equal(sample.answers["input"], sample.lq)
    near = psnr(sample.answers["bicubic"], sample.lq)
    assert near > psnr(sample.lq, sample.hq) and near < 100


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.sampled_from((2, 4, 8)))
def test_a_shrunk_face_is_made_of_the_means_of_its_squares(seed: int, factor: int) -> None:
    sharp = np.random.default_rng(seed).random((64, 64, 3), np.float32)
    side = 64 // factor
    means = sharp.reshape(side, factor, side, factor, 3).mean((1, 3))
    cubic = np.clip(cv2.resize(means, (64, 64), interpolation=cv2.INTER_CUBIC), 0, 1)
    assert np.allclose(shrunk(sharp, side), cubic, atol=1e-5) and np.allclose(shrunk(sharp, 64), sharp, atol=1e-6)


@pytest.mark.parametrize("task", ["restore", "inpaint"])
def test_rulers_are_measured_like_the_network(network: CodeFormer, folder: Path, task: str) -> None:
    question = Question(task, "medium", fidelities=(1.0,), reduced=(8, 32))
    result = evaluate(network, folder, question, Measures(), limit=2)
    means = result.means
    assert list(means) == ["input", "bicubic" if task == "restore" else "telea", "8 px", "32 px", "w=1"]
    assert means["8 px"]["psnr"] < means["32 px"]["psnr"]
    ruler, ours = result.sheet["32 px"][0], result.sheet["w=1"][0]
    if task == "inpaint":
        mask = make_sample(read_face(folder / "0.png", 64)[0], question, np.random.default_rng((0, 0))).mask
        assert mask is not None and np.array_equal(ruler[mask == 0], ours[mask == 0]), "only the hole differs"
    with pytest.raises(UsageError, match="--reduced: at most the 64 pixels"):
        evaluate(network, folder, replace(question, reduced=(65,)), Measures(), limit=1)


@pytest.mark.parametrize("task", ["restore", "inpaint"])
def test_the_perceptual_distance_of_reduced_pictures(network: CodeFormer, folder: Path, vgg: Path, task: str) -> None:
    distance = PerceptualDistance(vgg, ["relu1_2"])
    question = Question(task, "medium", fidelities=(1.0,))
    result = evaluate(network, folder, question, Measures(distance, perceptual_side=32), limit=1, rows=1)
    ours, original = (
        to_tensor(result.sheet[title][0].reshape(32, 2, 32, 2, 3).mean((1, 3)))[None] for title in ("w=1", "original")
    )
    mask = make_sample(read_face(folder / "0.png", 64)[0], question, np.random.default_rng((0, 0))).mask
    hole = None if mask is None else torch.from_numpy(mask)[None, None]
    assert result.means["w=1"]["perceptual"] == pytest.approx(float(distance(ours, original, hole)), rel=1e-4)
    with pytest.raises(UsageError, match="--perceptual_size: at most the 64 pixels"):
        evaluate(network, folder, question, Measures(distance, perceptual_side=65), limit=1)


def test_tasks_ask_what_they_are_for() -> None:
    grey = make_sample(face(0), Question("colorize", "none"), np.random.default_rng(0))
    assert np.allclose(grey.lq[..., 0], grey.lq[..., 2]) and set(grey.answers) == {"input"}
    hole = make_sample(face(0), Question("inpaint", "none"), np.random.default_rng(0))
    assert hole.mask is not None and hole.mask.max() == 1
    telea = hole.answers["telea"]
    assert np.array_equal(telea[hole.mask == 0], hole.hq[hole.mask == 0]), "outside the hole nothing is touched"
    assert psnr(telea, hole.hq, hole.mask) > psnr(hole.seen("white"), hole.hq, hole.mask) + 3, "Telea beats white paint"


def test_the_answers_are_what_the_published_signature_gives(network: CodeFormer, folder: Path) -> None:
    result = evaluate(network, folder, Question(fidelities=(0.0, 1.0)), Measures(), adain=True, limit=1)
    sharp = read_face(folder / "0.png", 64)[0]
    low = make_sample(sharp, Question(), np.random.default_rng((0, 0))).lq
    for w in (0.0, 1.0):
        out = to_picture(network(to_tensor(low)[None], w=w, adain=True)[0][0])
        assert result.faces["0.png"][f"w={w:g}"]["psnr"] == pytest.approx(psnr(out, sharp))
        assert np.array_equal(result.sheet[f"w={w:g}"][0], out)


def test_inpainting_is_scored_inside_the_hole_and_the_rest_stays(network: CodeFormer, folder: Path, vgg: Path) -> None:
    measures = Measures(PerceptualDistance(vgg, ["relu1_2"]))
    result = evaluate(network, folder, Question("inpaint", "none"), measures, limit=1)
    filled, sharp = result.sheet["w=1"][0], result.sheet["original"][0]
    painted = result.sheet["input"][0]
    outside = (painted == sharp).all(axis=2)
    assert 0.2 < outside.mean() < 1 and np.array_equal(filled[outside], sharp[outside])
    scores = result.faces["0.png"]
    assert scores["telea"]["perceptual"] < scores["input"]["perceptual"]


def test_inpainting_is_held_against_telea_by_coverage(network: CodeFormer, folder: Path, vgg: Path) -> None:
    question = Question("inpaint", "none", fidelities=(1.0,), holes="strokes")
    result = evaluate(network, folder, question, Measures(PerceptualDistance(vgg, ["relu1_2"])))
    assert set(result.covered) == set(result.faces) and all(0.05 <= share <= 0.6 for share in result.covered.values())
    ratios = result.by_coverage()
    assert list(ratios) == ["input", "w=1"]
    counts = [int(name.split("(")[1][:-1]) for name in ratios["w=1"]]
    assert sum(counts) == 5
    low = [name for name, share in result.covered.items() if share <= 0.3]
    means = [np.mean([result.faces[name][title]["perceptual"] for name in low]) for title in ("w=1", "telea")]
    assert ratios["w=1"][f"0% to 30% ({len(low)})"] == pytest.approx(means[0] / means[1])
    assert evaluate(network, folder, Question(), Measures(), limit=1).by_coverage() == {}


def test_an_autoencoder_reproduces_the_sharp_face(folder: Path) -> None:
    torch.manual_seed(0)
    net = VQAutoEncoder.from_config(replace(SMALL, n_layers=0, connect_list=()))
    result = evaluate(net, folder, Question(), Measures(), limit=2)
    assert list(result.means) == ["input", "bicubic", "codes"] and result.rising() == {}


def test_w_rises_only_where_it_rises() -> None:
    def at(*values: float) -> Evaluation:
        scores = {f"w={w:g}": {"psnr": v} for w, v in zip((1, 0, 0.5), values, strict=True)}
        return Evaluation(Question(fidelities=(1, 0, 0.5)), {"a": {"input": {"psnr": 20.0}, **scores}})

    assert at(23, 19, 21).rising() == {"psnr": True}
    assert at(23, 22, 21).rising() == {"psnr": False}
    assert at(23, 21, 21).rising() == {"psnr": False}, "equal is not more"
    assert at(20, 18, 19).rising() == {"psnr": False}, "nothing is gained over the input"


def test_the_table_has_ratios_and_differences() -> None:
    scores = {
        "input": {"psnr": 20.0, "ssim": 0.5, "perceptual": 0.8},
        "w=1": {"psnr": 22.0, "ssim": 0.75, "perceptual": 0.4},
    }
    lines = table(means_of({"a": scores, "b": scores})).splitlines()
    assert lines[0].split() == ["PSNR", "dB", "-", "input", "SSIM", "perceptual", "/", "input"]
    assert lines[2].split() == ["w=1", "22.00", "+2.00", "0.7500", "0.4000", "0.500"]
    assert len({len(line) for line in lines}) == 1


def test_what_cannot_be_asked() -> None:
    degradations = ({"degradation": "light"}, {"degradation": "none"})
    for wrong in ({"task": "paint"}, *degradations, {"fidelities": (1.5,)}, {"seed": -1}, {"reduced": (0,)}):
        with pytest.raises(UsageError):
            Question(**wrong)  # type: ignore[arg-type]


def test_an_output_that_is_not_finite_is_an_error(folder: Path) -> None:
    torch.manual_seed(0)
    net = CodeFormer.from_config(SMALL).eval().requires_grad_(False)
    net.generator.blocks[0].bias.fill_(float("nan"))
    with pytest.raises(RestorationError, match=r"0\.png.*w=0.*not finite"):
        evaluate(net, folder, Question(), Measures())


def test_faces_that_had_to_be_enlarged_are_named(
    network: CodeFormer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faces").mkdir()
    for name, side in (("large.png", 96), ("small.png", 48)):
        picture = cv2.imread(str(folder / "0.png"))
        assert picture is not None
        cv2.imwrite(str(tmp_path / "faces" / name), cv2.resize(picture, (side, side)))
    assert evaluate(network, tmp_path / "faces", Question(), Measures()).enlarged == ["small.png"]
    save_network(network, tmp_path / "net.safetensors", {"stage": "3", "adain": "false"}, half=False)
    words = ["evaluate", "--model", tmp_path / "net.safetensors", "--data", tmp_path / "faces", "--w", 1]
    words += ["--no_perceptual", "--no_identity", "--json", tmp_path / "m.json"]
    assert main([str(word) for word in words]) == 0
    assert "1 of 2 faces have fewer pixels" in capsys.readouterr().err
    assert json.loads((tmp_path / "m.json").read_text())["enlarged"] == ["small.png"]
    assert main([str(word) for word in [*words, "--perceptual_size", 64]]) == 2, "of a distance that is left out"


def test_what_is_no_folder_of_faces(network: CodeFormer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        evaluate(network, tmp_path / "nothing", Question(), Measures())
    with pytest.raises(InputError, match="no pictures"):
        evaluate(network, tmp_path, Question(), Measures())
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(InputError, match=r"wide\.png.*not square.*codeformer align"):
        evaluate(network, tmp_path, Question(), Measures())


@pytest.mark.parametrize("hole", ["white", "smear"])
def test_a_perfect_answer_to_inpainting_is_the_original(hole: str) -> None:
    sample = make_sample(face(0), Question("inpaint", "none"), np.random.default_rng(4))
    assert sample.mask is not None
    perfect = sample.finish(sample.hq)
    assert np.allclose(perfect, sample.hq, atol=1e-6)
    assert bool((sample.seen(hole)[sample.mask == 1] == 1).all()) == (hole == "white")


# --- the command


def test_the_command_prints_the_table_and_writes_json_and_sheet(
    network: CodeFormer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_network(network, tmp_path / "net.safetensors", {"stage": "3", "adain": "false"}, half=False)
    words = ["evaluate", "--model", tmp_path / "net.safetensors", "--data", folder, "--no-perceptual", "--no-identity"]
    words += ["-o", tmp_path / "out", "--json", tmp_path / "m.json", "--w", 0, 1, "--limit", 3, "--seed", 5]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "m.json").read_text())
    assert report == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (report["task"], report["degradation"], report["seed"], report["count"]) == (
        "restore",
        "medium",
        5,
        3,
    ) and report["models"][0]["adain"] is False
    assert report["fidelities"] == [0, 1] and set(report["means"]) == {"input", "bicubic", "w=0", "w=1"}
    expected = evaluate(network, folder, Question(seed=5, fidelities=(0, 1)), Measures(), limit=3).means
    assert report["means"]["w=1"]["psnr"] == pytest.approx(expected["w=1"]["psnr"], abs=1e-3)
    assert f"{expected['bicubic']['psnr']:.2f}" in printed and "3 faces" in printed
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet is not None and sheet.shape == (24 + 3 * 256, 5 * 256, 3)


def test_the_command_names_what_is_wrong(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--model", str(tmp_path / "none.safetensors"), "--data", str(folder)]) == 4
    said = capsys.readouterr()
    assert "none.safetensors" in said.err and said.out == ""
    assert main(["evaluate", "--model", "compact", "--data", str(folder), "--limit", "0"]) == 2
    assert "--limit" in capsys.readouterr().err
    assert main(["evaluate", "--model", "compact", "--data", str(folder), "--perceptual_size", "31"]) == 2
    assert "--perceptual_size 31" in capsys.readouterr().err
    wrong = ["evaluate", "--model", str(tmp_path / "none.safetensors"), "--data", str(tmp_path / "faces")]
    assert main(wrong) == 3, "the folder is looked for before the network"
    assert "faces: no such folder" in capsys.readouterr().err


def test_the_command_says_how_the_perceptual_distance_was_taken(
    network: CodeFormer, folder: Path, vgg: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_network(network, tmp_path / "net.safetensors", {"stage": "3", "adain": "false"}, half=False)
    words = ["evaluate", "--model", tmp_path / "net.safetensors", "--data", folder, "--no_identity"]
    words += ["--perceptual", vgg, "--w", 1, "--limit", 1, "--json", tmp_path / "m.json"]
    words += ["--perceptual_size", 48, "--distance", "vgg", "--perceptual_layers"]
    assert main([str(word) for word in (*words, "relu1_2")]) == 0
    assert "perceptual distance at 48 x 48 of relu1_2\n" in capsys.readouterr().out
    report = json.loads((tmp_path / "m.json").read_text())
    assert (report["perceptual_size"], report["perceptual_layers"]) == (48, ["relu1_2"])
    assert main([str(word) for word in (*words, "relu9")]) == 2
    assert "relu9" in capsys.readouterr().err
