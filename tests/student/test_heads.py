"""The student as a language model, a token at a time."""

import pytest
import torch
from torch.nn import functional as F

from potstill.data.batching import collate
from potstill.student.heads import NextTokenHead
from potstill.student.model import DistilRNN, StudentConfig

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def student(bidirectional: bool = True, cell: str = "gru", layers: int = 1) -> DistilRNN:
    torch.manual_seed(0)
    config = StudentConfig(cell, 5, 6, layers, bidirectional, 0.0, vocab_size=30, classes=2)
    return DistilRNN(config)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_next_token_loss_by_hand(cell, bidirectional, random_tokens):
    """The loss by hand, a sentence and a token at a time."""
    model = NextTokenHead(student(bidirectional, cell)).eval()
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
