"""The command transfer: a teacher in, sentences of several sources with its logits out."""

import hashlib
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.data.corpus import Corpus
from potstill.decoder.hub import find_base_model
from potstill.errors import UserError
from potstill.files import check_writable, read_json, write_json
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.teacher import load_teacher
from potstill.recipes._corpus import training_corpus
from potstill.recipes._shards import make_shards
from potstill.recipes._unfinished import alone_in_set
from potstill.recipes.console import echo, log_choice, progress_bar
from potstill.training.distributed import process
from potstill.transfer.convert import convert_set
from potstill.transfer.dataset import check_converted, read_transfer_set
from potstill.transfer.description import write_description
from potstill.transfer.duplicates import SeenSentences, normal_hashes
from potstill.transfer.edited_source import EditedSource
from potstill.transfer.sentences import SourceKind
from potstill.transfer.settings import TransferSettings
from potstill.transfer.shards import (
    DESCRIPTION,
    SHARD_SIZE,
    VOCABULARY,
    list_shards,
    read_metadata,
    read_table,
    shard_size_of,
)
from potstill.transfer.sources import SampledSource, Source, UserSource, read_unlabelled
from potstill.transfer.teacher_lm import vocabulary

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
    deadline: float = math.inf,
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
        deadline: On `time.monotonic`; what is not labelled then is left out.

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
    with alone_in_set(folder):
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
                seen.add(
                    normal_hashes(read_table(shard.path, ["sentence"])["sentence"].to_pylist())
                )
        for source in sources:
            own = [shard for shard in shards if shard.kind is source.kind]
            make_shards(
                source, own, teacher, seen, minutes=settings.save_minutes, deadline=deadline
            )
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
