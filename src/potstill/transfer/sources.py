"""Where the sentences of a transfer set come from: a user's file, the base decoder, edits.

The recipe asks each source in turn for candidates, shard by shard, has the teacher label them, and
tells the source what came of it. Sentences of an earlier set that is labelled again come first.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from potstill.data.readers import read_lines
from potstill.decoder.hub import find_base_model
from potstill.errors import UserError
from potstill.progress import Progress, no_progress
from potstill.settings import TransferSettings
from potstill.transfer.dataset import TransferSet
from potstill.transfer.edits import EDITS, EditStats, edit_sentence
from potstill.transfer.lexicon import Lexicon, read_lexicon
from potstill.transfer.sampler import Sampler, load_sampler
from potstill.transfer.sentences import Candidate, LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import Shard, read_shard
from potstill.transfer.top_k import TopKTargets

MAX_CHARACTERS = 1000  # of a user's sentence
TWO_EDITS = 0.3  # fraction of the edited sentences that are edited twice
SAMPLED_AGAIN = 512  # sentences of each further round of sampling


class Source(Protocol):
    """A source of candidates of one kind."""

    kind: SourceKind

    def is_incomplete(self, shard: Shard) -> bool:
        """Return whether a file of the shard is missing."""

    def prepare(self, incomplete: list[Shard], missing: list[Shard]) -> None:
        """Get ready to make shards; every process calls this, with the same arguments.

        Args:
            incomplete: The shards that `is_incomplete` is true of.
            missing: Those among them whose sentences are missing.
        """

    def candidates(self, shard: Shard) -> Iterator[Candidate]:
        """Yield sentences for a missing shard, more than it takes if there are more."""

    def observe(self, rows: list[LabelledSentence]) -> None:
        """Take note of how the teacher labelled the latest candidates."""

    def top_k_targets(self, sentences: list[str]) -> list[TopKTargets] | None:
        """Return the targets of a whole shard; None if the source has none.

        Called once for each shard, after its candidates.
        """


def read_unlabelled(file: Path) -> list[str]:
    """Return the lines of a text file, each of which is a sentence.

    Raises:
        UserError: It can't be read, has none, or has an empty or an over-long line.
    """
    sentences = []
    for number, line in read_lines(file):
        if not line.strip():
            raise UserError(f"{file}:{number}: the line is empty; write one sentence per line.")
        if len(line) > MAX_CHARACTERS:
            raise UserError(
                f"{file}:{number}: {len(line)} characters are no sentence (at most "
                f"{MAX_CHARACTERS}); write one sentence per line."
            )
        sentences.append(line.strip())
    return sentences


class EarlierSentences:
    """The sentences of one kind that an earlier set has, to be labelled again."""

    def __init__(self, earlier: TransferSet | None, kind: SourceKind):
        self.rows = earlier.candidates(kind) if earlier else []

    def candidates(self, shard: Shard) -> list[Candidate]:
        """Return a full shard of them; fewer, or none, at their end."""
        return self.rows[shard.span]

    def suffice(self, shards: list[Shard]) -> bool:
        """Return whether they are enough for all of `shards`."""
        return all(len(self.candidates(shard)) >= shard.size for shard in shards)


class UserSource:
    """A user's own sentences."""

    kind = SourceKind.USER

    def __init__(self, sentences: list[str], *, earlier: TransferSet | None = None):
        self.sentences = sentences
        self.earlier = EarlierSentences(earlier, self.kind)

    def is_incomplete(self, shard: Shard) -> bool:
        return not shard.path.is_file()

    def prepare(self, incomplete: list[Shard], missing: list[Shard]) -> None:
        self.needs_new = not self.earlier.suffice(missing)

    def candidates(self, shard: Shard) -> Iterator[Candidate]:
        yield from self.earlier.candidates(shard)
        if self.needs_new:
            for sentence in self.sentences[shard.span]:
                yield Candidate(sentence, Origin(self.kind))

    def observe(self, rows: list[LabelledSentence]) -> None:
        pass

    def top_k_targets(self, sentences: list[str]) -> None:
        return None


class SampledSource:
    """Sentences sampled from the base decoder, which is first tuned to the task's text.

    Args:
        seed: Determines the sentences.
        settings: The temperature of sampling and the epochs of tuning.
        text: The task's training sentences.
        folder: The set's folder.
        base_model: Name of the decoder.
        precision: "auto", "bf16" or "fp32".
        earlier: A set whose sampled sentences come first, with the targets that they have.
        earlier_folder: Its folder.
        end_token: The token that ends a sentence. Default: the tokenizer's end of text.
        progress: Shows the tuning.
    """

    kind = SourceKind.SAMPLED

    def __init__(
        self,
        seed: int,
        settings: TransferSettings,
        text: list[str],
        folder: Path,
        *,
        base_model: str,
        precision: str = "auto",
        earlier: TransferSet | None = None,
        earlier_folder: Path | None = None,
        end_token: int | None = None,
        progress: Progress = no_progress,
    ):
        self.seed, self.settings, self.text, self.folder = seed, settings, text, folder
        self.base_model, self.precision, self.end_token = base_model, precision, end_token
        self.earlier = EarlierSentences(earlier, self.kind)
        self.earlier_folder, self.progress = earlier_folder, progress
        pairs = zip(earlier.sentences, earlier.top_k, strict=True) if earlier else ()
        self.earlier_targets = {text: targets for text, targets in pairs if targets is not None}
        self.drawn_targets: dict[str, TopKTargets] = {}  # of the shard that is being made
        self.sampler: Sampler | None = None

    def is_incomplete(self, shard: Shard) -> bool:
        # Sets of an earlier version have no targets.
        return not (shard.path.is_file() and shard.top_k_path.is_file())

    def prepare(self, incomplete: list[Shard], missing: list[Shard]) -> None:
        """Load the sampler, or tune one, unless the earlier set has all that it would make."""
        self.needs_new = not self.earlier.suffice(missing)
        relabelled = itertools.chain.from_iterable(map(self.earlier.candidates, missing))
        if (
            self.needs_new
            or incomplete != missing
            or any(c.sentence not in self.earlier_targets for c in relabelled)
        ):
            self.sampler = load_sampler(
                self.folder,
                find_base_model(self.base_model),
                self.text,
                epochs=self.settings.sampler_epochs,
                seed=self.seed,
                precision=self.precision,
                earlier=self.earlier_folder,
                end_token=self.end_token,
                progress=self.progress,
            )

    def candidates(self, shard: Shard) -> Iterator[Candidate]:
        yield from self.earlier.candidates(shard)
        if not (self.needs_new and self.sampler):
            return
        # The first round is about enough; the others make up for duplicates.
        rounds = itertools.chain([shard.capacity], itertools.repeat(SAMPLED_AGAIN))
        for attempt, sentences in enumerate(rounds):
            seed = int(np.random.default_rng([self.seed, shard.number, attempt]).integers(2**62))
            for text, targets in self.sampler.sample(sentences, seed, self.settings.temperature):
                if targets:
                    self.drawn_targets[text] = targets
                yield Candidate(text, Origin(self.kind))

    def observe(self, rows: list[LabelledSentence]) -> None:
        pass

    def top_k_targets(self, sentences: list[str]) -> list[TopKTargets]:
        """Return the targets that sampling or the earlier set gives, else those of another pass."""
        drawn, self.drawn_targets = self.drawn_targets, {}
        known = {s: t for s in sentences if (t := drawn.get(s) or self.earlier_targets.get(s))}
        unknown = [sentence for sentence in sentences if sentence not in known]
        if unknown and self.sampler:
            known |= zip(unknown, self.sampler.top_k_targets(unknown), strict=True)
        return [known[sentence] for sentence in sentences]


class EditedSource:
    """Sentences one or two edits away from training sentences and from the set's others.

    Half of the parents are of either, where there are others. Which edits are drawn depends on how
    the teacher labelled the earlier sentences of the shard, so that the rare label becomes more
    frequent.

    Args:
        seed: Determines the sentences.
        text: The task's training sentences.
        classes: How many labels the teacher knows.
        other_shards: The set's shards of other kinds, which are there by the time of `prepare`.
        earlier: A set whose edited sentences come first.
    """

    kind = SourceKind.EDITED

    def __init__(
        self,
        seed: int,
        text: list[str],
        classes: int,
        other_shards: list[Shard],
        *,
        earlier: TransferSet | None = None,
    ):
        self.seed, self.text = seed, text
        self.classes, self.other_shards = classes, other_shards
        self.earlier = EarlierSentences(earlier, self.kind)
        self.stats = EditStats.zero(classes)
        self.others: list[str] = []
        self.lexicon: Lexicon | None = None

    def is_incomplete(self, shard: Shard) -> bool:
        return not shard.path.is_file()

    def prepare(self, incomplete: list[Shard], missing: list[Shard]) -> None:
        """Read the parents and the words that edits put in, unless the earlier set is enough."""
        if not self.earlier.suffice(missing):
            shards = (read_shard(shard.path, self.classes) for shard in self.other_shards)
            self.others = [row.sentence for rows in shards for row in rows]
            self.lexicon = read_lexicon([*self.text, *self.others])

    def candidates(self, shard: Shard) -> Iterator[Candidate]:
        yield from self.earlier.candidates(shard)
        if self.lexicon is None:
            return
        rng = np.random.default_rng([self.seed, shard.number, 1])
        names = list(EDITS)
        self.stats = EditStats.zero(self.classes)
        while True:
            pool = self.others if self.others and rng.random() < 0.5 else self.text
            parent = pool[int(rng.integers(len(pool)))]
            size = 1 + (rng.random() < TWO_EDITS)
            edits = rng.choice(names, size=size, p=self.stats.probs()).tolist()
            sentence: str | None = parent
            for name in edits:
                sentence = sentence and edit_sentence(sentence, name, self.lexicon, rng)
            if sentence:
                yield Candidate(sentence, Origin(self.kind, tuple(edits)), parent)

    def observe(self, rows: list[LabelledSentence]) -> None:
        self.stats = self.stats.add(rows)

    def top_k_targets(self, sentences: list[str]) -> None:
        return None
