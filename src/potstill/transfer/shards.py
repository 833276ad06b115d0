"""The files of a transfer set: its description and its shards.

A folder with `transfer.json`, which says what the set is made of and for which teacher, and with
shards: compressed JSON lines {"sentence", "source", "parent", "logits", "word_logits"}, a file for
every few thousand sentences. Next to a shard of sampled sentences lie the decoder's most probable
next tokens (`top_k.py`), and the folder has `vocabulary.json`, the tokens that these number. Each
file is written whole or not at all, so that an interrupted run goes on with the first that is
missing.
"""

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files import read_json, write_bytes
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind

DESCRIPTION = "transfer.json"
VOCABULARY = "vocabulary.json"
SHARD_SIZE = 4096  # sentences of a full shard; a set with another size says so in its description


@dataclass(frozen=True)
class Shard:
    """One file of a set in `folder`: the `number`th of its kind.

    Attributes:
        size: Sentences that it is to have.
        capacity: Sentences of a full shard.
    """

    folder: Path
    kind: SourceKind
    number: int
    size: int
    capacity: int

    @property
    def path(self) -> Path:
        return self.folder / f"{self.kind}-{self.number:05d}.jsonl.gz"

    @property
    def top_k_path(self) -> Path:
        """Where the top-k targets of its sentences are."""
        return self.folder / f"{self.kind}-{self.number:05d}.next.npz"

    @property
    def span(self) -> slice:
        """Its part of all sentences of its kind."""
        start = self.number * self.capacity
        return slice(start, start + self.capacity)


def list_shards(folder: Path, description: dict[str, Any]) -> list[Shard]:
    """Return every shard of the set that `description` describes, there or not.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: The description is damaged.
    """
    capacity = description.get("shard_size", SHARD_SIZE)
    return [
        Shard(folder, SourceKind(kind), start // capacity, min(capacity, total - start), capacity)
        for kind, total in description["sentences"].items()
        for start in range(0, total, capacity)
    ]


def write_shard(path: Path, rows: list[LabelledSentence]) -> None:
    """Write a shard, whole or not at all; the same rows make the same bytes."""
    lines = []
    for row in rows:
        fields = {
            "sentence": row.sentence,
            "source": str(row.origin),
            "parent": row.parent,
            "logits": row.logits,
            "word_logits": row.word_logits,
        }
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    write_bytes(path, gzip.compress("".join(lines).encode(), mtime=0))


def read_shard(path: Path, classes: int) -> list[LabelledSentence]:
    """Return the rows of a shard.

    Raises:
        UserError: It is damaged.
    """
    try:
        if not (body := path.read_bytes()):
            raise EOFError("it is empty")
        text = gzip.decompress(body).decode()
        # Not splitlines: a sentence may hold one of Unicode's other line ends.
        return [_parse_row(json.loads(line), classes) for line in text.split("\n") if line]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it and run `potstill transfer` again, which "
            "makes another."
        ) from error


def _parse_row(row: Any, classes: int) -> LabelledSentence:
    if not isinstance(row, dict):
        raise ValueError(f"{row} is no JSON object")
    origin, word_logits = Origin.parse(str(row["source"])), row.get("word_logits", [])
    sizes = {len(logits) for logits in (row["logits"], *word_logits)}
    if sizes != {classes} or not row["sentence"]:
        raise ValueError(f"{row} has not the form of a row")
    return LabelledSentence(row["sentence"], origin, str(row["parent"]), row["logits"], word_logits)


def read_vocabulary(folder: Path) -> list[str]:
    """Return the tokens that top-k targets number, spelt as byte-level BPE spells them.

    Raises:
        UserError: They are missing or damaged.
    """
    tokens = read_json(folder / VOCABULARY)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(
            f"{folder / VOCABULARY} is damaged; remove it and run `potstill transfer` again, which "
            "makes another."
        )
    return tokens
