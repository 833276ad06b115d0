"""Linear layers that share their input, with or without LoRA, as one product."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from potstill.decoder.lora import LOCK, LoRALinear, features
from potstill.ops import kernels
from potstill.ops.dropout import Dropout

ALIGNED = 8  # for bf16 of other widths than its multiples cuBLAS takes kernels of older GPUs


class FrozenWeights:
    """Frozen weights (out, in) and biases of linear layers that share their input, side by side.

    In bf16 on a CPU oneDNN keeps a matrix in an order of its own; it is put into that order here
    once for each direction, where a plain product would do so at every call.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        self._layers: list[Any] = [
            layer.base if isinstance(layer, LoRALinear) else layer for layer in layers
        ]
        self.like: Tensor = self._layers[0].weight.detach()
        device, dtype = self.like.device, self.like.dtype
        mkldnn = torch.backends.mkldnn.is_available()
        self._packs = device.type == "cpu" and dtype == torch.bfloat16 and mkldnn
        biases = [getattr(layer, "bias", None) for layer in self._layers]
        self.bias: Tensor | None = None
        if any(bias is not None for bias in biases):
            outs = [features(layer)[1] for layer in self._layers]
            none = [torch.zeros(n, device=device, dtype=dtype) for n in outs]
            pairs = zip(biases, none, strict=True)
            self.bias = torch.cat([n if b is None else b.detach() for b, n in pairs])
        self._ways: dict[str, Tensor] = {}

    def _way(self, way: str) -> Tensor:
        """The weight as (out, in) for "forward", as (in, out) for "backward"; made when asked."""
        with LOCK:
            if way not in self._ways:
                parts = [_weight(layer).detach() for layer in self._layers]
                weight = torch.cat(parts) if len(parts) > 1 else parts[0]
                weight = weight if way == "forward" else weight.T
                if self._packs:
                    weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
                self._ways[way] = weight
        return self._ways[way]

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) to (N, out)."""
        return self._product(x, self._way("forward"), self.bias)

    def backward(self, grad: Tensor) -> Tensor:
        """(N, out) to (N, in): the gradient of the input."""
        return self._product(grad, self._way("backward"), None)

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._packs:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return F.linear(x, weight, bias)


class FusedLinear:
    """Linear layers that share their input, each with or without LoRA, as one product.

    Computes what the layers would, side by side. Where no compiled functions serve, the factors are
    copied into one matrix U and one block-diagonal V, in the dtype of the frozen weights (bf16
    where the base is halved), so that one thin product serves all the layers, and their updates are
    added to the output in one pass. Where the updates have dropout, the layers lose the same
    inputs.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        self.frozen = FrozenWeights(layers)
        lora = [layer for layer in layers if isinstance(layer, LoRALinear)]
        self.factors: list[Tensor] = []
        self.spans: list[tuple[slice, slice]] = []  # rows of V and its columns, for each factor
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
        self.adapters: kernels.Adapters | None = None  # where compiled functions serve
        if lora:
            like, inputs = self.frozen.like, features(lora[0].base)[0]
            widths = [inputs, *(rows.stop - rows.start for rows, _ in self.spans)]
            fp32 = all(factor.dtype == torch.float32 for factor in self.factors)
            if fp32 and all(kernels.supports(like, width) for width in widths):
                spans = [(c.stop - c.start, r.start, r.stop - r.start) for r, c in self.spans]
                scalings = [layer.scaling for layer in lora]
                self.adapters = kernels.Adapters(self.factors, spans, scalings)
                return
            padded = -(-column // ALIGNED) * ALIGNED
            self.U, self.V = like.new_zeros(padded, inputs), like.new_zeros(row, padded)
            scaling = [layer.scaling for layer in lora for _ in range(layer.rank)]
            self.scaling = F.pad(like.new_tensor(scaling), (0, padded - column))
            self.parts = [
                part for rows, ranks in self.spans for part in (self.U[ranks], self.V[rows, ranks])
            ]

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) to (…, the sum of the layers' outputs)."""
        kept = None
        if isinstance(self.dropout, Dropout) and self.dropout.training:
            kept = self.dropout.mask(x).flatten(0, -2)
        return FusedLoRA.apply(x, self, kept, *self.factors)


class FusedLoRA(torch.autograd.Function):
    """LoRALinear's formula for the layers of a FusedLinear; frozen weights get no gradient.

    kept: what dropout multiplies each input of the updates by, (N, in), or None.
    """

    @staticmethod
    def forward(ctx, x, joined, kept, *factors):
        rows = x.flatten(0, -2).contiguous()
        out = joined.frozen.forward(rows)
        ctx.joined, ctx.kept, ctx.shape = joined, kept, x.shape
        if factors:
            rows = rows if kept is None else rows * kept
            if joined.adapters:
                thin = kernels.lora(joined.adapters, rows, out)
            else:
                torch._foreach_copy_(joined.parts, factors)
                thin = (rows @ joined.U.T).mul_(joined.scaling)
                out.addmm_(thin, joined.V.T)
            ctx.save_for_backward(rows, thin)
        return out.view(*x.shape[:-1], joined.outputs)  # there may be no rows

    @staticmethod
    def backward(ctx, grad):
        joined = ctx.joined
        grad = grad.flatten(0, -2).contiguous()
        grad_x = joined.frozen.backward(grad) if ctx.needs_input_grad[0] else None
        grads: list[Tensor] = []
        if joined.adapters:
            rows, thin = ctx.saved_tensors
            grads = kernels.lora_backward(joined.adapters, grad, rows, thin, ctx.kept, grad_x)
        elif joined.factors:
            rows, thin = ctx.saved_tensors
            grad_thin = (grad @ joined.V).mul_(joined.scaling)
            grad_U = (grad_thin.T @ rows).to(joined.factors[0].dtype)
            # Its blocks off the diagonal are gradients of nothing.
            grad_V = (thin.T @ grad).to(grad_U.dtype).T
            for outputs, ranks in joined.spans:
                grads += [grad_U[ranks], grad_V[outputs, ranks]]
            if grad_x is not None and ctx.kept is None:
                grad_x.addmm_(grad_thin, joined.U)
            elif grad_x is not None:
                grad_x.addcmul_(grad_thin @ joined.U, ctx.kept)
        if grad_x is not None:
            grad_x = grad_x.view(ctx.shape)
        return grad_x, None, None, *grads


def _weight(layer: Any) -> Tensor:
    """A linear layer's weight as (out, in)."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight
