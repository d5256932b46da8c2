"""The discriminators: what they see, what they learn, and that a run with the heads on VGG resumes exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch

from codeformer.errors import UsageError
from codeformer.models.discriminator import PatchDiscriminator
from codeformer.train import checkpoint, loop, picture_losses
from codeformer.train.adversarial import FeatureDiscriminator, discriminator_loss, generator_loss, logits
from codeformer.train.data import Folder
from codeformer.train.networks import Files, Networks
from codeformer.train.perceptual import PerceptualDistance
from codeformer.train.settings import FEATURE_LAYERS, Settings, load_settings
from tests.train.test_train import assert_equal, faces, one_thread, stage1, stage2, state_of, vgg  # noqa: F401

PROJECTED = [
    "perceptual=1.0",
    "perceptual_kind=vgg",
    f"perceptual_layers={list(FEATURE_LAYERS)}",
    "discriminator=features",
    "adaptive=false",
    "gan=0.1",
    "perceptual_scales=[0.5,0.5,0]",
]


@pytest.fixture(scope="module")
def four_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16's layers up to relu4_3 with random weights."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state, inside = {}, 3
    for index, outside in zip(
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21), (64, 64, 128, 128, *[256] * 3, *[512] * 3), strict=True
    ):
        state[f"features.{index}.weight"] = torch.randn(outside, inside, 3, 3) * (2 / (9 * inside)) ** 0.5
        state[f"features.{index}.bias"] = torch.zeros(outside)
        inside = outside
    path = tmp_path_factory.mktemp("vgg4") / "vgg.safetensors"
    save_file(state, path)
    return path


def test_heads_on_features_learn_to_tell_real_from_generated() -> None:
    torch.manual_seed(0)
    shapes = [(2, 64, 16, 16), (2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2)]
    real = [torch.randn(shape) for shape in shapes]
    fake = [torch.randn(shape).abs() for shape in shapes]
    heads = FeatureDiscriminator()
    assert [x.shape for x in logits(heads, real)] == [(2, 1, *shape[2:]) for shape in shapes]
    optimizer = torch.optim.Adam(heads.parameters(), 1e-2)
    before = float(discriminator_loss(heads, real, fake).detach())
    for _ in range(20):
        optimizer.zero_grad()
        discriminator_loss(heads, real, fake).backward()
        optimizer.step()
    assert float(discriminator_loss(heads, real, fake).detach()) < 0.5 * before
    assert float(generator_loss(heads, fake).detach()) > float(generator_loss(heads, real).detach())
    louder = [100 * x for x in real]
    for a, b in zip(logits(heads, real), logits(heads, louder), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg="only the direction of the features counts")


def test_the_hinge_is_that_of_the_published_training() -> None:
    discriminator = PatchDiscriminator(8)
    real, fake = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    a, b = discriminator(real), discriminator(fake)
    expected = 0.5 * (torch.relu(1 - a).mean() + torch.relu(1 + b).mean())
    assert float(discriminator_loss(discriminator, [real], [fake]).detach()) == pytest.approx(float(expected.detach()))
    assert float(generator_loss(discriminator, [fake]).detach()) == pytest.approx(-float(b.mean().detach()))


def test_the_heads_see_squares_at_their_whole_size_alone_and_the_weight_warms_up(four_blocks: Path) -> None:
    settings = load_settings("tiny", 1, [*PROJECTED, "gan_start=0", "gan_warmup=10"])
    perceptual = PerceptualDistance(four_blocks, FEATURE_LAYERS)
    networks = Networks(torch.nn.Linear(1, 1), discriminator=FeatureDiscriminator().eval(), perceptual=perceptual)  # type: ignore[arg-type]
    torch.manual_seed(1)
    out, hq = torch.rand(3, 3, 64, 64, requires_grad=True), torch.rand(3, 3, 64, 64)
    batch: dict[str, Any] = {"hq": hq, "sharp": torch.tensor([True, False, True]), "draws": torch.zeros(3, 8)}
    batch["draws"][2, 0] = 0.9  # its square is cut from the halved face

    def at(step: int) -> picture_losses.Losses:
        return picture_losses.picture_losses(networks, out, batch, settings, step, lambda x: x)

    losses = at(0)
    assert losses.evidence is not None and [len(x) for x in losses.evidence.fake] == [1] * 4
    assert losses.evidence.share == pytest.approx(1 / 3)
    assert not any(x.requires_grad for x in (*losses.evidence.real, *losses.evidence.fake))
    gan = losses.logs["gan"]
    assert gan.requires_grad and float((at(9).total - losses.total).detach()) == pytest.approx(
        0.1 * 0.9 * float(gan.detach()), abs=1e-5
    )
    batch["draws"][:, 0] = 0.9
    without = at(9)
    assert without.evidence is None and float(without.logs["gan"]) == 0, "nothing is judged, and nothing is learned"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["adaptive=true"], "no adaptive weight"),
        (["perceptual=0.0"], "needs perceptual"),
        (["perceptual_crop=0"], "needs perceptual"),
        (['perceptual_layers=["relu1_2"]'], "needs perceptual_layers"),
        (["perceptual_kind=lpips"], "LPIPS has all five"),
        (["discriminator=eyes"], "patch or features"),
        (["perceptual_kind=dists"], "lpips or vgg"),
    ],
)
def test_a_discriminator_that_cannot_see(changes: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_settings("tiny", 1, [*PROJECTED, *changes])


def test_a_run_with_heads_and_refinement_resumes_exactly(
    faces: Path,  # noqa: F811
    four_blocks: Path,
    stage2: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    changes = [*PROJECTED, "optimizer=muon", "refine_lr=3e-3", "gan_warmup=4", "pixel_reduced=2"]
    changes += ["discriminator_lr=4e-4", "discriminator_betas=[0.5,0.99]", "straight_through=true", "steps=6"]
    changes += ['train=["encoder","quantize","transformer","generator","fuse"]', "save_every=3"]
    todo: Settings = load_settings("tiny", 3, [*changes, "network.refine=[6,4]"])
    grown = tmp_path / "grown.safetensors"
    grow(stage2 / "model.safetensors", grown)
    files = Files(init=grown, perceptual=four_blocks)

    def run(out: str, steps: int, resume: bool = False) -> None:
        import dataclasses

        settings = dataclasses.replace(todo, steps=steps)
        loop.train(settings, [Folder(faces)], tmp_path / out, files=files, resume=resume, device="cpu", quiet=True)

    run("whole", 6)
    run("parts", 3)
    run("parts", 6, resume=True)
    whole, parts = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    assert_equal(whole, parts)
    assert any(name.startswith("heads.0") for name in whole["discriminator"])
    assert whole["discriminator_optimizer"]["param_groups"][0]["lr"] == pytest.approx(4e-4)
    groups = whole["optimizer"]["param_groups"]
    assert groups[2]["lr"] == pytest.approx(3e-3) and groups[0]["lr"] == pytest.approx(1e-3)
    moved = {name.split(".")[0] for name, t in whole["net"].items() if not torch.equal(t, state_before(grown)[name])}
    assert {"encoder", "generator", "quantize", "ft_layers", "fuse_convs_dict"} <= moved
    assert whole["net"]["generator.refine.conv_out.weight"].any(), "what started at zero learns"
    assert (tmp_path / "whole" / checkpoint.SCALARS).exists()


def grow(source: Path, target: Path) -> None:
    """Add a refinement to a file of stage II."""
    from dataclasses import replace

    from codeformer.models.codeformer import CodeFormer
    from codeformer.models.load import load_network, save_network

    net = load_network(source)
    torch.manual_seed(0)
    larger = CodeFormer.from_config(replace(net.config, refine=(6, 4)))
    larger.load_state_dict(net.state_dict(), strict=False)
    save_network(larger, target, half=False)


def state_before(path: Path) -> dict[str, torch.Tensor]:
    from codeformer.models.load import load_network

    return load_network(path).state_dict()
