"""The states of a student's every layer, on a CPU and on a GPU, and the heads that learn from them.

Texts of a batch have one length, so that nothing is packed or masked.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.ops.gru import gru
from potstill.student.model import DistilRNN


class PretrainingHeads(nn.Module):
    """What is trained with the student and dropped afterwards.

    Two heads predict tokens by the embedding matrix (Press and Wolf 2017, *Using the Output
    Embedding to Improve Language Models*), two the decoder's states.
    """

    def __init__(self, student: DistilRNN, directions: int):
        super().__init__()
        config = student.config
        hidden = config.hidden_size
        self.tokens = nn.ModuleList(nn.Linear(hidden, config.embedding_size) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.state = nn.Linear(2 * hidden, directions)
        self.mean_state = nn.Linear(4 * hidden, directions)


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
            layer.flatten_parameters()
            for name, parameter in layer.named_parameters():
                self.copies.append((parameter, weights[name.replace("_l0", f"_l{number}")]))
            self.gru_layers.append(layer)
        copy_weights(self.copies)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of the lowest and of the highest layer, both (B, L, 2 · hidden)."""
        x = self.student.dropout(F.embedding(input_ids, self.embedding))
        lowest = None
        for number in range(self.student.config.layers):
            x = self._layer(number)(self.student.dropout(x) if number else x)
            lowest = x if lowest is None else lowest
        assert lowest is not None
        return lowest, x

    def _layer(self, number: int) -> Callable[[Tensor], Tensor]:
        if self.gru_layers:
            return lambda x: self.gru_layers[number](x)[0]
        weights = self.student.rnn.all_weights[2 * number : 2 * number + 2]

        def layer(x: Tensor) -> Tensor:
            lengths = torch.full(x.shape[:1], x.shape[1], device=x.device)
            return gru(x, lengths, weights, self.student.product_dtype)

        return layer


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
    for low, master in copies:
        master.grad = None if low.grad is None else low.grad.to(master.dtype)
        low.grad = None
