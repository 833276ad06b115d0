"""The GRU of gru.py with what is between its products compiled, for training in bf16 on a CPU."""

from typing import Any

import torch
from torch import Tensor

from potstill.ops import kernels
from potstill.ops.threads import map_in_threads


def supports(x: Tensor, hidden: int, dtype: torch.dtype) -> bool:
    """Return True if `FusedGRU` takes (B, L, in) `x`, with products in `dtype`."""
    fits = x.is_cpu and x.dtype == torch.float32 and dtype == torch.bfloat16
    return fits and hidden % kernels.WIDTH == 0 and kernels.load_library() is not None


class FusedGRU(torch.autograd.Function):
    """`gru` as an autograd function: weights and products in bf16, all else in fp32.

    Tokens are in the order (L, B), and the products of x are those of both directions at once: the
    compiled steps find the token that a direction reads. Each direction has a thread.
    """

    @staticmethod
    def forward(ctx, x, lengths, w_ih, w_hh, b_ih, b_hh):
        (D, _, H), (B, L, inputs) = w_hh.shape, x.shape
        library = kernels.load_library()
        rows, ended = _reading_order(lengths, L, D)
        tokens = x.transpose(0, 1).to(torch.bfloat16, memory_format=torch.contiguous_format)
        tokens = tokens.view(L * B, inputs)
        # Detached, as the threads of `read` have autograd on.
        input_weights, recurrent = w_ih.detach().flatten(0, 1), w_hh.detach()
        products = tokens @ input_weights.t()
        bias = torch.cat([b_ih, b_hh[:, 2 * H :]], dim=1)
        bias[:, : 2 * H] += b_hh[:, : 2 * H]
        states, gates = x.new_empty(D, L + 1, B, H), x.new_empty(D, L, B, 4 * H)
        previous = tokens.new_empty(D, L, B, H)
        previous[:, 0], states[:, 0] = 0, 0
        products, out = products.view(L * B, D, 3 * H), x.new_empty(L * B, D, H)

        def read(d: int) -> None:
            product = tokens.new_empty(B, 3 * H)
            weights, before = recurrent[d].t(), previous[d].unbind()
            row, end, state, rounded, gate = map(
                _pointers, (rows[d], ended, states[d], previous[d], gates[d])
            )
            from_input, to_out = products[0, d].data_ptr(), out[0, d].data_ptr()
            biases = bias[d].data_ptr()
            for t in range(L):
                torch.mm(before[t], weights, out=product)
                library.gru_forward_step(
                    *(from_input, product.data_ptr(), biases, row[t], end[t], state[t]),
                    state[t + 1],
                    rounded[t + 1] if t + 1 < L else None,
                    *(gate[t], to_out),
                    *(D, B, H),
                )

        map_in_threads(read, range(D))
        ctx.save_for_backward(
            tokens, input_weights, recurrent, rows, ended, states, gates, previous
        )
        return out.view(L, B, D * H).transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):
        tokens, input_weights, recurrent, rows, ended, states, gates, previous = ctx.saved_tensors
        D, L, B, H = previous.shape
        library = kernels.load_library()
        grad = grad.transpose(0, 1).contiguous().view(L * B, D, H)
        grad_bias = states.new_zeros(D, 4 * H)
        grad_input, grad_hidden = (
            tokens.new_empty(L * B, D, 3 * H),
            tokens.new_empty(D, L, B, 3 * H),
        )

        def unread(d: int) -> None:
            product, carry = tokens.new_empty(B, H), states.new_zeros(B, H)
            weights, hidden = recurrent[d], grad_hidden[d].unbind()
            row, end, gate, state, to_hidden = map(
                _pointers, (rows[d], ended, gates[d], states[d], grad_hidden[d])
            )
            from_out, to_input = grad[0, d].data_ptr(), grad_input[0, d].data_ptr()
            to_bias = grad_bias[d].data_ptr()
            for t in reversed(range(L)):
                library.gru_backward_step(
                    *(from_out, row[t], end[t], gate[t], state[t]),
                    product.data_ptr() if t + 1 < L else None,
                    *(carry.data_ptr(), to_input, to_hidden[t], to_bias),
                    *(D, B, H),
                )
                if t:
                    torch.mm(hidden[t], weights, out=product)

        map_in_threads(unread, range(D))
        grad_input = grad_input.flatten(1)
        grad_w_ih = (grad_input.t() @ tokens).view(D, 3 * H, -1)
        grad_w_hh = torch.bmm(grad_hidden.flatten(1, 2).transpose(1, 2), previous.flatten(1, 2))
        grad_b_ih = grad_bias[:, : 3 * H].contiguous()
        grad_b_hh = torch.cat([grad_bias[:, : 2 * H], grad_bias[:, 3 * H :]], dim=1)
        grad_x: Any = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_input @ input_weights).float().view(L, B, -1).transpose(0, 1)
        return grad_x, None, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh


def _pointers(x: Tensor) -> range:
    """Return where each x[i] lies; indexing it at every step takes ten times as long."""
    start, step = x.data_ptr(), x.stride(0) * x.element_size()
    return range(start, start + len(x) * step, step)


def _reading_order(lengths: Tensor, L: int, directions: int) -> tuple[Tensor, Tensor]:
    """Return the token that each direction reads at each step, (directions, L, B) among tokens in
    the order (L, B), and whether a sentence has ended before, (L, B); each token is read once."""
    steps, B = torch.arange(L)[:, None], len(lengths)
    ended = steps >= lengths
    positions = torch.stack([steps.expand(L, B), torch.where(ended, steps, lengths - 1 - steps)])
    return (positions * B + torch.arange(B))[:directions].contiguous(), ended.byte()
