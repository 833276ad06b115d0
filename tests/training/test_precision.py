"""The arithmetic that is asked for."""

import pytest
import torch

from potstill.training.precision import resolve_precision


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_named_precision_is_used(precision, dtype):
    assert resolve_precision(precision) == dtype
