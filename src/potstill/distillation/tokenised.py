"""A transfer set in a student's tokens, read some shards at a time; `tokenise.py` writes the files.

Next to each shard of the set stands a file of the same name with the sentences that were chosen:

| column | type | |
|---|---|---|
| row | int32 | the sentence's row in the shard, where its logits are |
| length | int32 | of `tokens` |
| tokens | list<uint16> | int32 for a vocabulary of more than 65,536 |
| word_positions | list<int32> | of the words' last tokens |
| soft_rows | list<int32> | as in `LMTargets`, of the chosen sentences' targets |
| in_top_k | list<bool> | as in `LMTargets` |
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.data.batching import UNLABELLED
from potstill.data.token_array import TokenArray, offsets_of
from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.lm_targets import LMTargets
from potstill.distillation.word_targets import ragged_word_targets
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import Shard, read_table
from potstill.transfer.table import flat_lists, logits_array
from potstill.transfer.top_k import TOP_K


@dataclass(frozen=True)
class TokenShard:
    """A file of tokens.

    Attributes:
        path: The file.
        shard: The shard of the set whose sentences it has.
        rows: How many it has.
        soft: How many tokens have soft targets after them.
    """

    path: Path
    shard: Shard
    rows: int
    soft: int

    @property
    def is_text(self) -> bool:
        """Whether a language model learns from it: edits are mostly not what it should write."""
        return self.shard.kind is not SourceKind.EDITED


@dataclass(frozen=True)
class TokenisedSet:
    """A transfer set in a student's tokens.

    Attributes:
        folder: Where the tokens are.
        shards: Their files.
        classes: How many labels the teacher knows.
        words: Whether the words' positions are there.
        student_ids: As `map_vocabulary` returns them; None without soft targets.
    """

    folder: Path
    shards: list[TokenShard]
    classes: int
    words: bool
    student_ids: Tensor | None

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def lengths(self) -> np.ndarray:
        """Return the (N,) tokens of each sentence, int32."""
        columns = [read_table(s.path, ["length"])["length"].to_numpy() for s in self.shards]
        return _join(columns, np.int32)

    def labels(self) -> np.ndarray:
        """Return (N,) UNLABELLED, int16."""
        return np.full(len(self), UNLABELLED, np.int16)

    def read(self, numbers: Sequence[int] | None = None) -> DistillationDataset:
        """Return the sentences of the shards at `numbers`, or of all, in that order."""
        numbers = range(len(self.shards)) if numbers is None else numbers
        parts = [self._read(self.shards[number]) for number in numbers]
        tokens = TokenArray(
            _join([part.tokens.values for part in parts], np.uint16),
            offsets_of(_join([part.tokens.lengths for part in parts], np.int64)),
        )
        targets = None
        if self.words:
            targets = ragged_word_targets(
                _join([part.positions for part in parts], np.uint16),
                _join([part.position_counts for part in parts], np.int64),
                _join([part.word_logits for part in parts], np.float16, self.classes),
                _join([part.word_counts for part in parts], np.int64),
            )
        lm_targets = None
        if self.student_ids is not None:
            lm_targets = _join_lm_targets(parts, tokens, self.student_ids)
        logits = _join([part.logits for part in parts], np.float16, self.classes)
        return DistillationDataset(
            tokens,
            np.full(len(tokens), UNLABELLED),
            is_text=_join([np.full(len(p.logits), p.is_text) for p in parts], bool),
            teacher_logits=torch.from_numpy(logits.astype(np.float32)),
            word_targets=targets,
            lm_targets=lm_targets,
        )

    def _read(self, token_shard: TokenShard) -> "_Part":
        own = read_table(token_shard.path).drop(["length"])
        path, soft = token_shard.shard.path, "soft_rows" in own.column_names
        columns = ["logits"] + ["word_logits"] * self.words
        columns += ["top_k_ids", "top_k_probs"] * soft
        table = read_table(path, columns).take(own["row"])
        values, offsets = flat_lists(own["tokens"])
        part = _Part(
            token_shard.is_text, TokenArray(values, offsets), logits_array(table["logits"])
        )
        if self.words:
            part.positions, ends = flat_lists(own["word_positions"])
            flat, word_offsets = flat_lists(table["word_logits"])
            part.position_counts = np.diff(ends)
            part.word_logits = flat.reshape(-1, self.classes)
            part.word_counts = np.diff(word_offsets) // self.classes
        if soft:
            part.soft_rows = flat_lists(own["soft_rows"])[0]
            part.in_top_k = flat_lists(own["in_top_k"])[0]
            ids, probs = (flat_lists(table[name])[0] for name in ("top_k_ids", "top_k_probs"))
            part.token_ids, part.probs = ids.reshape(-1, TOP_K), probs.reshape(-1, TOP_K)
        return part

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class _Part:
    """What one shard has, as arrays."""

    positions: np.ndarray = np.empty(0, np.uint16)
    position_counts: np.ndarray = np.empty(0, np.int64)
    word_logits: np.ndarray = np.empty(0, np.float16)
    word_counts: np.ndarray = np.empty(0, np.int64)
    soft_rows: np.ndarray = np.empty(0, np.int64)
    in_top_k: np.ndarray = np.empty(0, bool)
    token_ids: np.ndarray = np.empty((0, TOP_K), np.int32)
    probs: np.ndarray = np.empty((0, TOP_K), np.float16)

    def __init__(self, is_text: bool, tokens: TokenArray, logits: np.ndarray):
        self.is_text, self.tokens, self.logits = is_text, tokens, logits


def _join(parts: list[np.ndarray], dtype: Any, *width: int) -> np.ndarray:
    return np.concatenate([np.empty((0, *width), dtype), *parts]) if parts else np.empty(0, dtype)


def _join_lm_targets(parts: list[_Part], tokens: TokenArray, student_ids: Tensor) -> LMTargets:
    rows, in_top_k, shift = [], [], 0
    for part in parts:
        if len(part.soft_rows) or not len(part.tokens):
            rows.append(np.where(part.soft_rows < 0, -1, part.soft_rows + shift))
            in_top_k.append(part.in_top_k)
        else:  # a shard of a kind without targets
            positions = int(np.maximum(part.tokens.lengths - 1, 0).sum())
            rows.append(np.full(positions, -1))
            in_top_k.append(np.zeros(positions, bool))
        shift += len(part.token_ids)
    return LMTargets(
        _join(rows, np.int64),
        _join(in_top_k, bool),
        offsets_of(np.maximum(tokens.lengths - 1, 0)),
        _join([p.token_ids for p in parts if len(p.token_ids)], np.int32, TOP_K),
        _join([p.probs for p in parts if len(p.probs)], np.float16, TOP_K),
        student_ids,
    )
