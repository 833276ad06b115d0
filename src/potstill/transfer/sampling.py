"""Sampling sentences from a decoder: many at once, with a key-value cache."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.decoder.base import autocast
from potstill.decoder.language_model import LanguageModel
from potstill.transfer.gpu_sampling import sample_blocks, top_k
from potstill.transfer.slots import SampledBlock
from potstill.transfer.top_k import TOP_K

SLOTS = 256  # sentences sampled at the same time
CHUNK = 256  # tokens of the vocabulary that `draw` sums over at once
FEW_ROWS = 8  # whose logits stay in the processor's cache in fp32
LEAST = 1e-20  # weight of all tokens but the end, below which these are computed by logarithms
ROWS = 32  # positions whose top k is computed at once; their logits stay in the processor's cache
GPU_ROWS = 8192  # the same on a GPU


@dataclass(frozen=True)
class Sampled:
    """A sampled sentence of T tokens.

    Attributes:
        tokens: Its tokens, without those around it.
        top_k: After each token but the last, the ids of the TOP_K most probable next tokens and
            their probabilities given that the sentence goes on, both (T - 1, TOP_K); None where
            sampling didn't compute them.
    """

    tokens: list[int]
    top_k: tuple[Tensor, Tensor] | None = None


def sample_parts(
    model: LanguageModel,
    sentences: int,
    seed: int,
    *,
    temperature: float,
    max_tokens: int,
    soft_targets: bool = True,
) -> Iterator[list[Sampled]]:
    """Begin as many `sentences` and yield those that end within `max_tokens`, as they come: on a
    GPU many at a time, else one by one.

    Args:
        model: A language model, on any device.
        sentences: How many to begin.
        seed: Of all draws.
        temperature: Of the softmax that tokens are drawn from.
        max_tokens: Longest sentence; a longer one is dropped.
        soft_targets: Whether to keep the most probable next tokens.
    """
    device = next(model.parameters()).device
    if model.fused and device.type == "cuda":
        for block in sample_blocks(
            model, sentences, seed, temperature, max_tokens, soft_targets=soft_targets
        ):
            yield block_sentences(block)
        return
    one_by_one = (
        sample(
            model,
            sentences,
            seed,
            temperature=temperature,
            max_tokens=max_tokens,
            soft_targets=soft_targets,
        )
        if model.fused
        else _generate(model, sentences, seed, temperature=temperature, max_tokens=max_tokens)
    )
    yield from ([sampled] for sampled in one_by_one)


@torch.no_grad()
def sample(
    model: LanguageModel,
    sentences: int,
    seed: int,
    *,
    temperature: float,
    max_tokens: int,
    soft_targets: bool = True,
) -> Iterator[Sampled]:
    """Do as `sample_parts` on a processor, with a fused base.

    A slot whose sentence has ended begins the next one, so that the batch stays full. When no
    sentence is left to begin, the slots that have ended leave the batch.
    """
    assert model.fused
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    begun = slots = min(SLOTS, sentences)
    cache = model.fused.new_cache(slots, max_tokens + 1)
    starts = torch.full((slots,), model.start, device=device)
    # The start token is the same for all sentences; its keys and values stay in the cache.
    first = logits = model.head(model.fused.step(starts, torch.zeros_like(starts), cache))
    texts: list[list[int]] = [[] for _ in range(slots)]
    active = [True] * slots
    token_ids = torch.empty(slots, max_tokens, TOP_K, dtype=torch.int32)
    probs = torch.empty(slots, max_tokens, TOP_K, dtype=torch.half)
    while True:
        if logits is first or not soft_targets:
            drawn = draw(logits, temperature, generator).tolist()
        else:
            last = torch.tensor([len(text) - 1 for text in texts])
            at = torch.arange(len(texts)), last
            found = draw_and_top_k(logits, temperature, generator, model.end)
            drawn, (token_ids[at], probs[at]) = found[0].tolist(), found[1:]
        undecided = list(range(len(active)))
        while undecided:
            restarted = []
            for slot in undecided:
                ended = drawn[slot] == model.end
                if active[slot] and ended:
                    inner = slice(max(len(texts[slot]) - 1, 0))
                    top_k = token_ids[slot, inner].clone(), probs[slot, inner].clone()
                    yield Sampled(texts[slot], top_k if soft_targets else None)
                if ended or len(texts[slot]) == max_tokens or not active[slot]:
                    active[slot] = active[slot] and begun < sentences
                    begun += active[slot]
                    texts[slot] = []
                    restarted += [slot] * active[slot]
                else:
                    texts[slot].append(drawn[slot])
            undecided = restarted
            if undecided:
                first_tokens = draw(first[: len(undecided)], temperature, generator).tolist()
                for slot, token in zip(undecided, first_tokens, strict=True):
                    drawn[slot] = token
        if not any(active):
            return
        if 2 * sum(active) < len(active):
            rows = [slot for slot, alive in enumerate(active) if alive]
            cache = cache.filter_batch_items(torch.tensor(rows, dtype=torch.long, device=device))
            token_ids, probs = token_ids[rows], probs[rows]
            texts, drawn = [texts[slot] for slot in rows], [drawn[slot] for slot in rows]
            active = [True] * len(rows)
        positions = torch.tensor([len(text) for text in texts], device=device)
        logits = model.head(model.fused.step(torch.tensor(drawn, device=device), positions, cache))


def block_sentences(block: SampledBlock) -> list[Sampled]:
    """Return the sentences of a block, on the CPU."""
    lengths = block.lengths.tolist()
    tokens = [row[:n] for row, n in zip(block.tokens.tolist(), lengths, strict=True)]
    if not block.token_ids.shape[2]:
        return [Sampled(each) for each in tokens]
    positions = torch.arange(block.tokens.shape[1], device=block.tokens.device)
    inner = positions < block.lengths[:, None] - 1
    counts = [n - 1 for n in lengths]
    top_k = (each[inner].cpu().split(counts) for each in (block.token_ids, block.probs))
    return [Sampled(*each) for each in zip(tokens, zip(*top_k, strict=True), strict=True)]


def top_k_next(parts: Iterable[Tensor], end: int) -> tuple[Tensor, Tensor]:
    """Return the TOP_K most probable tokens of each row of logits and their probabilities.

    Args:
        parts: (N, V) logits, some rows at a time.
        end: A token that is left out, as if it had no probability.

    Returns:
        Token ids and probabilities, both (N, TOP_K), on the CPU.
    """
    token_ids, probs = [], []
    for part in parts:
        part_ids, part_probs = top_k(part, end)
        token_ids.append(part_ids.cpu())
        probs.append(part_probs.cpu())
    return torch.cat(token_ids), torch.cat(probs)


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw a class, (B,), from the softmax of each row of (B, V) logits at `temperature`.

    This inverts the distribution function, first over chunks of the vocabulary, then within one.
    It takes one random number per row, where torch.multinomial takes one for every class.
    """
    parts = (_weights(part, temperature) for part in logits.split(FEW_ROWS))
    return torch.cat([_draw(weights, generator) for weights in parts])


def draw_and_top_k(
    logits: Tensor, temperature: float, generator: torch.Generator, end: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `draw` and `top_k_next` return, in less time where the temperature is 1: the
    vocabulary is gone through once."""
    if temperature != 1:
        return draw(logits, temperature, generator), *top_k_next(logits.split(ROWS), end)
    drawn, token_ids, probs = [], [], []
    for part in logits.split(FEW_ROWS):
        weights = _weights(part, temperature)
        drawn.append(_draw(weights, generator))
        weights[:, end // CHUNK, end % CHUNK] = 0
        totals = weights.sum((1, 2))[:, None]
        if float(totals.min()) > LEAST:
            part_ids, top = _largest(weights)
            part_ids, part_probs = part_ids.int(), (top / totals).half()
        else:
            part_ids, part_probs = top_k(part, end)
        token_ids.append(part_ids)
        probs.append(part_probs)
    return torch.cat(drawn), torch.cat(token_ids).cpu(), torch.cat(probs).cpu()


def _weights(logits: Tensor, temperature: float) -> Tensor:
    """Return exp(logits / temperature) of (B, V) logits but for a factor, as (B, chunks, CHUNK)."""
    scaled = logits.float() / temperature if temperature != 1 else logits.to(torch.float, copy=True)
    weights = scaled.sub_(scaled.amax(1, keepdim=True)).exp_()
    if missing := -weights.shape[1] % CHUNK:
        weights = F.pad(weights, (0, missing))
    return weights.unflatten(1, (-1, CHUNK))


def _largest(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the TOP_K largest of each row of (B, chunks, CHUNK) weights, and these,
    both (B, TOP_K): they are in the TOP_K chunks with the largest ones."""
    chunks = weights.amax(2).topk(min(TOP_K, weights.shape[1]), dim=1).indices
    rows = torch.arange(len(weights), device=weights.device)[:, None]
    top, at = weights[rows, chunks].flatten(1).topk(TOP_K, dim=1)
    return chunks.gather(1, at // CHUNK) * CHUNK + at % CHUNK, top


def _draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    chunks = weights.sum(2)
    uniform = torch.rand(len(weights), 1, generator=generator, device=weights.device)
    chunk, rest = _locate(chunks, uniform * chunks.sum(1, keepdim=True))
    in_chunk = weights[torch.arange(len(weights), device=weights.device), chunk]
    return chunk * CHUNK + _locate(in_chunk, rest)[0]


def _locate(weights: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index, (B,), at which the running sum of (B, N) weights passes a (B, 1) target,
    and how far into the weight at that index the target is, (B, 1)."""
    sums = weights.cumsum(1)
    # Rounding may carry the target past the last weight that is not zero.
    last = weights.shape[1] - 1 - (weights > 0).flip(1).int().argmax(1, keepdim=True)
    index = torch.minimum(torch.searchsorted(sums, target, right=True), last)
    return index.squeeze(1), target - (sums - weights).gather(1, index)


def _generate(
    model: LanguageModel, sentences: int, seed: int, *, temperature: float, max_tokens: int
) -> Iterator[Sampled]:
    """`sample` by transformers' own modules, for a decoder that is not fused."""
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    for begun in range(0, sentences, SLOTS):
        rows = min(SLOTS, sentences - begun)
        with autocast(model.base):
            output = model.whole.generate(
                torch.full((rows, 1), model.start, device=device),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                max_new_tokens=max_tokens + 1,
                eos_token_id=model.end,
                pad_token_id=model.end,
            )
        for row in output[:, 1:].tolist():
            if model.end in row:
                yield Sampled(row[: row.index(model.end)])
