"""The GRU against PyTorch's."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from potstill.ops.gru import gru

E, H = 5, 7
LENGTHS = pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 6, 3], [2]], ids=str)
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])


def layer(bidirectional: bool) -> nn.GRU:
    torch.manual_seed(0)
    return nn.GRU(E, H, batch_first=True, bidirectional=bidirectional).double()


def reference(rnn: nn.GRU, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(rnn(packed)[0], batch_first=True)[0]


@LENGTHS
@DIRECTIONS
def test_states_and_gradients_are_pytorchs(lengths, bidirectional):
    rnn, lengths = layer(bidirectional), torch.tensor(lengths)
    x = torch.randn(len(lengths), int(lengths.max()), E, dtype=torch.float64, requires_grad=True)
    weights = list(rnn.parameters())
    real = (torch.arange(x.shape[1]) < lengths[:, None])[..., None]
    results = []
    for states in (reference(rnn, x, lengths), gru(x, lengths, rnn.all_weights, torch.float64)):
        loss = (states * real).sin().sum()
        results.append((states * real, *torch.autograd.grad(loss, [x, *weights])))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@LENGTHS
def test_the_padding_holds_the_last_states_with_their_gradients(lengths):
    rnn, lengths = layer(True), torch.tensor(lengths)
    x = torch.randn(len(lengths), int(lengths.max()), E, dtype=torch.float64, requires_grad=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    theirs = torch.cat(list(rnn(packed)[1]), dim=-1)
    states = gru(x, lengths, rnn.all_weights, torch.float64)
    ours = torch.cat([states[:, -1, :H], states[:, 0, H:]], dim=-1)
    torch.testing.assert_close(ours, theirs)
    our_grad, their_grad = (torch.autograd.grad(y.sin().sum(), x)[0] for y in (ours, theirs))
    torch.testing.assert_close(our_grad, their_grad)


def test_padding_is_not_read():
    rnn, lengths = layer(True), torch.tensor([2, 5])
    x = torch.randn(2, 5, E, dtype=torch.float64)
    refilled = x.clone()
    refilled[0, 2:] = torch.nan
    states, again = (gru(y, lengths, rnn.all_weights, torch.float64) for y in (x, refilled))
    assert torch.equal(states, again)


@DIRECTIONS
def test_products_in_bf16_stay_close(bidirectional):
    rnn, lengths = layer(bidirectional).float(), torch.tensor([9, 12])
    x = torch.randn(2, 12, E, requires_grad=True)
    exact, rounded = (
        torch.autograd.grad(
            gru(x, lengths, rnn.all_weights, dtype).square().sum(), [x, *rnn.parameters()]
        )
        for dtype in (torch.float32, torch.bfloat16)
    )
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        assert 0 < (a - b).norm() / a.norm() < 0.02
