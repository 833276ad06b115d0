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
    token_ids, probs = targets[:, None], torch.ones(rows, 1)
    ours = TiedCrossEntropy.apply(*inputs, token_ids, probs, torch.float32)
    theirs = F.cross_entropy(hidden @ weight.T + bias, targets)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    actual, expected = (torch.autograd.grad(2 * loss, inputs) for loss in (ours, theirs))
    for grad, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(grad, reference, **CLOSE)
    rounded = TiedCrossEntropy.apply(*inputs, token_ids, probs, torch.bfloat16)
    assert 0 < abs(rounded - theirs) < 0.05 * theirs
