"""What a student learns from where it is too much for memory: read a block of files at a time.

Each epoch shuffles the files of a tokenised set and cuts them into blocks. A block is read whole;
its sentences, and an equal part of the labelled ones, are shuffled among each other and make up
the next batches. Which batches there are depends on the seed and the epoch alone, so that an epoch
can be gone on with at any batch. A set that fits into one block is shuffled as a whole.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from potstill.data.batching import length_batches
from potstill.data.token_array import offsets_of
from potstill.distillation.dataset import DistillationBatch, DistillationDataset
from potstill.distillation.lm_targets import LMBatch, LMDataset
from potstill.distillation.tokenised import TokenisedSet

BLOCK_SIZE = 262_144  # sentences of a set that are in memory at once, about 200 bytes each


class StreamedDataset:
    """N sentences: the labelled ones, which are in memory, and then those of a tokenised set.

    Args:
        labelled: The labelled sentences.
        tokenised: The set.
        block_size: Sentences of the set that are read at once.

    Attributes:
        lengths: (N,) tokens of each sentence.
        labels: (N,) UNLABELLED for those of the set.
    """

    def __init__(
        self,
        labelled: DistillationDataset,
        tokenised: TokenisedSet,
        *,
        block_size: int = BLOCK_SIZE,
    ):
        self.labelled, self.tokenised, self.block_size = labelled, tokenised, block_size
        self.lengths = np.concatenate([labelled.lengths.astype(np.int32), tokenised.lengths()])
        self.labels = np.concatenate([np.asarray(labelled.labels, np.int16), tokenised.labels()])
        # Where the sentences of each file begin among all N.
        self._offsets = len(labelled) + offsets_of(np.array([s.rows for s in tokenised.shards]))
        self._plan: list[np.ndarray] = []  # the files of each block of the latest epoch
        self._block: DistillationDataset | None = None  # the one in memory
        self._starts: dict[int, int] = {}  # of each of its files, the first row

    def __len__(self) -> int:
        return len(self.lengths)

    def epoch_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        chosen: np.ndarray | None = None,
    ) -> list[np.ndarray]:
        """Return the indices of one epoch's batches, as `length_batches` does.

        Args:
            chosen: (N,) True for the sentences that are to be in it. Default: all.
        """
        chosen = np.ones(len(self), bool) if chosen is None else chosen
        labelled = np.flatnonzero(chosen[: len(self.labelled)])
        files = [n for n in range(len(self.tokenised.shards)) if chosen[self._span(n)].any()]
        self._plan = self._blocks(files, seed, epoch)
        if len(self._plan) > 1:
            labelled = np.random.default_rng([seed, epoch, 1]).permutation(labelled)
        batches: list[np.ndarray] = []
        for part, (numbers, own) in enumerate(
            zip(self._plan, np.array_split(labelled, len(self._plan)), strict=True)
        ):
            spans = [np.flatnonzero(chosen[self._span(n)]) + self._offsets[n] for n in numbers]
            rows = np.concatenate([own, *spans]).astype(np.int32)
            batches += [
                rows[batch]
                for batch in length_batches(
                    self.lengths[rows],
                    batch_size,
                    seed=seed,
                    epoch=epoch,
                    part=part,
                )
            ]
        return batches

    def batch(self, indices: Sequence[int]) -> DistillationBatch:
        """Return the sentences at `indices`, of one batch of the latest epoch."""
        block, rows = self.block(indices)
        return replace(block.batch(rows), indices=torch.as_tensor(indices))

    def block(self, indices: Sequence[int]) -> tuple[DistillationDataset, list[int]]:
        """Return the block that has the sentences at `indices`, and their rows in it."""
        index = np.asarray(indices)
        files = np.searchsorted(self._offsets, index, side="right") - 1
        needed = set(files[files >= 0].tolist())
        if self._block is None or not needed <= self._starts.keys():
            self._load(next((p for p in self._plan if needed <= {*p.tolist()}), sorted(needed)))
        assert self._block is not None
        starts = np.array([self._starts.get(n, 0) for n in files.tolist()])
        rows = np.where(files < 0, index, starts + index - self._offsets[files])
        return self._block, rows.tolist()

    def whole(self) -> DistillationDataset:
        """Return all of it in memory."""
        return self.labelled.concat(self.tokenised.read())

    def text(self) -> "StreamedText":
        """Return what a language model learns from."""
        is_text = [np.full(shard.rows, shard.is_text) for shard in self.tokenised.shards]
        return StreamedText(self, np.concatenate([np.asarray(self.labelled.is_text), *is_text]))

    def _span(self, number: int) -> slice:
        return slice(self._offsets[number], self._offsets[number + 1])

    def _blocks(self, files: list[int], seed: int, epoch: int) -> list[np.ndarray]:
        """Return the numbers of the files of each block, about as many sentences in each."""
        rows = np.array([self.tokenised.shards[n].rows for n in files])
        blocks = max(1, -(-int(rows.sum()) // self.block_size))
        if blocks == 1:
            return [np.array(files, int)]
        order = np.random.default_rng([seed, epoch]).permutation(len(files))
        middles = np.cumsum(rows[order]) - rows[order] / 2
        block_of = (middles * blocks / rows.sum()).astype(int)
        parts = [np.array(files)[order[block_of == n]] for n in range(blocks)]
        return [part for part in parts if len(part)]

    def _load(self, numbers: Sequence[int] | np.ndarray) -> None:
        self._block = None  # before the next is read: one at a time
        numbers = [int(n) for n in numbers]
        self._block = self.labelled.concat(self.tokenised.read(numbers))
        firsts = offsets_of(np.array([self.tokenised.shards[n].rows for n in numbers]))
        starts = (len(self.labelled) + firsts[:-1]).tolist()
        self._starts = dict(zip(numbers, starts, strict=True))


class StreamedText:
    """What a language model learns from, of a `StreamedDataset`.

    Args:
        streamed: The dataset.
        chosen: (N,) True for the sentences that are text.
    """

    def __init__(self, streamed: StreamedDataset, chosen: np.ndarray):
        self.streamed, self.chosen = streamed, chosen

    def __len__(self) -> int:
        return int(self.chosen.sum())

    def longer(self) -> "StreamedText":
        """Return the sentences of more than one token: others have no next token."""
        return StreamedText(self.streamed, self.chosen & (self.streamed.lengths > 1))

    def epoch_batches(self, batch_size: int, **order: int) -> list[np.ndarray]:
        """Return the indices of one epoch's batches."""
        return self.streamed.epoch_batches(batch_size, chosen=self.chosen, **order)

    def batch(self, indices: Sequence[int]) -> LMBatch:
        """Return the sentences at `indices`, of one batch of the latest epoch."""
        block, rows = self.streamed.block(indices)
        batch = LMDataset(block.tokens, block.lm_targets).batch(rows)
        return replace(batch, indices=torch.as_tensor(indices))

    def soft_fraction(self) -> float | None:
        """Return the fraction of the tokens with soft targets; None where there are none at all."""
        tokenised = self.streamed.tokenised
        if tokenised.student_ids is None:
            return None
        chosen = self.streamed.lengths[self.chosen]
        soft = sum(shard.soft for shard in tokenised.shards if shard.is_text)
        return soft / max(1, int(np.maximum(chosen - 1, 0).sum()))

    def whole(self) -> LMDataset:
        """Return all of it in memory."""
        data = self.streamed.whole()
        return LMDataset(data.tokens, data.lm_targets).take(np.flatnonzero(self.chosen))
