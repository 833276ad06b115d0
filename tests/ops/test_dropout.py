"""Dropout by its formula, and the generator that it draws from."""

import pytest
import torch

from potstill.ops.dropout import Dropout, own_generator


def test_a_fraction_is_dropped_and_the_rest_scaled_up():
    x = torch.rand(200, 300).add_(0.5).requires_grad_()
    with own_generator(1):
        out = Dropout(0.3)(x)
    kept = out != 0
    assert abs(kept.float().mean() - 0.7) < 0.01
    torch.testing.assert_close(out, torch.where(kept, x / 0.7, 0.0))
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, kept / 0.7)


def test_masks_depend_on_its_own_generator_alone():
    x, dropout = torch.ones(1000), Dropout(0.5)
    outputs = []
    for common in (0, 1):
        torch.manual_seed(common)
        before = torch.get_rng_state()
        with own_generator(7):
            outputs.append(dropout(x))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*outputs)
    with own_generator(8):
        assert not torch.equal(dropout(x), outputs[0])


def test_without_a_generator_of_its_own_the_global_one_is_used():
    x, dropout = torch.randn(1000), Dropout(0.4)
    with own_generator(7):
        pass
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)


@pytest.mark.parametrize("p", [1e-3, 0.2, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_is_unchanged(p, dtype):
    """The fraction dropped and the scale are PyTorch's, to 16 bits."""
    torch.manual_seed(0)
    x = torch.ones(1001, 999, dtype=dtype)  # no multiple of a vector's size
    mask = Dropout(p).mask(x)
    assert mask.dtype == dtype
    fraction = float((mask != 0).float().mean())
    error = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(fraction - (1 - p)) < 5 * error + 2**-16
    factors = mask[mask != 0].unique()
    assert len(factors) == 1
    assert float(mask.double().mean()) == pytest.approx(1, abs=5 * error / (1 - p) + 2**-8)
    # Rows and columns differ no more than at random.
    for axis in (0, 1):
        fractions = (mask != 0).float().mean(axis)
        assert (fractions - fraction).abs().max() < 6 * (p * (1 - p) / 999) ** 0.5 + 2**-16


def test_almost_all_dropped_is_finite():
    assert Dropout(1 - 1e-9).mask(torch.ones(9)).isfinite().all()


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(1000)
    with own_generator(7):
        assert torch.equal(Dropout(0.4).eval()(x), x)
        assert torch.equal(Dropout(0.0)(x), x)
