"""A batch in parts, in several threads."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.lora import lora_layers
from potstill.training.losses import classification_loss
from potstill.training.steps import backward_in_microbatches
from tests.training.toy import TRAIN


@pytest.mark.parametrize(("threads", "microbatch_tokens"), [(1, 256), (3, 256), (1, 6), (2, 4)])
def test_microbatches_give_the_gradients_of_the_batch(
    tiny_decoder, monkeypatch, threads, microbatch_tokens
):
    """Parts of unlike size, some empty, in several threads."""
    torch.manual_seed(0)
    model = build_lora_classifier(tiny_decoder.base(), 2, rank=2, alpha=4).train()
    with torch.no_grad():
        model.score.weight.normal_()
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.1)
    for index in ([5], [0, 1], list(range(20, 31))):
        batch = TRAIN.batch(index)
        logits = model(batch.input_ids, batch.lengths)
        F.cross_entropy(logits, batch.labels).backward()
        expected = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        model.zero_grad(set_to_none=True)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        outputs = backward_in_microbatches(
            model, TRAIN, np.array(index), classification_loss, microbatch_tokens=microbatch_tokens
        )
        assert torch.cat([indices for indices, _ in outputs]).tolist() == index
        torch.testing.assert_close(torch.cat([part for _, part in outputs]), logits.detach())
        found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        model.zero_grad(set_to_none=True)


def test_dropout_in_threads_is_repeatable(tiny_decoder, monkeypatch):
    """However the threads are served, each part loses the same inputs again."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.manual_seed(0)
    model = build_lora_classifier(tiny_decoder.base(), 2, rank=2, alpha=4, dropout=0.5).train()
    with torch.no_grad():
        model.score.weight.normal_()
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.5)

    def logits(seed, microbatch_tokens=4):
        torch.manual_seed(seed)
        index = np.arange(20)
        outputs = backward_in_microbatches(
            model, TRAIN, index, classification_loss, microbatch_tokens=microbatch_tokens
        )
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        return torch.cat([part_logits for _, part_logits in outputs]), grads

    first, grads = logits(0)
    for _ in range(5):
        again, same = logits(0)
        assert torch.equal(again, first)
        assert all(torch.equal(a, b) for a, b in zip(same, grads, strict=True))
    other, _ = logits(1)
    assert (other - first).abs().min() > 1e-4
    batch = TRAIN.batch([0, 0])
    one, two = model(batch.input_ids, batch.lengths)
    assert (one - two).abs().min() > 1e-4  # each sentence of a batch loses its own
