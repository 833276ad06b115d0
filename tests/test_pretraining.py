"""The student's training as a language model against PyTorch's own operations."""

import pytest
import torch
from torch.nn import functional as F

from potstill import pretraining
from potstill.batching import collate
from potstill.pretraining import NextToken, TiedCrossEntropy, pretrain
from potstill.settings import TrainSettings
from potstill.student import DistilRNN, StudentConfig

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def student(bidirectional: bool = True, cell: str = "gru", layers: int = 1) -> DistilRNN:
    torch.manual_seed(0)
    return DistilRNN(StudentConfig(30, 2, cell, 6, 5, layers, bidirectional, dropout=0.0))


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_cross_entropy_and_gradients_are_pytorchs(rows, monkeypatch):
    monkeypatch.setattr(pretraining, "ROWS", 3)
    torch.manual_seed(0)
    hidden, weight = 3 * torch.randn(rows, 6), 3 * torch.randn(30, 6)
    bias, targets = torch.randn(30), torch.randint(0, 30, (rows,))
    inputs = [x.requires_grad_() for x in (hidden, weight, bias)]
    one = targets[:, None], torch.ones(rows, 1)
    ours = TiedCrossEntropy.apply(*inputs, *one, torch.float32)
    theirs = F.cross_entropy(hidden @ weight.T + bias, targets)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    found, expected = (torch.autograd.grad(2 * loss, inputs) for loss in (ours, theirs))
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)
    half = TiedCrossEntropy.apply(*inputs, *one, torch.bfloat16)
    assert 0 < abs(half - theirs) < 0.05 * theirs


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_direction_predicts_what_it_has_not_read(cell, bidirectional, random_tokens):
    """The loss by hand, a sentence and a token at a time."""
    model = NextToken(student(bidirectional, cell)).eval()
    tokens = [[t % 30 for t in s] for s in random_tokens([1, 5, 3, 8])]
    batch = collate(tokens, range(4))
    losses = []
    for sentence in tokens:
        ways = [(sentence, 0), (sentence[::-1], 1)]
        for words, way in ways[: 1 + bidirectional]:
            for i in range(1, len(words)):
                # All that has been read so far, in the order of the sentence.
                read = words[:i] if way == 0 else words[:i][::-1]
                ids, lengths = torch.tensor([read]), torch.tensor([i])
                states = model.student.states(ids, lengths)[0].chunk(1 + bidirectional, dim=-1)
                state = states[0][-1] if way == 0 else states[1][0]
                logits = model.student.embedding.weight @ model.heads[way](state) + model.bias
                losses.append(F.cross_entropy(logits, torch.tensor(words[i])))
    found = model(batch.input_ids, batch.lengths)
    torch.testing.assert_close(found, torch.stack(losses).mean(), **CLOSE)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_pattern_is_learnt_from_both_sides(layers):
    """In sentences of one pair repeated each token tells its neighbours."""
    model = student(layers=layers)
    tokens = [[a, b] * 4 for a, b in [(1, 2), (3, 4), (5, 6), (7, 8)] for _ in range(8)] + [[9]]
    seen: list[int] = []
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    settings = TrainSettings(lr=5e-2, batch_size=8)
    loss = pretrain(model, tokens, settings, 100, 0, lambda done, what: seen.append(done))
    assert loss < 0.1
    assert seen[-1] == 100 * 32  # a sentence of one token teaches nothing
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if n.startswith("embedding.") or "_l0" in n}
