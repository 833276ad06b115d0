"""Low-rank adaptation (LoRA): the layer, adding it to a decoder, merging it into the weights.

Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, section 4.1.
"""

import math
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from potstill.errors import UserError
from potstill.ops.dropout import Dropout

LOCK = threading.Lock()  # what is built on first use is built by one thread


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank update (Hu et al. 2021, section 4.1).

    y = base(x) + alpha / rank · dropout(x) Uᵀ Vᵀ

    U, (rank, in_features), is PEFT's lora_A; V, (out_features, rank), is PEFT's lora_B. U starts
    Kaiming-uniform and V at zero, so that at first the layer computes exactly what `base` does.

    Args:
        base: the layer to adapt, an `nn.Linear` or GPT-2's `Conv1D`; its parameters are frozen.
        rank: rank of the update, from 1 to the smaller of in_features and out_features.
        alpha: scaling numerator; the update is multiplied by alpha / rank.
        dropout: probability of zeroing an input of the update (never of `base`).

    Raises:
        UserError: `rank` is out of range for the layer.
        TypeError: `base` is another kind of layer.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        in_features, out_features = features(base)
        if not 1 <= rank <= min(in_features, out_features):
            raise UserError(
                f"`LoRA_rank` {rank} is out of range: a layer of {in_features} inputs and "
                f"{out_features} outputs takes 1 to {min(in_features, out_features)}."
            )
        self.base: Any = base.requires_grad_(False)
        self.rank, self.alpha = rank, alpha
        self.scaling = alpha / rank
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        device = next(base.parameters()).device
        self.U = nn.Parameter(torch.empty(rank, in_features, device=device))
        self.V = nn.Parameter(torch.zeros(out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.U, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in_features) to (…, out_features)."""
        update = F.linear(F.linear(self.dropout(x), self.U), self.V)
        return self.base(x) + self.scaling * update

    def delta(self) -> Tensor:
        """Return the update as a weight, (out_features, in_features)."""
        return self.scaling * (self.V @ self.U)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Add the update to the weight of `base`, in place, and return `base`."""
        weight = self.base.weight
        delta = self.delta().T if isinstance(self.base, Conv1D) else self.delta()
        weight += delta.to(weight.dtype)
        return self.base


def features(layer: nn.Module) -> tuple[int, int]:
    """Return (in_features, out_features) of a linear layer; Conv1D's weight is (in, out)."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[0], layer.weight.shape[1]
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    raise TypeError(f"LoRA adapts nn.Linear and Conv1D, not {type(layer).__name__}")


def linear_names(decoder: nn.Module) -> list[str]:
    """Return the names of all linear layers of a decoder without vocabulary head."""
    return [n for n, m in decoder.named_modules() if isinstance(m, nn.Linear | Conv1D)]


def norm_names(decoder: nn.Module) -> list[str]:
    """Return the names of every LayerNorm and RMSNorm."""
    return [
        name
        for name, module in decoder.named_modules()
        if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")
    ]


def add_lora(
    decoder: nn.Module, names: list[str], *, rank: int, alpha: float, dropout: float = 0.0
) -> None:
    """Freeze `decoder` and wrap its linear layers called `names` in `LoRALinear`, in place."""
    decoder.requires_grad_(False)
    for name in names:
        layer = LoRALinear(decoder.get_submodule(name), rank, alpha, dropout)
        decoder.set_submodule(name, layer)


def apply_lora(decoder: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Wrap every linear layer of a decoder's blocks in LoRA and train its norms, in place.

    All else is frozen.
    """
    add_lora(decoder, linear_names(decoder), rank=rank, alpha=alpha, dropout=dropout)
    for name in norm_names(decoder):
        decoder.get_submodule(name).requires_grad_(True)


def lora_layers(module: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield the name and the layer of every LoRALinear."""
    for name, layer in module.named_modules():
        if isinstance(layer, LoRALinear):
            yield name, layer


def merge(module: nn.Module) -> None:
    """Replace every LoRALinear by its base with the update added: same outputs, no overhead."""
    for name, layer in list(lora_layers(module)):
        module.set_submodule(name, layer.merged())
