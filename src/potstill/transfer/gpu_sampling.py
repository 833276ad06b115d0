"""Sampling on a GPU: thousands of sentences at once, without a Python loop over them.

`sampling.sample` asks the processor after every token which sentences have ended. Here all of that
stays on the device: a slot whose sentence has ended writes it to a buffer and begins the next one
in the same step, and the processor looks only every few steps.
"""

import itertools
import logging
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from potstill.decoder.fused_decoder import FusedDecoder, KeyValueCache
from potstill.decoder.fused_linear import FusedLinear
from potstill.decoder.language_model import LanguageModel
from potstill.errors import UserError
from potstill.ops import gpu
from potstill.training.graphs import capture_graph
from potstill.transfer.free_text import Beginnings, FreeText, StatesToKeep
from potstill.transfer.slots import Outbox, SampledBlock, Slots
from potstill.transfer.top_k import TOP_K

SLOTS = 8192  # sentences sampled at the same time
BLOCK = 65_536  # sentences that are handed over together, about
LOOK_EVERY = 8  # steps between two looks of the processor at what is finished

logger = logging.getLogger(__name__)
# Of models for which the device's memory was too small, so that each is tried once.
_slots_that_fit: WeakKeyDictionary[LanguageModel, int] = WeakKeyDictionary()


@torch.no_grad()
def sample_blocks(
    model: LanguageModel,
    sentences: int,
    seed: int,
    temperature: float,
    max_tokens: int,
    *,
    soft_targets: bool = True,
    free_text: FreeText | None = None,
    slots: int = SLOTS,
    block: int = BLOCK,
) -> Iterator[SampledBlock]:
    """Begin as many `sentences` and yield those that end within `max_tokens`, many at a time.

    One that ends before its first token is not yielded. If the device's memory is too small, the
    sentences that are not yielded yet are begun again, half as many at a time.

    Args:
        model: A language model whose base is fused, on any device.
        sentences: How many to begin.
        seed: Of all draws.
        temperature: Of the softmax that tokens are drawn from.
        max_tokens: Longest sentence; a longer one is dropped, of `free_text` cut there.
        soft_targets: Whether to keep the most probable next tokens.
        free_text: How to sample general text, with soft targets; tokens are then drawn among the
            TOP_K most probable and the end.
        slots: Sentences at the same time.
        block: Sentences that are yielded together, about.
    """
    left = sentences
    for attempt in itertools.count():
        slots = min(slots, _slots_that_fit.get(model, slots))
        if attempt:
            seed = int(np.random.default_rng([seed, attempt]).integers(2**62))
        try:
            for part in _sample_blocks(
                model,
                left,
                seed,
                temperature,
                max_tokens,
                soft_targets=soft_targets or free_text is not None,
                free_text=free_text,
                slots=slots,
                block=max(1, block >> attempt),
            ):
                left = max(1, left - len(part.lengths))
                yield part
            return
        except torch.OutOfMemoryError as error:
            if min(slots, left) == 1:
                raise UserError(
                    "the GPU has too little memory to sample even one sentence at a time; stop "
                    "what else uses it, or take a smaller base decoder (`gpt_variant`)."
                ) from error
        # Not in the handler: there, the error still holds what was allocated.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _slots_that_fit[model] = min(slots, left) // 2
        logger.warning(
            "too little GPU memory to sample %d sentences at the same time; it goes on with %d",
            min(slots, left),
            _slots_that_fit[model],
        )


def _sample_blocks(
    model: LanguageModel,
    sentences: int,
    seed: int,
    temperature: float,
    max_tokens: int,
    *,
    soft_targets: bool,
    free_text: FreeText | None,
    slots: int,
    block: int,
) -> Iterator[SampledBlock]:
    """Do the work of `sample_blocks` with as many slots as it is told."""
    device = next(model.parameters()).device
    draw = _Draw(seed, device)
    n_slots = min(slots, sentences)
    start = free_text.start if free_text else model.start
    keep = free_text.states if free_text else None
    width = keep.width if keep else 0
    n_top = TOP_K if soft_targets else 0
    state = Slots.new(n_slots, max_tokens, start, top_k=n_top, width=width, device=device)
    beginnings = Beginnings(free_text, max_tokens, seed, device) if free_text else None
    if beginnings:
        state.beginnings = beginnings.choose(n_slots)
    if model.fused is None:
        raise TypeError("the base of this language model is not fused")
    cache = model.fused.new_cache(n_slots, max_tokens + 1)
    compute = _NextLogits(model.fused, model.head, cache, keep)
    next_logits = _captured(compute)
    outbox = Outbox(block + LOOK_EVERY * n_slots, state)
    begun = torch.tensor(n_slots, device=device)
    for step in range(1, 2**62):
        logits = next_logits(state.next_tokens, state.positions)
        rows = torch.arange(len(logits), device=device)
        # What stands behind the token just read; behind the start token, nobody asks for it.
        at = (state.positions - 1).clamp(min=0)
        if soft_targets:
            token_ids, state.probs[rows, at] = top_k(logits, model.end)
            state.token_ids[rows, at] = token_ids
        if keep:
            state.states[rows, at] = compute.kept
        if beginnings:
            drawn = draw.among(logits, temperature, token_ids, model.end)
            drawn = beginnings.force(drawn, state.beginnings, state.positions)
        else:
            drawn = draw(logits, temperature)
        ended = (drawn == model.end) & state.active
        done = (ended | (state.positions == max_tokens)) & state.active
        outbox.put(state, (done if free_text else ended) & (state.positions > 0))
        begins = done & (begun + done.cumsum(0) <= sentences)
        begun = begun + begins.sum()
        state.active = state.active & (~done | begins)
        state.text[rows, state.positions.clamp(max=max_tokens - 1)] = drawn.int()
        state.next_tokens = torch.where(begins, start, drawn)
        if beginnings:
            state.beginnings = torch.where(begins, beginnings.choose(len(rows)), state.beginnings)
        # A slot that rests reads the same position over and over.
        positions = state.positions + state.active.long()
        state.positions = torch.where(begins, 0, positions).clamp(max=max_tokens)
        if step % LOOK_EVERY:
            continue
        alive = int(state.active.sum())
        if int(outbox.written) >= block or not alive:
            yield outbox.flush()
        if not alive:
            return
        if 2 * alive < len(logits):
            rows = state.active.nonzero().squeeze(1)
            state, cache = state.take(rows), cache.filter_batch_items(rows)
            next_logits = compute = _NextLogits(model.fused, model.head, cache, keep)


def top_k(logits: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """Return the TOP_K most probable tokens of each row of (B, V) logits, and their probabilities
    as if `end` had none, both (B, TOP_K)."""
    wide = logits.to(torch.float32, copy=True)
    wide[:, end] = -torch.inf
    top_logits, top_ids = wide.topk(TOP_K, dim=1)
    return top_ids.int(), (top_logits - wide.logsumexp(1, keepdim=True)).exp_().half()


class _Draw:
    """Draws a token from each row of logits, (B,): the largest of logit / temperature + Gumbel
    noise."""

    def __init__(self, seed: int, device: torch.device):
        self.generator = torch.Generator(device).manual_seed(seed)
        self.seeds = np.random.default_rng(seed)

    def __call__(self, logits: Tensor, temperature: float) -> Tensor:
        if fused := gpu.inference_kernels(logits):
            return fused.draw(logits, temperature, int(self.seeds.integers(2**31)))
        noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=self.generator)
        return (logits.float() / temperature).sub_(noise.log_()).argmax(1)

    def among(self, logits: Tensor, temperature: float, token_ids: Tensor, end: int) -> Tensor:
        """Draw from the tokens at `token_ids`, (B, K), and `end` alone."""
        ends = torch.full_like(token_ids[:, :1], end)
        token_ids = torch.cat([token_ids, ends], 1).long()
        scores = logits.gather(1, token_ids).float() / temperature
        noise = torch.empty_like(scores).exponential_(generator=self.generator)
        chosen = scores.sub_(noise.log_()).argmax(1, keepdim=True)
        return token_ids.gather(1, chosen).squeeze(1)


class _NextLogits:
    """Maps (B,) tokens and their (B,) positions to the (B, V) logits of the tokens that follow.

    Attributes:
        kept: (B, width) what `keep` made of the states at the tokens of the last call.
    """

    def __init__(
        self,
        fused: FusedDecoder,
        head: FusedLinear,
        cache: KeyValueCache,
        keep: StatesToKeep | None,
    ):
        self.fused, self.head, self.cache, self.keep = fused, head, cache, keep
        like = cache.keys[0]
        self.kept = like.new_zeros(len(like), keep.width if keep else 0, dtype=torch.half)

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        if not self.keep:
            return self.head(self.fused.step(tokens, positions, self.cache))
        states, inner = self.fused.step_to(tokens, positions, self.cache, self.keep.block)
        self.kept.copy_(self.keep.project(inner))
        return self.head(states)


def _captured(compute: _NextLogits) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `compute`, on a GPU as one launch: a step is hundreds of small operations."""
    like = compute.cache.keys[0]
    # Without the kernels a step asks the GPU how long the longest sentence is.
    if not gpu.attention_kernels(like, like.shape[-1]):
        return compute
    tokens, positions = torch.zeros(2, len(like), dtype=torch.long, device=like.device)
    compute(tokens, positions)  # what libraries prepare at first can't be captured
    logits, replay = capture_graph(
        lambda: compute(tokens, positions), torch.cuda.graph_pool_handle()
    )

    def replayed(new_tokens: Tensor, new_positions: Tensor) -> Tensor:
        tokens.copy_(new_tokens)
        positions.copy_(new_positions)
        replay()
        return logits

    return replayed
