"""The distillation loss against formulas written by hand; the teacher's kept logits."""

import numpy as np
import pytest
import torch

from potstill import UserError
from potstill.checkpoint import cache_folder
from potstill.distillation import KeptLogits, distillation_loss, label_sentences, teacher_hash
from potstill.training import UNLABELLED

TEMPERATURES = pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
ALPHAS = pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def by_hand(student, teacher, labels, temperature, alpha, loss):
    hard = -np.log(softmax(student)[np.arange(len(labels)), labels]).mean()
    if loss == "mse":
        soft = ((student - teacher) ** 2).mean()
    else:
        p, q = softmax(teacher / temperature), softmax(student / temperature)
        soft = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    return alpha * soft + (1 - alpha) * hard


@pytest.fixture(params=[2, 4], ids="{} classes".format)
def batch(request):
    """Logits of student and teacher, fp64, and labels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = 2 * torch.randn(2, 6, request.param, generator=generator).double()
    return student, teacher, torch.randint(0, request.param, (6,), generator=generator)


@pytest.mark.parametrize("loss", ["kl", "mse"])
@TEMPERATURES
@ALPHAS
def test_loss_is_the_formula(batch, temperature, alpha, loss):
    found = distillation_loss(*batch, temperature, alpha, loss)
    expected = by_hand(*(values.numpy() for values in batch), temperature, alpha, loss)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    in_fp32 = distillation_loss(*(v.float() for v in batch[:2]), batch[2], temperature, alpha, loss)
    assert in_fp32.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["kl", "mse"])
@TEMPERATURES
@ALPHAS
def test_gradient_is_finite_differences(batch, temperature, alpha, loss):
    student, teacher, labels = batch
    student.requires_grad_()
    (grad,) = torch.autograd.grad(
        distillation_loss(student, teacher, labels, temperature, alpha, loss), student
    )
    step = 1e-6
    expected = np.zeros(student.shape)
    for place in np.ndindex(*student.shape):
        sides = []
        for sign in (1, -1):
            moved = student.detach().numpy().copy()
            moved[place] += sign * step
            rest = teacher.numpy(), labels.numpy(), temperature, alpha, loss
            sides.append(by_hand(moved, *rest))
        expected[place] = (sides[0] - sides[1]) / (2 * step)
    assert np.allclose(grad.numpy(), expected, rtol=0, atol=1e-7)


def test_gradient_of_kl_keeps_its_size_at_any_temperature(batch):
    """What T² is for (Hinton et al. 2015, section 2): at high T it tends to the logits' MSE."""
    student, teacher, labels = batch
    student = (student - student.mean(1, keepdim=True)).requires_grad_()
    teacher = teacher - teacher.mean(1, keepdim=True)
    classes = student.shape[1]
    (grad,) = torch.autograd.grad(
        distillation_loss(student, teacher, labels, 1e4, alpha=1.0), student
    )
    expected = (student - teacher) / (classes * len(student))
    torch.testing.assert_close(grad, expected.detach(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_a_student_like_its_teacher_has_nothing_to_learn_from_it(batch, loss):
    _, teacher, labels = batch
    assert distillation_loss(teacher, teacher, labels, 2.0, 1.0, loss).item() == 0


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_sure_logits_stay_finite(loss):
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    teacher = torch.tensor([[-200.0, 200.0]])
    found = distillation_loss(student, teacher, torch.tensor([1]), 1.0, 0.5, loss)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(student.grad).all()


class Teacher:
    """Labels a sentence by its length and its first letter; counts how often it is asked."""

    def __init__(self, gives_up_after: int | None = None):
        self.asked: list[str] = []
        self.left = gives_up_after

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.asked += sentences
        return teacher_logits(sentences)


def teacher_logits(sentences: list[str]) -> torch.Tensor:
    return torch.tensor([[len(s) + 0.1, ord(s[0]) - 0.3] for s in sentences])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))


SENTENCES = ["b longer", "a", "ccc", "a", "b longer", "d’s «é»\t'\"", "e"]


def test_order_and_repeats_are_the_inputs():
    logits, computed = label_sentences(SENTENCES, KeptLogits("t"), Teacher(), chunk=2)
    assert torch.equal(torch.stack(logits), teacher_logits(SENTENCES))
    assert logits[0].dtype == torch.float32
    assert computed == 5


def test_each_sentence_is_labelled_once():
    teacher = Teacher()
    label_sentences(SENTENCES, KeptLogits("t"), teacher)
    assert sorted(teacher.asked) == sorted(set(SENTENCES))
    again, computed = label_sentences(["new", *SENTENCES], KeptLogits("t"), teacher)
    assert computed == 1
    assert sorted(teacher.asked) == sorted({*SENTENCES, "new"})
    assert torch.equal(torch.stack(again), teacher_logits(["new", *SENTENCES]))


def test_interrupted_in_the_middle_keeps_what_was_labelled():
    sentences = [f"{'x' * i}y" for i in range(10)]
    with pytest.raises(KeyboardInterrupt):
        label_sentences(sentences, KeptLogits("t"), Teacher(gives_up_after=2), chunk=3)
    teacher = Teacher()
    logits, computed = label_sentences(sentences, KeptLogits("t"), teacher, chunk=3)
    assert computed == len(teacher.asked) == 4
    assert torch.equal(torch.stack(logits), teacher_logits(sentences))


def test_more_sentences_than_one_query_holds():
    sentences = [f"s{i}" for i in range(1203)]
    label_sentences(sentences, KeptLogits("t"), Teacher())
    found = KeptLogits("t").get(sentences)
    assert torch.equal(
        torch.tensor(np.stack([found[s] for s in sentences])), teacher_logits(sentences)
    )


def test_another_teacher_has_another_file():
    first, second = KeptLogits("1" * 64), KeptLogits("2" * 64)
    label_sentences(SENTENCES, first, Teacher())
    assert first.file != second.file
    assert second.get(SENTENCES) == {}
    _, computed = label_sentences(SENTENCES, second, Teacher())
    assert computed == 5


def test_what_was_put_is_there_bit_for_bit():
    logits = torch.randn(3, 4)
    KeptLogits("t").put(["a", "b", "c"], logits)
    found = KeptLogits("t").get(["c", "a", "x"])
    assert found.keys() == {"a", "c"}
    assert torch.equal(torch.tensor(np.stack([found["a"], found["c"]])), logits[[0, 2]])


def test_rows_of_any_number_are_kept_flat():
    """As the logits after each word are; in a file of their own."""
    kept = KeptLogits("t", "-words")
    rows = [torch.randn(n, 2) for n in (3, 1, 7)]
    sentences = ["one", "two", "three"]
    by_name = dict(zip(sentences, rows, strict=True))
    for _ in range(2):
        found, _ = label_sentences(sentences, kept, lambda part: [by_name[s] for s in part])
        for one, row in zip(found, rows, strict=True):
            assert torch.equal(one.view(-1, 2), row)
    assert KeptLogits("t").get(sentences) == {}


def test_damaged_file_is_named():
    file = KeptLogits("t").file
    file.write_bytes(b"no database " * 100)
    with pytest.raises(UserError, match="remove it") as caught:
        KeptLogits("t")
    assert str(file) in str(caught.value)


def test_kept_in_the_cache_folder():
    assert cache_folder() in KeptLogits("t").file.parents


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_sentences_without_label_learn_from_the_teacher_alone(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    labels = torch.tensor([0, UNLABELLED, 2, UNLABELLED, 1])
    found = distillation_loss(student, teacher, labels, 2.0, 0.3, loss)
    soft = distillation_loss(student, teacher, torch.zeros(5, dtype=torch.long), 2.0, 1.0, loss)
    hard = -sum(student.log_softmax(1)[i, labels[i]] for i in (0, 2, 4)) / 5
    torch.testing.assert_close(found, 0.3 * soft + 0.7 * hard)
    none = torch.full((5,), UNLABELLED)
    torch.testing.assert_close(
        distillation_loss(student, teacher, none, 2.0, 0.3, loss), 0.3 * soft
    )


def test_hash_tells_teachers_apart(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    hashes = [
        teacher_hash("base", one, 128, None),
        teacher_hash("base", other, 128, None),
        teacher_hash("esab", one, 128, None),
        teacher_hash("base", one, 64, None),
        teacher_hash("base", one, 128, 0),
    ]
    assert len(set(hashes)) == 5
    assert teacher_hash("base", one, 128, None) == hashes[0]
