"""Cross-entropy over a vocabulary against PyTorch's."""

import pytest
import torch
from torch.nn import functional as F

from potstill.ops import cross_entropy
from potstill.ops.cross_entropy import TiedCrossEntropy

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_cross_entropy_and_gradients_are_pytorchs(rows, monkeypatch):
    monkeypatch.setattr(cross_entropy, "ROWS", 3)
    torch.manual_seed(0)
    hidden, weight = 3 * torch.randn(rows, 6), 3 * torch.randn(30, 6)
    bias, targets = torch.randn(30), torch.randint(0, 30, (rows,))
    inputs = [x.requires_grad_() for x in (hidden, weight, bias)]
    one = targets[:, None], torch.ones(rows, 1)
    ours = TiedCrossEntropy.apply(*inputs, *one, torch.float32)
    theirs = F.cross_entropy(hidden @ weight.T + bias, targets)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    found, expected = (torch.autograd.grad(2 * loss, inputs) for loss in (ours, theirs))
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)
    half = TiedCrossEntropy.apply(*inputs, *one, torch.bfloat16)
    assert 0 < abs(half - theirs) < 0.05 * theirs
