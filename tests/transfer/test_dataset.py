"""The transfer set's files: written and read back, damaged, unfinished, of another teacher."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.transfer.dataset import (
    DESCRIPTION,
    SHARD,
    check_teacher,
    check_words,
    normal,
    read_shard,
    read_transfer_set,
    shard_file,
    shards,
    write_shard,
)


def row(sentence: str, source: str = "sampled", parent: str = "", logits: Any = (0.5, 1.5)) -> dict:
    words = [[i, -0.5] for i in range(len(sentence.split()))]
    about = {"sentence": sentence, "source": source, "parent": parent}
    return {**about, "logits": list(logits), "word_logits": words}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of two sampled sentences and two edited ones."""
    description = {
        "teacher": {"path": "runs/LoRA-1", "sha256": "a" * 64, "title": "GPT"},
        "labels": ["bad", "good"],
        "sentences": {"own": 0, "sampled": 2, "edited": 2},
    }
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    write_shard(shard_file(tmp_path, "sampled", 0), [row("It rains."), row("Tom „ran“\u2028off.")])
    edits = [
        row("It rain.", "edited:change_form", "It rains.", (2.0, -1.0)),
        row("it  rains", "edited:swap", "It rains."),
    ]
    write_shard(shard_file(tmp_path, "edited", 0), edits)
    return tmp_path


def test_read_back_without_duplicates(folder):
    found = read_transfer_set(folder)
    assert found.sentences == ["It rains.", "Tom „ran“\u2028off.", "It rain."]
    assert found.sources == ["sampled", "sampled", "edited:change_form"]
    assert found.parents == ["", "", "It rains."]
    np.testing.assert_allclose(found.logits, [[0.5, 1.5], [0.5, 1.5], [2, -1]])
    assert found.logits.dtype == np.float32
    for sentence, words in zip(found.sentences, found.word_logits, strict=True):
        assert words.tolist() == [[i, -0.5] for i in range(len(sentence.split()))]
        assert words.dtype == np.float32
    assert found.summary() == [
        "sampled: 2 sentences; by the teacher 0 % bad, 100 % good",
        "edited: 1 sentences; by the teacher 100 % bad, 0 % good",
    ]


def test_without_leaves_out_sentences_and_what_was_made_of_them(folder):
    found = read_transfer_set(folder)
    assert found.without(["IT RAINS"]).sentences == ["Tom „ran“\u2028off."]
    fewer = found.without(["it rain."])
    assert fewer.sentences == found.sentences[:2]
    assert [len(words) for words in fewer.word_logits] == [2, 3]
    assert found.without(["Tom"]).sentences == found.sentences
    assert found.without([]).sha256() == found.sha256() != found.without(["it rain"]).sha256()


def test_the_hash_covers_the_logits_after_words(folder):
    before = read_transfer_set(folder).sha256()
    file = shard_file(folder, "sampled", 0)
    rows = read_shard(file, 2)
    rows[0]["word_logits"][1][0] += 1
    write_shard(file, rows)
    assert read_transfer_set(folder).sha256() != before


def test_sentences_without_logits_after_words_are_counted(folder):
    """As sets had them before there were any."""
    file = shard_file(folder, "sampled", 0)
    rows = read_shard(file, 2)
    check_words(read_transfer_set(folder), folder)
    del rows[1]["word_logits"]
    write_shard(file, rows)
    found = read_transfer_set(folder)
    assert [len(words) for words in found.word_logits] == [2, 0, 2]
    with pytest.raises(UserError, match=r"1 sentences .* --relabel") as caught:
        check_words(found, folder)
    assert str(folder) in str(caught.value)


def test_normal():
    assert normal("  It  RAINS. ") == normal("it rains") != normal("it rained")
    assert normal(" . ") == ""


def test_shards_are_written_whole_and_alike(folder):
    file = shard_file(folder, "sampled", 0)
    before = file.read_bytes()
    write_shard(file, read_shard(file, 2))
    assert file.read_bytes() == before
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]


def test_how_many_shards():
    sizes = {"sampled": SHARD, "own": 0, "edited": SHARD + 1}
    assert shards({"sentences": sizes}) == [("sampled", 0), ("edited", 0), ("edited", 1)]


def cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 255]) + body[middle + 1 :]


def other_lines(*rows: Any) -> Any:
    return lambda body: gzip.compress("\n".join(map(json.dumps, rows)).encode())


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        lambda body: b"",
        lambda body: b"plain text",
        lambda body: gzip.compress(b"no JSON"),
        lambda body: gzip.compress("\u00e9".encode("latin-1")),
        other_lines({"sentence": "It rains."}),
        other_lines(row("It rains.", logits=(1.0, 2.0, 3.0))),
        other_lines(row("")),
        other_lines(["a", "list"]),
    ],
)
def test_a_damaged_shard_is_named(folder, damage):
    file = shard_file(folder, "edited", 0)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"edited-00000.jsonl.gz is damaged .*; remove it and run"):
        read_transfer_set(folder)


def test_another_teacher(folder):
    found = read_transfer_set(folder)
    check_teacher(found, folder, "a" * 64)
    with pytest.raises(UserError, match=r"by another teacher \(runs/LoRA-1, aaaaaaaaaaaa\)"):
        check_teacher(found, folder, "b" * 64)


def test_unfinished(folder):
    shard_file(folder, "edited", 0).unlink()
    with pytest.raises(UserError, match=r"unfinished: 1 of 2 shards are missing \(edited-00000"):
        read_transfer_set(folder)


def test_no_set_there(tmp_path):
    with pytest.raises(UserError, match="holds no transfer set"):
        read_transfer_set(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"sentences": 3}', "no JSON"])
def test_a_damaged_description(folder, text):
    (folder / DESCRIPTION).write_text(text)
    with pytest.raises(UserError, match=r"transfer\.json"):
        read_transfer_set(folder)
