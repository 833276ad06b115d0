"""The arithmetic of a model: bf16 or fp32."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


def resolve_precision(precision: str) -> torch.dtype:
    """Return the dtype that is named; for "auto" bf16 where the processor or the GPU multiplies it
    faster than fp32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.backends.mkldnn.is_available() and (
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return torch.bfloat16 if fast else torch.float32


def cast_frozen_to_bf16(decoder: nn.Module) -> None:
    """Cast a decoder's matrices and their biases to bf16; norms and adapters stay as they are."""
    for module in decoder.modules():
        if isinstance(module, nn.Linear | Conv1D | nn.Embedding):
            module.bfloat16()
    for parameter in decoder.parameters():
        if parameter.dtype != torch.bfloat16:
            # A view of the file it was read from would hold all of that in memory.
            parameter.data = parameter.data.clone()
