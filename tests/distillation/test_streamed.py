"""Sentences that are read in blocks, against the same sentences in memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.data.batching import LabelledDataset, length_batches
from potstill.distillation.dataset import DistillationDataset, labelled_dataset
from potstill.distillation.lm_targets import LMDataset
from potstill.distillation.streamed import StreamedDataset
from potstill.distillation.tokenise import tokenise_set
from potstill.distillation.tokenised import TokenisedSet
from potstill.student.tokenizer import encode, train_tokenizer
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import write_shard
from tests.transfer.sets import describe, some_top_k, write_set

WORDS = ["birds", "sing", "cats", "sleep", "naïve", "old", "gardens", "rain"]
LABELLED = [f"{a} {b}" for a in WORDS[:4] for b in WORDS[4:]]
BLOCK = 40
ORDER = {"seed": 3, "epoch": 2}


def rows_of(rng: np.random.Generator, source: str, n: int) -> list[LabelledSentence]:
    rows = []
    for i in range(n):
        words = [*rng.choice(WORDS, rng.integers(0, 5)), f"x{source[0]}{i}"]
        logits = rng.normal(size=(len(words), 2)).astype(np.float16).astype(float).tolist()
        rows.append(LabelledSentence(" ".join(words), Origin.parse(source), "", logits[-1], logits))
    rows[3] = replace(rows[3], sentence="old")  # of one token
    return rows


@pytest.fixture(params=[True, False], ids=["soft", "hard"])
def tokenised(request: pytest.FixtureRequest, tmp_path: Path) -> TokenisedSet:
    """130 sampled and 70 edited sentences in files of ten, with targets or without."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "set"
    folder.mkdir()
    rows = {
        kind: rows_of(rng, kind, n)
        for kind, n in ((SourceKind.SAMPLED, 130), (SourceKind.EDITED, 70))
    }
    write_set(folder, describe(sampled=130, edited=70) | {"shard_size": 10}, rows)
    for n in range(13):
        part = rows[SourceKind.SAMPLED][10 * n : 10 * n + 10]
        write_shard(folder / f"sampled-{n:05d}.parquet", part, 2, [some_top_k(3)] * 10)
    selection = read_transfer_set(folder).select(without=[])
    assert len(selection) == 199  # "old" is there twice
    return tokenise_set(
        tmp_path / "tokens",
        selection,
        tokenizer(),
        set_sha256="a",
        vocabulary=["a"] * 2**17 if request.param else [],
        words=True,
        max_length=20,
    )


def tokenizer():
    return train_tokenizer([" ".join(WORDS)] * 3, 300)


def labelled() -> DistillationDataset:
    rng = np.random.default_rng(1)
    logits = [rng.normal(size=(2, 2)).astype(np.float32) for _ in LABELLED]
    return labelled_dataset(
        tokenizer(),
        LABELLED,
        LabelledDataset(encode(tokenizer(), LABELLED, 20), [i % 2 for i in range(len(LABELLED))]),
        teacher_logits=torch.from_numpy(np.stack([each[-1] for each in logits])),
        word_logits=logits,
        max_length=20,
    )


def same(one, other) -> None:
    assert one.indices.tolist() == other.indices.tolist()
    for name in (
        "input_ids",
        "lengths",
        "labels",
        "teacher_logits",
        "target_ids",
        "target_weights",
    ):
        first, second = getattr(one, name, None), getattr(other, name, None)
        assert (first is None) == (second is None)
        assert first is None or (torch.equal(first, second) and first.dtype == second.dtype)
    if words := getattr(one, "words", None):
        for name in ("rows", "positions", "teacher_logits", "counts"):
            assert torch.equal(getattr(words, name), getattr(other.words, name))


def test_a_set_of_one_block_is_as_in_memory(tokenised: TokenisedSet) -> None:
    streamed = StreamedDataset(labelled(), tokenised)
    whole = streamed.whole()
    assert len(streamed) == len(whole) == 199 + len(LABELLED)
    assert streamed.labels.tolist() == list(whole.labels)
    batches = streamed.epoch_batches(8, **ORDER)
    expected = length_batches(whole.lengths, 8, **ORDER)
    assert [b.tolist() for b in batches] == [b.tolist() for b in expected]
    for indices in batches:
        same(streamed.batch(indices.tolist()), whole.batch(indices.tolist()))


@pytest.mark.parametrize("block_size", [BLOCK, 11, 1])
def test_every_batch_of_blocks_is_as_in_memory(tokenised: TokenisedSet, block_size: int) -> None:
    streamed = StreamedDataset(labelled(), tokenised, block_size=block_size)
    whole = streamed.whole()
    batches = streamed.epoch_batches(8, **ORDER)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(streamed)))
    for indices in batches:
        same(streamed.batch(indices.tolist()), whole.batch(indices.tolist()))


def test_text_is_as_in_memory(tokenised: TokenisedSet) -> None:
    for block_size in (BLOCK, 10**6):
        streamed = StreamedDataset(labelled(), tokenised, block_size=block_size)
        text = streamed.text()
        whole = streamed.whole().text()
        assert len(text) == len(whole)
        assert text.soft_fraction() == pytest.approx(whole.soft_fraction())
        longer, expected = text.longer(), whole.longer()
        assert len(longer) == len(expected) == len(text) - 1
        assert [t.tolist() for t in longer.whole().tokens] == [t.tolist() for t in expected.tokens]
        batches = longer.epoch_batches(8, **ORDER)
        chosen = np.flatnonzero(longer.chosen)
        assert sorted(np.concatenate(batches).tolist()) == chosen.tolist()
        everything = streamed.whole()
        in_memory = LMDataset(everything.tokens, everything.lm_targets)
        for indices in batches:
            same(longer.batch(indices.tolist()), in_memory.batch(indices.tolist()))
        if block_size > BLOCK:
            plain = length_batches(expected.lengths, 8, **ORDER)
            assert [b.tolist() for b in batches] == [chosen[b].tolist() for b in plain]


def test_blocks_are_shuffled_anew_each_epoch_and_by_each_seed(tokenised: TokenisedSet) -> None:
    streamed = StreamedDataset(labelled(), tokenised, block_size=BLOCK)

    def files(seed: int, epoch: int) -> list[list[int]]:
        streamed.epoch_batches(8, seed=seed, epoch=epoch)
        return [sorted(block.tolist()) for block in streamed._plan]

    assert len(files(1, 1)) == 5 and all(len(block) == 4 for block in files(1, 1))
    assert files(1, 1) == files(1, 1)
    assert files(1, 1) != files(1, 2) != files(2, 2)


def test_labelled_sentences_are_spread_over_the_blocks(tokenised: TokenisedSet) -> None:
    streamed = StreamedDataset(labelled(), tokenised, block_size=BLOCK)
    batches = streamed.epoch_batches(8, **ORDER)
    sizes = np.cumsum([len(b) for b in batches])
    for start in range(0, sizes[-1] - 43, 43):
        part = np.concatenate(batches)[start : start + 43]
        assert 1 <= (part < len(LABELLED)).sum() <= 8


def test_an_epoch_is_gone_on_with_at_any_batch_and_reads_what_it_needs(
    tokenised: TokenisedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the blocks from there on, each once."""
    streamed = StreamedDataset(labelled(), tokenised, block_size=BLOCK)
    batches = streamed.epoch_batches(8, **ORDER)
    everything = [streamed.batch(indices.tolist()) for indices in batches]
    again = StreamedDataset(labelled(), tokenised, block_size=BLOCK)
    reads = []
    read = TokenisedSet.read

    def counted(self: TokenisedSet, numbers: list[int]) -> DistillationDataset:
        reads.append(len(numbers))
        return read(self, numbers)

    monkeypatch.setattr(TokenisedSet, "read", counted)
    position = len(batches) // 2
    for indices, expected in zip(
        again.epoch_batches(8, **ORDER)[position:], everything[position:], strict=True
    ):
        same(again.batch(indices.tolist()), expected)
    assert reads == [4, 4, 4]


def test_an_empty_set(tokenised: TokenisedSet) -> None:
    streamed = StreamedDataset(labelled(), replace(tokenised, shards=[]))
    batches = streamed.epoch_batches(8, **ORDER)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(LABELLED)))
    assert len(streamed.batch(batches[0].tolist())) == len(batches[0])
    assert len(streamed.text()) == len(LABELLED)
