"""What a GPU would record, as far as a CPU can tell: with a stand-in for CUDA's graphs, and on
tensors that hold no numbers."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from potstill.batching import collate
from potstill.classifier import tunable_classifier
from potstill.graphs import LENGTH_STEP, Graphed
from potstill.lora import halve_frozen, lora_layers


def tuned(decoder, dropout=0.0):
    torch.manual_seed(0)
    model = tunable_classifier(decoder.base(), 2, 2, 4, dropout).train()
    with torch.no_grad():
        model.score.weight.normal_()
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.1)
    return model


def batches(random_tokens, lengths):
    return [collate(random_tokens(some), range(len(some))) for some in lengths]


def gradients(model, logits):
    logits.square().sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    return found


LENGTHS = [[3, 4], [7, 6], [8, 1], [9, 9], [30, 29], [5, 2, 2], [2, 2]]
SHAPES = [(2, 8), (2, 16), (2, 30), (3, 8)]  # no longer than the longest of 30


def test_a_batch_passes_as_without_graphs(tiny_decoder, random_tokens, recordings):
    model = tuned(tiny_decoder).double()
    graphed = Graphed(model, longest=30)
    answers = []
    for batch in batches(random_tokens, LENGTHS):
        plain = model(batch.input_ids, batch.lengths)
        expected = gradients(model, plain)
        logits = graphed(batch.input_ids, batch.lengths)
        torch.testing.assert_close(gradients(model, logits), expected)
        answers.append((logits.detach(), plain.detach()))
    assert recordings.shapes == SHAPES
    assert LENGTH_STEP == 8
    for logits, plain in answers:  # still, when all others have passed
        torch.testing.assert_close(logits, plain)


def test_recording_takes_no_random_numbers(tiny_decoder, random_tokens, recordings):
    """So that a run that is gone on with drops what it would have dropped."""
    model = tuned(tiny_decoder, dropout=0.3)
    graphed = Graphed(model, longest=8)
    (batch,) = batches(random_tokens, [[8, 8]])
    answers = []
    for forward in (model, graphed, graphed):
        torch.manual_seed(5)
        answers.append(forward(batch.input_ids, batch.lengths))
    torch.testing.assert_close(answers[1:], answers[:1] * 2)
    assert (answers[0] - graphed(batch.input_ids, batch.lengths)).abs().max() > 1e-3


def test_what_cannot_be_recorded_is_launched(tiny_decoder, random_tokens, recordings, capsys):
    recordings.failure = RuntimeError("operation not permitted\nmore of it")
    model = tuned(tiny_decoder)
    graphed = Graphed(model, longest=30)
    for batch in batches(random_tokens, LENGTHS):
        plain = model(batch.input_ids, batch.lengths)
        torch.testing.assert_close(graphed(batch.input_ids, batch.lengths), plain)
    assert recordings.shapes == SHAPES[:1]
    said = "slower than it could be: CUDA graphs can't be had here (operation not permitted)\n"
    assert capsys.readouterr().out == said


class Watch(TorchDispatchMode):
    """Counts operations, and keeps those that touch a tensor with numbers."""

    def __init__(self):
        super().__init__()
        self.operations, self.elsewhere = 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        self.operations += 1
        if any(x.device.type != "meta" for x in tensors):
            self.elsewhere.append(str(operation))
        return out


@pytest.mark.parametrize("half", [True, False])
def test_a_pass_asks_nothing_of_the_processor(tiny_decoder, half):
    """A recording can't hold an operation that waits for a number, nor a copy from the processor's
    memory. Without numbers the first can't be done, and the second shows."""
    model = tuned(tiny_decoder, dropout=0.1)
    if half:
        halve_frozen(model.base)
    model = model.to("meta")
    input_ids = torch.zeros(4, 16, dtype=torch.long, device="meta")
    lengths = torch.zeros(4, dtype=torch.long, device="meta")
    parameters = [p for p in model.parameters() if p.requires_grad]
    model(input_ids, lengths)  # takes the base apart, before anything is recorded
    with Watch() as watch:
        logits = model(input_ids, lengths)
        torch.autograd.grad(logits.sum(), parameters)
    assert watch.operations > 200
    assert not watch.elsewhere
