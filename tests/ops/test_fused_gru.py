"""The GRU with compiled steps against the one that is written out, and against PyTorch's."""

import pytest
import torch
from torch import nn

from potstill.ops import fused_gru, kernels
from potstill.ops.gru import GRU, gru
from tests.ops.conftest import needed

H, E = 32, 20
LENGTHS = pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 6, 3], [2], [30, 1]], ids=str)
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])


def layer(bidirectional: bool) -> nn.GRU:
    torch.manual_seed(0)
    return nn.GRU(E, H, batch_first=True, bidirectional=bidirectional)


def states_and_gradients(states: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, states.shape[-1])
    return [states, *torch.autograd.grad((states.sin() * weights).sum(), inputs)]


@needed
@LENGTHS
@DIRECTIONS
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_steps_equal_the_formula(
    lengths: list[int], bidirectional: bool, threads: int
) -> None:
    """Padding included, whose states and gradients the plain formula defines."""
    rnn, sizes = layer(bidirectional), torch.tensor(lengths)
    x = torch.randn(len(sizes), int(sizes.max()), E, requires_grad=True)
    inputs = [x, *rnn.parameters()]

    def stacked() -> list[torch.Tensor]:
        return [torch.stack(parts) for parts in zip(*rnn.all_weights, strict=True)]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert fused_gru.supports(x, H, torch.bfloat16)
        fused = states_and_gradients(gru(x, sizes, rnn.all_weights, torch.bfloat16), inputs)
    finally:
        torch.set_num_threads(before)
    plain = states_and_gradients(GRU.apply(x, sizes, torch.bfloat16, *stacked()), inputs)
    exact = states_and_gradients(GRU.apply(x, sizes, torch.float32, *stacked()), inputs)
    for ours, theirs, reference in zip(fused, plain, exact, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        scale = reference.norm()
        assert (ours - theirs).norm() <= 0.01 * scale
        # No further from fp32 than the plain formula is, but for luck.
        assert (ours - reference).norm() <= 1.5 * (theirs - reference).norm() + 1e-4 * scale


@needed
def test_extreme_sums_give_no_infinity() -> None:
    rnn = layer(True)
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter *= 1e4
    x = torch.randn(3, 5, E, requires_grad=True)
    states = gru(x, torch.tensor([5, 2, 1]), rnn.all_weights, torch.bfloat16)
    for tensor in states_and_gradients(states, [x, *rnn.parameters()]):
        assert tensor.isfinite().all()


def test_what_it_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, E)
    assert not fused_gru.supports(x, 7, torch.bfloat16)
    assert not fused_gru.supports(x, H, torch.float32)
    assert not fused_gru.supports(x.double(), H, torch.bfloat16)
    monkeypatch.setattr(kernels, "load_library", lambda: None)
    assert not fused_gru.supports(x, H, torch.bfloat16)
