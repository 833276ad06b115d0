"""benchmarks/transfer_set_scale.py on a set of some thousand sentences, which is read in blocks."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transfer_set_scale

from potstill.data.batching import LabelledDataset
from potstill.distillation import streamed
from potstill.distillation.dataset import labelled_dataset
from potstill.distillation.streamed import StreamedDataset
from potstill.distillation.tokenise import tokenise_set
from potstill.student.tokenizer import train_tokenizer
from potstill.transfer import shards
from potstill.transfer.dataset import read_transfer_set

SENTENCES = 10_000


def test_training_holds_one_block_of_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading every batch of an epoch takes a small part of what the whole set takes."""
    monkeypatch.setattr(transfer_set_scale, "shard_size_of", lambda sentences: 250)
    transfer_set_scale.make_set(tmp_path / "set", SENTENCES)
    selection = read_transfer_set(tmp_path / "set").select(without=[])
    tokenizer = train_tokenizer(selection.sentences(500), 300)
    arguments: dict[str, Any] = {"set_sha256": "a", "vocabulary": [], "words": True}
    tokenised = tokenise_set(tmp_path / "tokens", selection, tokenizer, max_length=128, **arguments)
    logits = [np.zeros((1, 2), np.float32)]
    own = labelled_dataset(
        tokenizer,
        ["one"],
        LabelledDataset([[1]], [0]),
        teacher_logits=torch.zeros(1, 2),
        word_logits=logits,
        max_length=128,
    )
    data = StreamedDataset(own, tokenised, block_size=500)
    tracemalloc.start()
    batches = data.epoch_batches(64, seed=1, epoch=1)
    lengths = [len(data.batch(indices.tolist())) for indices in batches]
    streamed_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    assert len(data.whole()) == sum(lengths) == len(selection) + 1
    whole_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert streamed_peak < whole_peak / 5


@pytest.mark.slow
def test_the_stages_and_their_memory(tmp_path: Path) -> None:
    """Each in a process of its own: what a set takes grows with it, but for the libraries."""
    figures = transfer_set_scale.measure(tmp_path, SENTENCES, steps=2)
    assert figures["open"]["sentences"] == SENTENCES
    assert figures["open"]["seconds"] < 2
    # The libraries alone take this much.
    assert figures["open"]["peak GiB"] < 0.4
    assert figures["train"]["peak GiB"] < 1
    # 20 million of this size are less than 3 GB.
    assert figures["disk"]["bytes a sentence"] * 20e6 < 3e9
    assert figures["choose and tokenise"]["chosen"] > 0.9 * SENTENCES
    transfer_set = read_transfer_set(tmp_path / "set")
    row = next(iter(transfer_set.rows()))
    assert len(row.word_logits) == len(row.sentence.split())
    assert row.logits == row.word_logits[-1]
    assert shards.SHARD_SIZE < SENTENCES < streamed.BLOCK_SIZE
