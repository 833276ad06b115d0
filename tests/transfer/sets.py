"""A small transfer set on disk, for tests that read one."""

import json
from pathlib import Path
from typing import Any

from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import DESCRIPTION, list_shards, write_shard

ROW_LOGITS = [0.5, 1.5]


def labelled(
    sentence: str, source: str = "sampled", parent: str = "", logits: list[float] = ROW_LOGITS
) -> LabelledSentence:
    """Return a sentence with logits after each word, of which the first counts the words."""
    word_logits = [[i, -0.5] for i in range(len(sentence.split()))]
    return LabelledSentence(sentence, Origin.parse(source), parent, logits, word_logits)


def describe(**sentences: int) -> dict[str, Any]:
    """Return the description of a set with so many sentences of each kind."""
    return {
        "teacher": {"path": "runs/LoRA-1", "sha256": "a" * 64, "title": "GPT"},
        "labels": ["bad", "good"],
        "sentences": sentences,
    }


def write_set(
    folder: Path, description: dict[str, Any], rows: dict[SourceKind, list[LabelledSentence]]
) -> None:
    """Write a set whose shards have the `rows` of their kind, one after the other."""
    (folder / DESCRIPTION).write_text(json.dumps(description))
    for shard in list_shards(folder, description):
        write_shard(shard.path, rows[shard.kind][shard.span])
