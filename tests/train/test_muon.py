"""Muon: what an orthogonalised step is, and that everything else is AdamW's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from codeformer.train.muon import Muon, is_matrix, orthogonalise


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 96), st.integers(4, 96), st.floats(1e-6, 1e6), st.integers(0, 9))
def test_a_matrix_keeps_its_singular_vectors_and_loses_its_singular_values(
    rows: int, columns: int, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    rank = min(rows, columns)
    u, _ = torch.linalg.qr(torch.randn(rows, rank))
    v, _ = torch.linalg.qr(torch.randn(columns, rank))
    matrix = size * u @ torch.diag(torch.linspace(1, 3, rank)) @ v.T
    inner = u.T @ orthogonalise(matrix).float() @ v
    values = inner.diagonal()
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    assert float((inner - torch.diag(values)).abs().max()) < 0.1, "bfloat16 turns them a little"


def test_a_matrix_of_zeros_stays_one() -> None:
    assert not orthogonalise(torch.zeros(32, 40)).any()


@pytest.mark.parametrize(("shape", "yes"), [((48, 48, 3, 3), True), ((64, 32), True), ((64,), False), ((48, 3), False)])
def test_what_counts_as_a_matrix(shape: tuple[int, ...], yes: bool) -> None:
    assert is_matrix(torch.zeros(shape)) == yes


def test_biases_and_tables_move_as_with_adamw_and_kernels_by_the_rate() -> None:
    def layers() -> tuple[nn.Conv2d, nn.Embedding]:
        torch.manual_seed(0)
        return nn.Conv2d(32, 64, 3).to(memory_format=torch.channels_last), nn.Embedding(40, 32)  # type: ignore[call-overload]

    (conv, table), (other, its_table) = layers(), layers()
    before = conv.weight.detach().clone()
    muon = Muon([*conv.parameters(), table.weight], 0.01, weight_decay=0.5, tables=[table.weight], scale=0.3)
    adam = torch.optim.AdamW([*other.parameters(), its_table.weight], 0.01, betas=(0.9, 0.99), weight_decay=0.5)
    for a, b in zip([*conv.parameters(), table.weight], [*other.parameters(), its_table.weight], strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    muon.step()
    adam.step()
    assert torch.equal(conv.bias, other.bias) and torch.equal(table.weight, its_table.weight)
    step = (conv.weight - before * (1 - 0.01 * 0.5)).flatten(1)
    values = torch.linalg.svdvals(step.detach()) / (0.01 * 0.3 * 288**0.5)
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_it_descends() -> None:
    """A linear map of vectors is found from examples."""
    torch.manual_seed(0)
    goal, net = torch.randn(32, 32), nn.Linear(32, 32)
    muon = Muon(net.parameters(), 0.02, scale=0.2)
    losses = []
    for step in range(300):
        for group in muon.param_groups:
            group["lr"] = 0.1 * (1 - step / 300)
        x = torch.randn(64, 32)
        loss = (net(x) - x @ goal).pow(2).mean()
        muon.zero_grad()
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
