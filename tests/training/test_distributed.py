"""Predictions in batches: in order, whatever the lengths."""

import pytest
import torch
from torch import nn

from potstill.training import distributed
from potstill.training.distributed import predict_logits
from tests.data.test_batching import LENGTHS


class FirstAndLength(nn.Module):
    """Logits that tell a sentence: its first token, its length; keeps the shapes it was given."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
        self.shapes = []

    def forward(self, input_ids, lengths):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.shapes.append(tuple(input_ids.shape))
        return torch.stack([input_ids[:, 0], lengths], 1).to(self.unused.dtype)


@pytest.mark.parametrize("training", [True, False])
def test_predict_logits_preserves_order_and_mode(random_tokens, training):
    tokens = random_tokens(LENGTHS)
    model = FirstAndLength().train(training)
    logits = predict_logits(model, tokens, batch_tokens=100)
    assert logits.tolist() == [[t[0], len(t)] for t in tokens]
    assert logits.dtype == torch.float32
    assert model.training == training
    assert max(rows * columns for rows, columns in model.shapes) <= 100


def test_a_sentence_over_the_token_budget_is_a_batch_of_its_own(random_tokens):
    tokens = random_tokens([3, 40, 2])
    model = FirstAndLength()
    assert predict_logits(model, tokens, batch_tokens=10)[:, 1].tolist() == [3, 40, 2]
    assert model.shapes == [(1, 40), (2, 3)]


@pytest.mark.parametrize(
    ("gpus", "processes", "backend"), [(0, 2, None), (2, 2, None), (1, 3, "gloo"), (1, None, None)]
)
def test_processes_that_share_a_gpu_do_without_nccl(gpus, processes, backend, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert distributed._backend() == backend
