"""Pretraining of the student as a language model: unlabelled text teaches it words and syntax.

Dai and Le 2015, *Semi-supervised Sequence Learning*, section 2; in both directions as in Peters et
al. 2018, *Deep contextualized word representations*, section 3.1; from a decoder's probabilities of
each next token (`lm_targets.py`) where they are known.
"""

from dataclasses import replace

import torch
from torch import Tensor

from potstill.distillation.lm_targets import LMBatch, LMDataset
from potstill.distillation.resident import ResidentText, serves
from potstill.distillation.streamed import StreamedText
from potstill.progress import Progress, no_progress
from potstill.settings import ResolvedTrainSettings
from potstill.student.heads import NextTokenHead
from potstill.student.model import DistilRNN
from potstill.training.checkpoint import Checkpoint
from potstill.training.distributed import process
from potstill.training.lm_loop import fit_language_model


def pretrain(
    model: DistilRNN,
    dataset: LMDataset | StreamedText,
    settings: ResolvedTrainSettings,
    *,
    epochs: int,
    seed: int,
    random_weights: bool = True,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> float:
    """Train the embedding and the lowest recurrent layer of `model` to predict each next token of
    `dataset` and, where it reads backwards, each one before.

    Args:
        random_weights: Whether the model's are those that PyTorch made.
        checkpoint: As in `fit_language_model`.

    Returns:
        The mean loss of the last epoch, nats per token.
    """
    torch.manual_seed(seed)
    # A second layer would see both directions' states, and with them the tokens to predict.
    config = replace(model.config, layers=1, word_head=False)
    lowest = DistilRNN(config, product_dtype=model.product_dtype)
    lowest.load_state_dict({name: model.state_dict()[name] for name in lowest.state_dict()})
    if random_weights:  # embeddings as wide as PyTorch makes them would begin with sure answers
        with torch.no_grad():
            lowest.embedding.weight.mul_(0.1)
    longer = dataset.longer()
    device = process().device
    mean_loss = fit_language_model(
        NextTokenHead(lowest).to(device).train(),
        ResidentText.of(longer.whole(), device) if serves(lowest) else longer,
        next_token_loss,
        settings,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    )
    model.load_state_dict(lowest.state_dict(), strict=False)
    return mean_loss


def next_token_loss(model: NextTokenHead, batch: LMBatch) -> Tensor:
    """Return the mean loss over the tokens of a batch."""
    targets = None
    if batch.target_ids is not None and batch.target_weights is not None:
        targets = batch.target_ids, batch.target_weights
    return model(batch.input_ids, batch.lengths, targets)
