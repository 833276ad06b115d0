"""The student's training as a language model."""

from contextlib import contextmanager

import pytest
import torch

from potstill.distillation.lm_targets import LMDataset
from potstill.distillation.pretrain import pretrain
from potstill.settings import TrainSettings
from potstill.student.model import DistilRNN, StudentConfig


def student(bidirectional: bool = True, cell: str = "gru", layers: int = 1) -> DistilRNN:
    torch.manual_seed(0)
    config = StudentConfig(cell, 5, 6, layers, bidirectional, 0.0, vocab_size=30, classes=2)
    return DistilRNN(config)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_pattern_is_learned_in_both_directions(layers):
    """In sentences of one pair repeated each token tells its neighbours."""
    model = student(layers=layers)
    tokens = [[a, b] * 4 for a, b in [(1, 2), (3, 4), (5, 6), (7, 8)] for _ in range(8)] + [[9]]
    seen: list[int] = []
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    settings = TrainSettings(lr=5e-2, batch_size=8)

    @contextmanager
    def progress(total):
        yield lambda done, description: seen.append(done)

    dataset = LMDataset(tokens)
    loss = pretrain(model, dataset, settings, epochs=100, seed=0, progress=progress)
    assert loss < 0.1
    assert seen[-1] == 100 * 32  # a sentence of one token teaches nothing
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if n.startswith("embedding.") or "_l0" in n}


@pytest.mark.parametrize("random_weights", [True, False])
def test_only_random_embeddings_are_made_narrow(random_weights: bool) -> None:
    model = student()
    before = model.embedding.weight.detach().clone()
    settings = TrainSettings(lr=1e-9, batch_size=8)
    pretrain(
        model, LMDataset([[1, 2, 3]]), settings, epochs=1, seed=0, random_weights=random_weights
    )
    expected = before * 0.1 if random_weights else before
    torch.testing.assert_close(model.embedding.weight.detach(), expected, rtol=0, atol=1e-6)
