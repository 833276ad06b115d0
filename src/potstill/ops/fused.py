"""The operations between a decoder's matrix products: activations and norms, in few passes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.ops import gpu, kernels


def gelu(x: Tensor) -> Tensor:
    """Return GPT-2's "gelu_new" (Hendrycks and Gimpel 2016, *Gaussian Error Linear Units*,
    section 2)."""
    if kernels.supports(x, x.shape[-1]):
        return CompiledGELU.apply(x.contiguous())
    return F.gelu(x, approximate="tanh")


class CompiledGELU(torch.autograd.Function):
    """`gelu` of bf16 on a CPU, one pass forward and one backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return kernels.gelu(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return kernels.gelu_backward(x, grad.contiguous())


def layer_norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """Return a function that applies `norm`, with fp32 weights, to fp32 or bf16 activations."""

    def apply(x: Tensor) -> Tensor:
        if x.is_cpu:  # this kernel takes bf16 with fp32 weights
            return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        wide = F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return wide.to(x.dtype)

    return apply


def rms_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    """Return a function that applies `norm`, an RMSNorm of transformers; see `RMSNorm`."""

    def apply(x: Tensor) -> Tensor:
        if fused := gpu.inference_kernels(x):
            return fused.rms_norm(x, norm.weight, norm.variance_epsilon)
        return RMSNorm.apply(x, norm.weight, norm.variance_epsilon)

    return apply


class RMSNorm(torch.autograd.Function):
    """x / rms(x) · weight, computed in fp32 (Zhang and Sennrich 2019, *Root Mean Square Layer
    Normalization*, equation 4)."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        ctx.compiled = kernels.supports(x, x.shape[-1]) and weight.dtype == torch.float32
        if ctx.compiled:
            x = x.contiguous()
            out, scale = kernels.rms_norm(x, weight, eps)
            ctx.save_for_backward(x, weight, scale)
            return out
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        if ctx.compiled:
            return *kernels.rms_norm_backward(x, weight, scale, grad.contiguous()), None
        unit = x * scale  # fp32, by promotion
        grad = grad.to(unit.dtype)
        grad_weight = (grad * unit).flatten(0, -2).sum(0)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad = grad * weight
            mean = (grad * unit).mean(-1, keepdim=True)
            grad_x = grad.sub_(unit.mul_(mean)).mul_(scale).to(x.dtype)
        return grad_x, grad_weight.to(weight.dtype), None


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) · up, (…, N), of gate and up side by side, (…, 2 N); see `SwiGLU`."""
    if fused := gpu.inference_kernels(gate_up):
        return fused.swiglu(gate_up)
    return SwiGLU.apply(gate_up)


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up, (…, N), of gate and up side by side, (…, 2 N) (Shazeer 2020, *GLU Variants
    Improve Transformer*, equation 6)."""

    @staticmethod
    def forward(ctx, gate_up):
        ctx.compiled = kernels.supports(gate_up, gate_up.shape[-1] // 2)
        if ctx.compiled:
            gate_up = gate_up.contiguous()
            ctx.save_for_backward(gate_up)
            return kernels.swiglu(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        active = F.silu(gate)
        ctx.save_for_backward(gate_up, active)
        return active * up

    @staticmethod
    def backward(ctx, grad):
        if ctx.compiled:
            (gate_up,) = ctx.saved_tensors
            return kernels.swiglu_backward(gate_up, grad.contiguous())
        gate_up, active = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad_gate_up = torch.empty_like(gate_up)
        grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
        torch.mul(grad, active, out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return grad_gate_up
