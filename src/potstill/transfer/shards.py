"""The files of a transfer set: its description and its shards.

A folder with `transfer.json`, which says what the set is made of and for which teacher, and with
shards: Parquet files of a few thousand sentences each (`table.py`). `vocabulary.json` has the
tokens that the top-k targets of sampled sentences number. Each file is written whole or not at all,
so that an interrupted run goes on with the first that is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from potstill.errors import UserError
from potstill.files import read_json, write_bytes
from potstill.parsing import parse_json
from potstill.transfer.sentences import LabelledSentence, SourceKind
from potstill.transfer.table import (
    METADATA,
    TOP_K_COLUMNS,
    ShardMetadata,
    check_schema,
    make_table,
    table_rows,
    table_top_k,
)
from potstill.transfer.top_k import TopKTargets

DESCRIPTION = "transfer.json"
VOCABULARY = "vocabulary.json"
SHARD_SIZE = 4096  # sentences of a full shard; a set with another size says so in its description
LARGE_SHARD_SIZE = 65_536
MOST_SENTENCES, MOST_SHARDS = 10**11, 10**5  # that a description may promise
LARGE = 1_000_000  # sentences of one kind, from which on a new set has large shards
# Text compresses best as it is; the bytes of numbers compress when like stands beside like.
SPLIT_COLUMNS = ("logits", "word_logits", "top_k_ids", "top_k_probs", "top_k_next_ids")


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
    def name(self) -> str:
        return f"{self.kind}-{self.number:05d}"

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.parquet"

    @property
    def span(self) -> slice:
        """Its part of all sentences of its kind."""
        start = self.number * self.capacity
        return slice(start, start + self.capacity)


def shard_size_of(sentences: dict[str, int]) -> int:
    """Return the shard size of a new set with so many `sentences` of each kind.

    Small shards lose little when a slow machine is interrupted; large ones keep a GPU busy.
    """
    return LARGE_SHARD_SIZE if max(sentences.values()) >= LARGE else SHARD_SIZE


def list_shards(folder: Path, description: dict[str, Any]) -> list[Shard]:
    """Return every shard of the set that `description` describes, there or not.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: The description is damaged.
    """
    capacity = description.get("shard_size", SHARD_SIZE)
    for number in (capacity, *description["sentences"].values()):
        if type(number) is not int or not 0 <= number <= MOST_SENTENCES:
            raise ValueError(f"{number!r} is no number of sentences")
    if sum(description["sentences"].values()) > MOST_SHARDS * capacity:
        raise ValueError(f"it has shards of {capacity} sentences")
    return [
        Shard(folder, SourceKind(kind), start // capacity, min(capacity, total - start), capacity)
        for kind, total in description["sentences"].items()
        for start in range(0, total, capacity)
    ]


def write_shard(
    path: Path,
    rows: list[LabelledSentence],
    classes: int,
    top_k: Sequence[TopKTargets | None] | None = None,
) -> None:
    """Write a shard, whole or not at all; the same rows make the same bytes.

    Args:
        path: The file.
        rows: Its sentences.
        classes: How many labels the teacher knows.
        top_k: The targets of each; None if the shard is of a kind that has none.
    """
    write_table(path, make_table(rows, classes, top_k))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as a Parquet file, whole or not at all."""
    split = {
        leaf: "BYTE_STREAM_SPLIT"
        for name in SPLIT_COLUMNS
        if name in table.column_names
        for leaf in [f"{name}.list.element"]
    }
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=[name for name in ("source",) if name in table.column_names],
        column_encoding=split,
        write_page_checksum=True,
    )
    write_bytes(path, sink.getvalue())


def read_metadata(path: Path, classes: int | None = None) -> ShardMetadata:
    """Return what a shard's footer says of its sentences; nothing else of it is read.

    Raises:
        UserError: It is damaged, or of another form than a shard of `classes` labels.
    """
    rows, schema = read_schema(path)
    try:
        check_schema(schema, classes)
        return ShardMetadata(rows, **parse_json(schema.metadata[METADATA]))
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def read_schema(path: Path) -> tuple[int, pa.Schema]:
    """Return the number of rows and the schema of a Parquet file.

    Raises:
        UserError: It is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata.num_rows, file.schema_arrow
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return a Parquet file, or some of its columns.

    Raises:
        UserError: It is damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def read_shard(path: Path, classes: int) -> list[LabelledSentence]:
    """Return the rows of a shard.

    Raises:
        UserError: It is damaged.
    """
    read_metadata(path, classes)
    table = read_table(path, ["sentence", "source", "parent", "logits", "word_logits"])
    try:
        return table_rows(table)
    except ValueError as error:
        raise damaged(path, error) from error


def read_top_k(path: Path) -> list[TopKTargets | None]:
    """Return the top-k targets of each sentence of a shard.

    Raises:
        UserError: It is damaged.
    """
    if read_metadata(path).without_top_k is None:
        return [None] * read_metadata(path).rows
    return table_top_k(read_table(path, list(TOP_K_COLUMNS)))


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error of a shard that can't be read."""
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{path} is damaged ({reason}); remove it and run `potstill transfer` again, which makes "
        "another."
    )


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
