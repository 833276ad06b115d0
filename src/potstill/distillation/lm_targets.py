"""What a student's language model learns from: the decoder's chances, in its own tokens."""

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from potstill.transfer.top_k import EMPTY, TopKTargets


class SoftTargets:
    """What a student's language model is to hold likely after each of its own tokens, made of the
    decoder's chances for the decoder's tokens.

    A token of the decoder's stands for the first of those that the student makes of it. Where the
    decoder has no token that ends where the student's does, or where the tokens that follow do not
    agree, the student learns from the token that follows alone. That token also stands for all that
    is not among the likeliest, where it is none of these: over many draws, their chances.

    Args:
        tokenizer: the student's.
        vocabulary: the decoder's tokens.
        sentences, found: the sentences that the language model learns from and what the decoder
            held likely in them, None where that is not known.
        tokens: of each sentence, by the student's tokenizer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocabulary: list[str],
        sentences: list[str],
        found: list[TopKTargets | None],
        tokens: list[list[int]],
    ):
        own = tokenizer.get_vocab()
        first = [own[t] if t in own else _first(tokenizer, t) for t in vocabulary]
        self.first = torch.tensor(first)
        rows, listed, begins = [], [], [0]
        at = 0
        for sentence, one, mine in zip(
            tokenizer.encode_batch(sentences), found, tokens, strict=True
        ):
            row = np.full(max(len(mine) - 1, 0), -1)
            hit = np.zeros(len(row), bool)
            if one is not None and len(one.offsets):
                ends = np.array([end for _, end in sentence.offsets[: len(row)]])
                place = np.minimum(np.searchsorted(one.offsets, ends), len(one.offsets) - 1)
                follows = self.first.numpy()[one.next_ids[place]]
                good = (one.offsets[place] == ends) & (follows == mine[1:])
                row[good] = at + place[good]
                hit = (one.token_ids[place] == one.next_ids[place][:, None]).any(1)
                at += len(one.offsets)
            rows.append(row)
            listed.append(hit)
            begins.append(begins[-1] + len(row))
        known = [EMPTY, *(one for one in found if one is not None)]
        self.rows, self.listed = map(np.concatenate, (rows, listed))
        self.begins = np.array(begins)
        self.tokens = np.concatenate([one.token_ids for one in known])
        self.probs = np.concatenate([one.probs for one in known])

    def share(self) -> float:
        """Of the tokens to predict, those whose chances are known."""
        return float((self.rows >= 0).mean())

    def of(self, index: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """For each token but the last of the sentences `index`, one after the other: places in the
        student's vocabulary and their shares, each (N, TOP_K + 1).

        following: (N,) the tokens that do follow.
        """
        spans = [np.arange(self.begins[i], self.begins[i + 1]) for i in index.tolist()]
        span = np.concatenate(spans)
        rows = self.rows[span]
        known = torch.from_numpy(rows >= 0)
        places = self.first[torch.from_numpy(self.tokens[rows].astype(np.int64))]
        shares = torch.from_numpy(self.probs[rows].astype(np.float32)) * known[:, None]
        alone = ~(known & torch.from_numpy(self.listed[span]))
        return (
            torch.cat([places, following[:, None]], dim=1),
            torch.cat([shares, alone[:, None].float()], dim=1),
        )


def _first(tokenizer: Tokenizer, token: str) -> int:
    """The first of the tokens that `tokenizer` makes of one of another vocabulary."""
    made = tokenizer.model.tokenize(token) if token else []
    return made[0].id if made else 0
