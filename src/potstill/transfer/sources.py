"""Where the sentences of a transfer set come from: a user's file, an earlier set, the base decoder
as a language model, edits."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.corpus import Corpus
from potstill.data.readers import read_lines
from potstill.decoder.language_model import LanguageModel
from potstill.errors import UserError
from potstill.transfer.dataset import SHARD, TransferSet, read_shard, shard_file, shards
from potstill.transfer.edits import EDITS, edit_sentence, read_lexicon
from potstill.transfer.sampling import room, sample
from potstill.transfer.teacher_lm import sampled_top_k
from potstill.transfer.top_k import TopKTargets

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


def sampled_candidates(
    model: LanguageModel,
    tokenizer: Any,
    SR: int,
    temperature: float,
    likely: dict[str, TopKTargets],
    number: int,
) -> Iterator[Candidate]:
    """Puts what the decoder held likely in a sentence into `likely`, where sampling tells it."""
    # The first round is about enough; the others make up for duplicates.
    for sentences, attempt in zip(
        itertools.chain([SHARD], itertools.repeat(512)), itertools.count()
    ):
        seed = int(np.random.default_rng([SR, number, attempt]).integers(2**62))
        for sampled in sample(model, sentences, seed, temperature, room(model)):
            text = " ".join(tokenizer.decode(sampled.tokens, skip_special_tokens=True).split())
            if found := sampled_top_k(tokenizer, text, sampled):
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
