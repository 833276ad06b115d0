"""A transfer set in a student's tokens, against what the plain functions make of its rows."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from potstill.distillation import tokenise as tokenise_module
from potstill.distillation.lm_targets import map_vocabulary, soft_targets
from potstill.distillation.tokenise import tokenise_set
from potstill.distillation.tokenised import TokenisedSet
from potstill.distillation.word_targets import word_targets
from potstill.student.tokenizer import encode, train_tokenizer, word_end_positions
from potstill.transfer.dataset import Selection, read_transfer_set
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import read_top_k, write_shard
from potstill.transfer.top_k import TOP_K, TopKTargets
from tests.transfer.sets import describe, write_set

WORDS = ["birds", "sing", "cats", "sleep", "naïve", "old", "gardens", "rain"]
VOCABULARY = [f"Ġ{word}".replace("ï", "Ã¯") for word in WORDS] + ["ing", "Ġc"]
MAX_LENGTH = 5


def row(rng: np.random.Generator, source: str, parent: str = "") -> LabelledSentence:
    words = rng.choice(WORDS, rng.integers(1, 6))
    logits = rng.normal(size=(len(words), 2)).astype(np.float16).astype(float).tolist()
    text = " ".join(words)
    return LabelledSentence(text, Origin.parse(source), parent, logits[-1], logits)


def top_k_of(rng: np.random.Generator, sentence: str) -> TopKTargets:
    """Targets as of a decoder whose tokens are words."""
    words = sentence.split()
    T = len(words) - 1
    return TopKTargets(
        np.cumsum([len(f" {word}") for word in words])[:T].astype(np.uint16) - 1,
        rng.integers(0, len(VOCABULARY), (T, TOP_K)).astype(np.int32),
        rng.random((T, TOP_K)).astype(np.float16),
        np.array([WORDS.index(word) for word in words[1:]], np.int32),
    )


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    """Three shards of sampled sentences, one without any, and two of edited ones."""
    rng = np.random.default_rng(0)
    sampled = [row(rng, "sampled") for _ in range(25)]
    edited = [row(rng, "edited:swap", sampled[i].sentence) for i in range(18)]
    folder = tmp_path / "set"
    folder.mkdir()
    rows = {SourceKind.SAMPLED: sampled, SourceKind.EDITED: edited}
    description = describe(sampled=31, edited=18) | {"shard_size": 10}
    write_set(folder, description, rows)
    for n in range(3):
        part = sampled[10 * n : 10 * n + 10]
        targets = [top_k_of(rng, r.sentence) if rng.random() < 0.7 else None for r in part]
        write_shard(folder / f"sampled-0000{n}.parquet", part, 2, targets)
    return read_transfer_set(folder).select(without=[sampled[3].sentence, edited[4].sentence])


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer([" ".join(WORDS)] * 3, 292)


def make(
    selection: Selection,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    soft: bool = True,
    **changes: object,
) -> TokenisedSet:
    arguments: dict[str, object] = {
        "set_sha256": "abc",
        "vocabulary": VOCABULARY if soft else [],
        "words": True,
        "max_length": MAX_LENGTH,
    }
    return tokenise_set(folder, selection, tokenizer, **(arguments | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("soft", [True, False])
def test_everything_is_as_the_plain_functions_make_it(
    selection: Selection, tokenizer: Tokenizer, tmp_path: Path, soft: bool
) -> None:
    transfer_set = selection.transfer_set
    mask = np.concatenate(selection.masks)
    chosen = [r for r, keep in zip(transfer_set.rows(), mask, strict=True) if keep]
    assert 20 < len(chosen) < 43
    sentences = [r.sentence for r in chosen]
    tokens = encode(tokenizer, sentences, MAX_LENGTH)
    assert any(len(each) == MAX_LENGTH for each in tokens)

    made = make(selection, tokenizer, tmp_path / "tokens", soft=soft)
    assert len(made) == len(chosen)
    data = made.read()
    assert [each.tolist() for each in data.tokens] == tokens
    assert list(data.is_text) == [r.origin.kind != "edited" for r in chosen]
    assert data.teacher_logits is not None and data.word_targets is not None
    assert data.teacher_logits.tolist() == [r.logits for r in chosen]
    positions = word_end_positions(tokenizer, sentences, MAX_LENGTH)
    expected = word_targets(positions, [np.array(r.word_logits, np.float32) for r in chosen])
    for name in ("positions", "logits", "offsets"):
        assert torch.equal(getattr(data.word_targets, name), getattr(expected, name))
    assert made.lengths().tolist() == [len(each) for each in tokens]
    if not soft:
        assert data.lm_targets is None
        return
    kinds = [part for n in range(6) for part in make_top_k(selection, n)]
    encodings = tokenizer.encode_batch(sentences)
    student_ids = map_vocabulary(tokenizer, VOCABULARY)
    targets = soft_targets(encodings, tokens, top_k=kinds, student_ids=student_ids)
    assert data.lm_targets is not None and 0 < targets.soft_fraction() < 1
    everything = range(len(chosen))
    following = torch.tensor([t for each in tokens for t in each[1:]])
    for one, other in zip(
        data.lm_targets.batch(everything, following),
        targets.batch(everything, following),
        strict=True,
    ):
        assert torch.equal(one, other)
    soft_rows = data.lm_targets.rows[data.lm_targets.rows >= 0]
    assert sum(shard.soft for shard in made.shards) == len(soft_rows)


def make_top_k(selection: Selection, n: int) -> list[TopKTargets | None]:
    """The targets of the chosen sentences of a shard."""
    targets = read_top_k(selection.transfer_set.shards[n].path)
    return [t for t, keep in zip(targets, selection.masks[n], strict=True) if keep]


def test_shards_are_read_in_any_order(
    selection: Selection, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    made = make(selection, tokenizer, tmp_path / "tokens")
    parts = [made.read([n]) for n in range(6)]
    joined = parts[5].concat(parts[1]).concat(parts[0])
    read = made.read([5, 1, 0])
    assert [t.tolist() for t in read.tokens] == [list(t) for t in joined.tokens]
    assert read.lm_targets and joined.lm_targets and read.word_targets and joined.word_targets
    np.testing.assert_array_equal(read.lm_targets.rows, joined.lm_targets.rows)
    np.testing.assert_array_equal(read.lm_targets.probs, joined.lm_targets.probs)
    assert torch.equal(read.word_targets.logits, joined.word_targets.logits)
    assert len(made.read([])) == 0


def test_files_are_made_once_for_the_same_settings(
    selection: Selection, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tokens"
    make(selection, tokenizer, folder)
    (folder / "sampled-00001.parquet").unlink()
    made = []
    tokenise = tokenise_module._tokenise
    monkeypatch.setattr(
        tokenise_module,
        "_tokenise",
        lambda shard, *args: made.append(shard.name) or tokenise(shard, *args),
    )
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    again = make(selection, tokenizer, folder)
    assert made == ["sampled-00001"]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    other = train_tokenizer(["other words than those"] * 3, 290)
    fewer = selection.transfer_set.select(without=[])
    for changes in (
        {"tokenizer": other},
        {"selection": fewer},
        {"set_sha256": "d"},
        {"max_length": 4},
        {"words": False},
    ):
        made.clear()
        make(**{"selection": selection, "tokenizer": tokenizer, "folder": folder} | changes)  # type: ignore[arg-type]
        assert len(made) == 6
    again.remove()
    assert not folder.exists()
