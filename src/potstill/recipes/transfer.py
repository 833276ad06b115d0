"""The command transfer: a teacher in, sentences of several sources with its logits out."""

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from potstill.data.corpus import Corpus
from potstill.decoder.hub import find_base_model
from potstill.errors import UserError
from potstill.files import check_writable, read_json, write_json
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.teacher import load_teacher
from potstill.recipes._corpus import training_corpus
from potstill.recipes.console import echo, log_choice, progress_bar
from potstill.settings import TransferSettings
from potstill.training.distributed import process
from potstill.transfer.convert import convert_set
from potstill.transfer.dataset import check_converted, read_transfer_set
from potstill.transfer.description import write_description
from potstill.transfer.duplicates import SeenSentences, normal_hashes
from potstill.transfer.sentences import Candidate, LabelledSentence, SourceKind, normal
from potstill.transfer.shards import (
    DESCRIPTION,
    SHARD_SIZE,
    VOCABULARY,
    Shard,
    list_shards,
    read_metadata,
    read_shard,
    read_table,
    shard_size_of,
    write_shard,
)
from potstill.transfer.sources import (
    EditedSource,
    SampledSource,
    Source,
    UserSource,
    read_unlabelled,
)
from potstill.transfer.teacher_lm import vocabulary

LABELLED_AT_ONCE = 512  # sentences
DRY = 1000  # candidates in a row that are not new, after which a source counts as dry
MAX_TRIES = 50  # candidates per sentence that is still to be found, before a source counts as dry

logger = logging.getLogger(__name__)


def make_transfer_set(
    seed: int,
    settings: TransferSettings,
    *,
    teacher_path: Path,
    folder: Path,
    unlabelled: Path | None = None,
    relabel: Path | None = None,
    gpt_variant: str | None = None,
    precision: str = "auto",
    shard_size: int | None = None,
    end_token: int | None = None,
) -> None:
    """Make a transfer set in `folder`, or go on with the one that is there.

    Args:
        seed: Determines the sentences.
        settings: How many sentences of which kind, and how to sample.
        teacher_path: Folder of the teacher's adapter.
        folder: Folder of the set.
        unlabelled: A text file with a sentence a line, to be in the set.
        relabel: Folder of an earlier set, whose sentences come first.
        gpt_variant: The teacher's base model. Default: the one that its adapter names.
        precision: Arithmetic of the decoder: "auto", "bf16" or "fp32".
        shard_size: Sentences per file. Default: what the set has that is there, else more for
            larger sets.
        end_token: The token that ends a sampled sentence. Default: the tokenizer's end of text.

    Raises:
        UserError: Something is missing, damaged or of another set.
    """
    check_writable(folder, "`transfer_path`")
    if not (folder / DESCRIPTION).is_file() and any(folder.iterdir()):
        raise UserError(
            f"`transfer_path`: {folder} is not empty and not a transfer set; name another folder."
        )
    user_sentences = read_unlabelled(unlabelled) if unlabelled else []
    earlier = read_transfer_set(relabel).select(without=[]) if relabel else None
    teacher = load_teacher(teacher_path, gpt_variant=gpt_variant, precision=precision)
    log_choice("teacher", f"{teacher.title} in {teacher_path}")
    corpus = training_corpus(teacher_path, teacher)
    log_choice("data", corpus.name, corpus.reason)
    classes, text = len(teacher.classes_), corpus.splits["train"].sentences
    description = describe_set(
        seed,
        settings,
        teacher_path=teacher_path,
        teacher=teacher,
        corpus=corpus,
        user_sentences=user_sentences,
    )
    if earlier:
        description["sentences_of"] = earlier.transfer_set.sha256()
    shard_size = shard_size or _shard_size(folder, description)
    if shard_size != SHARD_SIZE:
        description["shard_size"] = shard_size
    write_description(folder, description)
    shards = list_shards(folder, description)
    check_converted(folder, shards)
    base_model = gpt_variant or (teacher.config.get("decoder") or {}).get("variant") or "auto"
    if settings.sampled and process().is_main_process and not (folder / VOCABULARY).is_file():
        tokenizer = find_base_model(base_model).tokenizer()
        write_json(folder / VOCABULARY, vocabulary(tokenizer))
    other_shards = [shard for shard in shards if shard.kind is not SourceKind.EDITED]
    sources: list[Source] = [
        UserSource(user_sentences, earlier=earlier),
        SampledSource(
            seed,
            settings,
            text,
            folder,
            base_model=base_model,
            precision=precision,
            earlier=earlier,
            earlier_folder=relabel,
            end_token=end_token,
            progress=progress_bar,
        ),
        # Last: edits are made of the sentences of the others.
        EditedSource(seed, text, classes, other_shards, earlier=earlier),
    ]
    seen = SeenSentences()
    for split in corpus.splits.values():
        seen.add(normal_hashes(split.sentences))
    for shard in shards:
        if shard.path.is_file():
            read_metadata(shard.path, classes)
            seen.add(normal_hashes(read_table(shard.path, ["sentence"])["sentence"].to_pylist()))
    for source in sources:
        make_shards(source, [s for s in shards if s.kind is source.kind], teacher, seen)
    logger.info("transfer set: %s", folder)
    for line in read_transfer_set(folder).summary():
        logger.info("  %s", line)


def _shard_size(folder: Path, description: dict[str, Any]) -> int:
    """Return the shard size of the set that is there, else that of a new one."""
    if (folder / DESCRIPTION).is_file():
        return read_json(folder / DESCRIPTION).get("shard_size", SHARD_SIZE)
    return shard_size_of(description["sentences"])


def describe_set(
    seed: int,
    settings: TransferSettings,
    *,
    teacher_path: Path,
    teacher: DecoderClassifier,
    corpus: Corpus,
    user_sentences: list[str],
) -> dict[str, Any]:
    """Return what a set is made of and for which teacher."""
    text = "\n".join(user_sentences)
    return {
        "SR": seed,
        "teacher": {"path": str(teacher_path), "sha256": teacher.sha256, "title": teacher.title},
        "data": corpus.describe(),
        "labels": teacher.classes_.tolist(),
        "temperature": settings.temperature,
        "lm_epochs": settings.sampler_epochs,
        "own": hashlib.sha256(text.encode()).hexdigest() if user_sentences else "",
        "sentences": {
            SourceKind.USER: len(user_sentences),
            SourceKind.SAMPLED: settings.sampled,
            SourceKind.EDITED: settings.edited,
        },
    }


def make_shards(
    source: Source, shards: list[Shard], teacher: DecoderClassifier, seen: SeenSentences
) -> None:
    """Make the files that are missing of a source's `shards`; each process makes some of them.

    Args:
        source: Has the sentences.
        shards: All of its kind, there or not.
        teacher: Labels them.
        seen: The sentences that are to be in none of the shards; new ones are added.
    """
    incomplete = [shard for shard in shards if source.is_incomplete(shard)]
    missing = [shard for shard in incomplete if not shard.path.is_file()]
    process().wait_for_everyone()  # all have looked before any writes
    if not incomplete:
        return
    source.prepare(incomplete, missing)
    share = incomplete[process().process_index :: process().num_processes]
    started, done = time.perf_counter(), 0
    with progress_bar(sum(shard.size for shard in share)) as show:
        for shard in share:
            rows: list[LabelledSentence] = []
            if shard in missing:
                for part in label_new(source, shard, teacher, seen):
                    rows += part
                    show(done + len(rows), source.kind)
            else:
                rows = read_shard(shard.path, len(teacher.classes_))
            targets = source.top_k_targets([row.sentence for row in rows])
            write_shard(shard.path, rows, len(teacher.classes_), targets)
            done += len(rows)
            show(done, source.kind)
    done = sum(gather_object([done]))  # waits for everyone
    seconds = time.perf_counter() - started
    logger.info(
        "%s: %d sentences, %.0f s, %.0f sentences/s", source.kind, done, seconds, done / seconds
    )
    asked = sum(shard.size for shard in incomplete)
    if done < asked:
        logger.info("%s: no more than these %d of %d could be found", source.kind, done, asked)


def label_new(
    source: Source, shard: Shard, teacher: DecoderClassifier, seen: SeenSentences
) -> Iterator[list[LabelledSentence]]:
    """Yield a shard's sentences with the teacher's logits, some at a time.

    The source hears how some were labelled before it is asked for more. A shard gets fewer
    sentences than its size if the source runs dry.
    """
    candidates = source.candidates(shard)
    left = shard.size
    while left:
        part = take_new(candidates, min(left, LABELLED_AT_ONCE), MAX_TRIES * left, seen)
        if not part:
            return
        rows = []
        every = teacher.word_logits([c.sentence for c in part], together=False)
        for candidate, values in zip(part, every, strict=True):
            *word_logits, logits = values.tolist()
            rows.append(LabelledSentence(*candidate, logits, word_logits))
        source.observe(rows)
        yield rows
        left -= len(rows)


def take_new(
    candidates: Iterator[Candidate], size: int, tries: int, seen: SeenSentences
) -> list[Candidate]:
    """Return up to `size` of the next `tries` candidates that are not in `seen`, and add them.

    After DRY candidates in a row of which none is new, no more are tried.
    """
    part: list[Candidate] = []
    misses = 0
    while len(part) < size and tries and misses < DRY:
        # No more than are wanted: the others stay for the next part.
        chunk = list(itertools.islice(candidates, min(size - len(part), tries)))
        if not chunk:
            break
        tries -= len(chunk)
        misses += len(chunk)
        chunk = [candidate for candidate in chunk if normal(candidate.sentence)]
        is_new = seen.add(normal_hashes(candidate.sentence for candidate in chunk))
        new = list(itertools.compress(chunk, is_new))
        misses = 0 if new else misses
        part += new
    return part


def show_sentences(folder: Path, sentences: int, seed: int) -> None:
    """Print some sentences of a finished set, drawn by `seed`, with the teacher's label."""
    transfer_set = read_transfer_set(folder)
    labels = transfer_set.labels
    echo(f"{folder}, by {transfer_set.description['teacher']['title']}")
    for line in transfer_set.summary():
        echo(f"  {line}")
    drawn = np.random.default_rng(seed).permutation(len(transfer_set))[:sentences]
    for row in transfer_set.take(drawn):
        probs = torch.tensor(row.logits).softmax(0).tolist()
        best = int(np.argmax(probs))
        echo(f"{labels[best]} {100 * probs[best]:.0f} %, {row.origin}")
        if row.parent:
            echo(f"     {row.parent}")
        echo(f"  {'->' if row.parent else '  '} {row.sentence}")


def convert(folder: Path) -> None:
    """Convert the set in `folder`, if it is of an earlier version, to the format of this one."""
    shards = convert_set(folder, progress_bar)
    echo(f"{folder}: {shards} shards converted" if shards else f"{folder}: nothing to convert")
