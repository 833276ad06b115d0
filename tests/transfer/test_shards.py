"""The files of a transfer set: written and read back, damaged, of another schema."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from potstill.errors import UserError
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind, normal
from potstill.transfer.shards import (
    LARGE,
    LARGE_SHARD_SIZE,
    SHARD_SIZE,
    list_shards,
    read_metadata,
    read_shard,
    read_top_k,
    shard_size_of,
    write_shard,
)
from potstill.transfer.table import METADATA
from tests.transfer.sets import describe, labelled, some_top_k, write_set

SAMPLED, EDITED = "sampled-00000.parquet", "edited-00000.parquet"


def test_normal_form() -> None:
    assert normal("  It  RAINS. ") == normal("it rains") != normal("it rained")
    assert normal(" . ") == ""


@pytest.mark.parametrize("text", ["own", "sampled", "edited", "edited:swap", "edited:swap delete"])
def test_origin_is_written_as_it_is_read(text: str) -> None:
    origin = Origin.parse(text)
    assert str(origin) == text
    assert origin.kind == text.partition(":")[0]
    assert " ".join(origin.edits) == text.partition(":")[2]


@pytest.mark.parametrize("text", ["", "user", "Sampled", "edit:swap"])
def test_unknown_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SourceKind"):
        Origin.parse(text)


def test_rows_are_read_back(set_folder: Path) -> None:
    rows = [labelled("It rains."), labelled("Tom „ran“\u2028off.")]
    assert read_shard(set_folder / SAMPLED, 2) == rows


def test_shards_are_written_whole_and_the_same_each_time(set_folder: Path) -> None:
    file = set_folder / SAMPLED
    before = file.read_bytes()
    write_shard(file, read_shard(file, 2), 2)
    assert file.read_bytes() == before
    assert not [f for f in set_folder.iterdir() if f.name.startswith(".")]


def test_logits_are_rounded_to_fp16(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(scale=6, size=(200, 3)).tolist()
    rows = [LabelledSentence(f"{i}", Origin.parse("own"), "", r, [r]) for i, r in enumerate(logits)]
    write_shard(tmp_path / "own-00000.parquet", rows, 3)
    again = read_shard(tmp_path / "own-00000.parquet", 3)
    expected = np.float16(logits).astype(float).tolist()
    assert [row.logits for row in again] == expected
    assert [row.word_logits for row in again] == [[row] for row in expected]
    np.testing.assert_allclose(expected, logits, rtol=1 / 2048)


def test_a_shard_is_a_parquet_file_with_named_columns(set_folder: Path) -> None:
    """Read by pyarrow alone."""
    first, second = pq.read_table(set_folder / EDITED).to_pylist()
    assert first == {
        "sentence": "It rain.",
        "source": "edited:change_form",
        "parent": "It rains.",
        "logits": [2.0, -1.0],
        "word_logits": [0.0, -0.5, 1.0, -0.5],
    }
    assert second["source"] == "edited:swap"
    metadata = json.loads(pq.read_schema(set_folder / EDITED).metadata[METADATA])
    assert metadata == {"labelled": [1, 1], "without_words": 0, "without_top_k": None}


def test_a_shard_without_sentences(tmp_path: Path) -> None:
    """Of a source that ran dry."""
    file = tmp_path / "own-00000.parquet"
    write_shard(file, [], 3)
    assert read_shard(file, 3) == [] and read_metadata(file, 3).rows == 0


def test_top_k_targets_are_read_back(tmp_path: Path) -> None:
    """Those of a sentence of one token are empty, and not unknown."""
    file = tmp_path / SAMPLED
    rows = [labelled(s) for s in ("One two three.", "One.", "Two.", "Three four.")]
    written = [some_top_k(2), some_top_k(0), None, some_top_k(1, seed=1)]
    write_shard(file, rows, 2, written)
    body = file.read_bytes()
    for targets, expected in zip(read_top_k(file), written, strict=True):
        assert (targets is None) == (expected is None)
        for name in ("offsets", "token_ids", "probs", "next_ids") if targets else ():
            found, wanted = getattr(targets, name), getattr(expected, name)
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
    assert read_metadata(file).without_top_k == 1
    assert read_shard(file, 2) == rows
    write_shard(file, rows, 2, written)
    assert file.read_bytes() == body
    write_shard(file, rows, 2)
    assert read_top_k(file) == [None] * 4
    write_shard(file, [], 2, [])
    assert read_top_k(file) == []


def test_list_of_shards(tmp_path: Path) -> None:
    shards = list_shards(tmp_path, describe(sampled=SHARD_SIZE, own=0, edited=SHARD_SIZE + 1))
    assert [(shard.kind, shard.number) for shard in shards] == [
        (SourceKind.SAMPLED, 0),
        (SourceKind.EDITED, 0),
        (SourceKind.EDITED, 1),
    ]
    assert [shard.size for shard in shards] == [SHARD_SIZE, SHARD_SIZE, 1]
    assert shards[2].path == tmp_path / "edited-00001.parquet"


def test_shards_of_another_size(tmp_path: Path) -> None:
    """The description says so, and the set is read by that."""
    sentences = [labelled(f"{name} sleeps.", "own") for name in ("Ann", "Bob", "Mary")]
    description = describe(own=3) | {"shard_size": 2}
    write_set(tmp_path, description, {SourceKind.USER: sentences})
    assert {file.name for file in tmp_path.glob("*.parquet")} == {
        "own-00000.parquet",
        "own-00001.parquet",
    }
    assert list(read_transfer_set(tmp_path).rows()) == sentences


def test_large_sets_have_large_shards() -> None:
    assert shard_size_of({"sampled": LARGE - 1, "edited": 5}) == SHARD_SIZE
    assert shard_size_of({"sampled": 5, "edited": LARGE}) == LARGE_SHARD_SIZE


def cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def flip(body: bytes) -> bytes:
    return body[:40] + bytes([body[40] ^ 255]) + body[41:]


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda body: b"", lambda body: b"plain text", lambda body: body[:-9]]
)
def test_damaged_shard_is_named(set_folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = set_folder / EDITED
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"edited-00000.parquet is damaged .*; remove it and run"):
        list(read_transfer_set(set_folder).rows())


def change(name: str, column: pa.Array) -> Callable[[pa.Table], pa.Table]:
    """Return what puts another column in the place of one."""
    return lambda table: table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda table: pa.table({"text": ["a"]}), "it is no shard of a transfer set"),
        (lambda table: table.drop(["word_logits"]), "word_logits is missing"),
        (change("sentence", pa.array([1, 2])), "sentence is int64"),
        (change("logits", pa.array([[1.0], [2.0]], pa.list_(pa.float16(), 1))), "logits is"),
        (change("sentence", pa.array(["It.", ""])), "a sentence is empty"),
        (change("sentence", pa.array(["It.", None])), "a sentence is empty"),
        (change("source", pa.array(["edited", "elsewhere"])), "elsewhere"),
        (change("source", pa.array(["edited", None])), "not a valid SourceKind"),
        (lambda table: table.append_column("more", pa.array([1, 2])), "other columns"),
    ],
)
def test_shard_of_another_schema_is_named(
    set_folder: Path, changed: Callable[[pa.Table], pa.Table], words: str
) -> None:
    file = set_folder / EDITED
    pq.write_table(changed(pq.read_table(file)), file)
    with pytest.raises(UserError, match=rf"edited-00000.parquet is damaged .*{words}"):
        list(read_transfer_set(set_folder).rows())


def test_shard_for_another_number_of_classes_is_named(set_folder: Path) -> None:
    row = LabelledSentence("It.", Origin.parse("edited"), "", [1.0, 2.0, 3.0], [])
    write_shard(set_folder / EDITED, [row], 3)
    with pytest.raises(UserError, match=r"is damaged .*logits is fixed_size_list"):
        read_transfer_set(set_folder)


def test_logits_after_words_may_be_missing(set_folder: Path) -> None:
    """Sets had none in the beginning."""
    row = replace(labelled("It rains."), word_logits=[])
    write_shard(set_folder / SAMPLED, [row], 2)
    assert read_shard(set_folder / SAMPLED, 2) == [row]
