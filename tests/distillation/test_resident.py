"""Data on the device, and steps on it, beside the batches and the steps of a processor."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from potstill.data.batching import UNLABELLED, LabelledDataset, length_batches
from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.lm_targets import LMDataset, LMTargets
from potstill.distillation.losses import distillation_loss
from potstill.distillation.pretrain import next_token_loss
from potstill.distillation.resident import ResidentDataset, ResidentText
from potstill.distillation.word_targets import word_targets
from potstill.settings import DistilSettings, TrainSettings
from potstill.student.heads import NextTokenHead
from potstill.student.layered import LayeredClassifier, LayeredLanguageModel
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.losses import classification_loss
from potstill.training.optim import adamw, update
from potstill.training.resident import ResidentStep

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
# Lengths of eight sentences, and the words of each.
LENGTHS = [3, 5, 3, 5, 5, 1, 3, 5]
WORDS = [[0, 2], [0, 1, 3], [2], [1, 4], [0, 4], [], [0, 1, 2], [4]]
OF_FIVE = [1, 3, 4, 7]


def student(layers: int = 2, word_head: bool = False) -> DistilRNN:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "classes": 2}
    config = StudentConfig("gru", 6, 5, layers, True, 0.0, **sizes, word_head=word_head)
    return DistilRNN(config)


def dataset() -> DistillationDataset:
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(len(words), 2)).astype(np.float32) for words in WORDS]
    return DistillationDataset(
        [rng.integers(1, 20, n).tolist() for n in LENGTHS],
        [0, 1, UNLABELLED, 0, 1, 1, UNLABELLED, UNLABELLED],
        [True] * len(LENGTHS),
        torch.from_numpy(rng.normal(size=(len(LENGTHS), 2)).astype(np.float32)),
        word_targets(WORDS, logits),
    )


def lm_dataset() -> LMDataset:
    tokens = dataset().tokens
    rng = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum([n - 1 for n in LENGTHS])])
    rows = rng.integers(-1, 6, offsets[-1])
    probs = rng.dirichlet(np.ones(3), 6).astype(np.float16)
    return LMDataset(
        tokens,
        LMTargets(
            rows,
            rng.random(len(rows)) < 0.5,
            offsets,
            rng.integers(0, 30, (6, 3)).astype(np.int32),
            probs,
            torch.from_numpy(rng.integers(0, 20, 30)),
        ),
    )


def test_a_resident_batch_gives_the_loss_of_an_ordinary_one() -> None:
    listed, model = dataset(), student(word_head=True)
    settings = DistilSettings()
    expected_batch = listed.batch(OF_FIVE)
    expected = distillation_loss(
        model(expected_batch.input_ids, expected_batch.lengths), expected_batch, settings
    )
    resident = ResidentDataset.of(listed, CPU)
    batch = resident.batch_of_length(torch.tensor(OF_FIVE), 5)
    loss = distillation_loss(LayeredClassifier(model, copied=False)(batch), batch, settings)
    torch.testing.assert_close(loss, expected, **CLOSE)


def test_a_sentence_without_words_has_the_loss_of_the_whole_alone() -> None:
    listed, model = dataset(), student(word_head=True)
    batch = ResidentDataset.of(listed, CPU).batch_of_length(torch.tensor([5]), 1)
    output = LayeredClassifier(model, copied=False)(batch)
    loss = distillation_loss(output, batch, DistilSettings())
    whole = distillation_loss(output[0], batch, DistilSettings())
    torch.testing.assert_close(loss, whole)


def test_labels_alone_give_the_cross_entropy() -> None:
    listed = LabelledDataset(dataset().tokens, [0, 1, 1, 0, 1, 0, 1, 0])
    model, expected_batch = student(), listed.batch(OF_FIVE)
    expected = classification_loss(
        model(expected_batch.input_ids, expected_batch.lengths), expected_batch
    )
    batch = ResidentDataset.of(listed, CPU).batch_of_length(torch.tensor(OF_FIVE), 5)
    loss = classification_loss(LayeredClassifier(model, copied=False)(batch), batch)
    torch.testing.assert_close(loss, expected, **CLOSE)


@pytest.mark.parametrize("soft", [True, False])
def test_a_resident_text_gives_the_loss_of_a_language_model(soft: bool) -> None:
    listed = lm_dataset() if soft else LMDataset(dataset().tokens)
    head = NextTokenHead(student(layers=1))
    expected = next_token_loss(head, listed.batch(OF_FIVE))
    batch = ResidentText.of(listed, CPU).batch_of_length(torch.tensor(OF_FIVE), 5)
    torch.testing.assert_close(LayeredLanguageModel(head, copied=False)(batch), expected, **CLOSE)


@pytest.mark.gpu
def test_resident_steps_equal_a_plain_loop(graph_captures) -> None:
    """Full batches are captured from the second of a length on; all go as the plain loop goes."""
    listed = dataset()
    settings, losses = TrainSettings(lr=1e-2, clip=0.5, batch_size=2), DistilSettings()
    batches = [
        np.array(rows) for rows in ([1, 3], [0, 2], [4, 7], [6], [5], [1, 7], [0, 6], [3, 4])
    ]

    def loss(output: Tensor | tuple[Tensor, Tensor], batch) -> Tensor:
        return distillation_loss(output, batch, losses)

    plain = student(word_head=True).train()
    optimizer = adamw(plain, settings)
    expected = []
    for rows in batches:
        batch = listed.batch(rows.tolist())
        output = plain(batch.input_ids, batch.lengths)
        (loss(output, batch) * len(rows) / 2).backward()
        update(optimizer, list(plain.parameters()), settings.clip)
        expected.append(output[0].detach())

    model = student(word_head=True).train().to(DEVICE)
    step = ResidentStep(
        LayeredClassifier(model, copied=True, dtype=torch.float32),
        loss,
        adamw(model, settings),
        settings.clip,
        parameters=list(model.parameters()),
        batch_size=2,
    )
    resident = ResidentDataset.of(listed, DEVICE)
    found = [step(resident, rows)[0][1].cpu() for rows in batches]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    # Adam takes a step of the same size for the smallest gradients, which differ most.
    torch.testing.assert_close(weights, plain.state_dict(), rtol=1e-2, atol=1e-3)
    assert graph_captures.number == 2
    assert not step.graphs.fails


def test_batches_of_one_length_hold_every_sentence_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 6, 100)
    batches = length_batches(lengths, 8, seed=1, epoch=1, one_length=True)
    assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    assert all(len(set(lengths[batch])) == 1 for batch in batches)
    assert max(len(batch) for batch in batches) == 8


def test_nothing_is_lost_on_the_way_to_the_device() -> None:
    resident = ResidentDataset.of(dataset(), CPU)
    assert len(resident) == len(LENGTHS)
    assert {f.name for f in dataclasses.fields(resident) if getattr(resident, f.name) is None} == (
        set()
    )
    assert resident.word_rows is not None
    assert int((resident.word_rows >= 0).sum()) == sum(map(len, WORDS))
