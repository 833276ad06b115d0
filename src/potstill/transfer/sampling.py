"""New sentences like the task's: the base decoder, tuned as a language model, then sampled.

Tang, Lu and Lin 2019, *Natural Language Generation for Effective Knowledge Distillation*,
section 3.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from potstill.console import progress_bar, say
from potstill.data.batching import Batch
from potstill.data.corpus import Corpus
from potstill.decoder import classifier
from potstill.decoder.base import autocast, max_positions
from potstill.decoder.hub import find_base_model
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import merge
from potstill.errors import UserError
from potstill.files import write_bytes, write_tensors
from potstill.ops.parameters import copy_tensors, trainable_parameters
from potstill.settings import LoRASettings, TrainSettings, TransferSettings
from potstill.training.distributed import process
from potstill.training.lm_loop import descend
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision
from potstill.transfer.top_k import TOP_K

SLOTS = 256  # sentences sampled side by side
CHUNK = 256  # tokens of the vocabulary that `draw` sums over at once
ROWS = 32  # places whose vocabulary is looked through at once; their logits stay in the cache
SAMPLER = "sampler.safetensors"
SAMPLER_LR = 6e-4
MAX_TOKENS = 64  # of a sampled sentence


@dataclass(frozen=True)
class Sampled:
    """A sentence of T tokens and, behind each but its last, the TOP_K next tokens and their
    chances given that it goes on, both (T - 1, TOP_K); None where they are not known."""

    tokens: list[int]
    top_k: tuple[Tensor, Tensor] | None = None


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
    if model.fused is None:
        yield from _generate(model, sentences, seed, temperature, max_tokens)
        return
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    begun = slots = min(SLOTS, sentences)
    cache = model.fused.new_cache(slots, max_tokens + 1)
    starts = torch.full((slots,), model.start, device=device)
    # What begins a sentence is the same for all, and stays in the cache.
    first = logits = model.head(model.fused.step(starts, torch.zeros_like(starts), cache))
    texts: list[list[int]] = [[] for _ in range(slots)]
    active = [True] * slots
    likely = torch.empty(slots, max_tokens, TOP_K, dtype=torch.int32)
    chances = torch.empty(slots, max_tokens, TOP_K, dtype=torch.half)
    while True:
        drawn = draw(logits, temperature, generator).tolist()
        if logits is not first:
            last = torch.tensor([len(text) - 1 for text in texts])
            behind = torch.arange(len(texts)), last
            likely[behind], chances[behind] = top_k_next(logits.split(ROWS), model.end)
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
            cache = cache.filter_batch_items(torch.tensor(kept, dtype=torch.long, device=device))
            likely, chances = likely[kept], chances[kept]
            texts, drawn = [texts[slot] for slot in kept], [drawn[slot] for slot in kept]
            active = [True] * len(kept)
        places = torch.tensor([len(text) for text in texts], device=device)
        logits = model.head(model.fused.step(torch.tensor(drawn, device=device), places, cache))


def top_k_next(parts: Iterable[Tensor], end: int) -> tuple[Tensor, Tensor]:
    """The likeliest of the classes of (N, V) logits, that come in `parts` of some rows, and their
    chances, `end` left out, both (N, TOP_K)."""
    tokens, chances = [], []
    for part in parts:
        logits = part.to(torch.float32, copy=True)
        logits[:, end] = -torch.inf
        most, places = logits.topk(TOP_K, dim=1)
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
    """`sample` by transformers, for a decoder that `fused_decoder` has not written out."""
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    for begun in range(0, sentences, SLOTS):
        rows = min(SLOTS, sentences - begun)
        with autocast(model.base):
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


def tuned_sampler(
    SR: int,
    transfer: TransferSettings,
    gpt_variant: str,
    precision: str,
    corpus: Corpus,
    folder: Path,
    earlier: Path | None = None,
) -> tuple[LanguageModel, Any]:
    """The base decoder as a language model of the task's training text, tuned once for a set.

    earlier: the folder of a set whose sampler, where it is there, serves this one, too."""
    decoder = find_base_model(gpt_variant)
    tokenizer = decoder.tokenizer()
    half = resolve_precision(precision) == torch.bfloat16
    file = folder / SAMPLER

    def pretrained() -> LanguageModel:
        torch.manual_seed(SR)
        model = LanguageModel(decoder.language_model(), tokenizer, LoRASettings())
        return model.to(process().device)

    if process().is_main_process and earlier and (earlier / SAMPLER).is_file():
        write_bytes(file, (earlier / SAMPLER).read_bytes())
    if process().is_main_process and not file.is_file():
        model = pretrained()
        if half:
            cast_frozen_to_bf16(model.whole)
        model.fuse()
        sentences = corpus.splits["train"].sentences
        tokens, _ = classifier.encode(tokenizer, sentences, room(model))
        settings = TrainSettings(lr=SAMPLER_LR)
        with progress_bar(transfer.sampler_epochs * len(tokens)) as show:
            loss = tune_language_model(model, tokens, settings, transfer.sampler_epochs, SR, show)
        say(f"language model: tuned on {len(tokens)} sentences, {loss:.3f} nats a token")
        write_tensors(file, trainable_parameters(model))
    process().wait_for_everyone()
    model = pretrained()
    try:
        copy_tensors(load_file(file), trainable_parameters(model))
    except Exception as error:  # safetensors raises its own, torch RuntimeError
        raise UserError(
            f"{file} is damaged or of another base ({str(error).splitlines()[0]}); remove it, and "
            "the language model is tuned again."
        ) from error
    merge(model.base)
    if half:
        cast_frozen_to_bf16(model.whole)
    model.fuse()
    return model.eval(), tokenizer


def room(model: LanguageModel) -> int:
    """Tokens that a sentence may have; the start takes a place, too."""
    return min(MAX_TOKENS, max_positions(model.whole, default=MAX_TOKENS + 1) - 1)
