"""The gated recurrent unit, forward and backward written out, both directions side by side.

On a CPU PyTorch's takes the directions one after the other, in fp32, and makes a small product for
the gradient of the weights at every step; here that is one product for all steps.
"""

import torch
from torch import Tensor


def gru(x: Tensor, lengths: Tensor, weights: list[list[Tensor]], dtype: torch.dtype) -> Tensor:
    """The states of a GRU layer (Cho et al. 2014, *Learning Phrase Representations using RNN
    Encoder-Decoder*, section 2.3), its reset gate after the recurrent product as in `nn.GRU`.

    Args:
        x: (B, L, in), padded on the right; the padding is not read.
        lengths: (B,), at least 1 each.
        weights: weight_ih, weight_hh, bias_ih, bias_hh, as `nn.GRU` has them in `all_weights`, of
            the direction that reads forwards and perhaps of another that reads backwards.
        dtype: of the products; the rest is computed in the dtype of `x`.

    Returns:
        (B, L, directions · hidden); in the padding, the last state of each direction.
    """
    grouped = [torch.stack(parts) for parts in zip(*weights, strict=True)]
    return GRU.apply(x, lengths, dtype, *grouped)


class GRU(torch.autograd.Function):
    """`gru`. What is kept of the steps lies (L, directions, B, …), or (directions, L · B, …) where
    a product is to take all steps at once."""

    @staticmethod
    def forward(ctx, x, lengths, dtype, w_ih, w_hh, b_ih, b_hh):
        (directions, _, H), (B, L, _) = w_hh.shape, x.shape
        backwards, ended = _places(lengths, L)
        rows = x.transpose(0, 1).flatten(0, 1).to(dtype)
        xs = torch.stack([rows, rows[backwards]][:directions])
        # The gates' two biases add up; the new state's stands inside the reset.
        bias = b_ih.clone()
        bias[:, : 2 * H] += b_hh[:, : 2 * H]
        inputs = torch.bmm(xs, w_ih.to(dtype).transpose(1, 2)).to(x.dtype).add_(bias[:, None])
        recurrent, inner_bias = w_hh.to(dtype).transpose(1, 2), b_hh[:, None, 2 * H :]
        states = x.new_zeros(L + 1, directions, B, H)  # the first stands before the first token
        before = xs.new_empty(directions, L * B, H)
        gates = x.new_empty(L, directions, B, 2 * H)
        inner, new = x.new_empty(L, directions, B, H), x.new_empty(L, directions, B, H)
        for t in range(L):
            step = slice(t * B, (t + 1) * B)
            before[:, step] = states[t]
            product = torch.bmm(before[:, step], recurrent).to(x.dtype)
            torch.add(inputs[:, step, : 2 * H], product[..., : 2 * H], out=gates[t]).sigmoid_()
            reset, keep = gates[t].chunk(2, dim=-1)
            torch.add(product[..., 2 * H :], inner_bias, out=inner[t])
            # tanh v as 2 σ(2 v) − 1: on a CPU PyTorch's tanh takes six times as long.
            torch.addcmul(inputs[:, step, 2 * H :], reset, inner[t], out=new[t])
            new[t].mul_(2).sigmoid_().mul_(2).sub_(1)
            torch.lerp(new[t], states[t], keep, out=states[t + 1])
            if ended is not None:
                torch.where(ended[t], states[t], states[t + 1], out=states[t + 1])
        ctx.dtype, ctx.backwards, ctx.ended = dtype, backwards, ended
        ctx.save_for_backward(xs, before, states, gates, inner, new, w_ih, w_hh)
        out = states[1:, 0]
        if directions == 2:
            out = torch.cat([out, states[1:, 1].flatten(0, 1)[backwards].view_as(out)], dim=-1)
        return out.transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):
        xs, before, states, gates, inner, new, w_ih, w_hh = ctx.saved_tensors
        L, directions, B, H = new.shape
        dtype, backwards, ended = ctx.dtype, ctx.backwards, ctx.ended
        grads = list(grad.transpose(0, 1).chunk(directions, dim=-1))
        if directions == 2:
            grads[1] = grads[1].flatten(0, 1)[backwards].view(L, B, H)
        reset, keep = gates.chunk(2, dim=-1)
        # How much of a state's gradient goes to the sums inside tanh and σ, all steps at once.
        renewed = 1 - keep
        to_new = torch.addcmul(renewed, renewed, new.square(), value=-1)
        to_keep = (states[:-1] - new).mul_(keep).mul_(renewed)
        to_reset = (inner * reset).mul_(1 - reset)
        # Of the sums: the new state's, the gates', and the new state's recurrent part, so that
        # the first three are the inputs' gradient and the last three the recurrent product's.
        sums = new.new_empty(directions, B, 4 * H)
        of_input, of_hidden = (xs.new_empty(directions, L * B, 3 * H) for _ in range(2))
        totals = torch.zeros_like(sums)
        of_new, of_reset, of_keep, of_inner = sums.chunk(4, dim=-1)
        recurrent = w_hh.to(dtype)
        state = torch.zeros_like(states[0])
        for t in reversed(range(L)):
            step = slice(t * B, (t + 1) * B)
            for direction in range(directions):
                state[direction] += grads[direction][t]
            now = state if ended is None else state.masked_fill(ended[t], 0)
            torch.mul(now, to_new[t], out=of_new)
            torch.mul(now, to_keep[t], out=of_keep)
            torch.mul(of_new, to_reset[t], out=of_reset)
            torch.mul(of_new, reset[t], out=of_inner)
            of_input[:, step] = sums[..., : 3 * H]
            of_hidden[:, step] = sums[..., H:]
            totals += sums
            product = torch.bmm(of_hidden[:, step], recurrent).to(now.dtype)
            earlier = product.addcmul_(now, keep[t])
            state = earlier if ended is None else torch.where(ended[t], state, earlier)
        # Back from (new, reset, keep) to PyTorch's order: reset, keep, new.
        grad_w_ih = torch.bmm(of_input.transpose(1, 2), xs).to(w_ih.dtype).roll(-H, dims=1)
        grad_w_hh = torch.bmm(of_hidden.transpose(1, 2), before).to(w_hh.dtype)
        totals = totals.sum(1).to(w_ih.dtype)
        grad_b_ih = totals[:, : 3 * H].roll(-H, dims=1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_xs = torch.bmm(of_input, w_ih.to(dtype).roll(H, dims=1)).to(grad.dtype)
            grad_x = grad_xs[0]
            if directions == 2:
                grad_x = grad_x + grad_xs[1][backwards]
            grad_x = grad_x.view(L, B, -1).transpose(0, 1)
        return grad_x, None, None, grad_w_ih, grad_w_hh, grad_b_ih, totals[:, H:]


def _places(lengths: Tensor, L: int) -> tuple[Tensor, Tensor | None]:
    """Where the token stands that the backward direction reads at each step, (L · B,) rows of all
    tokens, step by step; and (L, B, 1) which steps are past a sentence's end, None for no one's.

    The rows are their own inverse.
    """
    steps = torch.arange(L, device=lengths.device)[:, None]
    ended = steps >= lengths
    places = torch.where(ended, steps, lengths - 1 - steps)
    rows = places * len(lengths) + torch.arange(len(lengths), device=lengths.device)
    return rows.flatten(), ended[..., None] if bool(ended.any()) else None
