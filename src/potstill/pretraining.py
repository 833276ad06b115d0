"""The student as a language model first: text without any labels teaches it words and syntax.

Dai and Le 2015, *Semi-supervised Sequence Learning*, section 2; in both directions as in Peters et
al. 2018, *Deep contextualized word representations*, section 3.1; from another's chances for each
next token (`next_tokens.py`) where they are known.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from potstill import kernels
from potstill.batching import Batch
from potstill.next_tokens import SoftTargets
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
        return predictor(batch.input_ids, batch.lengths, soft, longer[batch.index])

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

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        soft: SoftTargets | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Mean loss of (B, L) tokens, padded on the right, and their (B,) lengths.

        soft, index: what is likely forwards in the sentences `index`, (B,), that these are.
        """
        states = self.student.states(input_ids, lengths).chunk(len(self.heads), dim=-1)
        inner = torch.arange(1, input_ids.shape[1], device=input_ids.device)
        inner = inner < lengths.to(inner.device)[:, None]
        # Forwards a state predicts the token after it, backwards the one before.
        pairs = [(states[0][:, :-1], input_ids[:, 1:]), (states[-1][:, 1:], input_ids[:, :-1])]
        losses = []
        for way, (head, (state, target)) in enumerate(zip(self.heads, pairs, strict=False)):
            places = target[inner]
            if soft and index is not None and way == 0:
                places, shares = (x.to(places.device) for x in soft.of(index, places.cpu()))
            else:
                places = places[:, None]
                shares = torch.ones_like(places, dtype=torch.float32)
            losses.append(
                TiedCrossEntropy.apply(
                    head(self.student.dropout(state[inner])),
                    self.student.embedding.weight,
                    self.bias,
                    places,
                    shares,
                    self.student.product_dtype,
                )
            )
        return torch.stack(losses).mean()


class TiedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of softmax(hidden · weightᵀ + bias) with (N, K) `places` of (N, K)
    `shares` each, the products in `dtype`.

    The gradients are made with the loss, a few rows at a time: all probabilities at once would go
    through memory several times over.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, places, shares, dtype):
        rows, matrix = hidden.to(dtype), weight.to(dtype)
        of_logits = rows.new_empty(len(rows), len(matrix))
        of_bias, total = torch.zeros_like(bias), 0.0
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            logits = torch.mm(rows[part], matrix.T, out=of_logits[part])
            total += cross_entropy_(logits, bias, places[part], shares[part], of_bias)
        ctx.save_for_backward(
            (of_logits @ matrix).to(hidden.dtype), (of_logits.T @ rows).to(weight.dtype), of_bias
        )
        return hidden.new_tensor(total / len(rows))

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias = ctx.saved_tensors
        share = grad / len(hidden)
        return hidden * share, weight * share, bias * share, None, None, None


def cross_entropy_(
    logits: Tensor, bias: Tensor, places: Tensor, shares: Tensor, of_bias: Tensor
) -> float:
    """The sum over rows of −Σ share · log softmax(logits + bias)[place]; puts its gradient in the
    place of the (N, V) `logits` and adds that of the bias to `of_bias`."""
    if kernels.serve(logits, logits.shape[1]) and bias.dtype == torch.float32:
        return kernels.cross_entropy(logits, bias, places, shares, of_bias)
    wide = logits.to(bias.dtype).add_(bias)
    wide.sub_(wide.amax(1, keepdim=True))
    mass = shares.sum(1, keepdim=True)
    total = -(wide.gather(1, places) * shares).sum()
    wide.exp_()
    sums = wide.sum(1, keepdim=True)
    total += (sums.log() * mass).sum()
    wide.mul_(mass / sums).scatter_add_(1, places, -shares)
    of_bias += wide.sum(0)
    logits.copy_(wide)
    return float(total)
