"""Linear layers that share their input, with or without LoRA, computed as one product."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from potstill.decoder.lora import LOCK, LoRALinear, features
from potstill.ops import kernels
from potstill.ops.dropout import Dropout

ALIGNMENT = 8  # for bf16 of a width that is no multiple, cuBLAS takes the kernels of older GPUs


class FrozenWeights:
    """Frozen weights (out, in) and biases of linear layers that share their input, concatenated.

    For bf16 on a CPU, oneDNN packs a weight into a layout of its own at every product; here it is
    packed once for each direction.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        self._layers: list[Any] = [
            layer.base if isinstance(layer, LoRALinear) else layer for layer in layers
        ]
        self.like: Tensor = self._layers[0].weight.detach()
        device, dtype = self.like.device, self.like.dtype
        # Without AVX-512 a processor has PyTorch's own products of bf16, and no packed ones.
        mkldnn = torch.backends.mkldnn.is_available() and (
            torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        self._packs = device.type == "cpu" and dtype == torch.bfloat16 and mkldnn
        biases = [getattr(layer, "bias", None) for layer in self._layers]
        self.bias: Tensor | None = None
        if any(bias is not None for bias in biases):
            outputs = [features(layer)[1] for layer in self._layers]
            zeros = [torch.zeros(n, device=device, dtype=dtype) for n in outputs]
            pairs = zip(biases, zeros, strict=True)
            self.bias = torch.cat([zero if b is None else b.detach() for b, zero in pairs])
        self._weights: dict[str, Tensor] = {}

    def _weight(self, direction: str) -> Tensor:
        """Return the weight, (out, in) for "forward", (in, out) for "backward"; cached."""
        with LOCK:
            if direction not in self._weights:
                parts = [_layer_weight(layer).detach() for layer in self._layers]
                weight = torch.cat(parts) if len(parts) > 1 else parts[0]
                weight = weight if direction == "forward" else weight.T
                if self._packs:
                    weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
                self._weights[direction] = weight
        return self._weights[direction]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in) to (N, out)."""
        return self._product(x, self._weight("forward"), self.bias)

    def backward(self, grad: Tensor) -> Tensor:
        """Map the gradient of the output, (N, out), to that of the input, (N, in)."""
        return self._product(grad, self._weight("backward"), None)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._packs:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return F.linear(x, weight, bias)


class FusedLinear:
    """Linear layers that share their input, each with or without LoRA, as one product.

    Its output is that of the layers, concatenated. Where the compiled kernels are not supported,
    the factors are copied into one matrix U and one block-diagonal V in the dtype of the frozen
    weights, so that one low-rank product serves all the layers and their updates are added to the
    output in one pass. Dropout of the updates drops the same inputs for all the layers.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        self.frozen = FrozenWeights(layers)
        lora = [layer for layer in layers if isinstance(layer, LoRALinear)]
        self.factors: list[Tensor] = []
        self.spans: list[tuple[slice, slice]] = []  # rows and columns of V, for each adapter
        row = column = 0
        for layer in layers:
            outputs = features(layer.base if isinstance(layer, LoRALinear) else layer)[1]
            if isinstance(layer, LoRALinear):
                self.factors += [layer.U, layer.V]
                self.spans.append((slice(row, row + outputs), slice(column, column + layer.rank)))
                column += layer.rank
            row += outputs
        self.outputs = row
        self.dropout: Any = lora[0].dropout if lora else None
        self.adapters: kernels.Adapters | None = None  # where the compiled kernels are supported
        if lora:
            like, inputs = self.frozen.like, features(lora[0].base)[0]
            widths = [inputs, *(rows.stop - rows.start for rows, _ in self.spans)]
            fp32 = all(factor.dtype == torch.float32 for factor in self.factors)
            if fp32 and all(kernels.supports(like, width) for width in widths):
                spans = [(c.stop - c.start, r.start, r.stop - r.start) for r, c in self.spans]
                scalings = [layer.scaling for layer in lora]
                self.adapters = kernels.Adapters(self.factors, spans, scalings)
                return
            padded = -(-column // ALIGNMENT) * ALIGNMENT
            self.U, self.V = like.new_zeros(padded, inputs), like.new_zeros(row, padded)
            scaling = [layer.scaling for layer in lora for _ in range(layer.rank)]
            self.scaling = F.pad(like.new_tensor(scaling), (0, padded - column))
            self.parts = [
                part for rows, ranks in self.spans for part in (self.U[ranks], self.V[rows, ranks])
            ]

    def __call__(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, the sum of the layers' outputs)."""
        mask = None
        if isinstance(self.dropout, Dropout) and self.dropout.training:
            mask = self.dropout.mask(x).flatten(0, -2)
        return FusedLoRA.apply(x, self, mask, *self.factors)


class FusedLoRA(torch.autograd.Function):
    """`LoRALinear`'s formula for the layers of a FusedLinear; frozen weights get no gradient.

    Args:
        x: (…, in).
        fused: the FusedLinear.
        mask: dropout mask of the updates' input, (N, in), scaled; None without dropout.
        factors: U and V of each adapter in turn.
    """

    @staticmethod
    def forward(ctx, x, fused, mask, *factors):
        rows = x.flatten(0, -2).contiguous()
        out = fused.frozen.forward(rows)
        ctx.fused, ctx.mask, ctx.shape = fused, mask, x.shape
        if factors:
            rows = rows if mask is None else rows * mask
            if fused.adapters:
                low_rank = kernels.lora(fused.adapters, rows, out)
            else:
                torch._foreach_copy_(fused.parts, factors)
                low_rank = (rows @ fused.U.T).mul_(fused.scaling)
                out.addmm_(low_rank, fused.V.T)
            ctx.save_for_backward(rows, low_rank)
        return out.view(*x.shape[:-1], fused.outputs)  # there may be no rows

    @staticmethod
    def backward(ctx, grad):
        fused = ctx.fused
        grad = grad.flatten(0, -2).contiguous()
        grad_x = fused.frozen.backward(grad) if ctx.needs_input_grad[0] else None
        grads: list[Tensor] = []
        if fused.adapters:
            rows, low_rank = ctx.saved_tensors
            grads = kernels.lora_backward(
                fused.adapters, grad, rows, low_rank, mask=ctx.mask, grad_x=grad_x
            )
        elif fused.factors:
            rows, low_rank = ctx.saved_tensors
            grad_low_rank = (grad @ fused.V).mul_(fused.scaling)
            grad_U = (grad_low_rank.T @ rows).to(fused.factors[0].dtype)
            # Its blocks off the diagonal belong to no factor.
            grad_V = (low_rank.T @ grad).to(grad_U.dtype).T
            for outputs, ranks in fused.spans:
                grads += [grad_U[ranks], grad_V[outputs, ranks]]
            if grad_x is not None and ctx.mask is None:
                grad_x.addmm_(grad_low_rank, fused.U)
            elif grad_x is not None:
                grad_x.addcmul_(grad_low_rank @ fused.U, ctx.mask)
        if grad_x is not None:
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, None, *grads


def _layer_weight(layer: Any) -> Tensor:
    """Return the weight of a linear layer as (out, in)."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight
