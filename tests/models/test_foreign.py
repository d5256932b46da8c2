"""Face restorers of other projects: told by their tensors, built by spandrel, run by the same pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from codeformer import Restorer
from codeformer.errors import UsageError, WeightsError
from codeformer.models.file import open_model
from codeformer.models.foreign import ForeignRestorer, load_foreign
from codeformer.models.known import FACE_RESTORERS, face_restorer_in
from codeformer.tasks.table import TASKS

pytest.importorskip("spandrel")


@pytest.fixture(scope="module")
def restoreformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RestoreFormer of 32 channels with random weights, saved as the published one is."""
    from spandrel.architectures.RestoreFormer import RestoreFormer

    torch.manual_seed(0)
    net = RestoreFormer(n_embed=16, embed_dim=32, ch=32, ch_mult=(1,) * 6, num_res_blocks=1, z_channels=32, head_size=8)
    path = tmp_path_factory.mktemp("foreign") / "RestoreFormer.pth"
    torch.save({"params": net.state_dict()}, path)
    return path


def test_the_file_says_what_it_is(restoreformer: Path) -> None:
    model = open_model(restoreformer)
    assert model.architecture == "RestoreFormer" and model.tasks == {"restore"}
    assert model.notes == (
        "RestoreFormer has no fidelity weight: -w changes nothing; --strength blends its faces with the input",
    )
    with pytest.raises(WeightsError, match="was trained to restore, not to colorize"):
        model.require_task(TASKS["colorize"])


def test_the_network_sees_what_it_was_trained_on(restoreformer: Path) -> None:
    """Spandrel's own call maps [0, 1] to [-1, 1] for this one; here faces are in [-1, 1] throughout."""
    import spandrel

    net = open_model(restoreformer).build()
    assert isinstance(net, ForeignRestorer) and not net.training
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    theirs = spandrel.ModelLoader().load_from_state_dict(torch.load(restoreformer, weights_only=True))(x)
    with torch.inference_mode():
        lq_feat, features = net.encode_features(x * 2 - 1)
        logits = net.predict_logits(lq_feat)
        ours = net.decode_codes(logits.argmax(2), lq_feat, features, 0.5, True)
    assert logits.shape == (1, 1, 1) and features == {}
    torch.testing.assert_close((ours.clamp(-1, 1) + 1) / 2, theirs)


def test_gfpgan_gets_no_new_noise_and_no_pictures_of_its_layers() -> None:
    asked: dict[str, object] = {}

    class Fake(nn.Module):
        def forward(self, x: Tensor, **options: object) -> tuple[Tensor, list[Tensor]]:
            asked.update(options)
            return -x, []

    x = torch.full((2, 3, 8, 8), 0.25)
    out = ForeignRestorer(Fake(), "GFPGAN").decode_codes(torch.zeros(2, 1), x, {}, 0.5, False)
    assert asked == {"return_rgb": False, "randomize_noise": False}
    torch.testing.assert_close(out, -x)


def test_a_face_goes_through_the_whole_pipeline(restoreformer: Path, portrait: np.ndarray) -> None:
    restorer = Restorer(restoreformer, "cpu", precision="fp32", parsing="none")
    assert restorer.notes[-1].startswith("RestoreFormer has no fidelity weight")
    first, second = restorer.restore(portrait, w=0.1), restorer.restore(portrait, w=0.9)
    (face,) = first.faces
    assert face.chosen and face.after is not None and np.isfinite(face.after).all()
    np.testing.assert_array_equal(first.picture, second.picture)
    changed = (first.picture != portrait).any(axis=2)
    assert changed.mean() > 0.05 and not changed[0].any(), "the face changes, the border does not"
    with pytest.raises(UsageError, match="--precision fp16"):
        Restorer(restoreformer, "cpu", precision="fp16")


def test_modulated_convolutions_have_five_dimensions() -> None:
    """GFPGAN has such, which PyTorch refuses to lay out with the channels last; and it takes views of its features."""
    from codeformer.pipeline.restorer import FaceRestorer

    class Modulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((1, 3, 3, 1, 1), 0.1))

        def forward(self, x: Tensor, **options: object) -> tuple[Tensor, None]:
            assert x.view(len(x), -1).shape[1] == 3 * 16 * 16
            return nn.functional.conv2d(x, self.weight[0]), None

    restorer = FaceRestorer(ForeignRestorer(Modulated(), "GFPGAN"), device="cpu", precision="fp32")
    (face,) = restorer.restore([np.full((16, 16, 3), 0.75, np.float32)], w=0.5, adain=False)
    np.testing.assert_allclose(face, 0.5 + 0.15 / 2, atol=1e-6)


def test_files_that_are_no_face_restorers(restoreformer: Path, networks: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds ESRGAN, which restores no faces.*--bg_upsampler"):
        open_model(networks["rrdb"])
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="the weights of another network, not of CodeFormer"):
        open_model(tmp_path / "other.safetensors")
    state = torch.load(restoreformer, weights_only=True)["params"]
    broken = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.mid")}
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"broken.pth: not a RestoreFormer that spandrel can build"):
        open_model(tmp_path / "broken.pth").build()
    state["encoder.conv_in.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"nan.pth: the tensor encoder.conv_in.weight is not finite"):
        load_foreign(tmp_path / "nan.pth", "RestoreFormer")


def test_code_in_a_file_is_refused_before_anything_looks_at_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("pwned",)

    torch.save({**{name: torch.zeros(1) for name in FACE_RESTORERS["GFPGAN"]}, "x": Evil()}, tmp_path / "gfpgan.pth")
    with pytest.raises(WeightsError, match="would run code when opened"):
        open_model(tmp_path / "gfpgan.pth")


def test_what_needs_our_own_network_says_so(restoreformer: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from codeformer.export.files import ExportOptions, export

    with pytest.raises(WeightsError, match="holds RestoreFormer; only CodeFormer is exported"):
        export(open_model(restoreformer), TASKS["restore"], ExportOptions(tmp_path / "x.onnx"))


def test_without_spandrel_one_line_says_what_to_install(restoreformer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    model = open_model(restoreformer)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match=r"RestoreFormer \(RestoreFormer.pth\) needs .*pip install spandrel"):
        model.build()


def test_names_of_tensors_tell_the_architectures_apart() -> None:
    for name, needed in FACE_RESTORERS.items():
        assert face_restorer_in(needed | {"more"}) == name
        assert face_restorer_in(sorted(needed)[1:]) is None
    assert face_restorer_in(["encoder.blocks.0.weight", "quantize.embedding.weight"]) is None


@pytest.mark.slow
def test_a_gfpgan_of_the_published_size(tmp_path: Path, portrait: np.ndarray) -> None:
    from spandrel.architectures.GFPGAN import GFPGAN

    torch.manual_seed(0)
    net = GFPGAN(
        out_size=512,
        num_style_feat=512,
        channel_multiplier=2,
        decoder_load_path=None,
        fix_decoder=False,
        num_mlp=8,
        input_is_latent=True,
        different_w=True,
        narrow=1,
        sft_half=True,
    )
    torch.save({"params_ema": net.state_dict()}, tmp_path / "GFPGANv1.4.pth")
    restorer = Restorer(tmp_path / "GFPGANv1.4.pth", "cpu", precision="fp32", parsing="none")
    first, second = (restorer.restore(portrait) for _ in range(2))
    assert first.faces[0].chosen
    np.testing.assert_array_equal(first.picture, second.picture)
