"""The student as a language model first: text without any labels teaches it words and syntax.

Dai and Le 2015, *Semi-supervised Sequence Learning*, section 2; in both directions as in Peters et
al. 2018, *Deep contextualized word representations*, section 3.1.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from potstill.batching import Batch
from potstill.optimisation import descend
from potstill.processes import process
from potstill.settings import TrainSettings
from potstill.state import TrainingState
from potstill.student import DistilRNN

ROWS = 128  # tokens whose probabilities are computed at once; they stay in the cache


def pretrain(
    model: DistilRNN,
    tokens: list[list[int]],
    settings: TrainSettings,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
    state: TrainingState | None = None,
) -> float:
    """Trains the embedding and the lowest recurrent layer of `model` to predict each next token of
    `tokens` and, where it reads backwards, each one before; gives the last epoch's mean loss, nats
    a token. `state` as in `descend`."""
    torch.manual_seed(seed)
    # A second layer would see both directions' states, and with them the tokens to predict.
    lowest = DistilRNN(replace(model.config, layers=1))
    lowest.product_dtype = model.product_dtype
    lowest.load_state_dict({name: model.state_dict()[name] for name in lowest.state_dict()})
    with torch.no_grad():  # as wide as PyTorch makes them, they would begin with sure answers
        lowest.embedding.weight.mul_(0.1)
    tokens = [t for t in tokens if len(t) > 1]
    predictor = NextToken(lowest).to(process().device).train()

    def loss(batch: Batch) -> Tensor:
        return predictor(batch.input_ids, batch.lengths)

    mean = descend(predictor, tokens, loss, settings, epochs, seed, show, state)
    model.load_state_dict(lowest.state_dict(), strict=False)
    return mean


class NextToken(nn.Module):
    """A student with what makes tokens of its states: for each direction a linear layer to the
    width of the embeddings, whose matrix scores the tokens (Press and Wolf 2017, *Using the Output
    Embedding to Improve Language Models*)."""

    def __init__(self, student: DistilRNN):
        super().__init__()
        config = student.config
        self.student = student
        self.heads = nn.ModuleList(
            nn.Linear(config.hidden_size, config.embedding_size) for _ in range(student.directions)
        )
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Mean loss of (B, L) tokens, padded on the right, and their (B,) lengths."""
        states = self.student.states(input_ids, lengths).chunk(len(self.heads), dim=-1)
        inner = torch.arange(1, input_ids.shape[1], device=input_ids.device)
        inner = inner < lengths.to(inner.device)[:, None]
        # Forwards a state predicts the token after it, backwards the one before.
        pairs = [(states[0][:, :-1], input_ids[:, 1:]), (states[-1][:, 1:], input_ids[:, :-1])]
        hidden, targets = [], []
        for head, (state, target) in zip(self.heads, pairs, strict=False):
            hidden.append(head(self.student.dropout(state[inner])))
            targets.append(target[inner])
        return TiedCrossEntropy.apply(
            torch.cat(hidden),
            self.student.embedding.weight,
            self.bias,
            torch.cat(targets),
            self.student.product_dtype,
        )


class TiedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softmax(hidden · weightᵀ + bias), the products in `dtype`.

    The gradients are made with the loss, a few rows at a time: all probabilities at once would go
    through memory several times over.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, dtype):
        rows, matrix = hidden.to(dtype), weight.to(dtype)
        of_logits = rows.new_empty(len(rows), len(matrix))
        of_bias, total = torch.zeros_like(bias), 0.0
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            logits = (rows[part] @ matrix.T).to(bias.dtype).add_(bias)
            logits.sub_(logits.amax(1, keepdim=True))
            truth = targets[part, None]
            total -= logits.gather(1, truth).sum()
            logits.exp_()
            sums = logits.sum(1, keepdim=True)
            total += sums.log().sum()
            logits.div_(sums).scatter_add_(1, truth, -torch.ones_like(sums))
            of_bias += logits.sum(0)
            of_logits[part] = logits
        ctx.save_for_backward(
            (of_logits @ matrix).to(hidden.dtype), (of_logits.T @ rows).to(weight.dtype), of_bias
        )
        return total / len(rows)

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias = ctx.saved_tensors
        share = grad / len(hidden)
        return hidden * share, weight * share, bias * share, None, None
