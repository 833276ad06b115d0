"""The functions of kernels.c: compiled where they are first needed, kept in the cache folder.

They serve processors that multiply bf16 by themselves (AVX-512), where the products are so fast
that all else counts. Where there is no C compiler, PyTorch's operations do the same more slowly.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.files import cache_folder, write_bytes

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ["-O3", "-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"]
FLAGS += ["-shared", "-fPIC", "-fvisibility=hidden"]
WIDTH = 16  # numbers of a vector; every width must be a multiple


class Adapter(ctypes.Structure):
    """`adapter` of kernels.c."""

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
    """The compiled functions, or None where they can't be had or wouldn't run."""
    if not _runnable():
        return None
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        return None
    command = [*compiler, *FLAGS]
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(command).encode()).hexdigest()[:16]
    file = cache_folder() / f"kernels-{key}.so"
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                made = Path(folder) / file.name
                call = [*command, str(SOURCE), "-o", str(made), "-lm"]
                subprocess.run(call, check=True, capture_output=True, timeout=120)
                write_bytes(file, made.read_bytes())
        found = ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None
    # Pointers as plain integers: untold, ctypes would cut them to 32 bits.
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
    }
    for name, arguments in signatures.items():
        getattr(found, name).argtypes = arguments
    found.cross_entropy.restype = ctypes.c_double
    return found


def compiler_missing() -> bool:
    """Whether a C compiler is all that is wanting."""
    return _runnable() and load_library() is None


def supports(x: Tensor, width: int) -> bool:
    """Whether they take `x`, bf16 activations of vectors `width` wide."""
    fits = x.is_cpu and x.dtype == torch.bfloat16 and width % WIDTH == 0
    return fits and load_library() is not None


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


@dataclass
class Adapters:
    """What the functions for LoRA are told of layers that share their input.

    factors: U and V of each; spans: of each its rank, its first output among those of all and its
    outputs; scalings: of each.
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
        """For C; made anew where the factors have moved."""
        places = [factor.data_ptr() for factor in self.factors]
        if places != self._filled[0]:
            pairs = zip(places[::2], places[1::2], self.spans, self.scalings, strict=True)
            rows = [Adapter(U, V, *span, scaling) for U, V, span, scaling in pairs]
            self._filled = places, (Adapter * len(rows))(*rows)
        return self._filled[1]


def lora(adapters: Adapters, x: Tensor, y: Tensor) -> Tensor:
    """Adds the updates, of (N, in) x, to (N, out) y, in place; returns the scaled thin products,
    (N, ranks)."""
    (N, inputs), outputs = x.shape, y.shape[1]
    thin = torch.empty(N, adapters.ranks)
    pointers = x.data_ptr(), y.data_ptr(), thin.data_ptr()
    sizes = N, inputs, outputs, adapters.ranks
    load_library().lora_forward(adapters.array(), len(adapters.spans), *pointers, *sizes)
    return thin


def lora_backward(
    adapters: Adapters,
    grad: Tensor,
    x: Tensor,
    thin: Tensor,
    kept: Tensor | None,
    grad_x: Tensor | None,
) -> list[Tensor]:
    """Gradients of all U and V in turn, from that of y, (N, out); adds that of x, times what
    dropout kept, to `grad_x`."""
    (N, inputs), outputs = x.shape, grad.shape[1]
    grads = torch.empty(sum(adapters.sizes))
    pointers = map(_pointer, (grad, x, thin, kept, grads, grad_x))
    sizes = N, inputs, outputs, adapters.ranks
    load_library().lora_backward(adapters.array(), len(adapters.spans), *pointers, *sizes)
    parts = grads.split(adapters.sizes)
    return [part.view(shape) for part, shape in zip(parts, adapters.shapes, strict=True)]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) · weight of (…, D), and 1 / rms(x), (…, 1)."""
    y, scale = torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    pointers = [x.data_ptr(), weight.data_ptr(), eps, y.data_ptr(), scale.data_ptr()]
    load_library().rms_norm_forward(*pointers, scale.numel(), x.shape[-1])
    return y, scale


def rms_norm_backward(
    x: Tensor, weight: Tensor, scale: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight, from that of `rms_norm`'s y."""
    grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
    tensors = (x, weight, scale, grad, grad_x, grad_weight)
    sizes = scale.numel(), x.shape[-1]
    load_library().rms_norm_backward(*(t.data_ptr() for t in tensors), *sizes)
    return grad_x, grad_weight


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up of both side by side, (…, 2 N) to (…, N)."""
    N = gate_up.shape[-1] // 2
    y = gate_up.new_empty((*gate_up.shape[:-1], N))
    load_library().swiglu_forward(gate_up.data_ptr(), y.data_ptr(), y.numel() // N, N)
    return y


def swiglu_backward(gate_up: Tensor, grad: Tensor) -> Tensor:
    """The gradient of gate_up, from that of `swiglu`'s output."""
    grad_gate_up, N = torch.empty_like(gate_up), grad.shape[-1]
    tensors = (gate_up, grad, grad_gate_up)
    load_library().swiglu_backward(*(t.data_ptr() for t in tensors), grad.numel() // N, N)
    return grad_gate_up


def gelu(x: Tensor) -> Tensor:
    """In its tanh form, as `F.gelu(x, approximate="tanh")`."""
    y = torch.empty_like(x)
    load_library().gelu_forward(x.data_ptr(), y.data_ptr(), x.numel())
    return y


def gelu_backward(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of x, from that of `gelu`'s output."""
    grad_x = torch.empty_like(x)
    load_library().gelu_backward(*(t.data_ptr() for t in (x, grad, grad_x)), x.numel())
    return grad_x


def attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int,
    rotary: tuple[Tensor, Tensor] | None,
    last: Tensor | None,
) -> Tensor:
    """As `attention.attention`."""
    B, L, width = qkv.shape
    size = width // (heads + 2 * kv_heads)
    y = qkv.new_empty(B, L if last is None else 1, heads * size)
    pointers = map(_pointer, (qkv, y, *(rotary or (None, None)), last))
    load_library().attention_forward(*pointers, B, L, heads, kv_heads, size)
    return y


def attention_backward(
    qkv: Tensor,
    grad: Tensor,
    heads: int,
    kv_heads: int,
    rotary: tuple[Tensor, Tensor] | None,
    last: Tensor | None,
) -> Tensor:
    """The gradient of qkv, from that of `attention`'s output."""
    B, L, width = qkv.shape
    grad_qkv = torch.empty_like(qkv) if last is None else torch.zeros_like(qkv)
    pointers = map(_pointer, (qkv, grad, grad_qkv, *(rotary or (None, None)), last))
    size = width // (heads + 2 * kv_heads)
    load_library().attention_backward(*pointers, B, L, heads, kv_heads, size)
    return grad_qkv


def cross_entropy(
    logits: Tensor, bias: Tensor, places: Tensor, shares: Tensor, of_bias: Tensor
) -> float:
    """As `cross_entropy.cross_entropy_`."""
    tensors = (logits, bias, places, shares, of_bias)
    pointers = (t.data_ptr() for t in tensors)
    return float(load_library().cross_entropy(*pointers, *logits.shape, places.shape[1]))
