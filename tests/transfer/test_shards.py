"""The files of a transfer set: written and read back, damaged."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potstill.errors import UserError
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import Origin, SourceKind, normal
from potstill.transfer.shards import (
    SHARD_SIZE,
    list_shards,
    read_shard,
    write_shard,
)
from tests.transfer.sets import describe, labelled, write_set

SAMPLED, EDITED = "sampled-00000.jsonl.gz", "edited-00000.jsonl.gz"


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
    write_shard(file, read_shard(file, 2))
    assert file.read_bytes() == before
    assert not [f for f in set_folder.iterdir() if f.name.startswith(".")]


def test_row_is_json_with_named_fields(set_folder: Path) -> None:
    first, second = gzip.decompress((set_folder / EDITED).read_bytes()).decode().splitlines()
    assert first == (
        '{"sentence": "It rain.", "source": "edited:change_form", "parent": "It rains.", '
        '"logits": [2.0, -1.0], "word_logits": [[0, -0.5], [1, -0.5]]}'
    )
    assert json.loads(second)["source"] == "edited:swap"


def test_list_of_shards(tmp_path: Path) -> None:
    shards = list_shards(tmp_path, describe(sampled=SHARD_SIZE, own=0, edited=SHARD_SIZE + 1))
    assert [(shard.kind, shard.number) for shard in shards] == [
        (SourceKind.SAMPLED, 0),
        (SourceKind.EDITED, 0),
        (SourceKind.EDITED, 1),
    ]
    assert [shard.size for shard in shards] == [SHARD_SIZE, SHARD_SIZE, 1]
    assert shards[2].path == tmp_path / "edited-00001.jsonl.gz"
    assert shards[0].top_k_path == tmp_path / "sampled-00000.next.npz"


def test_shards_of_another_size(tmp_path: Path) -> None:
    """The description says so, and the set is read by that."""
    sentences = [labelled(f"{name} sleeps.", "own") for name in ("Ann", "Bob", "Mary")]
    description = describe(own=3) | {"shard_size": 2}
    write_set(tmp_path, description, {SourceKind.USER: sentences})
    assert {file.name for file in tmp_path.glob("*.gz")} == {
        "own-00000.jsonl.gz",
        "own-00001.jsonl.gz",
    }
    assert read_transfer_set(tmp_path).sentences == [row.sentence for row in sentences]


def cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 255]) + body[middle + 1 :]


def lines(*rows: Any) -> Callable[[bytes], bytes]:
    return lambda body: gzip.compress("\n".join(map(json.dumps, rows)).encode())


def row(**changes: Any) -> dict[str, Any]:
    """Return a row as it is on disk."""
    fields = {"sentence": "It rains.", "source": "sampled", "parent": "", "logits": [0.5, 1.5]}
    return {**fields, "word_logits": [[0, -0.5], [1, -0.5]], **changes}


def test_undamaged_row_is_read(set_folder: Path) -> None:
    """What the next test damages."""
    file = set_folder / EDITED
    file.write_bytes(lines(row())(b""))
    assert read_shard(file, 2) == [labelled("It rains.")]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        lambda body: b"",
        lambda body: b"plain text",
        lambda body: gzip.compress(b"no JSON"),
        lambda body: gzip.compress("\u00e9".encode("latin-1")),
        lines({"sentence": "It rains."}),
        lines(row(logits=[1.0, 2.0, 3.0])),
        lines(row(sentence="")),
        lines(row(source="")),
        lines(row(source="elsewhere")),
        lines(row(source=7)),
        lines(["a", "list"]),
    ],
)
def test_damaged_shard_is_named(set_folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = set_folder / EDITED
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"edited-00000.jsonl.gz is damaged .*; remove it and run"):
        read_transfer_set(set_folder)


def test_logits_after_words_may_be_missing(set_folder: Path) -> None:
    """Sets had none in the beginning."""
    file = set_folder / SAMPLED
    old = row()
    del old["word_logits"]
    file.write_bytes(lines(old)(b""))
    assert read_shard(file, 2) == [replace(labelled("It rains."), word_logits=[])]
