"""The command transfer: a teacher in, sentences of several sources with its logits out."""

import hashlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import Tensor

from potstill import UserError, classifier, models, runs
from potstill.checkpoint import check_writable, read_json, write_json, write_tensors
from potstill.corpus import Corpus
from potstill.decoder import find_decoder
from potstill.edits import EDITS, edit_sentence, read_lexicon
from potstill.formats import read_lines
from potstill.lora import halve_frozen, merge
from potstill.processes import process
from potstill.reporting import progress_bar, say
from potstill.sampling import LanguageModel, sample, tune_language_model
from potstill.settings import LoRASettings, TrainSettings, TransferSettings
from potstill.training import resolve_precision
from potstill.transfer import (
    DESCRIPTION,
    SHARD,
    TransferSet,
    normal,
    read_shard,
    read_transfer_set,
    shard_file,
    shards,
    write_shard,
)

SAMPLER = "sampler.safetensors"
SAMPLER_LR = 6e-4
MAX_TOKENS = 64  # of a sampled sentence
MAX_CHARACTERS = 1000  # of a user's own
LABELLED_AT_ONCE = 512
TWO_EDITS = 0.3  # share of edited sentences that are edited twice
MOST_TRIES = 50  # candidates for each sentence that is new; beyond, the source is taken for dry

# sentence, source, parent
Candidate = tuple[str, str, str]
# of edits, by their name: how often the teacher called what they made which class
Tally = dict[str, Counter[int]]


def collect(
    SR: int,
    transfer: TransferSettings,
    unlabelled: Path | None,
    sentences_of: Path | None,
    teacher_path: Path,
    gpt_variant: str | None,
    precision: str,
    folder: Path,
) -> None:
    """Makes a transfer set, or goes on with one; see `commands.transfer`."""
    check_writable(folder, "--transfer_path")
    if not (folder / DESCRIPTION).is_file() and any(folder.iterdir()):
        raise UserError(f"--transfer_path: {folder} holds something else than a transfer set.")
    own = read_unlabelled(unlabelled) if unlabelled else []
    earlier = read_transfer_set(sentences_of) if sentences_of else None
    teacher = models.load_teacher(teacher_path, precision, gpt_variant)
    runs.say_choice("teacher", f"{teacher.title} in {teacher_path}")
    corpus = models.training_corpus(teacher_path, teacher)
    runs.say_choice("data", corpus.name, corpus.reason)
    description: dict[str, Any] = {
        "SR": SR,
        "teacher": {"path": str(teacher_path), "sha256": teacher.sha256, "title": teacher.title},
        "data": corpus.describe(),
        "labels": list(teacher.labels),
        "temperature": transfer.temperature,
        "lm_epochs": transfer.lm_epochs,
        "own": hashlib.sha256("\n".join(own).encode()).hexdigest() if own else "",
        # Edits come last: they are made of what the others have brought.
        "sentences": {"own": len(own), "sampled": transfer.sampled, "edited": transfer.edited},
    }
    if earlier:
        description["sentences_of"] = earlier.sha256()
    _describe(folder, description)
    seen = {normal(s) for split in corpus.splits.values() for s in split.sentences}
    for kind, number in shards(description):
        if (file := shard_file(folder, kind, number)).is_file():
            seen |= {normal(row["sentence"]) for row in read_shard(file, len(teacher.labels))}

    label = partial(teacher.word_logits, together=False)
    for kind, total in description["sentences"].items():
        missing = [
            number
            for k, number in shards(description)
            if k == kind and not shard_file(folder, k, number).is_file()
        ]
        process().wait_for_everyone()  # all have looked before any writes
        if not missing:
            continue
        tally: Tally = defaultdict(Counter)
        repeated = partial(_repeated_candidates, sentences_of, earlier, kind)
        fresh: Callable[[int], Iterator[Candidate]] | None = None
        if all(len(repeated(number)) == _size(number, total) for number in missing):
            pass  # nothing new is needed
        elif kind == "own":
            fresh = partial(_own_candidates, own)
        elif kind == "sampled":
            recorded = teacher.config.get("decoder") or {}
            variant = gpt_variant or recorded.get("variant") or "auto"
            model, tokenizer = _sampler(SR, transfer, variant, precision, corpus, folder)
            fresh = partial(_sampled_candidates, model, tokenizer, SR, transfer.temperature)
        else:
            fresh = _edited_candidates(SR, corpus, folder, description, tally)
        mine = missing[process().process_index :: process().num_processes]
        started, made = time.perf_counter(), 0
        with progress_bar(sum(_size(n, total) for n in mine)) as show:
            for number in mine:
                wanted = _size(number, total)
                rows: list[dict[str, Any]] = []
                candidates = itertools.chain(repeated(number), fresh(number) if fresh else ())
                for part in _label(candidates, wanted, label, seen, tally):
                    rows += part
                    show(made + len(rows), kind)
                write_shard(shard_file(folder, kind, number), rows)
                made += len(rows)
        made = sum(gather_object([made]))  # waits for everyone
        seconds = time.perf_counter() - started
        say(f"{kind}: {made} sentences, {seconds:.0f} s, {made / seconds:.0f} sentences/s")
    say(f"transfer set: {folder}")
    for line in read_transfer_set(folder).summary():
        say(f"  {line}")


def show_sentences(folder: Path, sentences: int, seed: int) -> None:
    """Prints some of a finished set, drawn by `seed`; see `commands.transfer`."""
    found = read_transfer_set(folder)
    labels = found.description["labels"]
    say(f"{folder}, by {found.description['teacher']['title']}")
    for line in found.summary():
        say(f"  {line}")
    drawn = np.random.default_rng(seed).permutation(len(found.sentences))[:sentences]
    chances = torch.from_numpy(found.logits).softmax(1).tolist()
    for i in drawn.tolist():
        best = int(np.argmax(chances[i]))
        say(f"{labels[best]} {100 * chances[i][best]:.0f} %, {found.sources[i]}")
        if found.parents[i]:
            say(f"    {found.parents[i]}")
        say(f"  {'->' if found.parents[i] else '  '}{found.sentences[i]}")


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


def _describe(folder: Path, description: dict[str, Any]) -> None:
    """Writes the description, once it is sure that the folder holds no other set."""
    there = read_json(folder / DESCRIPTION) if (folder / DESCRIPTION).is_file() else description
    for key, value in description.items():
        old, new = there.get(key), value
        if key == "teacher":  # where it lies says nothing
            old, new = (old or {}).get("sha256"), new["sha256"]
        if key != "sentences" and old != new:  # a set may grow
            raise UserError(
                f"{folder} holds a transfer set of another {key} ({_short(old)}, not "
                f"{_short(new)}); repeat its settings, or name another --transfer_path."
            )
    process().wait_for_everyone()
    if process().is_main_process:
        write_json(folder / DESCRIPTION, description)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _size(number: int, total: int) -> int:
    """Sentences of a shard."""
    return min(SHARD, total - number * SHARD)


def _label(
    candidates: Iterator[Candidate],
    wanted: int,
    label: Callable[[list[str]], list[Tensor]],
    seen: set[str],
    tally: Tally,
) -> Iterator[list[dict[str, Any]]]:
    """Rows of a shard, in parts, from the candidates that nobody has seen yet."""
    left = wanted
    while left:
        part: list[Candidate] = []
        for sentence, source, parent in itertools.islice(candidates, MOST_TRIES * left):
            if (key := normal(sentence)) and key not in seen:
                seen.add(key)
                part.append((sentence, source, parent))
                if len(part) == min(left, LABELLED_AT_ONCE):
                    break
        if not part:
            return
        logits = label([sentence for sentence, _, _ in part])
        rows = []
        for (sentence, source, parent), values in zip(part, logits, strict=True):
            *words, whole = [[round(v, 4) for v in each] for each in values.tolist()]
            for name in source.partition(":")[2].split():
                tally[name][int(np.argmax(whole))] += 1
            row: dict[str, Any] = {"sentence": sentence, "source": source, "parent": parent}
            rows.append(row | {"logits": whole, "word_logits": words})
        yield rows
        left -= len(rows)


def _repeated_candidates(
    folder: Path | None, earlier: TransferSet | None, kind: str, number: int
) -> list[Candidate]:
    """What the earlier set in `folder` has in a shard; nothing where it has no such shard."""
    if folder is None or earlier is None or (kind, number) not in shards(earlier.description):
        return []
    rows = read_shard(shard_file(folder, kind, number), earlier.logits.shape[1])
    return [(row["sentence"], row["source"], row["parent"]) for row in rows]


def _own_candidates(own: list[str], number: int) -> Iterator[Candidate]:
    for sentence in own[number * SHARD : (number + 1) * SHARD]:
        yield sentence, "own", ""


def _sampler(
    SR: int,
    transfer: TransferSettings,
    gpt_variant: str,
    precision: str,
    corpus: Corpus,
    folder: Path,
) -> tuple[LanguageModel, Any]:
    """The base decoder as a language model of the task's training text, tuned once for a set."""
    decoder = find_decoder(gpt_variant)
    tokenizer = decoder.tokenizer()
    half = resolve_precision(precision) == torch.bfloat16
    file = folder / SAMPLER

    def pretrained() -> LanguageModel:
        torch.manual_seed(SR)
        return LanguageModel(decoder.language_model(), tokenizer, LoRASettings())

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
    return model, tokenizer


def _room(model: LanguageModel) -> int:
    """Tokens that a sentence may have; the start takes a place, too."""
    positions = getattr(model.whole.config, "max_position_embeddings", None) or MAX_TOKENS + 1
    return min(MAX_TOKENS, positions - 1)


def _sampled_candidates(
    model: LanguageModel, tokenizer: Any, SR: int, temperature: float, number: int
) -> Iterator[Candidate]:
    # The first round is about enough; the others make up for duplicates.
    for sentences, attempt in zip(
        itertools.chain([SHARD], itertools.repeat(512)), itertools.count()
    ):
        seed = int(np.random.default_rng([SR, number, attempt]).integers(2**62))
        for tokens in sample(model, sentences, seed, temperature, _room(model)):
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            yield " ".join(text.split()), "sampled", ""


def _edited_candidates(
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
