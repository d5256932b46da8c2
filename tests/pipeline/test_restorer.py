"""The network on a device: the same faces whatever the batch, and no face lost to memory or half precision."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from codeformer.device import is_out_of_memory, pick_device, pick_precision
from codeformer.errors import OutOfMemoryError, RestorationError, UsageError
from codeformer.models.codeformer import CodeFormer
from codeformer.models.config import Config
from codeformer.models.load import load_network
from codeformer.pipeline.compiled import CompiledNetwork, translate
from codeformer.pipeline.restorer import FaceRestorer, evenly, largest_layer, staged
from codeformer.pipeline.side_by_side import CorePlan, SideBySide, plan_for


@pytest.fixture
def net(small_model_path: Path) -> CodeFormer:
    net = load_network(small_model_path)
    assert isinstance(net, CodeFormer)
    return net


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((64, 64, 3), dtype=np.float32) for _ in range(3)]


def make(net: CodeFormer, precision: str = "fp32", batch_size: int | None = 2) -> FaceRestorer:
    return FaceRestorer(net, device="cpu", precision=precision, batch_size=batch_size)


@pytest.mark.parametrize("w", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("adain", [False, True])
def test_equals_the_published_forward(net: CodeFormer, crops: list[np.ndarray], w: float, adain: bool) -> None:
    x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) * 2 - 1
    with torch.inference_mode():
        out = net(x, w=w, adain=adain)[0].clamp(-1, 1) * 0.5 + 0.5
    restored = make(net).restore(crops, w=w, adain=adain)
    assert [face.shape for face in restored] == [(64, 64, 3)] * 3
    assert all(face.dtype == np.float32 and face.min() >= 0 and face.max() <= 1 for face in restored)
    np.testing.assert_allclose(np.stack(restored), out.permute(0, 2, 3, 1).numpy(), atol=2e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_batch_does_not_matter(net: CodeFormer, crops: list[np.ndarray], precision: str) -> None:
    together = make(net, precision, 3).restore(crops, w=0.5, adain=True)
    alone = [make(net, precision, 1).restore([crop], w=0.5, adain=True)[0] for crop in crops]
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=2e-5 if precision == "fp32" else 2e-2)


def test_several_weights_share_the_encoder(
    net: CodeFormer, crops: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (0.0, 0.3, 1.0)
    expected = [make(net).restore(crops, w=w, adain=True) for w in weights]
    counts = {"encode_features": 0, "predict_logits": 0, "decode_codes": 0}

    def counted(name: str) -> None:
        real = getattr(net, name)

        def call(*args: object, **options: object) -> object:
            counts[name] += 1
            return real(*args, **options)

        monkeypatch.setattr(net, name, call)

    for name in counts:
        counted(name)
    each = make(net).restore_at(crops, weights, adain=True)
    assert counts == {"encode_features": 2, "predict_logits": 2, "decode_codes": 6}, "batches of 2 and 1, 3 weights"
    for index in range(3):
        np.testing.assert_array_equal(np.stack([face[index] for face in each]), np.stack(expected[index]))


@pytest.mark.parametrize(
    "sizes",
    [
        {"ch_mult": (1, 2, 4), "connect_list": ("16", "32")},
        {"ch_mult": (1, 1, 2), "connect_list": ()},
        {"ch_mult": (2, 2, 2), "connect_list": ("64",)},
        {"ch_mult": (1, 2), "stem": 4, "refine": (32, 16), "connect_list": ("16",), "latent_size": 64},
    ],
)
def test_the_largest_layer_is_what_flows_through_the_network(sizes: dict[str, Any]) -> None:
    latent = {"latent_size": 256, **sizes}
    config = Config(img_size=64, nf=32, res_blocks=1, emb_dim=64, dim_embd=64, n_layers=1, norm_groups=8, **latent)
    net = CodeFormer.from_config(config).eval()
    seen = [0]

    def look(module: object, args: tuple[Any, ...], output: Any = None) -> None:
        seen.extend(one.numel() for one in (*args, output) if isinstance(one, torch.Tensor))

    for module in net.modules():
        module.register_forward_pre_hook(look)
        module.register_forward_hook(look)
    with torch.inference_mode():
        net(torch.zeros(1, 3, 64, 64), w=0.5)
    assert largest_layer(config) == max(seen)


def test_batches_stay_below_the_numbers_of_32_bits(
    net: CodeFormer, crops: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (2**31 - 1) // largest_layer(Config()) == 63, "the published network takes 63 faces at a time"
    assert [evenly(64, 63), evenly(63, 63), evenly(128, 63), evenly(1, 63)] == [32, 63, 43, 1]
    monkeypatch.setattr("codeformer.pipeline.restorer._LARGEST_LAYER", 4 * largest_layer(net.config) - 1)
    restorer, sizes = make(net, batch_size=4), []
    real = net.encode_features
    monkeypatch.setattr(net, "encode_features", lambda x: sizes.append(len(x)) or real(x))
    assert len(restorer.restore([*crops, crops[0]], w=0.5, adain=True)) == 4
    assert sizes == [2, 2] and restorer.batch_size == 4


class _Recorder:
    """What stands in for the translated network: it notes the sizes of its batches."""

    def __init__(self, net: CodeFormer) -> None:
        self.net, self.batches = net, list[tuple[str, int]]()

    def __getattr__(self, name: str) -> Any:
        def call(x: torch.Tensor, *more: Any) -> Any:
            self.batches.append((name, len(x)))
            return getattr(self.net, name)(x, *more)

        return call


def test_full_batches_alone_go_through_the_translated_network(net: CodeFormer, crops: list[np.ndarray]) -> None:
    """Translating takes a minute, so it is not done once more for the few faces at the end."""
    restorer, recorder = make(net, batch_size=2), _Recorder(net)
    expected = restorer.restore(crops, w=0.5, adain=True)
    restorer.compiled = recorder  # type: ignore[assignment]
    np.testing.assert_array_equal(np.stack(restorer.restore(crops, w=0.5, adain=True)), np.stack(expected))
    assert recorder.batches == [("encode_features", 2), ("predict_logits", 2), ("decode_codes", 2)]


def test_what_the_largest_layer_allows_is_a_full_batch(
    net: CodeFormer, crops: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 faces of the published network go through it as two times 32, which are what is translated."""
    monkeypatch.setattr("codeformer.pipeline.restorer._LARGEST_LAYER", 3 * largest_layer(net.config) - 1)
    restorer, recorder = make(net, batch_size=4), _Recorder(net)
    restorer.compiled = recorder  # type: ignore[assignment]
    restorer.restore([*crops, crops[0]], w=0.5, adain=True)
    assert [size for name, size in recorder.batches if name == "encode_features"] == [2, 2]


def test_each_w_is_the_same_translation(
    net: CodeFormer, crops: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number would be translated anew for each of its values."""
    weights: list[Any] = []

    def keep(function: Any, **_: Any) -> Any:
        def call(*args: Any) -> Any:
            weights.extend(args[3:4])
            return function(*args)

        return call

    monkeypatch.setattr(torch, "compile", keep)
    restorer = make(net, batch_size=3)
    expected = [restorer.restore(crops, w=w, adain=True) for w in (0.3, 0.7, 0.0)]
    restorer.compiled = CompiledNetwork(net, torch.device("cuda"))
    found = [restorer.restore(crops, w=w, adain=True) for w in (0.3, 0.7, 0.0)]
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-6)
    assert [isinstance(one, torch.Tensor) for one in weights] == [True, True, False] and weights[2] == 0


def test_translating_is_for_cuda_cards_and_codeformers(net: CodeFormer) -> None:
    with pytest.raises(UsageError, match="--compile needs a CUDA card"):
        translate(make(net), w=0.5, adain=True)
    other: Any = torch.nn.Identity()
    with pytest.raises(UsageError, match="--compile translates CodeFormer networks alone"):
        CompiledNetwork(other, torch.device("cuda"))


def test_what_cannot_be_translated_is_said_in_one_line(net: CodeFormer, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_nothing(*_: Any, **__: Any) -> Any:
        def fail(*_: Any) -> Any:
            raise RuntimeError("Cannot find a working triton installation.\n\nMore lines")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    restorer = make(net, batch_size=2)
    monkeypatch.setattr("codeformer.pipeline.restorer.staged", lambda crops, _: torch.from_numpy(np.stack(crops)))
    restorer.compiled = CompiledNetwork(net, torch.device("cuda"))
    monkeypatch.setattr("codeformer.pipeline.compiled.CompiledNetwork", lambda *_: restorer.compiled)
    with pytest.raises(UsageError) as caught:
        translate(restorer, w=0.5, adain=True)
    reason = "Cannot find a working triton installation."
    assert str(caught.value) == f"--compile: PyTorch cannot translate the network here ({reason}): leave it out"


# --- faces side by side --------------------------------------------------------------------------------------------


@contextmanager
def encoding_by(net: CodeFormer, call: Any) -> Iterator[None]:
    """Let something stand in for the network's first half for a while."""
    net.encode_features = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        del net.encode_features


def threads_of(count: int) -> Any:
    """Give PyTorch so many threads for a while."""

    @contextmanager
    def given() -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return given()


def test_a_small_network_takes_a_face_on_each_core(net: CodeFormer, crops: list[np.ndarray]) -> None:
    """Each face by itself, in a thread with one core, whose bytes do not depend on how many come with it."""
    with threads_of(1):
        alone = [
            FaceRestorer(net, device="cpu", precision="fp32").restore([one], w=0.5, adain=True)[0] for one in crops
        ]
    with threads_of(3):
        restorer = FaceRestorer(net, device="cpu", precision="fp32")
        assert restorer.batch_size == 3
        seen: list[tuple[int, int, int]] = []
        together, real = threading.Barrier(3), net.encode_features

        def look(x: torch.Tensor) -> Any:
            together.wait(timeout=20)  # all three at once, or this fails
            seen.append((threading.get_ident(), torch.get_num_threads(), len(x)))
            return real(x)

        with encoding_by(net, look):
            found = restorer.restore(crops, w=0.5, adain=True)
        assert len({thread for thread, _, _ in seen} - {threading.get_ident()}) == 3
        assert [(cores, faces) for _, cores, faces in seen] == [(1, 1)] * 3
        assert torch.get_num_threads() == 3, "the caller's own threads are what they were"
        np.testing.assert_array_equal(np.stack(found), np.stack(alone))
        encoded = restorer.encode(crops)
        halves = restorer.decode(encoded, encoded.logits.argmax(2), w=0.5, adain=True)
        np.testing.assert_array_equal(np.stack(halves), np.stack(alone))
        with pytest.raises(MemoryError):
            SideBySide(CorePlan(2, 1)).each(_raising, crops)


def test_threads_that_cannot_be_started_are_an_error_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a container's limit of processes is reached."""
    start, begun = threading.Thread.start, []

    def limited(self: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(self)
        start(self)

    with threads_of(3):
        monkeypatch.setattr(threading.Thread, "start", limited)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            SideBySide(CorePlan(3, 1))
        assert torch.get_num_threads() == 3
    for one in begun:
        one.join(timeout=20)
    assert len(begun) == 2 and not any(one.is_alive() for one in begun)


def _raising(part: Sequence[np.ndarray]) -> list[np.ndarray]:
    raise MemoryError


def test_a_face_that_does_not_fit_beside_others_is_tried_alone(net: CodeFormer, crops: list[np.ndarray]) -> None:
    with threads_of(2):
        restorer = FaceRestorer(net, device="cpu", precision="fp32")
        expected = restorer.restore(crops, w=0.5, adain=True)
        failed, real = [], net.encode_features

        def tight(x: torch.Tensor) -> Any:
            if len(failed) < 2:  # both faces of the first batch
                failed.append(len(x))
                raise MemoryError
            return real(x)

        with encoding_by(net, tight):
            found = restorer.restore(crops, w=0.5, adain=True)
        np.testing.assert_array_equal(np.stack(found), np.stack(expected))
        assert restorer.batch_size == 1


@pytest.mark.parametrize(
    ("millions", "cores", "faces", "each"),
    [(10, 2, 2, 1), (10, 16, 16, 1), (94, 2, 1, 2), (94, 16, 2, 8), (1, 1, 1, 1)],
)
def test_cores_are_divided_by_how_large_the_network_is(millions: int, cores: int, faces: int, each: int) -> None:
    net = torch.nn.Linear(1000, 1000 * millions, bias=False, device="meta")
    assert plan_for(net, cores, 1) == CorePlan(faces, each)
    assert plan_for(net, cores, 1 << 60) == CorePlan(1, cores), "the memory bounds them"


def test_restore_is_encode_and_decode(net: CodeFormer, crops: list[np.ndarray]) -> None:
    restorer = make(net, batch_size=2)
    encoded = restorer.encode(crops)
    assert len(encoded) == 3
    assert encoded.logits.shape == (3, 64, 32)
    halves = restorer.decode(encoded, encoded.logits.argmax(2), w=0.3, adain=True)
    np.testing.assert_allclose(np.stack(halves), np.stack(restorer.restore(crops, w=0.3, adain=True)), atol=2e-5)
    other = restorer.decode(encoded, (encoded.logits.argmax(2) + 7) % 32, w=0.3, adain=True)
    assert np.abs(other[0] - halves[0]).max() > 1e-2  # the caller's codes are what is decoded


def test_a_cuda_card_gets_its_faces_from_pinned_memory(
    crops: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, pinned = torch.empty, []

    def empty(*args: Any, pin_memory: bool, **options: Any) -> torch.Tensor:  # without a card none can be pinned
        pinned.append(pin_memory)
        return real(*args, **options)

    monkeypatch.setattr(torch, "empty", empty)
    for kind in ("cuda", "cpu", "mps"):
        np.testing.assert_array_equal(staged(crops, torch.device(kind)).numpy(), np.stack(crops))
    assert pinned == [True, False, False]


def test_no_crops_is_no_work(net: CodeFormer) -> None:
    assert make(net).restore([], w=0.5, adain=True) == []


class _Small:
    """Memory for a few faces only: raises as the device would when a larger batch comes."""

    def __init__(self, net: CodeFormer, faces: int, error: Exception) -> None:
        self.fits, self.error, self.batches = faces, error, list[int]()
        self.encode = net.encode_features
        net.encode_features = self  # type: ignore[method-assign]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.batches.append(len(x))
        if len(x) > self.fits:
            raise self.error
        return self.encode(x)


MEMORY_ERRORS = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
    RuntimeError("MPS backend out of memory"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    MemoryError(),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda e: type(e).__name__)
def test_a_batch_that_does_not_fit_is_halved(net: CodeFormer, crops: list[np.ndarray], error: Exception) -> None:
    expected = make(net).restore(crops * 2, w=0.5, adain=True)
    small = _Small(net, 2, error)
    restorer = make(net, batch_size=6)
    np.testing.assert_allclose(np.stack(restorer.restore(crops * 2, w=0.5, adain=True)), np.stack(expected), atol=2e-5)
    assert small.batches == [6, 3, 1, 1, 1, 1, 1, 1]
    small.batches.clear()
    restorer.restore(crops, w=0.5, adain=True)
    assert small.batches == [1, 1, 1]  # what does not fit is not tried again


def test_one_face_that_does_not_fit_is_an_error(net: CodeFormer, crops: list[np.ndarray]) -> None:
    small = _Small(net, 0, MEMORY_ERRORS[0])
    with pytest.raises(OutOfMemoryError, match="one face does not fit"):
        make(net, batch_size=4).restore(crops, w=0.5, adain=True)
    assert small.batches == [3, 1]


def test_another_error_is_not_taken_for_memory(net: CodeFormer, crops: list[np.ndarray]) -> None:
    _Small(net, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        make(net).restore(crops, w=0.5, adain=True)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_output_with_nan_is_an_error(net: CodeFormer, crops: list[np.ndarray]) -> None:
    with torch.no_grad():
        next(p for n, p in net.named_parameters() if n.startswith("generator") and n.endswith("bias"))[0] = torch.nan
    for precision in ("fp32", "bf16"):
        with pytest.raises(RestorationError, match="not finite"):
            make(net, precision).restore(crops, w=0.0, adain=True)


def test_half_precision_that_overflows_is_repeated_in_full(net: CodeFormer, crops: list[np.ndarray]) -> None:
    expected = make(net).restore(crops, w=0.5, adain=True)
    decode, batches = net.decode_codes, list[int]()

    def overflowing(codes: torch.Tensor, *args: object) -> torch.Tensor:
        out = decode(codes, *args)  # type: ignore[arg-type]
        batches.append(len(codes))
        if torch.is_autocast_enabled("cpu") and len(codes) > 1:
            out[1] = torch.inf
        return out

    net.decode_codes = overflowing  # type: ignore[method-assign, assignment]
    restored = make(net, "bf16", batch_size=3).restore(crops, w=0.5, adain=True)
    assert batches == [3, 1]  # only the face that needs it
    np.testing.assert_allclose(restored[1], expected[1], atol=2e-5)


def test_devices_and_precisions_that_are_not_there() -> None:
    cpu = torch.device("cpu")
    assert pick_precision("fp32", cpu) == "fp32"
    assert pick_precision("auto", cpu) in ("fp32", "bf16")
    with pytest.raises(UsageError, match="--precision fp16"):
        pick_precision("fp16", cpu)
    with pytest.raises(UsageError, match="--precision"):
        pick_precision("int8", cpu)
    with pytest.raises(UsageError, match="--device"):
        pick_device("abacus")
    with pytest.raises(UsageError, match="--device cuda:63"):
        pick_device("cuda:63")
