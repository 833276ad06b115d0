"""The states of every layer, from the student's weights and from copies, and the losses on them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.data.ragged import RaggedTokens, offsets_of
from potstill.pretraining.heads import PretrainingHeads
from potstill.pretraining.losses import (
    PretrainingBatch,
    make_batch,
    pretraining_losses,
    replace_tokens,
)
from potstill.pretraining.sampling import state_basis
from potstill.pretraining.text import PretrainingText
from potstill.student.layered import (
    LayeredStudent,
    copy_module,
    copy_weights,
    move_gradients,
    pool,
)
from potstill.student.model import DistilRNN, StudentConfig

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def new_student(layers: int = 2) -> DistilRNN:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "classes": 2}
    return DistilRNN(StudentConfig("gru", 6, 5, layers, True, 0.0, **sizes))


def tokens(B: int = 4, L: int = 7) -> Tensor:
    return torch.randint(0, 20, (B, L), generator=torch.Generator().manual_seed(1))


def random_batch(B: int = 4, L: int = 7) -> PretrainingBatch:
    torch.manual_seed(2)
    return PretrainingBatch(
        tokens(B, L),
        (torch.rand(B, L) < 0.7).float(),
        torch.randint(0, 20, (B, L - 1, 3)),
        torch.rand(B, L - 1, 3),
        torch.randn(B, L, 8),
    )


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("copied", [False, True])
def test_states_are_those_of_the_student(layers: int, copied: bool) -> None:
    student, ids = new_student(layers), tokens()
    network = LayeredStudent(student, copied=copied, dtype=torch.float32)
    lowest, highest = network(ids)
    lengths = torch.full((4,), 7)
    torch.testing.assert_close(highest, student.states(ids, lengths), **CLOSE)
    single = new_student(1)
    single.load_state_dict({k: student.state_dict()[k] for k in single.state_dict()})
    torch.testing.assert_close(lowest, single.states(ids, lengths), **CLOSE)
    logits = student.score(pool(highest))
    torch.testing.assert_close(logits, student(ids, lengths), **CLOSE)


def test_copies_give_the_gradients_of_the_student() -> None:
    gradients = []
    for copied in (False, True):
        student = new_student()
        torch.manual_seed(3)
        heads = PretrainingHeads(student, 8)
        network = LayeredStudent(student, copied=copied, dtype=torch.float32)
        used, copies = heads, network.copies
        if copied:
            module, pairs = copy_module(heads, torch.float32)
            assert isinstance(module, PretrainingHeads)
            used, copies = module, copies + pairs
        pretraining_losses(network, used, random_batch(), torch.float32).sum().backward()
        move_gradients(copies)
        assert all(low.grad is None for low, _ in copies)
        named = [*student.named_parameters(), *heads.named_parameters()]
        gradients.append({n: p.grad for n, p in named if not n.startswith("score")})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradients[1][name], gradient, **CLOSE)


def test_copies_follow_the_student() -> None:
    student, ids = new_student(), tokens()
    network = LayeredStudent(student, copied=True, dtype=torch.float32)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1)
    copy_weights(network.copies)
    lengths = torch.full((4,), 7)
    torch.testing.assert_close(network(ids)[1], student.states(ids, lengths), **CLOSE)


def test_the_losses_are_their_formulas() -> None:
    student, batch = new_student(), random_batch()
    torch.manual_seed(3)
    heads = PretrainingHeads(student, 8)
    network = LayeredStudent(student, copied=False)
    torch.manual_seed(4)
    losses = pretraining_losses(network, heads, batch, torch.float32)
    lowest, _ = network(batch.input_ids)
    torch.manual_seed(4)
    read = replace_tokens(network, heads, lowest, batch.input_ids, torch.float32)
    _, highest = network(read)
    sums, n = torch.zeros(2), 0
    for b in range(4):
        for i in range(6):
            ahead = F.linear(heads.tokens[0](lowest[b, i, :6]), student.embedding.weight)
            log_probs = (ahead + heads.bias).log_softmax(0)[batch.target_ids[b, i]]
            sums[0] -= (log_probs * batch.target_weights[b, i]).sum()
            back = F.linear(heads.tokens[1](lowest[b, i + 1, 6:]), student.embedding.weight)
            sums[1] -= (back + heads.bias).log_softmax(0)[batch.input_ids[b, i]]
            n += 1
    torch.testing.assert_close(losses[:2], sums / n, **CLOSE)
    known = batch.known.bool()
    expected = F.mse_loss(heads.state(highest)[known], batch.states[known])
    torch.testing.assert_close(losses[2], expected, **CLOSE)
    errors = []
    for states, mean, row in zip(batch.states, heads.mean_state(pool(highest)), known, strict=True):
        errors.append(F.mse_loss(mean, states[row].mean(0)) * row.sum() / 4)
    torch.testing.assert_close(losses[3], torch.stack(errors).mean(), **CLOSE)
    scores, replaced = heads.replaced(highest).squeeze(2), read != batch.input_ids
    assert replaced.any() and not replaced.all()
    bce = -torch.where(replaced, F.logsigmoid(scores), F.logsigmoid(-scores)).mean()
    torch.testing.assert_close(losses[4], bce, **CLOSE)


def test_tokens_are_replaced_by_what_is_predicted_there() -> None:
    """Of a head that is sure of one token, that one; never the first token, and one in seven."""
    student, ids = new_student(), tokens(64, 7)
    heads = PretrainingHeads(student, 8)
    with torch.no_grad():
        heads.bias[17] = 1e4
    network = LayeredStudent(student, copied=False)
    read = replace_tokens(network, heads, network.lowest(ids), ids, torch.float32)
    changed = read != ids
    assert (read[changed] == 17).all()
    assert not changed[:, 0].any()
    assert changed.sum(1).max() == 1
    assert changed.any(0)[1:].all()


def test_the_token_that_follows_stands_for_what_is_not_among_the_top_k() -> None:
    text = PretrainingText(
        RaggedTokens(torch.tensor([3, 4, 5, 6]), offsets_of(torch.tensor([4]))),
        origin=torch.tensor([0, -1, 1, 2]),
        top_ids=torch.tensor([[4, 9], [7, 8], [1, 2]]),
        top_probs=torch.tensor([[0.5, 0.25], [0.5, 0.125], [1, 0]], dtype=torch.half),
        states=torch.arange(6.0).view(3, 2).half(),
    )
    batch = make_batch(text, torch.tensor([0]), 4)
    assert batch.input_ids.tolist() == [[3, 4, 5, 6]]
    assert batch.known.tolist() == [[1, 0, 1, 1]]
    assert batch.target_ids[0, [0, 2]].tolist() == [[4, 9, 4], [7, 8, 6]]
    assert batch.target_ids[0, 1, -1] == 5
    weights = [[0.5, 0.25, 0], [0, 0, 1], [0.5, 0.125, 1]]
    assert batch.target_weights[0].tolist() == weights
    assert batch.states[0, [0, 2, 3]].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_the_basis_holds_the_directions_of_most_variance() -> None:
    torch.manual_seed(0)
    scales = torch.tensor([0.1, 8.0, 1.0, 0.5, 3.0])
    states = torch.randn(4000, 5) * scales + 2
    states[:3] *= 1000  # such as some tokens have
    basis = state_basis(states, 2)
    projected = basis.project(states[3:])
    assert abs(float(projected.square().mean()) - 1) < 0.05
    assert basis.projection.abs().argmax(0).tolist() == [1, 4]
    ratio = projected.std(0)
    assert abs(float(ratio[0] / ratio[1]) - (8 / 3) ** 0.5) < 0.1
    assert float(basis.project(states).abs().max()) == 6
