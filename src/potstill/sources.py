"""Where the sentences of a transfer set come from: a user's file, an earlier set, the base decoder
as a language model, edits."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from potstill import UserError, classifier
from potstill.checkpoint import write_bytes, write_tensors
from potstill.corpus import Corpus
from potstill.decoder import find_decoder
from potstill.edits import EDITS, edit_sentence, read_lexicon
from potstill.formats import read_lines
from potstill.lora import halve_frozen, merge
from potstill.next_tokens import NextTokens, of_sampled
from potstill.processes import process
from potstill.reporting import progress_bar, say
from potstill.sampling import LanguageModel, sample, tune_language_model
from potstill.settings import LoRASettings, TrainSettings, TransferSettings
from potstill.training import resolve_precision
from potstill.transfer import SHARD, TransferSet, read_shard, shard_file, shards

SAMPLER = "sampler.safetensors"
SAMPLER_LR = 6e-4
MAX_TOKENS = 64  # of a sampled sentence
MAX_CHARACTERS = 1000  # of a user's own
TWO_EDITS = 0.3  # share of edited sentences that are edited twice

# sentence, source, parent
Candidate = tuple[str, str, str]
# of edits, by their name: how often the teacher called what they made which class
Tally = dict[str, Counter[int]]


def read_unlabelled(file: Path) -> list[str]:
    """The lines of a text file, a sentence each.

    Raises:
        UserError: it can't be read, has none, or has an empty or an over-long line.
    """
    sentences = []
    for number, line in read_lines(file):
        if not line.strip():
            raise UserError(f"{file}:{number}: the line is empty; give a sentence a line.")
        if len(line) > MAX_CHARACTERS:
            raise UserError(
                f"{file}:{number}: {len(line)} characters are no sentence (at most "
                f"{MAX_CHARACTERS}); give a sentence a line."
            )
        sentences.append(line.strip())
    return sentences


def repeated_candidates(earlier: TransferSet | None, kind: str, number: int) -> list[Candidate]:
    """A shard's worth of what the earlier set has of a kind; fewer, or nothing, at its end."""
    if earlier is None:
        return []
    rows = zip(earlier.sentences, earlier.sources, earlier.parents, strict=True)
    of_kind = (row for row in rows if row[1].partition(":")[0] == kind)
    return list(itertools.islice(of_kind, number * SHARD, (number + 1) * SHARD))


def own_candidates(own: list[str], number: int) -> Iterator[Candidate]:
    for sentence in own[number * SHARD : (number + 1) * SHARD]:
        yield sentence, "own", ""


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
    decoder = find_decoder(gpt_variant)
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
            halve_frozen(model.whole)
        model.freeze()
        sentences = corpus.splits["train"].sentences
        tokens, _ = classifier.encode(tokenizer, sentences, _room(model))
        settings = TrainSettings(lr=SAMPLER_LR)
        with progress_bar(transfer.lm_epochs * len(tokens)) as show:
            loss = tune_language_model(model, tokens, settings, transfer.lm_epochs, SR, show)
        say(f"language model: tuned on {len(tokens)} sentences, {loss:.3f} nats a token")
        write_tensors(file, {n: p.detach() for n, p in model.named_parameters() if p.requires_grad})
    process().wait_for_everyone()
    model = pretrained()
    try:
        tensors = load_file(file)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[name])
    except Exception as error:  # safetensors raises its own, torch RuntimeError
        raise UserError(
            f"{file} is damaged or of another base ({str(error).splitlines()[0]}); remove it, and "
            "the language model is tuned again."
        ) from error
    merge(model.base)
    if half:
        halve_frozen(model.whole)
    model.freeze()
    return model.eval(), tokenizer


def _room(model: LanguageModel) -> int:
    """Tokens that a sentence may have; the start takes a place, too."""
    positions = getattr(model.whole.config, "max_position_embeddings", None) or MAX_TOKENS + 1
    return min(MAX_TOKENS, positions - 1)


def sampled_candidates(
    model: LanguageModel,
    tokenizer: Any,
    SR: int,
    temperature: float,
    likely: dict[str, NextTokens],
    number: int,
) -> Iterator[Candidate]:
    """Puts what the decoder held likely in a sentence into `likely`, where sampling tells it."""
    # The first round is about enough; the others make up for duplicates.
    for sentences, attempt in zip(
        itertools.chain([SHARD], itertools.repeat(512)), itertools.count()
    ):
        seed = int(np.random.default_rng([SR, number, attempt]).integers(2**62))
        for sampled in sample(model, sentences, seed, temperature, _room(model)):
            text = " ".join(tokenizer.decode(sampled.tokens, skip_special_tokens=True).split())
            if found := of_sampled(tokenizer, text, sampled):
                likely[text] = found
            yield text, "sampled", ""


def edited_candidates(
    SR: int, corpus: Corpus, folder: Path, description: dict[str, Any], tally: Tally
) -> Callable[[int], Iterator[Candidate]]:
    """Edits of training sentences and of the set's others, half and half where there are any.

    Which edit is drawn depends on what the teacher called the earlier ones, so that the class
    that is rare so far becomes likelier.
    """
    classes = len(description["labels"])
    train = corpus.splits["train"].sentences
    others = [
        row["sentence"]
        for kind, number in shards(description)
        if kind != "edited"
        for row in read_shard(shard_file(folder, kind, number), classes)
    ]
    lexicon = read_lexicon([*train, *others])
    names = list(EDITS)

    def candidates(number: int) -> Iterator[Candidate]:
        rng = np.random.default_rng([SR, number, 1])
        tally.clear()
        while True:
            pool = others if others and rng.random() < 0.5 else train
            parent = pool[int(rng.integers(len(pool)))]
            counts = np.array([[tally[n][c] for c in range(classes)] for n in names]) + 1.0
            rare = counts.sum(0).argmin()
            chances = counts[:, rare] / counts.sum(1)
            drawn = rng.choice(
                names, size=1 + (rng.random() < TWO_EDITS), p=chances / chances.sum()
            )
            sentence: str | None = parent
            for name in drawn.tolist():
                sentence = sentence and edit_sentence(sentence, name, lexicon, rng)
            if sentence:
                yield sentence, f"edited:{' '.join(drawn.tolist())}", parent

    return candidates
