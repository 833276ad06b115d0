"""A transfer set in a student's tokens: written into files once a run, read some shards at a time.

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

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from torch import Tensor

from potstill.data.batching import UNLABELLED
from potstill.data.text import word_ends
from potstill.data.token_array import TokenArray, offsets_of
from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.lm_targets import LMTargets, map_vocabulary, soft_targets
from potstill.distillation.word_targets import ragged_word_targets
from potstill.files import read_json, write_json
from potstill.parsing import parse_json
from potstill.progress import Progress, no_progress
from potstill.student.tokenizer import encode_batch
from potstill.training.distributed import process
from potstill.transfer.dataset import Selection
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import Shard, read_metadata, read_schema, read_table, write_table
from potstill.transfer.table import (
    TOP_K_COLUMNS,
    flat_lists,
    list_column,
    logits_array,
    table_top_k,
)
from potstill.transfer.top_k import TOP_K

KEY = "key.json"
METADATA = b"potstill.tokens"


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


def tokenise_set(
    folder: Path,
    selection: Selection,
    tokenizer: Tokenizer,
    *,
    set_sha256: str,
    vocabulary: list[str],
    words: bool,
    max_length: int,
    progress: Progress = no_progress,
) -> TokenisedSet:
    """Write the chosen sentences of a set in a student's tokens into `folder`, which must be the
    same for all processes; each writes some of the files. Files that are there are kept, if they
    are of the same set, tokenizer and settings.

    Args:
        folder: Where to write; what is there of another set is removed.
        selection: The sentences.
        tokenizer: The student's.
        set_sha256: The hash of the set.
        vocabulary: The decoder's, for soft targets of a language model; empty without these.
        words: Whether the student learns the logits after each word.
        max_length: Maximum number of tokens of a sentence.
        progress: Shows the sentences done.
    """
    key = {
        "set": set_sha256,
        "chosen": hashlib.sha256(b"".join(mask.tobytes() for mask in selection.masks)).hexdigest(),
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
        "soft": bool(vocabulary),
        "words": words,
        "max_length": max_length,
    }
    state = process()
    if state.is_main_process and not ((folder / KEY).is_file() and read_json(folder / KEY) == key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / KEY, key)
    state.wait_for_everyone()
    student_ids = map_vocabulary(tokenizer, vocabulary) if vocabulary else None
    transfer_set = selection.transfer_set
    pairs = list(zip(transfer_set.shards, selection.masks, strict=True))
    missing = [pair for pair in pairs if not (folder / pair[0].path.name).is_file()]
    share = missing[state.process_index :: state.num_processes]
    done = 0
    with progress(sum(len(mask) for _, mask in share)) as show, _in_parallel():
        for shard, mask in share:
            table = _tokenise(shard, mask, tokenizer, student_ids, words, max_length)
            write_table(folder / shard.path.name, table)
            done += len(mask)
            show(done, "tokens")
    state.wait_for_everyone()
    shards = []
    for shard in transfer_set.shards:
        path = folder / shard.path.name
        rows, schema = read_schema(path)
        shards.append(TokenShard(path, shard, rows, **parse_json(schema.metadata[METADATA])))
    return TokenisedSet(folder, shards, len(transfer_set.labels), words, student_ids)


def _tokenise(
    shard: Shard,
    mask: np.ndarray,
    tokenizer: Tokenizer,
    student_ids: Tensor | None,
    words: bool,
    max_length: int,
) -> pa.Table:
    """Return the table of one file."""
    soft = student_ids is not None and read_metadata(shard.path).without_top_k is not None
    columns = ["sentence", *(TOP_K_COLUMNS if soft else ())]
    table = read_table(shard.path, columns).filter(pa.array(mask))
    sentences = table["sentence"].to_pylist()
    encodings = encode_batch(tokenizer, sentences)
    token_type = pa.uint16() if tokenizer.get_vocab_size() <= 2**16 else pa.int32()
    tokens = TokenArray.of([encoding.ids[:max_length] for encoding in encodings])
    result = {
        "row": pa.array(np.flatnonzero(mask), pa.int32()),
        "length": pa.array(tokens.lengths, pa.int32()),
        "tokens": list_column(tokens.values, tokens.offsets, token_type),
    }
    if words:
        pairs = zip(sentences, encodings, strict=True)
        positions = [word_ends(s, [end for _, end in e.offsets[:max_length]]) for s, e in pairs]
        flat = TokenArray.of(positions)
        result["word_positions"] = list_column(flat.values, flat.offsets, pa.int32())
    n_soft = 0
    if soft and student_ids is not None:
        targets = soft_targets(encodings, tokens, top_k=table_top_k(table), student_ids=student_ids)
        result["soft_rows"] = list_column(targets.rows, targets.offsets, pa.int32())
        result["in_top_k"] = list_column(targets.in_top_k, targets.offsets, pa.bool_())
        n_soft = int((targets.rows >= 0).sum())
    return pa.table(result).replace_schema_metadata({METADATA: json.dumps({"soft": n_soft})})


@contextmanager
def _in_parallel() -> Iterator[None]:
    """Let the tokenizer use all cores: the command line asks it not to, as short inputs gain
    nothing."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
