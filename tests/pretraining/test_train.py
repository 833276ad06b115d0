"""The training of a base."""

from pathlib import Path

import pytest
import torch

from potstill.data.ragged import RaggedTokens, offsets_of
from potstill.pretraining.heads import PretrainingHeads
from potstill.pretraining.text import PretrainingText
from potstill.pretraining.train import amplify_states, pretrain_base
from potstill.settings import TrainSettings
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.checkpoint import Checkpoint
from potstill.training.history import EpochMetrics


def pattern() -> PretrainingText:
    """Texts of one pair repeated, in which each token tells its neighbours and its state."""
    rows = [[a, b] * (2 + i % 3) for a, b in [(1, 2), (3, 4), (5, 6), (7, 8)] for i in range(12)]
    rows.append([9])  # a text of one token teaches nothing
    values = torch.tensor([token for row in rows for token in row])
    lengths = torch.tensor([len(row) for row in rows])
    states = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    return PretrainingText(
        RaggedTokens(values, offsets_of(lengths)),
        origin=torch.arange(len(values)),
        top_ids=torch.zeros(len(values), 2, dtype=torch.int16),
        top_probs=torch.zeros(len(values), 2, dtype=torch.half),
        states=states[values].half(),
    )


def train(folder: Path, bf16: bool) -> tuple[DistilRNN, list[EpochMetrics]]:
    torch.manual_seed(1)
    sizes = {"vocab_size": 12, "classes": 2}
    student = DistilRNN(StudentConfig("gru", 16, 8, 2, True, 0.0, **sizes))
    history = pretrain_base(
        student,
        PretrainingHeads(student, 6),
        pattern(),
        TrainSettings(lr=2e-2, batch_size=8),
        epochs=25,
        seed=3,
        checkpoint=Checkpoint(folder, {}),
        bf16=bf16,
    )
    return student, history


@pytest.mark.parametrize("bf16", [False, True])
def test_what_text_and_states_tell_is_learnt(bf16: bool, tmp_path: Path) -> None:
    """In bf16 as on a GPU, by copies of the weights."""
    student, history = train(tmp_path / "checkpoint", bf16)
    first, last = history[0], history[-1]
    assert [each["epoch"] for each in history] == list(range(1, 26))
    assert first["steps"] == 6  # 16 texts of each length
    for name in ("next_token", "previous_token"):
        assert first[name] > 2 and last[name] < 0.3
    for name in ("state", "mean_state"):
        assert last[name] < first[name] / 4
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in student.parameters())
    assert not student.training


def test_the_layer_of_the_classes_stays_as_it_is(tmp_path: Path) -> None:
    student, _ = train(tmp_path / "checkpoint", False)
    torch.manual_seed(1)
    before = DistilRNN(student.config).state_dict()
    same = {n for n, tensor in student.state_dict().items() if torch.equal(tensor, before[n])}
    assert same == {"score.weight", "score.bias"}


def test_amplified_states_are_that_many_times_as_large() -> None:
    """Exactly so only where tanh is linear, so the weights are small."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "classes": 2}
    student = DistilRNN(StudentConfig("gru", 6, 5, 2, True, 0.0, **sizes))
    with torch.no_grad():
        for parameter in student.rnn.parameters():
            parameter.mul_(0.1)
    input_ids, lengths = torch.randint(0, 20, (4, 7)), torch.full((4,), 7)
    before = student.states(input_ids, lengths)
    amplify_states(student, 4.0)
    after = student.states(input_ids, lengths)
    assert before.abs().max() < 0.1
    torch.testing.assert_close(after, 4 * before, rtol=0.05, atol=0.003)
