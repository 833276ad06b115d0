"""The sentences that are being sampled on a GPU, and those that are finished."""

from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.transfer.top_k import TOP_K


@dataclass(frozen=True)
class SampledBlock:
    """N finished sentences, on the device.

    Attributes:
        tokens: (N, max_tokens) their tokens; what stands behind a sentence's end means nothing.
        lengths: (N,).
        token_ids: (N, max_tokens, TOP_K) the most probable next tokens after each token; without
            soft targets (N, max_tokens, 0), and so are `probs`.
        probs: (N, max_tokens, TOP_K) their probabilities given that the sentence goes on.
        states: (N, max_tokens, width) what was kept of the decoder's states at each token; without
            `StatesToKeep` of width 0.
    """

    tokens: Tensor
    lengths: Tensor
    token_ids: Tensor
    probs: Tensor
    states: Tensor


@dataclass
class Slots:
    """The sentences that are being sampled, one in each of S slots.

    Attributes:
        next_tokens: (S,) what each slot reads next.
        positions: (S,) its position; the start token's is 0.
        active: (S,) False where no sentence was left to begin.
        text: (S, max_tokens) the tokens so far.
        token_ids: (S, max_tokens, TOP_K) as in `SampledBlock`.
        probs: (S, max_tokens, TOP_K) as in `SampledBlock`.
        states: (S, max_tokens, width) as in `SampledBlock`.
        beginnings: (S,) the row of `FreeText.beginnings` that each sentence begins with.
    """

    next_tokens: Tensor
    positions: Tensor
    active: Tensor
    text: Tensor
    token_ids: Tensor
    probs: Tensor
    states: Tensor
    beginnings: Tensor

    @classmethod
    def new(
        cls,
        slots: int,
        max_tokens: int,
        start: int,
        *,
        top_k: int = TOP_K,
        width: int,
        device: torch.device,
    ) -> "Slots":
        """Return `slots` slots that read the start token next."""
        return cls(
            torch.full((slots,), start, device=device),
            torch.zeros(slots, dtype=torch.long, device=device),
            torch.ones(slots, dtype=torch.bool, device=device),
            torch.zeros(slots, max_tokens, dtype=torch.int32, device=device),
            torch.zeros(slots, max_tokens, top_k, dtype=torch.int32, device=device),
            torch.zeros(slots, max_tokens, top_k, dtype=torch.half, device=device),
            torch.zeros(slots, max_tokens, width, dtype=torch.half, device=device),
            torch.zeros(slots, dtype=torch.long, device=device),
        )

    def take(self, rows: Tensor) -> "Slots":
        """Return the slots at `rows` alone."""
        return Slots(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class Outbox:
    """A buffer of finished sentences, with one row more for what is to be forgotten."""

    def __init__(self, rows: int, slots: Slots):
        self.rows = rows
        self.written = torch.zeros((), dtype=torch.long, device=slots.text.device)
        self.lengths = slots.positions.new_zeros(rows + 1)
        self.buffers = {
            name: getattr(slots, name).new_zeros(rows + 1, *getattr(slots, name).shape[1:])
            for name in ("text", "token_ids", "probs", "states")
        }

    def put(self, slots: Slots, ended: Tensor) -> None:
        """Append the sentences of the slots that have `ended`, (S,)."""
        rows = torch.where(ended, self.written + ended.cumsum(0) - 1, self.rows)
        for name, buffer in self.buffers.items():
            buffer[rows] = getattr(slots, name)
        self.lengths[rows] = slots.positions
        self.written = self.written + ended.sum()

    def flush(self) -> SampledBlock:
        """Return what was put since the last time."""
        count = int(self.written)
        self.written = torch.zeros_like(self.written)
        tokens, *others = (buffer[:count].clone() for buffer in self.buffers.values())
        return SampledBlock(tokens, self.lengths[:count].clone(), *others)
