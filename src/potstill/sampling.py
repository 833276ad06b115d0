"""New sentences like the task's: the base decoder, tuned as a language model, then sampled.

Tang, Lu and Lin 2019, *Natural Language Generation for Effective Knowledge Distillation*,
section 3.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from potstill.batching import Batch
from potstill.blocks import take_apart
from potstill.lora import JoinedLinear, add_lora, linear_names, norm_names
from potstill.optimisation import descend
from potstill.settings import LoRASettings, TrainSettings

SLOTS = 256  # sentences sampled side by side
CHUNK = 256  # tokens of the vocabulary that `draw` sums over at once
LIKELIEST = 32  # next tokens of which the chances are kept
ROWS = 32  # places whose vocabulary is looked through at once; their logits stay in the cache


@dataclass(frozen=True)
class Sampled:
    """A sentence of T tokens and, behind each but its last, the LIKELIEST next tokens and their
    chances given that it goes on, both (T - 1, LIKELIEST); None where they are not known."""

    tokens: list[int]
    likely: tuple[Tensor, Tensor] | None = None


class LanguageModel(nn.Module):
    """A decoder of transformers with its vocabulary head, frozen, LoRA on every linear layer of its
    blocks and trainable norms; `start` and `end` are the tokens around a sentence."""

    def __init__(self, whole: Any, tokenizer: Any, lora: LoRASettings):
        super().__init__()
        whole.requires_grad_(False)
        self.whole, self.base = whole, whole.base_model
        add_lora(self.base, linear_names(self.base), lora.LoRA_rank, lora.alpha, lora.LoRA_dropout)
        for name in norm_names(self.base):
            self.base.get_submodule(name).requires_grad_(True)
        self.end: int = tokenizer.eos_token_id
        self.start: int = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def freeze(self) -> None:
        """Takes the snapshot of the frozen weights that everything is computed from."""
        self.blocks = take_apart(self.base)
        self.head = JoinedLinear([self.whole.get_output_embeddings()])

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) tokens to (B, L, width) hidden states."""
        if self.blocks:
            return self.blocks.hidden(input_ids)
        half = self.base.dtype == torch.bfloat16
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=half):
            return self.base(input_ids=input_ids, use_cache=False).last_hidden_state


def tune_language_model(
    model: LanguageModel,
    tokens: list[list[int]],
    settings: TrainSettings,
    epochs: int,
    seed: int,
    show: Callable[[int, str], None],
) -> float:
    """Tunes `model` to the sentences `tokens`, start and end included; gives the last epoch's mean
    loss, nats a token."""
    sentences = [[model.start, *t, model.end] for t in tokens]

    def loss(batch: Batch) -> Tensor:
        places = torch.arange(1, batch.input_ids.shape[1], device=batch.input_ids.device)
        real = places < batch.lengths[:, None]
        logits = model.head(model(batch.input_ids[:, :-1])[real])
        return F.cross_entropy(logits.float(), batch.input_ids[:, 1:][real])

    return descend(model, sentences, loss, settings, epochs, seed, show)


@torch.no_grad()
def sample(
    model: LanguageModel, sentences: int, seed: int, temperature: float, max_tokens: int
) -> Iterator[Sampled]:
    """Begins as many `sentences` and yields each that ends within `max_tokens`.

    A slot whose sentence has ended begins the next one, so that the batch stays full; when none is
    left to begin, the slots that have ended leave it.
    """
    if model.blocks is None:
        yield from _generate(model, sentences, seed, temperature, max_tokens)
        return
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    begun = slots = min(SLOTS, sentences)
    cache = model.blocks.cache(slots, max_tokens + 1)
    starts = torch.full((slots,), model.start, device=device)
    # What begins a sentence is the same for all, and stays in the cache.
    first = logits = model.head(model.blocks.step(starts, torch.zeros_like(starts), cache))
    texts: list[list[int]] = [[] for _ in range(slots)]
    active = [True] * slots
    likely = torch.empty(slots, max_tokens, LIKELIEST, dtype=torch.int32)
    chances = torch.empty(slots, max_tokens, LIKELIEST, dtype=torch.half)
    while True:
        drawn = draw(logits, temperature, generator).tolist()
        if logits is not first:
            last = torch.tensor([len(text) - 1 for text in texts])
            behind = torch.arange(len(texts)), last
            likely[behind], chances[behind] = likely_next(logits.split(ROWS), model.end)
        due = list(range(len(active)))
        while due:
            again = []
            for slot in due:
                ended = drawn[slot] == model.end
                if active[slot] and ended:
                    inner = slice(max(len(texts[slot]) - 1, 0))
                    known = likely[slot, inner].clone(), chances[slot, inner].clone()
                    yield Sampled(texts[slot], known)
                if ended or len(texts[slot]) == max_tokens or not active[slot]:
                    active[slot] = active[slot] and begun < sentences
                    begun += active[slot]
                    texts[slot] = []
                    again += [slot] * active[slot]
                else:
                    texts[slot].append(drawn[slot])
            due = again
            if due:
                anew = draw(first[: len(due)], temperature, generator).tolist()
                for slot, token in zip(due, anew, strict=True):
                    drawn[slot] = token
        if not any(active):
            return
        if 2 * sum(active) < len(active):
            kept = [slot for slot, alive in enumerate(active) if alive]
            cache = cache.take(torch.tensor(kept, dtype=torch.long, device=device))
            likely, chances = likely[kept], chances[kept]
            texts, drawn = [texts[slot] for slot in kept], [drawn[slot] for slot in kept]
            active = [True] * len(kept)
        places = torch.tensor([len(text) for text in texts], device=device)
        logits = model.head(model.blocks.step(torch.tensor(drawn, device=device), places, cache))


def likely_next(parts: Iterable[Tensor], end: int) -> tuple[Tensor, Tensor]:
    """The likeliest of the classes of (N, V) logits, that come in `parts` of some rows, and their
    chances, `end` left out, both (N, LIKELIEST)."""
    tokens, chances = [], []
    for part in parts:
        logits = part.to(torch.float32, copy=True)
        logits[:, end] = -torch.inf
        most, places = logits.topk(LIKELIEST, dim=1)
        tokens.append(places.int().cpu())
        chances.append((most - logits.logsumexp(1, keepdim=True)).exp_().half().cpu())
    return torch.cat(tokens), torch.cat(chances)


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """One class of each row of (B, V) logits by its softmax at `temperature`, (B,).

    By the inverse of the distribution function, first over chunks of the vocabulary, then in one:
    a random number a row, where torch.multinomial draws one for every class.
    """
    # A few rows at a time: what is computed of them stays in the processor's cache.
    return torch.cat([_draw(part, temperature, generator) for part in logits.split(8)])


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    logits = logits.float() / temperature
    weights = logits.sub_(logits.amax(1, keepdim=True)).exp_()
    weights = F.pad(weights, (0, -weights.shape[1] % CHUNK)).unflatten(1, (-1, CHUNK))
    chunks = weights.sum(2)
    rest = torch.rand(len(logits), 1, generator=generator, device=logits.device)
    chunk, rest = _locate(chunks, rest * chunks.sum(1, keepdim=True))
    inside = weights[torch.arange(len(logits), device=logits.device), chunk]
    return chunk * CHUNK + _locate(inside, rest)[0]


def _locate(weights: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Where (B, 1) `rest` falls among the running sums of (B, N) weights, (B,), and (B, 1) how far
    into that weight."""
    ends = weights.cumsum(1)
    # Rounding may carry `rest` past the last weight that is not zero.
    last = weights.shape[1] - 1 - (weights > 0).flip(1).int().argmax(1, keepdim=True)
    place = torch.minimum(torch.searchsorted(ends, rest, right=True), last)
    return place.squeeze(1), rest - (ends - weights).gather(1, place)


def _generate(
    model: LanguageModel, sentences: int, seed: int, temperature: float, max_tokens: int
) -> Iterator[Sampled]:
    """`sample` by transformers, for a decoder that `blocks` has not written out."""
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    half = model.base.dtype == torch.bfloat16
    for begun in range(0, sentences, SLOTS):
        rows = min(SLOTS, sentences - begun)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            whole = model.whole.generate(
                torch.full((rows, 1), model.start, device=device),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                max_new_tokens=max_tokens + 1,
                eos_token_id=model.end,
                pad_token_id=model.end,
            )
        for row in whole[:, 1:].tolist():
            if model.end in row:
                yield Sampled(row[: row.index(model.end)])
