"""The loss of distillation: of whole sentences, and of each word."""

from torch import Tensor
from torch.nn import functional as F

from potstill.data.batching import UNLABELLED
from potstill.distillation.dataset import DistillationBatch
from potstill.settings import DistilSettings


def distillation_loss(
    output: Tensor | tuple[Tensor, Tensor],
    batch: DistillationBatch,
    settings: DistilSettings,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a batch: that of the whole sentences plus, where the student judges
    words too, `word_loss_weight` times the soft loss at its words.

    The latter is the mean over a sentence's words and over the sentences, so that several processes
    agree on it.

    Args:
        output: The student's (B, classes) logits or, with (B, L, classes) logits of each token,
            those of a student with a word head.
        class_weights: (classes,) weights of the labels' cross-entropy; the teacher's part has none.
    """
    if isinstance(output, Tensor):
        return _sentence_loss(output, batch, settings, class_weights)
    logits, token_logits = output
    words = batch.words
    assert words is not None, "a student that judges words learns from a dataset with word targets"
    student_logits = token_logits[words.rows, words.positions]
    losses = settings.word_loss_weight * soft_losses(student_logits, words.teacher_logits, settings)
    of_words = (losses / words.counts).sum() / len(batch)
    return _sentence_loss(logits, batch, settings, class_weights) + of_words


def _sentence_loss(
    logits: Tensor,
    batch: DistillationBatch,
    settings: DistilSettings,
    class_weights: Tensor | None,
) -> Tensor:
    """Return alpha · soft loss + (1 − alpha) · cross-entropy of the labels, as a mean.

    An UNLABELLED sentence adds nothing to the cross-entropy, and counts in its mean all the same.
    """
    assert batch.teacher_logits is not None, "there is no teacher to learn from"
    hard = F.cross_entropy(
        logits, batch.labels, class_weights, ignore_index=UNLABELLED, reduction="sum"
    )
    soft = soft_losses(logits, batch.teacher_logits, settings).mean()
    return settings.alpha * soft + (1 - settings.alpha) * hard / len(batch)


def soft_losses(student_logits: Tensor, teacher_logits: Tensor, settings: DistilSettings) -> Tensor:
    """Return (N,) soft losses of (N, classes) logits.

    kl: T² · KL(teacher_T ‖ student_T), where _T is the softmax at temperature T (Hinton, Vinyals
    and Dean 2015, *Distilling the Knowledge in a Neural Network*, section 2). mse: the squared
    difference of the logits (Ba and Caruana 2014, *Do Deep Nets Really Need to be Deep?*, section
    2.2); it takes no temperature.
    """
    if settings.loss == "mse":
        return F.mse_loss(student_logits, teacher_logits, reduction="none").mean(1)
    T = settings.temperature
    divergence = F.kl_div(
        F.log_softmax(student_logits / T, dim=-1),
        F.log_softmax(teacher_logits / T, dim=-1),
        reduction="none",
        log_target=True,
    )
    return T**2 * divergence.sum(1)
