"""Where sentences come from."""

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.transfer import sources
from potstill.transfer.dataset import (
    DESCRIPTION,
    read_transfer_set,
    shard_file,
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


def test_an_earlier_sets_sentences_shard_by_shard(folder, monkeypatch):
    """Each once, though two shards have it, so that none of a later set's is a sentence short."""
    monkeypatch.setattr(sources, "SHARD", 2)
    more = [row("Ann sleeps."), row("it rains"), row("Birds sing."), row("Dogs bark.")]
    write_shard(shard_file(folder, "sampled", 0), [row("It rains."), *more])
    found = read_transfer_set(folder)
    kept = [(s, "sampled", "") for s in ("It rains.", "Ann sleeps.", "Birds sing.", "Dogs bark.")]
    shards = [sources.repeated_candidates(found, "sampled", number) for number in range(3)]
    assert shards == [kept[:2], kept[2:], []]
    edit = ("It rain.", "edited:change_form", "It rains.")
    assert sources.repeated_candidates(found, "edited", 0) == [edit]
    assert sources.repeated_candidates(found, "own", 0) == []
    assert sources.repeated_candidates(None, "sampled", 0) == []
