"""A student in training on texts of one length, so that nothing is packed or masked.

On a GPU it computes in bf16 from copies of its weights; these stay in fp32.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.data.batching import Batch
from potstill.ops.cross_entropy import TiedCrossEntropy
from potstill.ops.gru import gru
from potstill.student.heads import NextTokenHead
from potstill.student.model import DistilRNN


class LayeredStudent(nn.Module):
    """A bidirectional student of GRUs whose lowest and highest states are at hand.

    On a CPU it is computed by `ops.gru` from the student's own weights. On a GPU it is computed by
    cuDNN from copies of the weights in bf16, one network a layer; the student keeps the weights in
    fp32, which the optimizer changes (Micikevicius et al. 2018, *Mixed Precision Training*, section
    3.1).

    Attributes:
        embedding: (V, width) the embedding matrix that it reads.
        copies: Pairs of a parameter that is computed from and the parameter of the student that it
            is a copy of.
    """

    def __init__(self, student: DistilRNN, *, copied: bool, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.student, config = student, student.config
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.gru_layers = nn.ModuleList()
        self.embedding: Tensor = student.embedding.weight
        if not copied:
            return
        self.embedding = nn.Parameter(self.embedding.detach().to(dtype, copy=True))
        self.copies.append((self.embedding, student.embedding.weight))
        weights = dict(student.rnn.named_parameters())
        for number in range(config.layers):
            width = 2 * config.hidden_size if number else config.embedding_size
            layer = nn.GRU(width, config.hidden_size, batch_first=True, bidirectional=True)
            layer = layer.to(self.embedding.device, dtype)
            _join_weights(layer)
            for name, parameter in layer.named_parameters():
                self.copies.append((parameter, weights[name.replace("_l0", f"_l{number}")]))
            self.gru_layers.append(layer)
        copy_weights(self.copies)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the lowest and of the highest layer, both (B, L, 2 · hidden)."""
        x = lowest = self.lowest(input_ids)
        for number in range(1, self.student.config.layers):
            x = self._layer(number)(self.student.dropout(x))
        return lowest, x

    def lowest(self, input_ids: Tensor) -> Tensor:
        """Return the states of the lowest layer, (B, L, 2 · hidden)."""
        return self._layer(0)(self.student.dropout(F.embedding(input_ids, self.embedding)))

    def _layer(self, number: int) -> Callable[[Tensor], Tensor]:
        if self.gru_layers:
            return lambda x: self.gru_layers[number](x)[0]
        weights = self.student.rnn.all_weights[2 * number : 2 * number + 2]

        def layer(x: Tensor) -> Tensor:
            lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
            return gru(x, lengths, weights, self.student.product_dtype)

        return layer


class LayeredClassifier(nn.Module):
    """A student that classifies texts of one length in training, with the layers of
    `LayeredStudent`; the linear layers compute in fp32."""

    def __init__(self, student: DistilRNN, *, copied: bool, dtype: torch.dtype = torch.bfloat16):
        super().__init__()
        self.student = student
        self.layers = LayeredStudent(student, copied=copied, dtype=dtype)
        self.copies = self.layers.copies

    def forward(self, batch: Batch) -> Tensor | tuple[Tensor, Tensor]:
        """Return the (B, classes) logits and, of a student with a word head, those of each token,
        (B, L, classes)."""
        states = self.layers(batch.input_ids)[1].to(self.student.score.weight.dtype)
        logits = self.student.score(self.student.dropout(pool(states)))
        if self.student.word_score is None:
            return logits
        return logits, self.student.word_score(self.student.dropout(states))


class LayeredLanguageModel(nn.Module):
    """A `NextTokenHead` in training on texts of one length, with the layers of `LayeredStudent`."""

    def __init__(
        self, learner: NextTokenHead, *, copied: bool, dtype: torch.dtype = torch.bfloat16
    ):
        super().__init__()
        self.learner = learner
        self.layers = LayeredStudent(learner.student, copied=copied, dtype=dtype)
        self.copies = self.layers.copies
        self.dtype = dtype if copied else learner.student.product_dtype

    def forward(self, batch: Any) -> Tensor:
        """Return the mean loss, nats per token.

        batch: Its `following` are the targets after all tokens but the last, None for the tokens
            themselves, as in `next_token_losses`.
        """
        lowest = self.layers(batch.input_ids)[0].to(self.learner.bias.dtype)
        following = batch.following
        if following is None:
            following = batch.input_ids[:, 1:, None]
            following = following, torch.ones_like(following, dtype=torch.float32)
        targets = (following, previous_tokens(batch.input_ids))
        heads, bias = self.learner.heads, self.learner.bias
        losses = next_token_losses(self.layers, lowest, heads, bias, targets, self.dtype)
        return torch.stack(losses).mean()


def _join_weights(layer: nn.GRU) -> None:
    """Lay the weights of a bidirectional layer one after the other in memory, as cuDNN wants them;
    else it copies them at each call. `flatten_parameters` does not do it for bf16."""
    if not layer.weight_ih_l0.is_cuda:
        return
    weights: list[Tensor] = [weight for direction in layer.all_weights for weight in direction]
    mode = 3  # GRU, among PyTorch's numbers of cuDNN's kinds of cells
    with torch.no_grad():
        torch._cudnn_rnn_flatten_weight(
            weights, 4, layer.input_size, mode, layer.hidden_size, 0, 1, True, True
        )


def next_token_losses(
    network: LayeredStudent,
    lowest: Tensor,
    heads: nn.ModuleList,
    bias: Tensor,
    targets: Sequence[tuple[Tensor, Tensor]],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Return the mean loss, in nats a token, of each direction of a language model.

    Args:
        lowest: (B, L, directions · hidden) states of the lowest layer.
        heads: Of each direction, from its states to the width of the embeddings, whose matrix
            scores the tokens.
        bias: (V,).
        targets: Of each direction, what it predicts: the tokens after all but the last and those
            before all but the first, (B, L - 1, K) token ids and their weights.
        dtype: dtype of the products with the embedding matrix.
    """
    drop: Callable[[Tensor], Tensor] = network.student.dropout
    states = lowest.chunk(len(heads), dim=2)
    ways = (states[0][:, :-1], states[-1][:, 1:])
    return [
        TiedCrossEntropy.apply(
            head(drop(way)).flatten(0, 1),
            network.embedding,
            bias,
            target_ids.flatten(0, 1),
            weights.flatten(0, 1),
            dtype,
        ).float()
        for head, way, (target_ids, weights) in zip(heads, ways, targets, strict=False)
    ]


def previous_tokens(input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the targets backwards of (B, L) tokens, as `next_token_losses` takes them."""
    previous = input_ids[:, :-1, None]
    return previous, torch.ones_like(previous, dtype=torch.float32)


def pool(states: Tensor) -> Tensor:
    """Return what a student classifies by, (B, 4 · hidden), of (B, L, 2 · hidden) states: the last
    state of each direction, and each unit's maximum."""
    hidden = states.shape[2] // 2
    last = torch.cat([states[:, -1, :hidden], states[:, 0, hidden:]], 1)
    return torch.cat([last, states.amax(1)], 1)


def copy_module(
    module: nn.Module, dtype: torch.dtype
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Return a copy of `module` in `dtype`, and pairs of its parameters and the module's."""
    copied = copy.deepcopy(module).to(dtype)
    return copied, list(zip(copied.parameters(), module.parameters(), strict=True))


@torch.no_grad()
def copy_weights(copies: list[tuple[Tensor, Tensor]]) -> None:
    """Give every copy the value of its original."""
    if copies:
        torch._foreach_copy_([low for low, _ in copies], [master for _, master in copies])


def move_gradients(copies: list[tuple[Tensor, Tensor]]) -> None:
    """Give every original the gradient of its copy, which has none then."""
    moved = [(master, low.grad) for low, master in copies if low.grad is not None]
    gradients = [torch.empty_like(master) for master, _ in moved]
    if moved:
        torch._foreach_copy_(gradients, [gradient for _, gradient in moved])
    for low, master in copies:
        low.grad = master.grad = None
    for (master, _), gradient in zip(moved, gradients, strict=True):
        master.grad = gradient
