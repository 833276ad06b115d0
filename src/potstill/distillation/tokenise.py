"""Writing a transfer set in a student's tokens, once a run; `tokenised.py` has the columns."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from torch import Tensor

from potstill.data.text import ragged_word_ends
from potstill.data.token_array import TokenArray
from potstill.distillation.lm_targets import map_vocabulary, soft_targets
from potstill.distillation.tokenised import TokenisedSet, TokenShard
from potstill.files import read_json, write_json
from potstill.ops.threads import tokenizers_in_parallel
from potstill.parsing import parse_json
from potstill.progress import Progress, no_progress
from potstill.student.tokenizer import encode_batch
from potstill.training.distributed import process
from potstill.transfer.dataset import Selection
from potstill.transfer.shards import Shard, read_metadata, read_schema, read_table, write_table
from potstill.transfer.table import TOP_K_COLUMNS, list_column, table_top_k

KEY = "key.json"
METADATA = b"potstill.tokens"


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
    with progress(sum(len(mask) for _, mask in share)) as show, tokenizers_in_parallel():
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
        ends = [[end for _, end in each.offsets[:max_length]] for each in encodings]
        words_at = ragged_word_ends(sentences, TokenArray.of(ends))
        result["word_positions"] = list_column(words_at.values, words_at.offsets, pa.int32())
    n_soft = 0
    if soft and student_ids is not None:
        targets = soft_targets(encodings, tokens, top_k=table_top_k(table), student_ids=student_ids)
        result["soft_rows"] = list_column(targets.rows, targets.offsets, pa.int32())
        result["in_top_k"] = list_column(targets.in_top_k, targets.offsets, pa.bool_())
        n_soft = int((targets.rows >= 0).sum())
    return pa.table(result).replace_schema_metadata({METADATA: json.dumps({"soft": n_soft})})
