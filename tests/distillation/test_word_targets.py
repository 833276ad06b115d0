"""How a student learns what a teacher makes of each word, against each word by itself."""

import numpy as np
import torch

from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.losses import distillation_loss
from potstill.distillation.word_targets import word_targets
from potstill.settings import DistilSettings
from potstill.student.model import DistilRNN, StudentConfig


def some_targets() -> tuple[list[list[int]], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    positions = [[0, 2, 3], [], [1], [0, 1, 2, 4]]
    # The first sentence has a word more here, the last one less.
    return positions, [rng.normal(size=(n, 2)).astype(np.float32) for n in (4, 0, 1, 3)]


def test_targets_of_a_batch():
    positions, logits = some_targets()
    targets = word_targets(positions, logits)
    for index in ([0, 1, 2, 3], [3, 0], [1], [2, 2]):
        words = targets.batch(torch.tensor(index))
        expected = [
            (row, place, *values.tolist())
            for row, i in enumerate(index)
            for place, values in zip(positions[i], logits[i], strict=False)
        ]
        rows = words.rows.tolist()
        assert list(zip(rows, words.positions.tolist(), strict=True)) == [e[:2] for e in expected]
        assert words.teacher_logits.tolist() == [list(e[2:]) for e in expected]
        assert words.counts.tolist() == [rows.count(row) for row in rows]


def test_loss_with_words_by_hand(random_tokens):
    """That of the sentences plus that of their words, one at a time; the student learns of both.

    A sentence without words, as where its first is cut off, counts among the sentences.
    """
    torch.manual_seed(0)
    config = StudentConfig("gru", 5, 6, 2, dropout=0.0, vocab_size=30, classes=2, word_head=True)
    learner = DistilRNN(config)
    assert learner.word_score is not None
    tokens = [[t % 30 for t in s] for s in random_tokens([4, 1, 2, 5])]
    positions, logits = some_targets()
    index = torch.tensor([3, 0, 1, 2])
    teacher_logits = torch.randn(4, 2)
    dataset = DistillationDataset(
        tokens, [0, 1, 1, 0], [True] * 4, teacher_logits, word_targets(positions, logits)
    )
    batch = dataset.batch(index.tolist())
    settings = DistilSettings(loss="mse", alpha=1.0, word_loss_weight=3.0)
    output = learner(batch.input_ids, batch.lengths)
    whole = learner.classify(learner.states(batch.input_ids, batch.lengths), batch.lengths)
    torch.testing.assert_close(output[0], whole)
    expected = (whole - teacher_logits[index]).square().mean()
    for i in index.tolist():
        states = learner.states(torch.tensor([tokens[i]]), torch.tensor([len(tokens[i])]))
        pairs = list(zip(positions[i], logits[i], strict=False))
        for place, target in pairs:
            found = learner.word_score(states[0, place])
            away = (found - torch.from_numpy(target)).square().mean()
            expected = expected + 3 * away / len(pairs) / len(index)
    found = distillation_loss(output, batch, settings)
    torch.testing.assert_close(found, expected)
    grads, expected_grads = (
        torch.autograd.grad(x, list(learner.parameters())) for x in (found, expected)
    )
    for one, other in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(learner.eval()(batch.input_ids, batch.lengths), whole)
