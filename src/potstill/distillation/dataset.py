"""What a student is trained for."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from potstill.training.steps import LossFunction


@dataclass(frozen=True)
class Aim:
    """What a student is trained for: the loss of whole sentences and, where there is one, that of
    the teacher's logits after each word of every sentence; and the tokens of the decoder whose
    chances its language model learns from, if from any."""

    loss: LossFunction
    word_logits: list[np.ndarray] = field(default_factory=list)
    word_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    vocabulary: list[str] = field(default_factory=list)
