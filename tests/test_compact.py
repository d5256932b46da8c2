"""The bundled model is what its card says: small, cheap, complete, and better than its input."""

import cv2
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from codeformer.align import crop_face, face_transform
from codeformer.detect import find_faces, make_detector
from codeformer.hub import bundled
from codeformer.models.codeformer import CodeFormer
from codeformer.models.load import load_network, read_metadata
from codeformer.restore import FaceRestorer
from codeformer.train.degrade import MEDIUM, degrade


@pytest.fixture(scope="module")
def compact() -> CodeFormer:
    net = load_network(bundled())
    assert isinstance(net, CodeFormer)
    return net


def test_the_file_is_small_and_says_what_it_is_for(compact: CodeFormer) -> None:
    assert bundled().stat().st_size <= 20_000_000
    assert sum(p.numel() for p in compact.parameters()) <= 10_000_000
    assert read_metadata(bundled())["tasks"] == "restore,colorize,inpaint"
    assert (compact.config.img_size, compact.config.latent_side) == (512, 16)


def test_a_face_costs_at_most_30_gflop(compact: CodeFormer) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compact(torch.zeros(1, 3, 512, 512), w=1.0)
    assert 10e9 < counter.get_total_flops() <= 30e9


def test_a_degraded_face_comes_nearer_to_the_sharp_one() -> None:
    """Of a face that training never saw: edges where the sharp one has them, at every w > 0."""
    data = pytest.importorskip("skimage.data")
    rgb = np.asarray(data.astronaut())
    face = find_faces(rgb, make_detector("retinaface_mobile0.25"))[0]
    sharp = crop_face(rgb, face_transform(face.landmarks))
    restorer = FaceRestorer(load_network(bundled()), device="cpu", precision="fp32")
    gains = []
    for seed in range(4):
        lq = degrade(sharp, MEDIUM, np.random.default_rng(seed))
        for out in (restorer.restore([lq], w=w, adain=False)[0] for w in (0.5, 1.0)):
            gains.append(likeness(out, sharp) - likeness(lq, sharp))
    assert np.mean(gains) > 0


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two pictures' gradients at the scale of features, in [-1, 1]."""

    def gradients(picture: np.ndarray) -> np.ndarray:
        grey = cv2.GaussianBlur(cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY), (0, 0), 2.0)
        return np.stack([cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1)])

    return float(np.corrcoef(gradients(a).ravel(), gradients(b).ravel())[0, 1])
