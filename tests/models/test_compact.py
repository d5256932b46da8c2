"""The bundled models are what their card says: small, cheap, complete, and better than their input."""

import cv2
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from codeformer.faces.align import TEMPLATE_512, crop_face, face_transform
from codeformer.faces.find import find_faces, make_detector
from codeformer.hub.store import Choice, bundled, resolve_model
from codeformer.models.codeformer import CodeFormer
from codeformer.models.file import open_model
from codeformer.models.load import load_network
from codeformer.pipeline.restorer import FaceRestorer
from codeformer.train.degrade import MEDIUM, degrade
from codeformer.train.holes import fill
from codeformer.train.metrics import psnr


@pytest.mark.parametrize(
    ("name", "tasks", "hole"),
    [("compact", "restore,colorize", "white"), ("compact_inpainting", "inpaint", "smear")],
)
def test_a_file_is_small_and_says_what_it_is_for(name: str, tasks: str, hole: str) -> None:
    path = bundled(name)
    assert path.stat().st_size <= 30_000_000
    metadata = open_model(path).metadata
    assert (metadata["tasks"], metadata.get("hole", "white")) == (tasks, hole)
    net = load_network(path)
    assert isinstance(net, CodeFormer)
    assert sum(p.numel() for p in net.parameters()) <= 15_000_000
    assert (net.config.img_size, net.config.latent_side) == (512, 16)


@pytest.mark.parametrize("name", ["compact", "compact_inpainting"])
def test_a_face_costs_at_most_40_gflop(name: str) -> None:
    net = load_network(bundled(name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 512, 512), w=1.0)
    assert 10e9 < counter.get_total_flops() <= 40e9


def test_inpainting_takes_the_file_that_was_made_for_it() -> None:
    assert resolve_model("compact", "inpainting") == Choice(bundled("compact_inpainting"))
    assert resolve_model("compact", "colorization") == Choice(bundled())


def test_covered_parts_of_a_face_are_drawn_better_than_they_are_smeared() -> None:
    """Of a face that training never saw: inside round holes the network is nearer to the face than Telea's method."""
    data = pytest.importorskip("skimage.data")
    rgb = np.asarray(data.astronaut())
    face = find_faces(rgb, make_detector("retinaface_mobile0.25"))[0]
    sharp = crop_face(rgb, face_transform(face.landmarks))
    net = FaceRestorer(load_network(bundled("compact_inpainting")), device="cpu", precision="fp32")
    eye, _, nose, *corners = TEMPLATE_512
    errors = []
    for place in (eye, nose, np.mean(corners, axis=0)):
        hole = np.zeros((512, 512), np.uint8)
        cv2.circle(hole, place.round().astype(int).tolist(), 40, 1, -1)
        drawn = net.restore([fill(sharp, hole.astype(np.float32), "smear")], w=1.0, adain=False)[0]
        smeared = cv2.inpaint((sharp * 255).round().astype(np.uint8), hole, 5, cv2.INPAINT_TELEA) / 255
        errors.append([np.abs(blurred(answer) - blurred(sharp))[hole > 0].mean() for answer in (drawn, smeared)])
    ours, theirs = np.mean(errors, axis=0)
    assert ours < 0.9 * theirs, errors


def test_a_degraded_face_comes_nearer_to_the_sharp_one() -> None:
    """Of a face that training never saw: edges where the sharp one has them, at every w > 0."""
    data = pytest.importorskip("skimage.data")
    rgb = np.asarray(data.astronaut())
    face = find_faces(rgb, make_detector("retinaface_mobile0.25"))[0]
    sharp = crop_face(rgb, face_transform(face.landmarks))
    restorer = FaceRestorer(load_network(bundled()), device="cpu", precision="fp32")
    edges, decibels = [], []
    for seed in range(4):
        lq = degrade(sharp, MEDIUM, np.random.default_rng(seed))
        outputs = [restorer.restore([lq], w=w, adain=False)[0] for w in (0.0, 0.5, 1.0)]
        edges.append([likeness(out, sharp) - likeness(lq, sharp) for out in outputs[1:]])
        decibels.append([psnr(out, sharp) for out in (lq, *outputs)])
    assert (np.mean(edges, axis=0) > 0).all()
    given, clean, middle, faithful = np.mean(decibels, axis=0)
    assert clean < middle < faithful, "w promises to come nearer to the input's person"
    assert faithful > given + 0.2


def blurred(picture: np.ndarray) -> np.ndarray:
    """The picture at the scale of features."""
    return cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 2.0)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two pictures' gradients at the scale of features, in [-1, 1]."""

    def gradients(picture: np.ndarray) -> np.ndarray:
        grey = cv2.GaussianBlur(cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY), (0, 0), 2.0)
        return np.stack([cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1)])

    return float(np.corrcoef(gradients(a).ravel(), gradients(b).ravel())[0, 1])
