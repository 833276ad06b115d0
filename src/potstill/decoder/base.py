"""Any decoder of transformers: the length it can read, its precision, its hidden states."""

from typing import Any

import torch
from torch import Tensor


def max_positions(model: Any, default: int) -> int:
    """Return how many tokens `model` can read; `default` if its config sets no limit."""
    return getattr(model.config, "max_position_embeddings", None) or default


def autocast(model: Any) -> torch.autocast:
    """Return the context that `model` computes in: if its weights are bf16, so are the products."""
    enabled = model.dtype == torch.bfloat16
    return torch.autocast(model.device.type, torch.bfloat16, enabled=enabled)


def hidden_states(base: Any, input_ids: Tensor) -> Tensor:
    """Return the (B, L, width) states of (B, L) tokens, computed by transformers' own modules."""
    with autocast(base):
        return base(input_ids=input_ids, use_cache=False).last_hidden_state
