"""The student as a language model first: text without any labels teaches it words and syntax.

Dai and Le 2015, *Semi-supervised Sequence Learning*, section 2; in both directions as in Peters et
al. 2018, *Deep contextualized word representations*, section 3.1; from another's chances for each
next token (`lm_targets.py`) where they are known.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from potstill.data.batching import Batch
from potstill.distillation.lm_targets import SoftTargets
from potstill.settings import TrainSettings
from potstill.student.heads import NextToken, followed
from potstill.student.model import DistilRNN
from potstill.training.checkpoint import TrainingState
from potstill.training.distributed import process
from potstill.training.lm_loop import descend


def pretrain(
    model: DistilRNN,
    tokens: list[list[int]],
    settings: TrainSettings,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
    state: TrainingState | None = None,
    soft: SoftTargets | None = None,
) -> float:
    """Trains the embedding and the lowest recurrent layer of `model` to predict each next token of
    `tokens`, by `soft` where that is given, and, where it reads backwards, each one before; gives
    the last epoch's mean loss, nats a token. `state` as in `descend`."""
    torch.manual_seed(seed)
    # A second layer would see both directions' states, and with them the tokens to predict.
    lowest = DistilRNN(replace(model.config, layers=1))
    lowest.product_dtype = model.product_dtype
    lowest.load_state_dict({name: model.state_dict()[name] for name in lowest.state_dict()})
    with torch.no_grad():  # as wide as PyTorch makes them, they would begin with sure answers
        lowest.embedding.weight.mul_(0.1)
    longer = torch.tensor([i for i, t in enumerate(tokens) if len(t) > 1])
    tokens = [tokens[i] for i in longer.tolist()]
    predictor = NextToken(lowest).to(process().device).train()

    def loss(batch: Batch) -> Tensor:
        likely = None
        if soft:
            following = batch.input_ids[:, 1:][followed(batch.input_ids, batch.lengths)]
            likely = soft.of(longer[batch.index], following.cpu())
        return predictor(batch.input_ids, batch.lengths, likely)

    mean = descend(predictor, tokens, loss, settings, epochs, seed, show, state)
    model.load_state_dict(lowest.state_dict(), strict=False)
    return mean
