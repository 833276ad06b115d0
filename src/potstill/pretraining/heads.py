"""The heads that a base learns by; they are dropped afterwards."""

import torch
from torch import nn

from potstill.student.model import DistilRNN


class PretrainingHeads(nn.Module):
    """What is trained with the student and dropped afterwards.

    Two heads predict tokens by the embedding matrix (Press and Wolf 2017, *Using the Output
    Embedding to Improve Language Models*), two the decoder's states, and one whether a token was
    replaced.
    """

    def __init__(self, student: DistilRNN, directions: int):
        super().__init__()
        config = student.config
        hidden = config.hidden_size
        self.tokens = nn.ModuleList(nn.Linear(hidden, config.embedding_size) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.state = nn.Linear(2 * hidden, directions)
        self.mean_state = nn.Linear(4 * hidden, directions)
        self.replaced = nn.Linear(2 * hidden, 1)
