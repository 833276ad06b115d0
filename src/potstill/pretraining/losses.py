"""What DistilRNN-base learns, all of it from the decoder that wrote its text.

The lowest layer predicts the next token, forwards from the decoder's own probabilities (Kuncoro et
al. 2019), and the previous one backwards. The highest layer sees both directions and with them the
tokens; it reads the text with some tokens replaced by what the lowest layer holds possible there,
and tells which (Clark et al. 2020, *ELECTRA: Pre-training Text Encoders as Discriminators Rather
Than Generators*, section 2). From the same states it predicts the decoder's state at each token,
and what a student classifies by predicts the mean of these over the text.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.pretraining.heads import PretrainingHeads
from potstill.pretraining.text import PretrainingText
from potstill.student.layered import LayeredStudent, next_token_losses, pool, previous_tokens

NAMES = ("next_token", "previous_token", "state", "mean_state", "replaced")
FRACTION_REPLACED = 0.15  # of the tokens of a text, at least one
# A yes or no has a much smaller loss than a token; Clark et al. have 50, for a network of its own.
REPLACED_WEIGHT = 10.0


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
    """Return the (5,) losses of NAMES: two in nats per token, two mean squared errors, and the
    cross-entropy of which tokens are replaced, nats per token.

    Args:
        heads: In the dtype that the network computes in.
        dtype: dtype of the products with the embedding matrix.
    """
    drop: Callable[[Tensor], Tensor] = network.student.dropout
    lowest = network.lowest(batch.input_ids)
    following = batch.target_ids, batch.target_weights
    targets = (following, previous_tokens(batch.input_ids))
    losses = next_token_losses(network, lowest, heads.tokens, heads.bias.float(), targets, dtype)
    replaced_ids = replace_tokens(network, heads, lowest, batch.input_ids, dtype)
    _, highest = network(replaced_ids)
    known = batch.known
    errors = (heads.state(drop(highest)).float() - batch.states).square().mean(2)
    losses.append((errors * known).sum() / known.sum().clamp(min=1))
    counts = known.sum(1, keepdim=True).clamp(min=1)
    mean = (batch.states * known[..., None]).sum(1) / counts
    errors = (heads.mean_state(drop(pool(highest))).float() - mean).square().mean(1)
    # The mean of n tokens varies by 1/n as much; times n, long texts count like short ones.
    losses.append((errors * counts.squeeze(1)).mean() / 4)
    is_replaced = (replaced_ids != batch.input_ids).float()
    scores = heads.replaced(drop(highest)).squeeze(2).float()
    losses.append(F.binary_cross_entropy_with_logits(scores, is_replaced))
    return torch.stack(losses)


@torch.no_grad()
def replace_tokens(
    network: LayeredStudent,
    heads: PretrainingHeads,
    lowest: Tensor,
    input_ids: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Return (B, L) tokens with some of each row, but never its first, drawn anew from what the
    lowest layer predicts forwards; some of these come out as they were.

    Args:
        lowest: (B, L, 2 · hidden) states of the lowest layer.
        dtype: dtype of the products with the embedding matrix.
    """
    B, L = input_ids.shape
    count = max(1, round(FRACTION_REPLACED * L))
    at = torch.rand(B, L - 1, device=input_ids.device).topk(count, 1).indices
    forwards = lowest.chunk(2, dim=2)[0]
    states = forwards.gather(1, at[..., None].expand(-1, -1, forwards.shape[2]))
    logits = heads.tokens[0](states).to(dtype) @ network.embedding.to(dtype).T
    scores = logits.float() + heads.bias.float()
    noise = torch.empty_like(scores).exponential_().log_()
    return input_ids.scatter(1, at + 1, scores.sub_(noise).argmax(2))
