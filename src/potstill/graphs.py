"""A decoder's training pass on a GPU in two launches, one forward and one backward.

A pass over short sentences is thousands of small operations, and a GPU has finished each before
the next is launched. A CUDA graph launches all of them at once, for one shape of batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.reporting import say

LENGTH_STEP = 8  # tokens; batches are padded to multiples of it, so that there are few shapes


class Graphed:
    """`model` in training, from (B, L) tokens and (B,) lengths to (B, C) logits, recorded for each
    shape of batch when it first comes; where that fails, launched as it is.

    `model` must read no padding on the right, and do the same operations whatever the tokens are.
    longest: tokens of the longest sentence; a decoder may have no places for more.
    """

    def __init__(self, model: nn.Module, longest: int):
        self.model, self.longest = model, longest
        self._recorded: dict[torch.Size, Callable[..., Any]] = {}
        self._pool = torch.cuda.graph_pool_handle()  # shared: no pass begins before the last ends
        self._failed = False

    def __call__(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        length = input_ids.shape[1]
        rounded = min(-(-length // LENGTH_STEP) * LENGTH_STEP, self.longest)
        input_ids = F.pad(input_ids, (0, rounded - length))
        if input_ids.shape not in self._recorded and not self._failed:
            self._record(input_ids, lengths)
        if self._failed:
            return self.model(input_ids, lengths)
        # A copy: what a graph returns is overwritten when it is launched again.
        return self._recorded[input_ids.shape](input_ids, lengths).clone()

    def _record(self, input_ids: Tensor, lengths: Tensor) -> None:
        inputs = input_ids.clone(), lengths.clone()  # where the graph will look for its batches
        try:
            # Recording draws random numbers; one that fails would leave its stream the current one.
            with torch.random.fork_rng(), torch.cuda.stream(torch.cuda.current_stream()):
                self._recorded[input_ids.shape] = torch.cuda.make_graphed_callables(
                    _Pass(self.model), inputs, pool=self._pool
                )
        except RuntimeError as error:
            self._failed = True
            reason = str(error).strip().partition("\n")[0]
            say(f"slower than it could be: CUDA graphs can't be had here ({reason})")


class _Pass(nn.Module):
    """A module of each shape's own, because recording replaces the `forward` of what it records."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        return self.model(input_ids, lengths)
