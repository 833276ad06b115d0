"""Tokenised sentences as two arrays: millions of them take two bytes a token."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class TokenArray:
    """N sentences, one after the other.

    Attributes:
        values: (total,) token ids of all sentences.
        offsets: (N + 1,) where each begins in `values`, and the end of the last.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, tokens: "Sequence[Sequence[int]] | TokenArray") -> "TokenArray":
        """Return sentences, given as lists, as arrays."""
        if isinstance(tokens, TokenArray):
            return tokens
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        flat = np.fromiter(itertools.chain.from_iterable(tokens), np.int32, int(lengths.sum()))
        return cls(flat, offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each sentence."""
        return np.diff(self.offsets)

    def take(self, indices: Sequence[int] | np.ndarray) -> "TokenArray":
        """Return the sentences at `indices`, in that order."""
        lengths = self.lengths[indices]
        return TokenArray(self.values[positions_of(self.offsets, indices)], offsets_of(lengths))

    def concat(self, other: "TokenArray") -> "TokenArray":
        """Return these sentences and then `other`'s."""
        return TokenArray(
            np.concatenate([self.values, other.values]), join_offsets(self.offsets, other.offsets)
        )

    def append(self, last: np.ndarray) -> "TokenArray":
        """Return the sentences with one value more at the end of each, (N,)."""
        return TokenArray(
            np.insert(self.values, self.offsets[1:], last),
            self.offsets + np.arange(len(self.offsets)),
        )


Tokens = Sequence[Sequence[int]] | TokenArray


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the (N + 1,) offsets of items of (N,) lengths."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def join_offsets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the offsets of the items of one array after those of another."""
    return np.concatenate([first, first[-1] + second[1:]])


def positions_of(offsets: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the positions, one item after the other, of what the items at `indices` have."""
    indices = np.asarray(indices, np.int64)
    counts = np.diff(offsets)[indices]
    shifts = offsets[indices] - (np.cumsum(counts) - counts)
    return np.arange(counts.sum()) + np.repeat(shifts, counts)
