"""Parameters by name: the trainable ones, and copying saved tensors into them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def trainable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of `model` that require gradients, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def copy_tensors(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Copy into each of `parameters`, in place, the tensor of its name.

    Raises:
        KeyError: a parameter has no tensor.
        RuntimeError: a tensor has another shape than its parameter.
    """
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
