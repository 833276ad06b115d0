"""What DistilRNN-base learns, all of it from the decoder that wrote its text.

The lowest layer predicts the next token, forwards from the decoder's own probabilities (Kuncoro et
al. 2019), and the previous one backwards; the highest layer, which sees both directions and with
them the tokens, predicts the decoder's state at each token; and what a student classifies by
predicts the mean of these states over the text.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.pretraining.heads import PretrainingHeads
from potstill.pretraining.text import PretrainingText
from potstill.student.layered import LayeredStudent, next_token_losses, pool, previous_tokens

NAMES = ("next_token", "previous_token", "state", "mean_state")


@dataclass(frozen=True)
class PretrainingBatch:
    """B texts of L tokens.

    Attributes:
        input_ids: (B, L).
        known: (B, L), 1 where a token of the decoder's ends, else 0; fp32.
        target_ids: (B, L - 1, K + 1) tokens that may follow each token but the last.
        target_weights: (B, L - 1, K + 1) their weights.
        states: (B, L, directions) the decoder's states, fp32; arbitrary where not `known`.
    """

    input_ids: Tensor
    known: Tensor
    target_ids: Tensor
    target_weights: Tensor
    states: Tensor


def make_batch(text: PretrainingText, indices: Tensor, length: int) -> PretrainingBatch:
    """Return the texts at `indices`, (B,), each of `length` tokens.

    The token that follows stands for all that is not among the top K, and has all of the weight
    where the decoder says nothing.
    """
    positions = text.tokens.positions(indices, length)
    input_ids, origin = text.tokens.values[positions].long(), text.origin[positions]
    known, rows = (origin >= 0).float(), origin.clamp(min=0)
    following = input_ids[:, 1:, None]
    top_ids = text.top_ids[rows[:, :-1]].long()
    top_probs = text.top_probs[rows[:, :-1]].float() * known[:, :-1, None]
    in_top_k = ((top_ids == following) & (top_probs > 0)).any(2, keepdim=True)
    return PretrainingBatch(
        input_ids,
        known,
        torch.cat([top_ids, following], 2),
        torch.cat([top_probs, (~in_top_k).float()], 2),
        text.states[rows].float(),
    )


def pretraining_losses(
    network: LayeredStudent, heads: PretrainingHeads, batch: PretrainingBatch, dtype: torch.dtype
) -> Tensor:
    """Return the (4,) losses of NAMES: two in nats per token, two mean squared errors.

    Args:
        heads: In the dtype that the network computes in.
        dtype: dtype of the products with the embedding matrix.
    """
    drop: Callable[[Tensor], Tensor] = network.student.dropout
    lowest, highest = network(batch.input_ids)
    following = batch.target_ids, batch.target_weights
    targets = (following, previous_tokens(batch.input_ids))
    losses = next_token_losses(network, lowest, heads.tokens, heads.bias.float(), targets, dtype)
    known = batch.known
    errors = (heads.state(drop(highest)).float() - batch.states).square().mean(2)
    losses.append((errors * known).sum() / known.sum().clamp(min=1))
    counts = known.sum(1, keepdim=True).clamp(min=1)
    mean = (batch.states * known[..., None]).sum(1) / counts
    errors = (heads.mean_state(drop(pool(highest))).float() - mean).square().mean(1)
    # The mean of n tokens varies by 1/n as much; times n, long texts count like short ones.
    losses.append((errors * counts.squeeze(1)).mean() / 4)
    return torch.stack(losses)
