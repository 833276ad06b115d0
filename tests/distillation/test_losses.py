"""The distillation loss against formulas written by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from potstill.data.batching import UNLABELLED
from potstill.distillation.dataset import DistillationBatch
from potstill.distillation.losses import distillation_loss
from potstill.settings import DistilSettings

TEMPERATURES = pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
ALPHAS = pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])


def loss_of(student, teacher, labels, temperature, alpha, loss="kl"):
    """The loss of (B, classes) logits of student and teacher and (B,) labels."""
    nothing = torch.zeros(len(labels), dtype=torch.long)
    batch = DistillationBatch(nothing, nothing[:, None], nothing, labels, teacher, words=None)
    settings = DistilSettings(loss=loss, temperature=temperature, alpha=alpha)
    return distillation_loss(student, batch, settings)


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
def test_loss_equals_the_formula(batch, temperature, alpha, loss):
    loss_value = loss_of(*batch, temperature, alpha, loss)
    expected = by_hand(*(values.numpy() for values in batch), temperature, alpha, loss)
    assert loss_value.item() == pytest.approx(expected, rel=1e-9)
    in_fp32 = loss_of(*(v.float() for v in batch[:2]), batch[2], temperature, alpha, loss)
    assert in_fp32.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["kl", "mse"])
@TEMPERATURES
@ALPHAS
def test_gradient_equals_finite_differences(batch, temperature, alpha, loss):
    student, teacher, labels = batch
    student.requires_grad_()
    (grad,) = torch.autograd.grad(
        loss_of(student, teacher, labels, temperature, alpha, loss), student
    )
    step = 1e-6
    expected = np.zeros(student.shape)
    for index in np.ndindex(*student.shape):
        values = []
        for sign in (1, -1):
            shifted = student.detach().numpy().copy()
            shifted[index] += sign * step
            rest = teacher.numpy(), labels.numpy(), temperature, alpha, loss
            values.append(by_hand(shifted, *rest))
        expected[index] = (values[0] - values[1]) / (2 * step)
    assert np.allclose(grad.numpy(), expected, rtol=0, atol=1e-7)


def test_gradient_of_kl_keeps_its_size_at_any_temperature(batch):
    """What T² is for (Hinton et al. 2015, section 2): at high T it tends to the logits' MSE."""
    student, teacher, labels = batch
    student = (student - student.mean(1, keepdim=True)).requires_grad_()
    teacher = teacher - teacher.mean(1, keepdim=True)
    classes = student.shape[1]
    (grad,) = torch.autograd.grad(loss_of(student, teacher, labels, 1e4, alpha=1.0), student)
    expected = (student - teacher) / (classes * len(student))
    torch.testing.assert_close(grad, expected.detach(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_soft_loss_is_zero_at_the_teachers_logits(batch, loss):
    _, teacher, labels = batch
    assert loss_of(teacher, teacher, labels, 2.0, 1.0, loss).item() == 0


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_loss_of_large_logits_is_finite(loss):
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    teacher = torch.tensor([[-200.0, 200.0]])
    loss_value = loss_of(student, teacher, torch.tensor([1]), 1.0, 0.5, loss)
    loss_value.backward()
    assert torch.isfinite(loss_value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_unlabelled_sentences_have_the_soft_loss_only(loss):
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    labels = torch.tensor([0, UNLABELLED, 2, UNLABELLED, 1])
    loss_value = loss_of(student, teacher, labels, 2.0, 0.3, loss)
    soft = loss_of(student, teacher, torch.zeros(5, dtype=torch.long), 2.0, 1.0, loss)
    hard = -sum(student.log_softmax(1)[i, labels[i]] for i in (0, 2, 4)) / 5
    torch.testing.assert_close(loss_value, 0.3 * soft + 0.7 * hard)
    none = torch.full((5,), UNLABELLED)
    torch.testing.assert_close(loss_of(student, teacher, none, 2.0, 0.3, loss), 0.3 * soft)


def test_class_weights_are_of_the_labels_alone(batch):
    """Those of UNLABELLED sentences have no part in it, nor has what the teacher says."""
    student, teacher, labels = batch
    weights = torch.linspace(0.5, 2, student.shape[1], dtype=torch.float64)
    labels = labels.clone()
    labels[1] = UNLABELLED
    nothing = torch.zeros(len(labels), dtype=torch.long)
    as_batch = DistillationBatch(nothing, nothing[:, None], nothing, labels, teacher, words=None)
    settings = DistilSettings(alpha=0.25)
    plain = distillation_loss(student, as_batch, settings)
    weighted = distillation_loss(student, as_batch, settings, weights)
    losses = F.cross_entropy(student, labels, reduction="none", ignore_index=UNLABELLED)
    each = torch.where(labels == UNLABELLED, 1, weights[labels.clamp(min=0)])
    difference = 0.75 * (losses * (each - 1)).sum() / len(labels)
    assert (weighted - plain).item() == pytest.approx(difference.item())
