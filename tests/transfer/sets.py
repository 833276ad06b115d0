"""A small transfer set on disk, for tests that read one."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import DESCRIPTION, list_shards, write_shard
from potstill.transfer.top_k import TOP_K, TopKTargets

ROW_LOGITS = [0.5, 1.5]


def labelled(
    sentence: str, source: str = "sampled", parent: str = "", logits: list[float] = ROW_LOGITS
) -> LabelledSentence:
    """Return a sentence with logits after each word, of which the first counts the words."""
    word_logits = [[float(i), -0.5] for i in range(len(sentence.split()))]
    return LabelledSentence(sentence, Origin.parse(source), parent, logits, word_logits)


def describe(**sentences: int) -> dict[str, Any]:
    """Return the description of a set with so many sentences of each kind."""
    return {
        "teacher": {"path": "runs/LoRA-1", "sha256": "a" * 64, "title": "GPT"},
        "labels": ["bad", "good"],
        "sentences": sentences,
    }


def some_top_k(positions: int, seed: int = 0) -> TopKTargets:
    """Return targets of so many positions."""
    rng = np.random.default_rng(seed)
    return TopKTargets(
        np.arange(1, positions + 1, dtype=np.uint16),
        rng.integers(0, 2**17, (positions, TOP_K)).astype(np.int32),
        rng.random((positions, TOP_K)).astype(np.float16),
        rng.integers(0, 2**17, positions).astype(np.int32),
    )


def write_set(
    folder: Path, description: dict[str, Any], rows: dict[SourceKind, list[LabelledSentence]]
) -> None:
    """Write a set whose shards have the `rows` of their kind, one after the other."""
    (folder / DESCRIPTION).write_text(json.dumps(description))
    for shard in list_shards(folder, description):
        write_shard(shard.path, rows[shard.kind][shard.span], len(description["labels"]))


def write_old_set(
    folder: Path,
    description: dict[str, Any],
    rows: dict[SourceKind, list[LabelledSentence]],
    top_k: list[TopKTargets] | None = None,
) -> None:
    """Write a set as versions without Parquet did; `top_k` are those of all sampled sentences."""
    (folder / DESCRIPTION).write_text(json.dumps(description))
    for shard in list_shards(folder, description):
        lines = [
            {
                "sentence": row.sentence,
                "source": str(row.origin),
                "parent": row.parent,
                "logits": row.logits,
                "word_logits": row.word_logits,
            }
            for row in rows[shard.kind][shard.span]
        ]
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{shard.name}.jsonl.gz").write_bytes(gzip.compress(body.encode()))
        if top_k and shard.kind is SourceKind.SAMPLED:
            part = top_k[shard.span]
            np.savez_compressed(
                folder / f"{shard.name}.next.npz",
                ends=np.concatenate([each.offsets for each in part]),
                tokens=np.concatenate([each.token_ids for each in part]),
                chances=np.concatenate([each.probs for each in part]),
                following=np.concatenate([each.next_ids for each in part]),
                counts=np.array([len(each.offsets) for each in part]),
            )
