"""Soft targets of a student's language model: the decoder's probabilities, in the student's tokens.

A token of the decoder's stands for the first of those that the student makes of it. Where the
decoder has no token that ends where the student's does, or where the tokens that follow do not
agree, the hard target is left: the token that follows. That token also gets the probability outside
the top k, where it is none of these, which is unbiased over many samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from potstill.data.batching import Batch, TokenDataset
from potstill.data.token_array import (
    TokenArray,
    Tokens,
    join_offsets,
    offsets_of,
    positions_of,
)
from potstill.transfer.top_k import EMPTY, TopKTargets


@dataclass(frozen=True)
class LMTargets:
    """The targets after every token but the last of N sentences, one sentence after the other.

    Args:
        rows: (positions,) each position's row in the tables, -1 where there is only a hard target.
        in_top_k: (positions,) True where the token that follows is among the top k.
        offsets: (N + 1,) of the sentences among the positions.
        token_ids, probs: (rows, TOP_K), the tables: of the decoder's vocabulary, and float16.
        student_ids: (decoder's vocabulary,) the student's token for each of the decoder's.
    """

    rows: np.ndarray
    in_top_k: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    student_ids: Tensor

    def soft_fraction(self) -> float:
        """Return the fraction of the positions that have soft targets."""
        return float((self.rows >= 0).mean())

    def batch(self, indices: Sequence[int], following: Tensor) -> tuple[Tensor, Tensor]:
        """Return the targets of the sentences at `indices`: token ids of the student's vocabulary
        and their weights, each (positions, TOP_K + 1).

        following: (positions,) the tokens that do follow.
        """
        positions = self._positions(indices)
        rows = self.rows[positions]
        soft = torch.from_numpy(rows >= 0)
        token_ids = self.student_ids[torch.from_numpy(self.token_ids[rows].astype(np.int64))]
        weights = torch.from_numpy(self.probs[rows].astype(np.float32)) * soft[:, None]
        hard = ~(soft & torch.from_numpy(self.in_top_k[positions]))
        return (
            torch.cat([token_ids, following[:, None]], dim=1),
            torch.cat([weights, hard[:, None].float()], dim=1),
        )

    def take(self, indices: Sequence[int] | np.ndarray) -> "LMTargets":
        """Return the targets of the sentences at `indices`, in that order, with the same tables."""
        positions = self._positions(indices)
        counts = np.diff(self.offsets)[indices]
        rows, in_top_k = self.rows[positions], self.in_top_k[positions]
        return replace(self, rows=rows, in_top_k=in_top_k, offsets=offsets_of(counts))

    def concat(self, other: "LMTargets") -> "LMTargets":
        """Return the targets of these sentences and of `other`'s, of the same decoder."""
        shift = len(self.token_ids)
        return LMTargets(
            np.concatenate([self.rows, np.where(other.rows < 0, -1, other.rows + shift)]),
            np.concatenate([self.in_top_k, other.in_top_k]),
            join_offsets(self.offsets, other.offsets),
            _join(self.token_ids, other.token_ids),
            _join(self.probs, other.probs),
            self.student_ids,
        )

    def _positions(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return positions_of(self.offsets, indices)


def soft_targets(
    encodings: Sequence[Encoding],
    tokens: Tokens,
    *,
    top_k: Sequence[TopKTargets | None],
    student_ids: Tensor,
) -> LMTargets:
    """Return the targets of sentences from the decoder's.

    Args:
        encodings: What the student's tokenizer makes of each sentence.
        tokens: The student's tokens of each, perhaps fewer.
        top_k: The decoder's targets of each, None where they are not known.
        student_ids: As `map_vocabulary` returns them.
    """
    offsets = _after(tokens)
    rows = np.full(offsets[-1], -1)
    in_top_k = np.zeros(len(rows), bool)
    tables, table_rows = [EMPTY], 0
    own = student_ids.numpy()
    for i, (encoding, decoder) in enumerate(zip(encodings, top_k, strict=True)):
        if decoder is None or not len(decoder.offsets):
            continue
        here = slice(offsets[i], offsets[i + 1])
        ends = np.array([end for _, end in encoding.offsets[: len(rows[here])]], dtype=np.int64)
        row = np.minimum(np.searchsorted(decoder.offsets, ends), len(decoder.offsets) - 1)
        follows = own[decoder.next_ids[row]]
        agrees = (decoder.offsets[row] == ends) & (follows == np.asarray(tokens[i])[1:])
        rows[here] = np.where(agrees, table_rows + row, -1)
        in_top_k[here] = (decoder.token_ids[row] == decoder.next_ids[row][:, None]).any(1)
        tables.append(decoder)
        table_rows += len(decoder.offsets)
    return LMTargets(
        rows,
        in_top_k,
        offsets,
        np.concatenate([table.token_ids for table in tables]),
        np.concatenate([table.probs for table in tables]),
        student_ids,
    )


def map_vocabulary(tokenizer: Tokenizer, vocabulary: list[str]) -> Tensor:
    """Return the token of the student's `tokenizer` for each token of the decoder's."""
    own = tokenizer.get_vocab()
    return torch.tensor([own[t] if t in own else _first(tokenizer, t) for t in vocabulary])


def hard_targets(tokens: Tokens, like: LMTargets) -> LMTargets:
    """Return targets of sentences without soft ones, to be joined with those of `like`."""
    offsets = _after(tokens)
    return LMTargets(
        np.full(offsets[-1], -1),
        np.zeros(offsets[-1], bool),
        offsets,
        like.token_ids[:0],
        like.probs[:0],
        like.student_ids,
    )


@dataclass(frozen=True)
class LMBatch(Batch):
    """targets: (N, K) token ids after each token that another follows, and their (N, K) weights;
    None for hard targets, the tokens that follow."""

    target_ids: Tensor | None
    target_weights: Tensor | None


@dataclass(frozen=True)
class LMDataset(TokenDataset):
    """What the student's language model learns from."""

    targets: LMTargets | None = None

    def take(self, indices: Sequence[int] | np.ndarray) -> "LMDataset":
        """Return the sentences at `indices`, in that order."""
        targets = self.targets.take(indices) if self.targets else None
        return LMDataset(TokenArray.of(self.tokens).take(indices), targets)

    def longer(self) -> "LMDataset":
        """Return the sentences of more than one token: others have no next token."""
        return self.take(np.flatnonzero(self.lengths > 1))

    def soft_fraction(self) -> float | None:
        """Return the fraction of the tokens with soft targets; None where there are none at all."""
        return self.targets.soft_fraction() if self.targets else None

    def whole(self) -> "LMDataset":
        """Return itself, which is in memory."""
        return self

    def batch(self, indices: Sequence[int]) -> LMBatch:
        """Return the sentences at `indices` as a batch."""
        target_ids = target_weights = None
        if self.targets:
            after = [np.asarray(self.tokens[i][1:], np.int64) for i in indices]
            following = torch.from_numpy(np.concatenate(after))
            target_ids, target_weights = self.targets.batch(indices, following)
        return LMBatch(
            **vars(super().batch(indices)), target_ids=target_ids, target_weights=target_weights
        )


def _after(tokens: Tokens) -> np.ndarray:
    """Return the offsets of the positions after every token but the last of each sentence."""
    return offsets_of(np.maximum(TokenArray.of(tokens).lengths - 1, 0))


def _first(tokenizer: Tokenizer, token: str) -> int:
    """Return the first of the tokens that `tokenizer` makes of one of another vocabulary."""
    made = tokenizer.model.tokenize(token) if token else []
    return made[0].id if made else 0


def _join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Concatenate, without a copy if one is empty: the tables take hundreds of megabytes."""
    if not len(first) or not len(second):
        return second if len(second) else first
    return np.concatenate([first, second])
