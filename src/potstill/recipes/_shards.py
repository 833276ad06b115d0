"""The files of a transfer set, made shard by shard; one that was begun is gone on with."""

import gc
import itertools
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from accelerate.utils import gather_object

from potstill.inference.decoder import DecoderClassifier
from potstill.ops.threads import tokenizers_in_parallel
from potstill.recipes.console import progress_bar
from potstill.training.distributed import process
from potstill.transfer.duplicates import SeenSentences, normal_hashes
from potstill.transfer.labelled import LabelledSoFar
from potstill.transfer.sentences import Candidate, LabelledSentence, normal
from potstill.transfer.shards import Shard, read_shard, write_shard
from potstill.transfer.sources import Source

LABELLED_AT_ONCE = 512  # sentences
LABELLED_AT_ONCE_BY_GPU = 16_384  # as many of each length as its launches are worth
DRY = 1000  # candidates in a row that are not new, after which a source counts as dry
MAX_TRIES = 50  # candidates per sentence that is still to be found, before a source counts as dry

logger = logging.getLogger(__name__)


def make_shards(
    source: Source,
    shards: list[Shard],
    teacher: DecoderClassifier,
    seen: SeenSentences,
    *,
    minutes: float = 5.0,
    deadline: float = math.inf,
) -> None:
    """Make the files that are missing of a source's `shards`; each process makes some of them.

    Args:
        source: Has the sentences.
        shards: All of its kind, there or not.
        teacher: Labels them.
        seen: The sentences that are to be in none of the shards; new ones are added.
        minutes: Between two savings of what a shard has already.
        deadline: On `time.monotonic`; what is not labelled then is left out, but for a first part.
    """
    incomplete = [shard for shard in shards if source.is_incomplete(shard)]
    missing = [shard for shard in incomplete if not shard.path.is_file()]
    process().wait_for_everyone()  # all have looked before any writes
    if not incomplete:
        return
    source.prepare(incomplete, missing)
    share = incomplete[process().process_index :: process().num_processes]
    started, done = time.perf_counter(), 0
    total = sum(shard.size for shard in share)
    with progress_bar(total) as show, tokenizers_in_parallel(), _without_garbage_collection():
        for shard in share:
            rows: list[LabelledSentence] = []
            labelled = LabelledSoFar(shard.path, minutes)
            if shard in missing and (shard is share[0] or time.monotonic() <= deadline):
                with labelled:
                    for part in label_new(source, shard, teacher, seen, labelled):
                        rows += part
                        show(done + len(rows), source.kind)
                        if time.monotonic() > deadline:
                            break
            elif shard not in missing:
                rows = read_shard(shard.path, len(teacher.classes_))
            targets = source.top_k_targets([row.sentence for row in rows])
            write_shard(shard.path, rows, len(teacher.classes_), targets)
            labelled.remove()
            done += len(rows)
            show(done, source.kind)
    done = sum(gather_object([done]))  # waits for everyone
    seconds = time.perf_counter() - started
    logger.info(
        "%s: %d sentences, %.0f s, %.0f sentences/s", source.kind, done, seconds, done / seconds
    )
    asked = sum(shard.size for shard in incomplete)
    if done < asked:
        reason = "could be found" if time.monotonic() <= deadline else "were made in the time"
        logger.info("%s: no more than these %d of %d %s", source.kind, done, asked, reason)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for unreachable objects: a shard is a million small lists, none of
    them in a cycle, and looking through them took half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def label_new(
    source: Source,
    shard: Shard,
    teacher: DecoderClassifier,
    seen: SeenSentences,
    labelled: LabelledSoFar,
) -> Iterator[list[LabelledSentence]]:
    """Yield a shard's sentences with the teacher's logits, some at a time.

    The source hears how some were labelled before it is asked for more. A shard gets fewer
    sentences than its size if the source runs dry.
    """
    candidates = source.candidates(shard)
    on_gpu = process().device.type == "cuda"
    at_once = LABELLED_AT_ONCE_BY_GPU if on_gpu else LABELLED_AT_ONCE
    left = shard.size
    while left:
        part = take_new(candidates, min(left, at_once), MAX_TRIES * left, seen)
        if not part:
            return
        rows = []
        sentences = [candidate.sentence for candidate in part]
        every = labelled.label(sentences, partial(teacher.word_logits, together=False))
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
