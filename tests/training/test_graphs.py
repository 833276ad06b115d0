"""Steps captured and replayed: on a GPU by CUDA's graphs, without one by a stand-in for them; and
what can be captured, told on tensors that hold no numbers."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from potstill.data.batching import LabelledDataset
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.lora import lora_layers
from potstill.settings import TrainSettings
from potstill.training.losses import classification_loss
from potstill.training.optim import adamw, set_lr, update
from potstill.training.precision import cast_frozen_to_bf16
from potstill.training.steps import LENGTH_STEP, GraphedStep

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tuned(decoder, dropout=0.0):
    torch.manual_seed(0)
    model = (
        build_lora_classifier(decoder.base(), 2, rank=2, alpha=4, dropout=dropout)
        .train()
        .to(DEVICE)
    )
    with torch.no_grad():
        model.score.weight.normal_()
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.1)
    return model


LENGTHS = [[3, 4], [7, 6], [8, 1], [9, 9], [30, 29], [5, 2, 2], [2, 2], [28, 3], [6, 6, 6]]
SHAPES = [(2, 8), (2, 16), (2, 30), (3, 8)]  # no longer than the longest of 30
SETTINGS = TrainSettings(lr=2e-3, warmup=0.5, clip=0.5)


def steps(model, batches, graphed=None):
    """Each step's logits, as the plain loop or as `graphed` takes them, by the same rates."""
    optimizer = graphed.optimizer if graphed else adamw(model, SETTINGS)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for step, batch in enumerate(batches):
        set_lr(optimizer, SETTINGS, step, len(batches))
        if graphed:
            found.append(graphed.take(batch))
        else:
            batch = batch.to(DEVICE)
            logits = model(batch.input_ids, batch.lengths)
            classification_loss(logits, batch).backward()
            update(optimizer, parameters, SETTINGS.clip)
            found.append(logits.detach())
    return found


def compare(decoder, batches, dropout=0.0):
    """Both ways from the same weights and random numbers; gives what took the second."""
    plain = tuned(decoder, dropout)
    expected = steps(plain, batches)
    model = tuned(decoder, dropout)
    longest = max(int(batch.lengths.max()) for batch in batches)
    graphed = GraphedStep(
        model, classification_loss, adamw(model, SETTINGS), SETTINGS.clip, longest=longest
    )
    rates = [group["lr"] for group in graphed.optimizer.param_groups]
    # All at the end: no answer may be overwritten by a later one.
    torch.testing.assert_close(steps(model, batches, graphed), expected, rtol=1e-3, atol=1e-4)
    moved, wanted = ({n: p.detach() for n, p in m.named_parameters()} for m in (model, plain))
    torch.testing.assert_close(moved, wanted, rtol=1e-3, atol=1e-4)
    for group, rate in zip(graphed.optimizer.param_groups, rates, strict=True):
        assert group["lr"] is rate  # where a graph would look for it
    return graphed


def batches(random_tokens, lengths):
    return [
        LabelledDataset(random_tokens(some, seed=seed), [i % 2 for i in range(len(some))]).batch(
            range(len(some))
        )
        for seed, some in enumerate(lengths)
    ]


def test_graphed_steps_equal_a_plain_loop(tiny_decoder, random_tokens, graph_captures):
    """Of each shape the first is launched as it is, the others are replayed."""
    graphed = compare(tiny_decoder, batches(random_tokens, LENGTHS))
    assert sorted(graphed.graphs.seen) == sorted(map(torch.Size, SHAPES))
    assert set(graphed.graphs.captures) == graphed.graphs.seen - {(2, 16)}
    assert graph_captures.number == 3
    assert LENGTH_STEP == 8


def test_graphed_dropout_equals_a_plain_loop(tiny_decoder, random_tokens, graph_captures):
    """So that a run that is gone on with drops what it would have dropped."""
    compare(tiny_decoder, batches(random_tokens, [[8, 8]] * 4), dropout=0.3)
    assert graph_captures.number == 1


def test_a_step_that_cannot_be_captured_is_launched(
    tiny_decoder, random_tokens, graph_captures, caplog
):
    """With dropout: on a GPU a capture that fails would leave the generator unusable."""
    graph_captures.failure = RuntimeError("operation not permitted\nmore of it")
    compare(tiny_decoder, batches(random_tokens, [[8, 8]] * 4), dropout=0.3)
    assert graph_captures.number == 1
    message = "slower than it could be: CUDA graphs are not available (operation not permitted)"
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("potstill")]
    assert warnings == [message]


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_a_step_that_waits_for_the_gpu_cannot_be_captured(
    tiny_decoder, random_tokens, caplog, monkeypatch
):
    monkeypatch.setattr(nn.functional, "cross_entropy", waiting(nn.functional.cross_entropy))
    graphed = compare(tiny_decoder, batches(random_tokens, [[8, 8]] * 4), dropout=0.3)
    assert graphed.graphs.fails
    assert "slower than it could be: CUDA graphs are not available (" in caplog.text


def waiting(function):
    def waits(*arguments):
        found = function(*arguments)
        assert found.item() > 0
        return found

    return waits


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


@pytest.mark.parametrize("bf16", [True, False])
def test_a_pass_runs_entirely_on_the_device(tiny_decoder, bf16):
    """A capture can't hold an operation that waits for a number, nor a copy from the processor's
    memory. Without numbers the first can't be done, and the second shows."""
    model = tuned(tiny_decoder, dropout=0.1)
    if bf16:
        cast_frozen_to_bf16(model.base)
    model = model.to("meta")
    input_ids = torch.zeros(4, 16, dtype=torch.long, device="meta")
    lengths = torch.zeros(4, dtype=torch.long, device="meta")
    parameters = [p for p in model.parameters() if p.requires_grad]
    model(input_ids, lengths)  # takes the base apart, before anything is captured
    with Watch() as watch:
        logits = model(input_ids, lengths)
        torch.autograd.grad(logits.sum(), parameters)
    assert watch.operations > 200
    assert not watch.elsewhere
