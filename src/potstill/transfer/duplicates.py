"""Which sentences have been seen before, in eight bytes each.

A set of 20 million strings takes more than two gigabytes in Python; their hashes take 160 MB. Two
of 20 million sentences share a hash of 64 bits with a probability of one in a hundred thousand.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from potstill.transfer.sentences import normal


def normal_hashes(sentences: Iterable[str]) -> np.ndarray:
    """Return a uint64 for each sentence, the same for those of one normal form."""
    digests = (blake2b(normal(s).encode(), digest_size=8).digest() for s in sentences)
    return np.frombuffer(b"".join(digests), "<u8")


class SeenSentences:
    """The sentences seen so far, of which only the hashes are kept."""

    def __init__(self) -> None:
        # Sorted, each at least twice as long as the next, so that few have to be looked through
        # and each hash is sorted again only a few times.
        self._parts: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Add sentences; return a mask of those that are new, each once."""
        unique, first = np.unique(hashes, return_index=True)
        is_new = ~self.contain(unique)
        mask = np.zeros(len(hashes), bool)
        mask[first[is_new]] = True
        part = unique[is_new]
        while self._parts and len(self._parts[-1]) < 2 * len(part):
            part = np.concatenate([self._parts.pop(), part])
            part.sort(kind="stable")
        self._parts.append(part)
        return mask

    def contain(self, hashes: np.ndarray) -> np.ndarray:
        """Return a mask of the sentences that have been seen."""
        mask = np.zeros(len(hashes), bool)
        for part in filter(len, self._parts):
            at = np.searchsorted(part, hashes)
            mask |= part[np.minimum(at, len(part) - 1)] == hashes
        return mask
