"""Dropout by its formula, and whose random numbers it takes."""

import torch

from potstill.dropout import Dropout, own_generator


def test_a_share_is_dropped_and_the_rest_made_larger():
    x = torch.rand(200, 300).add_(0.5).requires_grad_()
    with own_generator(1):
        out = Dropout(0.3)(x)
    kept = out != 0
    assert abs(kept.float().mean() - 0.7) < 0.01
    torch.testing.assert_close(out, torch.where(kept, x / 0.7, 0.0))
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, kept / 0.7)


def test_its_generator_alone_decides():
    x, dropout = torch.ones(1000), Dropout(0.5)
    found = []
    for common in (0, 1):
        torch.manual_seed(common)
        before = torch.get_rng_state()
        with own_generator(7):
            found.append(dropout(x))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*found)
    with own_generator(8):
        assert not torch.equal(dropout(x), found[0])


def test_without_one_it_is_pytorchs():
    x = torch.randn(1000)
    with own_generator(7):
        pass
    torch.manual_seed(3)
    found = Dropout(0.4)(x)
    torch.manual_seed(3)
    assert torch.equal(found, torch.nn.Dropout(0.4)(x))


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(1000)
    with own_generator(7):
        assert torch.equal(Dropout(0.4).eval()(x), x)
        assert torch.equal(Dropout(0.0)(x), x)
