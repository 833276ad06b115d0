"""The C functions of csrc/, compiled when they are first needed and stored in the cache folder.

They are for CPUs with bf16 instructions (AVX-512), where matrix products are so fast that the time
of everything else matters. Without a C compiler, PyTorch's operations compute the same more slowly.
"""

import ctypes
import platform
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from potstill.ops.compiler import CSRC, load_compiled

NAMES = "attention.c", "cross_entropy.c", "elementwise.c", "gru.c", "lora.c", "vectors.h"
SOURCES = [CSRC / name for name in NAMES]
FLAGS = ["-O3", "-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"]
WIDTH = 16  # numbers in a vector; every width must be a multiple of it


class Adapter(ctypes.Structure):
    """The struct `adapter` of csrc/lora.c."""

    _fields_ = (
        ("U", ctypes.c_void_p),
        ("V", ctypes.c_void_p),
        ("rank", ctypes.c_long),
        ("first", ctypes.c_long),
        ("outputs", ctypes.c_long),
        ("scaling", ctypes.c_float),
    )


def _runnable() -> bool:
    linux = platform.system() == "Linux" and platform.machine() == "x86_64"
    return linux and torch.cpu._is_avx512_bf16_supported()


@cache
def load_library() -> Any:
    """Return the compiled functions; None if they can't be compiled or the CPU can't run them."""
    if not _runnable():
        return None
    library = load_compiled("kernels", SOURCES, FLAGS)
    if library is None:
        return None
    # Pointers are passed as integers; without declared types ctypes would cut them to 32 bits.
    p, n, f = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
    signatures: dict[str, list[Any]] = {
        "lora_forward": [p, n, *[p] * 3, *[n] * 4],
        "lora_backward": [p, n, *[p] * 6, *[n] * 4],
        "rms_norm_forward": [p, p, f, p, p, n, n],
        "rms_norm_backward": [*[p] * 6, n, n],
        "swiglu_forward": [p, p, n, n],
        "swiglu_backward": [p, p, p, n, n],
        "gelu_forward": [p, p, n],
        "gelu_backward": [p, p, p, n],
        "attention_forward": [*[p] * 5, *[n] * 5],
        "attention_backward": [*[p] * 6, *[n] * 5],
        "cross_entropy": [*[p] * 5, n, n, n],
        "gru_forward_step": [*[p] * 10, n, n, n],
        "gru_backward_step": [*[p] * 10, n, n, n],
    }
    for name, arguments in signatures.items():
        getattr(library, name).argtypes = arguments
    library.cross_entropy.restype = ctypes.c_double
    return library


def compiler_missing() -> bool:
    """Return True if the CPU can run the functions and only a C compiler is missing."""
    return _runnable() and load_library() is None


def supports(x: Tensor, width: int) -> bool:
    """Return True if the functions take `x`: bf16 on the CPU, `width` a multiple of WIDTH."""
    fits = x.is_cpu and x.dtype == torch.bfloat16 and width % WIDTH == 0
    return fits and load_library() is not None


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


@dataclass
class Adapters:
    """The adapters of linear layers that share their input, as the LoRA functions take them.

    Args:
        factors: U and V of each adapter in turn.
        spans: rank, first output and number of outputs of each; the outputs of all the layers are
            counted through.
        scalings: scaling of each.
    """

    factors: list[Tensor]
    spans: list[tuple[int, int, int]]
    scalings: list[float]

    def __post_init__(self) -> None:
        self.ranks = sum(rank for rank, _, _ in self.spans)
        self.shapes = [factor.shape for factor in self.factors]
        self.sizes = [factor.numel() for factor in self.factors]
        self._filled: tuple[list[int], Any] = ([], None)

    def array(self) -> Any:
        """Return the C array, filled again if the factors have moved in memory."""
        addresses = [factor.data_ptr() for factor in self.factors]
        if addresses != self._filled[0]:
            pairs = zip(addresses[::2], addresses[1::2], self.spans, self.scalings, strict=True)
            rows = [Adapter(U, V, *span, scaling) for U, V, span, scaling in pairs]
            self._filled = addresses, (Adapter * len(rows))(*rows)
        return self._filled[1]


def lora(adapters: Adapters, x: Tensor, y: Tensor) -> Tensor:
    """Add the updates of (N, in) `x` to (N, out) `y` in place.

    Returns:
        (N, ranks) low-rank products x Uᵀ, scaled.
    """
    (N, inputs), outputs = x.shape, y.shape[1]
    low_rank = torch.empty(N, adapters.ranks)
    pointers = x.data_ptr(), y.data_ptr(), low_rank.data_ptr()
    sizes = N, inputs, outputs, adapters.ranks
    load_library().lora_forward(adapters.array(), len(adapters.spans), *pointers, *sizes)
    return low_rank


def lora_backward(
    adapters: Adapters,
    grad: Tensor,
    x: Tensor,
    low_rank: Tensor,
    *,
    mask: Tensor | None,
    grad_x: Tensor | None,
) -> list[Tensor]:
    """Compute the backward pass of `lora`.

    Args:
        grad: (N, out) gradient of y.
        x: (N, in) input of the updates, after dropout.
        low_rank: what `lora` returned.
        mask: (N, in) dropout mask, scaled; None without dropout.
        grad_x: (N, in); the gradient of x, times the mask, is added to it. None if not needed.

    Returns:
        Gradients of every U and V in turn.
    """
    (N, inputs), outputs = x.shape, grad.shape[1]
    grads = torch.empty(sum(adapters.sizes))
    pointers = map(_pointer, (grad, x, low_rank, mask, grads, grad_x))
    sizes = N, inputs, outputs, adapters.ranks
    load_library().lora_backward(adapters.array(), len(adapters.spans), *pointers, *sizes)
    parts = grads.split(adapters.sizes)
    return [part.view(shape) for part, shape in zip(parts, adapters.shapes, strict=True)]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x / rms(x) · weight of (…, D) `x`, and the (…, 1) scales 1 / rms(x)."""
    y, scale = torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    pointers = [x.data_ptr(), weight.data_ptr(), eps, y.data_ptr(), scale.data_ptr()]
    load_library().rms_norm_forward(*pointers, scale.numel(), x.shape[-1])
    return y, scale


def rms_norm_backward(
    x: Tensor, weight: Tensor, scale: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `x` and `weight`, from the gradient `grad` of `rms_norm`'s output."""
    grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
    tensors = (x, weight, scale, grad, grad_x, grad_weight)
    sizes = scale.numel(), x.shape[-1]
    load_library().rms_norm_backward(*(t.data_ptr() for t in tensors), *sizes)
    return grad_x, grad_weight


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) · up, (…, N), of gate and up side by side, (…, 2 N)."""
    N = gate_up.shape[-1] // 2
    y = gate_up.new_empty((*gate_up.shape[:-1], N))
    load_library().swiglu_forward(gate_up.data_ptr(), y.data_ptr(), y.numel() // N, N)
    return y


def swiglu_backward(gate_up: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of `gate_up`, from the gradient `grad` of `swiglu`'s output."""
    grad_gate_up, N = torch.empty_like(gate_up), grad.shape[-1]
    tensors = (gate_up, grad, grad_gate_up)
    load_library().swiglu_backward(*(t.data_ptr() for t in tensors), grad.numel() // N, N)
    return grad_gate_up


def gelu(x: Tensor) -> Tensor:
    """Return GELU in its tanh approximation, like `F.gelu(x, approximate="tanh")`."""
    y = torch.empty_like(x)
    load_library().gelu_forward(x.data_ptr(), y.data_ptr(), x.numel())
    return y


def gelu_backward(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of `x`, from the gradient `grad` of `gelu`'s output."""
    grad_x = torch.empty_like(x)
    load_library().gelu_backward(*(t.data_ptr() for t in (x, grad, grad_x)), x.numel())
    return grad_x


def attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    *,
    rotary: tuple[Tensor, Tensor] | None,
    last: Tensor | None,
) -> Tensor:
    """Return causal attention of bf16 queries, keys and values.

    Args:
        qkv: (B, L, (heads + 2 kv_heads) · size), side by side.
        rotary: cosines and signed sines, (L, size), or None.
        last: (B,) positions of the only queries to compute, or None for all.

    Returns:
        (B, L, heads · size), or (B, 1, heads · size) with `last`.
    """
    B, L, width = qkv.shape
    size = width // (heads + 2 * kv_heads)
    y = qkv.new_empty(B, L if last is None else 1, heads * size)
    pointers = map(_pointer, (qkv, y, *(rotary or (None, None)), last))
    load_library().attention_forward(*pointers, B, L, heads, kv_heads, size)
    return y


def attention_backward(
    qkv: Tensor,
    grad: Tensor,
    *,
    heads: int,
    kv_heads: int,
    rotary: tuple[Tensor, Tensor] | None,
    last: Tensor | None,
) -> Tensor:
    """Return the gradient of `qkv`, from the gradient `grad` of `attention`'s output."""
    B, L, width = qkv.shape
    grad_qkv = torch.empty_like(qkv) if last is None else torch.zeros_like(qkv)
    pointers = map(_pointer, (qkv, grad, grad_qkv, *(rotary or (None, None)), last))
    size = width // (heads + 2 * kv_heads)
    load_library().attention_backward(*pointers, B, L, heads, kv_heads, size)
    return grad_qkv


def cross_entropy(
    logits: Tensor, bias: Tensor, token_ids: Tensor, probs: Tensor, *, grad_bias: Tensor
) -> float:
    """Return −Σ probs · log softmax(logits + bias)[token_ids] over all rows, in nats.

    Args:
        logits: (N, V) bf16; replaced by their gradient.
        bias: (V,) fp32.
        token_ids: (N, K) int64 targets of each row.
        probs: (N, K) fp32 probabilities of the targets.
        grad_bias: (V,) fp32; the gradient of the bias is added to it.
    """
    tensors = (logits, bias, token_ids, probs, grad_bias)
    pointers = (t.data_ptr() for t in tensors)
    return float(load_library().cross_entropy(*pointers, *logits.shape, token_ids.shape[1]))
