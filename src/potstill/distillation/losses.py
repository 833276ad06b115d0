"""The losses of distillation: of whole sentences, and of each word."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from potstill.distillation.word_targets import WordTargets
from potstill.training.loop import UNLABELLED


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    loss: Literal["kl", "mse"] = "kl",
) -> Tensor:
    """Mean loss of a batch, from (B, C) logits of student and teacher and (B,) labels.

    kl: alpha · T² · KL(teacher_T ‖ student_T) + (1 − alpha) · CE, where _T is the softmax at
    temperature T (Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network*,
    section 2). mse: the squared difference of the logits in place of T² · KL (Ba and Caruana 2014,
    *Do Deep Nets Really Need to be Deep?*, section 2.2); it takes no temperature. A sentence
    labelled UNLABELLED adds nothing to CE, and counts in its mean all the same.
    """
    hard = F.cross_entropy(student, labels, ignore_index=UNLABELLED, reduction="sum")
    soft = soft_losses(student, teacher, temperature, loss).mean()
    return alpha * soft + (1 - alpha) * hard / len(labels)


def soft_losses(
    student: Tensor, teacher: Tensor, temperature: float, loss: Literal["kl", "mse"]
) -> Tensor:
    """(N,) what pulls each of (N, C) logits to the teacher's; see `distillation_loss`."""
    if loss == "mse":
        return F.mse_loss(student, teacher, reduction="none").mean(1)
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * divergence.sum(1)


def with_words(
    loss: Callable[[Tensor, Tensor], Tensor],
    targets: WordTargets,
    word_loss: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[tuple[Tensor, Tensor], Tensor], Tensor]:
    """The `loss` of whole sentences plus `word_loss` of student and teacher at each word, as the
    mean over a sentence's words and over the sentences, so that several processes agree on it."""

    def both(output: tuple[Tensor, Tensor], index: Tensor) -> Tensor:
        logits, at_tokens = output
        rows, places, wanted, counts = (x.to(at_tokens.device) for x in targets.of(index))
        of_words = word_loss(at_tokens[rows, places], wanted) / counts
        return loss(logits, index) + of_words.sum() / len(index)

    return both
