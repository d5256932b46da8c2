"""Halving until it fits: once for batches and tiles of all networks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codeformer.device import halved_until_it_fits, in_fitting_batches, within_memory
from codeformer.errors import OutOfMemoryError

CPU = torch.device("cpu")


@given(st.integers(0, 40), st.integers(1, 20), st.integers(1, 20))
def test_every_item_is_done_once_in_its_order_whatever_fits(count: int, size: int, fits: int) -> None:
    seen: list[int] = []

    def run(part: range) -> list[int]:
        if len(part) > fits:
            raise MemoryError
        seen.append(len(part))
        return [item * 2 for item in part]

    results, found = in_fitting_batches(run, range(count), size, CPU, "no")  # type: ignore[arg-type]
    assert results == [item * 2 for item in range(count)]
    assert max(seen, default=0) <= fits
    # The last slice may be short for want of items; a size that fits is not given up for that
    assert found == size or found <= fits


def test_a_result_for_a_whole_slice_counts_for_all_of_it() -> None:
    results, _ = in_fitting_batches(lambda part: [tuple(part)], range(5), 2, CPU, "no")
    assert results == [(0, 1), (2, 3), (4,)]


def test_what_does_not_fit_at_the_smallest_size_is_said() -> None:
    steps: list[tuple[int, int]] = []

    def attempt(size: int) -> int:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(OutOfMemoryError, match="a tile of 40"):
        halved_until_it_fits(
            attempt, 160, CPU, lambda n: f"a tile of {n}", least=32, shrunk=lambda a, b: steps.append((a, b))
        )
    assert steps == [(160, 80), (80, 40)]


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        halved_until_it_fits(lambda n: (_ for _ in ()).throw(RuntimeError("shape")), 4, CPU, str)
    with pytest.raises(OutOfMemoryError, match="too small"):
        within_memory(lambda: (_ for _ in ()).throw(MemoryError()), "too small")


_SWITCHES = """
import torch
from codeformer.device import _tf32_switches, whole_floats
{program}
def found():
    objects, name, _ = _tf32_switches()
    return [getattr(one, name) for one in objects]
card, before = torch.device("cuda"), found()
with whole_floats(torch.device("cpu")):
    assert found() == before, "it matters on CUDA cards alone"
with whole_floats(card):
    with whole_floats(card):
        assert found() == [_tf32_switches()[2]] * 2
    assert found() == [_tf32_switches()[2]] * 2
assert found() == before
"""
_OLD = "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True"
_NEW = (
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'ieee'",
    "torch.backends.cudnn.fp32_precision = 'ieee'",
    "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    "torch.set_float32_matmul_precision('high')",
)


@pytest.mark.parametrize("program", ["", _OLD, *_NEW])
def test_a_cuda_card_computes_with_whole_floats_as_long_as_anybody_wants_them(program: str) -> None:
    """PyTorch's switch is the process's: what the caller's program had set comes back when the last one leaves.

    PyTorch refuses to read its old switches where a program has set the new ones.
    """
    if "fp32_precision" in program and not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("this PyTorch has the old switches alone")
    code = _SWITCHES.format(program=program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
