"""The gated recurrent unit with forward and backward pass written out, both directions at once.

On a CPU, PyTorch's GRU runs the directions one after the other in fp32 and computes the gradient of
the weights by a small product at every step; here that is one product for all steps. fused_gru.py
has the same with compiled steps, for CPUs with bf16.
"""

import torch
from torch import Tensor

from potstill.ops import fused_gru


def gru(x: Tensor, lengths: Tensor, weights: list[list[Tensor]], dtype: torch.dtype) -> Tensor:
    """Return the states of a GRU layer (Cho et al. 2014, *Learning Phrase Representations using RNN
    Encoder-Decoder*, section 2.3); the reset gate follows the recurrent product as in `nn.GRU`.

    Args:
        x: (B, L, in), padded on the right; the padding is not read.
        lengths: (B,), each at least 1.
        weights: [weight_ih, weight_hh, bias_ih, bias_hh] of the forward direction and, if the layer
            is bidirectional, of the backward direction, like `all_weights` of `nn.GRU`.
        dtype: dtype of the matrix products; everything else is in the dtype of `x`.

    Returns:
        (B, L, directions · hidden); in the padding, the last state of each direction.
    """
    fused = fused_gru.supports(x, weights[0][1].shape[1], dtype)
    if fused:
        weights = [[w.to(dtype) if w.ndim > 1 else w for w in direction] for direction in weights]
    grouped = [torch.stack(parts) for parts in zip(*weights, strict=True)]
    if fused:
        return fused_gru.FusedGRU.apply(x, lengths, *grouped)
    return GRU.apply(x, lengths, dtype, *grouped)


class GRU(torch.autograd.Function):
    """`gru` as an autograd function.

    Tensors over all steps are (L, directions, B, …), or (directions, L · B, …) where one product
    takes all steps at once.
    """

    @staticmethod
    def forward(ctx, x, lengths, dtype, w_ih, w_hh, b_ih, b_hh):
        (directions, _, H), (B, L, _) = w_hh.shape, x.shape
        backward_rows, ended = _backward_order(lengths, L)
        rows = x.transpose(0, 1).flatten(0, 1).to(dtype)
        xs = torch.stack([rows, rows[backward_rows]][:directions])
        # The two biases of the gates add up; that of the new state is inside the reset.
        bias = b_ih.clone()
        bias[:, : 2 * H] += b_hh[:, : 2 * H]
        inputs = torch.bmm(xs, w_ih.to(dtype).transpose(1, 2)).to(x.dtype).add_(bias[:, None])
        recurrent, inner_bias = w_hh.to(dtype).transpose(1, 2), b_hh[:, None, 2 * H :]
        states = x.new_zeros(L + 1, directions, B, H)  # row 0 is the state before the first token
        previous = xs.new_empty(directions, L * B, H)
        gates = x.new_empty(L, directions, B, 2 * H)
        inner, new = x.new_empty(L, directions, B, H), x.new_empty(L, directions, B, H)
        for t in range(L):
            step = slice(t * B, (t + 1) * B)
            previous[:, step] = states[t]
            product = torch.bmm(previous[:, step], recurrent).to(x.dtype)
            torch.add(inputs[:, step, : 2 * H], product[..., : 2 * H], out=gates[t]).sigmoid_()
            reset, keep = gates[t].chunk(2, dim=-1)
            torch.add(product[..., 2 * H :], inner_bias, out=inner[t])
            # tanh(v) as 2 σ(2 v) − 1: on a CPU, PyTorch's tanh takes six times as long.
            torch.addcmul(inputs[:, step, 2 * H :], reset, inner[t], out=new[t])
            new[t].mul_(2).sigmoid_().mul_(2).sub_(1)
            torch.lerp(new[t], states[t], keep, out=states[t + 1])
            if ended is not None:
                torch.where(ended[t], states[t], states[t + 1], out=states[t + 1])
        ctx.dtype, ctx.backward_rows, ctx.ended = dtype, backward_rows, ended
        ctx.save_for_backward(xs, previous, states, gates, inner, new, w_ih, w_hh)
        out = states[1:, 0]
        if directions == 2:
            out = torch.cat([out, states[1:, 1].flatten(0, 1)[backward_rows].view_as(out)], dim=-1)
        return out.transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):
        xs, previous, states, gates, inner, new, w_ih, w_hh = ctx.saved_tensors
        L, directions, B, H = new.shape
        dtype, backward_rows, ended = ctx.dtype, ctx.backward_rows, ctx.ended
        grads = list(grad.transpose(0, 1).chunk(directions, dim=-1))
        if directions == 2:
            grads[1] = grads[1].flatten(0, 1)[backward_rows].view(L, B, H)
        reset, keep = gates.chunk(2, dim=-1)
        # Factors from the gradient of a state to those of the sums inside tanh and σ, all steps at
        # once.
        update = 1 - keep
        to_new = torch.addcmul(update, update, new.square(), value=-1)
        to_keep = (states[:-1] - new).mul_(keep).mul_(update)
        to_reset = (inner * reset).mul_(1 - reset)
        # Gradients of the sums, in the order new state, reset, keep, recurrent part of new state.
        # The first three are the input product's gradient, the last three the recurrent product's.
        grad_sums = new.new_empty(directions, B, 4 * H)
        grad_input, grad_hidden = (xs.new_empty(directions, L * B, 3 * H) for _ in range(2))
        grad_bias = torch.zeros_like(grad_sums)
        grad_new, grad_reset, grad_keep, grad_inner = grad_sums.chunk(4, dim=-1)
        recurrent = w_hh.to(dtype)
        grad_state = torch.zeros_like(states[0])
        for t in reversed(range(L)):
            step = slice(t * B, (t + 1) * B)
            for direction in range(directions):
                grad_state[direction] += grads[direction][t]
            current = grad_state if ended is None else grad_state.masked_fill(ended[t], 0)
            torch.mul(current, to_new[t], out=grad_new)
            torch.mul(current, to_keep[t], out=grad_keep)
            torch.mul(grad_new, to_reset[t], out=grad_reset)
            torch.mul(grad_new, reset[t], out=grad_inner)
            grad_input[:, step] = grad_sums[..., : 3 * H]
            grad_hidden[:, step] = grad_sums[..., H:]
            grad_bias += grad_sums
            product = torch.bmm(grad_hidden[:, step], recurrent).to(current.dtype)
            earlier = product.addcmul_(current, keep[t])
            grad_state = earlier if ended is None else torch.where(ended[t], grad_state, earlier)
        # Back from (new, reset, keep) to PyTorch's order: reset, keep, new.
        grad_w_ih = torch.bmm(grad_input.transpose(1, 2), xs).to(w_ih.dtype).roll(-H, dims=1)
        grad_w_hh = torch.bmm(grad_hidden.transpose(1, 2), previous).to(w_hh.dtype)
        grad_bias = grad_bias.sum(1).to(w_ih.dtype)
        grad_b_ih, grad_b_hh = grad_bias[:, : 3 * H].roll(-H, dims=1), grad_bias[:, H:]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_xs = torch.bmm(grad_input, w_ih.to(dtype).roll(H, dims=1)).to(grad.dtype)
            grad_x = grad_xs[0]
            if directions == 2:
                grad_x = grad_x + grad_xs[1][backward_rows]
            grad_x = grad_x.view(L, B, -1).transpose(0, 1)
        return grad_x, None, None, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh


def _backward_order(lengths: Tensor, L: int) -> tuple[Tensor, Tensor | None]:
    """Return the order in which the backward direction reads the tokens.

    Returns:
        (L · B,) row, among all tokens step by step, of the token read at each step, a permutation
        that is its own inverse; and a (L, B, 1) mask of the steps past a sentence's end, None if
        no sentence ends early.
    """
    steps = torch.arange(L, device=lengths.device)[:, None]
    ended = steps >= lengths
    positions = torch.where(ended, steps, lengths - 1 - steps)
    rows = positions * len(lengths) + torch.arange(len(lengths), device=lengths.device)
    return rows.flatten(), ended[..., None] if bool(ended.any()) else None
