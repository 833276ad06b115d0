"""The columns of a shard, and its rows as Python objects.

| column | type | |
|---|---|---|
| sentence, parent | string | `parent` of an edit, else "" |
| source | string | as `Origin` is written |
| logits | fixed_size_list<float16> | one per class |
| word_logits | list<float16> | those after each word, one word after the other |
| top_k_offsets, top_k_next_ids | list<uint16>, list<int32> | `TopKTargets`; null where unknown |
| top_k_ids, top_k_probs | list<int32>, list<float16> | one position after the other |

fp16 rounds a logit by at most a part in 2,048: between 4 and 8, where sure answers are, by 0.002.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from potstill.transfer.sentences import LabelledSentence, Origin
from potstill.transfer.top_k import TOP_K, TopKTargets

METADATA = b"potstill"  # the key of a footer under which `ShardMetadata` is
# The columns of the targets, and for each the field that it holds and its type.
TOP_K_COLUMNS = {
    "top_k_offsets": ("offsets", pa.uint16()),
    "top_k_ids": ("token_ids", pa.int32()),
    "top_k_probs": ("probs", pa.float16()),
    "top_k_next_ids": ("next_ids", pa.int32()),
}


@dataclass(frozen=True)
class ShardMetadata:
    """What a shard's footer says of its sentences, so that a set is opened without reading them.

    Attributes:
        rows: How many there are.
        labelled: How many the teacher gives each label.
        without_words: How many have no logits after each word.
        without_top_k: How many have no top-k targets; None in a shard of a kind that has none.
    """

    rows: int
    labelled: list[int]
    without_words: int
    without_top_k: int | None


def shard_schema(classes: int, *, top_k: bool) -> pa.Schema:
    """Return the columns of a shard for a teacher of so many classes."""
    fields = [(name, pa.string()) for name in ("sentence", "source", "parent")]
    fields += [("logits", pa.list_(pa.float16(), classes)), ("word_logits", pa.list_(pa.float16()))]
    if top_k:
        fields += [(name, pa.list_(kind)) for name, (_, kind) in TOP_K_COLUMNS.items()]
    return pa.schema(fields)


def check_schema(schema: pa.Schema, classes: int | None) -> None:
    """Check that a file has the columns of a shard.

    Raises:
        ValueError: It has others.
    """
    if METADATA not in (schema.metadata or {}):
        raise ValueError("it is no shard of a transfer set")
    if classes is None:
        classes = schema.field("logits").type.list_size
    expected = shard_schema(classes, top_k="top_k_ids" in schema.names)
    if not schema.equals(expected, check_metadata=False):
        given = dict(zip(schema.names, schema.types, strict=True))
        wrong = [
            f"{field.name} is {given.get(field.name, 'missing')}"
            for field in expected
            if given.get(field.name) != field.type
        ]
        raise ValueError(f"it is of another schema: {', '.join(wrong) or 'it has other columns'}")


def make_table(
    rows: Sequence[LabelledSentence],
    classes: int,
    top_k: Sequence[TopKTargets | None] | None = None,
) -> pa.Table:
    """Return the table of a shard.

    Args:
        rows: Its sentences.
        classes: How many labels the teacher knows.
        top_k: The targets of each; None if the shard is of a kind that has none.
    """
    logits = np.array([row.logits for row in rows], np.float16).reshape(len(rows), classes)
    flat = pa.array(logits.ravel(), pa.float16())
    columns: dict[str, pa.Array] = {
        "sentence": pa.array([row.sentence for row in rows], pa.string()),
        "source": pa.array([str(row.origin) for row in rows], pa.string()),
        "parent": pa.array([row.parent for row in rows], pa.string()),
        "logits": pa.FixedSizeListArray.from_arrays(flat, classes),
        "word_logits": _lists(
            [np.array(row.word_logits, np.float16).ravel() for row in rows], pa.float16()
        ),
    }
    for name, (field, kind) in TOP_K_COLUMNS.items() if top_k is not None else ():
        parts = [None if t is None else np.ravel(getattr(t, field)) for t in top_k or ()]
        columns[name] = _lists(parts, kind)
    metadata = {
        "labelled": np.bincount(logits.argmax(1), minlength=classes).tolist(),
        "without_words": sum(not row.word_logits for row in rows),
        "without_top_k": None if top_k is None else sum(t is None for t in top_k),
    }
    schema = shard_schema(classes, top_k=top_k is not None)
    return pa.table(columns, schema.with_metadata({METADATA: json.dumps(metadata)}))


def _lists(parts: Sequence[np.ndarray | None], kind: pa.DataType) -> pa.ListArray:
    """Return a column of lists, null where a part is None."""
    offsets = np.cumsum([0, *(0 if part is None else len(part) for part in parts)])
    dtype = kind.to_pandas_dtype()
    flat = np.concatenate([np.empty(0, dtype), *(p.astype(dtype) for p in parts if p is not None)])
    missing = pa.array([part is None for part in parts], pa.bool_())
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(flat, kind), mask=missing
    )


def list_column(values: np.ndarray, offsets: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """Return a column of lists from their values, one after the other, and (N + 1,) offsets."""
    flat = pa.array(values.astype(kind.to_pandas_dtype()), kind)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def flat_lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a column of lists, one list after the other, and their (N + 1,) offsets;
    a null is an empty list."""
    array = column.combine_chunks()
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return array.flatten().to_numpy(zero_copy_only=False), offsets


def logits_array(column: pa.ChunkedArray) -> np.ndarray:
    """Return the (N, classes) fp16 logits of a column."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)


def table_rows(table: pa.Table) -> list[LabelledSentence]:
    """Return the sentences of a table.

    Raises:
        ValueError: One is empty or of a source that is none.
    """
    logits = logits_array(table["logits"])
    flat, offsets = flat_lists(table["word_logits"])
    classes = logits.shape[1]
    words = np.split(flat.astype(np.float32).reshape(-1, classes), offsets[1:-1] // classes)
    sentences, sources, parents = (table[n].to_pylist() for n in ("sentence", "source", "parent"))
    if not all(sentences) or None in parents:
        raise ValueError("a sentence is empty")
    origins = {source: Origin.parse(source or "") for source in set(sources)}
    return [
        LabelledSentence(sentence, origins[source], parent, row.tolist(), of_words.tolist())
        for sentence, source, parent, row, of_words in zip(
            sentences, sources, parents, logits.astype(np.float32), words, strict=False
        )
    ]


def table_top_k(table: pa.Table) -> list[TopKTargets | None]:
    """Return the targets of each sentence of a table."""
    valid = table["top_k_offsets"].is_valid().to_pylist()
    parts = []
    for name in TOP_K_COLUMNS:
        flat, offsets = flat_lists(table[name])
        wide = name in ("top_k_ids", "top_k_probs")
        flat = flat.reshape(-1, TOP_K) if wide else flat
        parts.append(np.split(flat, offsets[1:-1] // (TOP_K if wide else 1)))
    fields = zip(*parts, strict=True)
    return [
        TopKTargets(*each) if known else None for known, each in zip(valid, fields, strict=False)
    ]
