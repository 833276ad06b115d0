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
from torch import Tensor

from potstill import UserError, models, runs
from potstill.checkpoint import check_writable, read_json, write_json
from potstill.processes import process
from potstill.reporting import progress_bar, say
from potstill.settings import TransferSettings
from potstill.sources import (
    Candidate,
    Tally,
    edited_candidates,
    own_candidates,
    read_unlabelled,
    repeated_candidates,
    sampled_candidates,
    tuned_sampler,
)
from potstill.transfer import (
    DESCRIPTION,
    SHARD,
    normal,
    read_shard,
    read_transfer_set,
    shard_file,
    shards,
    write_shard,
)

LABELLED_AT_ONCE = 512
MOST_TRIES = 50  # candidates for each sentence that is new; beyond, the source is taken for dry


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
        repeated = partial(repeated_candidates, earlier, kind)
        fresh: Callable[[int], Iterator[Candidate]] | None = None
        if all(len(repeated(number)) == _size(number, total) for number in missing):
            pass  # nothing new is needed
        elif kind == "own":
            fresh = partial(own_candidates, own)
        elif kind == "sampled":
            recorded = teacher.config.get("decoder") or {}
            variant = gpt_variant or recorded.get("variant") or "auto"
            model, tokenizer = tuned_sampler(SR, transfer, variant, precision, corpus, folder)
            fresh = partial(sampled_candidates, model, tokenizer, SR, transfer.temperature)
        else:
            fresh = edited_candidates(SR, corpus, folder, description, tally)
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
