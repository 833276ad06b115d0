"""The command transfer: a teacher in, sentences of several sources with its logits out."""

import hashlib
import itertools
import time
from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from potstill.console import progress_bar, say, say_choice
from potstill.decoder.hub import find_base_model
from potstill.decoder.language_model import LanguageModel
from potstill.errors import UserError
from potstill.files import check_writable, read_json, write_json
from potstill.inference.teacher import load_teacher
from potstill.recipes._corpus import training_corpus
from potstill.settings import TransferSettings
from potstill.training.distributed import process
from potstill.transfer.dataset import (
    DESCRIPTION,
    SHARD,
    VOCABULARY,
    TransferSet,
    normal,
    read_shard,
    read_transfer_set,
    shard_file,
    shards,
    top_k_file,
    write_shard,
)
from potstill.transfer.sampling import tuned_sampler
from potstill.transfer.sources import (
    Candidate,
    Tally,
    edited_candidates,
    own_candidates,
    read_unlabelled,
    repeated_candidates,
    sampled_candidates,
)
from potstill.transfer.teacher_lm import top_k_targets, vocabulary
from potstill.transfer.top_k import TopKTargets, write_top_k

LABELLED_AT_ONCE = 512
MOST_TRIES = 50  # candidates for each sentence that is new; beyond, the source is taken for dry


def collect(
    SR: int,
    transfer: TransferSettings,
    unlabelled: Path | None,
    relabel: Path | None,
    teacher_path: Path,
    gpt_variant: str | None,
    precision: str,
    folder: Path,
) -> None:
    """Makes a transfer set, or goes on with one; see `commands.transfer`."""
    check_writable(folder, "--transfer_path")
    if not (folder / DESCRIPTION).is_file() and any(folder.iterdir()):
        raise UserError(
            f"`transfer_path`: {folder} is not empty and not a transfer set; name another folder."
        )
    own = read_unlabelled(unlabelled) if unlabelled else []
    earlier = read_transfer_set(relabel) if relabel else None
    teacher = load_teacher(teacher_path, gpt_variant=gpt_variant, precision=precision)
    say_choice("teacher", f"{teacher.title} in {teacher_path}")
    corpus = training_corpus(teacher_path, teacher)
    say_choice("data", corpus.name, corpus.reason)
    description: dict[str, Any] = {
        "SR": SR,
        "teacher": {"path": str(teacher_path), "sha256": teacher.sha256, "title": teacher.title},
        "data": corpus.describe(),
        "labels": teacher.classes_.tolist(),
        "temperature": transfer.temperature,
        "lm_epochs": transfer.sampler_epochs,
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
            seen |= {normal(row["sentence"]) for row in read_shard(file, len(teacher.classes_))}

    recorded = teacher.config.get("decoder") or {}
    variant = gpt_variant or recorded.get("variant") or "auto"
    label = partial(teacher.word_logits, together=False)
    for kind, total in description["sentences"].items():
        files = {n: shard_file(folder, kind, n) for k, n in shards(description) if k == kind}
        missing = [number for number, file in files.items() if not file.is_file()]
        due = missing
        if kind == "sampled":  # sets of before lack what stands beside their shards
            due = [n for n, file in files.items() if n in missing or not top_k_file(file).is_file()]
        unspelt = kind == "sampled" and bool(files) and not (folder / VOCABULARY).is_file()
        process().wait_for_everyone()  # all have looked before any writes
        if unspelt and process().is_main_process:
            write_json(folder / VOCABULARY, vocabulary(find_base_model(variant).tokenizer()))
        if not due:
            continue
        tally: Tally = defaultdict(Counter)
        repeated = partial(repeated_candidates, earlier, kind)
        anew = any(len(repeated(number)) < _size(number, total) for number in missing)
        fresh: Callable[[int], Iterator[Candidate]] | None = None
        likely: Callable[[list[str]], list[TopKTargets]] | None = None
        drawn: dict[str, TopKTargets] = {}  # in the sentences of the shard in work
        if kind == "sampled":
            known = ChainMap(drawn, _known(earlier))
            sampler = None
            again = (s for number in missing for s, _, _ in repeated(number))
            if anew or due != missing or any(sentence not in known for sentence in again):
                sampler = tuned_sampler(SR, transfer, variant, precision, corpus, folder, relabel)
            likely = partial(_likely, sampler, known)
            if anew and sampler:
                fresh = partial(sampled_candidates, *sampler, SR, transfer.temperature, drawn)
        elif kind == "own" and anew:
            fresh = partial(own_candidates, own)
        elif anew:
            fresh = edited_candidates(SR, corpus, folder, description, tally)
        mine = due[process().process_index :: process().num_processes]
        started, made = time.perf_counter(), 0
        with progress_bar(sum(_size(n, total) for n in mine)) as show:
            for number in mine:
                rows: list[dict[str, Any]] = []
                if number in missing:
                    candidates = itertools.chain(repeated(number), fresh(number) if fresh else ())
                    for part in _label(candidates, _size(number, total), label, seen, tally):
                        rows += part
                        show(made + len(rows), kind)
                else:
                    rows = read_shard(files[number], len(teacher.classes_))
                if likely:
                    found = likely([row["sentence"] for row in rows])
                    write_top_k(top_k_file(files[number]), found)
                    drawn.clear()
                # Last: what was drawn with it can't be had again.
                if number in missing:
                    write_shard(files[number], rows)
                made += len(rows)
                show(made, kind)
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
                f"{_short(new)}); repeat its settings, or name another `transfer_path`."
            )
    process().wait_for_everyone()
    if process().is_main_process:
        write_json(folder / DESCRIPTION, description)


def _known(earlier: TransferSet | None) -> dict[str, TopKTargets]:
    """What the decoder held likely in the sentences of an earlier set; no teacher changes that."""
    if earlier is None:
        return {}
    pairs = zip(earlier.sentences, earlier.top_k, strict=True)
    return {sentence: one for sentence, one in pairs if one is not None}


def _likely(
    sampler: tuple[LanguageModel, Any] | None,
    known: Mapping[str, TopKTargets],
    sentences: list[str],
) -> list[TopKTargets]:
    """What the decoder held likely in each of `sentences`; of those not `known`, by `sampler`."""
    new = [sentence for sentence in sentences if sentence not in known]
    made = dict(zip(new, top_k_targets(*sampler, new), strict=True)) if sampler and new else {}
    return [known.get(sentence) or made[sentence] for sentence in sentences]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _size(number: int, total: int) -> int:
    """Sentences of a shard."""
    return min(SHARD, total - number * SHARD)


def _label(
    candidates: Iterator[Candidate],
    wanted: int,
    label: Callable[[list[str]], list[np.ndarray]],
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
