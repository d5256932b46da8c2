"""Where `paper` follows the published code: what trains what, the GAN's start and ceiling, the average, codes, blur."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from codeformer.models.codeformer import CodeFormer
from codeformer.train.degrade import gaussian_blur
from codeformer.train.networks import Networks
from codeformer.train.objectives import choose_vectors, stage3
from codeformer.train.settings import load_settings
from codeformer.train.step import average_decay


@pytest.mark.parametrize("detach", [True, False])
def test_the_pictures_losses_stop_before_encoder_and_transformer_where_features_are_detached(detach: bool) -> None:
    changes = ["perceptual=0.0", "gan=0.0", 'train=["encoder","transformer","fuse"]', "adain=false"]
    settings = load_settings("tiny", 3, [*changes, f"detach_features={str(detach).lower()}"])
    torch.manual_seed(0)
    net = CodeFormer.from_config(settings.network)
    size = settings.network.img_size
    batch: dict[str, Any] = {
        "lq": torch.rand(1, 3, size, size),
        "hq": torch.rand(1, 3, size, size),
        "mask": torch.zeros(1, 1, size, size),
        "sharp": torch.tensor([True]),
        "task": ["restore"],
        "draws": torch.full((1, 8), 0.5),
    }
    stage3(Networks(net), batch, settings, 0, lambda x: x).total.backward()
    moved = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert "fuse_convs_dict" in moved and ("encoder" in moved) == (not detach)
    assert "ft_layers" not in moved, "the codes are chosen, which has no gradient"


def test_paper_has_the_published_numbers() -> None:
    one, two, three = (load_settings("paper", stage) for stage in (1, 2, 3))
    assert (three.gan, three.gan_start, three.adaptive_limit, three.detach_features) == (0.1, 5001, 1.0, True)
    assert [s.ema for s in (one, two, three)] == [0.995, 0.995, 0.997]
    assert [average_decay(s, 0) for s in (one, three)] == [0.995, 0.997], "no warm-up"
    assert average_decay(load_settings("tiny", 1), 0) == 0.1
    assert {s.perceptual_kind for s in (one, three)} == {"lpips"}


def test_the_codebook_learns_from_pictures_where_it_trains_and_logits_through_the_softmax() -> None:
    settings = load_settings("tiny", 3, ["straight_through=true"])
    net = CodeFormer.from_config(settings.network)
    logits = torch.randn(1, 64, 32, requires_grad=True)
    plain = net.quantize.lookup(logits.argmax(2), (8, 8))
    vectors = choose_vectors(net, logits, settings)
    torch.testing.assert_close(vectors, plain)
    vectors.square().sum().backward()
    assert logits.grad is not None and logits.grad.any() and net.quantize.embedding.weight.grad is not None


def test_codes_are_the_nearest_under_autocast_too() -> None:
    torch.manual_seed(0)
    quantize = CodeFormer.from_config(load_settings("compact", 3).network).quantize
    with torch.no_grad():
        quantize.embedding.weight.normal_()
    z = torch.randn(2, quantize.emb_dim, 16, 16)
    exact = quantize.encode(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantize.encode(z), exact)


@pytest.mark.parametrize("sigmas", [*product((1.0, 2.0, 3.9, 4.1, 8.0, 15.0), repeat=2), (0.6, 10.0)])
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_a_blur_is_the_gaussian_that_its_sigmas_say(sigmas: tuple[float, float], angle: float) -> None:
    point = np.zeros((181, 181, 3), np.float32)
    point[90, 90] = 1
    spread = gaussian_blur(point, *sigmas, angle)[..., 0].astype(np.float64)
    rows, columns = np.mgrid[:181, :181]
    x, y = columns - (columns * spread).sum() / spread.sum(), rows - (rows * spread).sum() / spread.sum()
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    found = [np.sqrt((axis**2 * spread).sum() / spread.sum()) for axis in (u, v)]
    assert found == pytest.approx(sigmas, rel=0.02, abs=0.05)
