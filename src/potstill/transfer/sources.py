"""Where the sentences of a transfer set come from: a user's file, the base decoder, edits.

The recipe asks each source in turn for candidates, shard by shard, has the teacher label them, and
tells the source what came of it. Sentences of an earlier set that is labelled again come first."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from potstill.data.readers import read_lines
from potstill.decoder.hub import find_base_model
from potstill.errors import UserError
from potstill.progress import Progress, no_progress
from potstill.training.distributed import process
from potstill.transfer.dataset import Row, Selection
from potstill.transfer.sampler import Sampler, load_sampler
from potstill.transfer.sentences import Candidate, LabelledSentence, Origin, SourceKind
from potstill.transfer.settings import TransferSettings
from potstill.transfer.shards import Shard, read_metadata
from potstill.transfer.top_k import TopKTargets

MAX_CHARACTERS = 1000  # of a user's sentence
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

    def __init__(self, earlier: Selection | None, kind: SourceKind):
        self.earlier, self.kind = earlier, kind
        self.total = earlier.kinds().get(kind, 0) if earlier else 0

    def rows(self, shard: Shard) -> list[Row]:
        """Return a full shard of them with their targets; fewer, or none, at their end."""
        span = shard.span
        return self.earlier.part(self.kind, span.start, span.stop) if self.earlier else []

    def candidates(self, shard: Shard) -> list[Candidate]:
        """Return the sentences of `rows`."""
        return [Candidate(row.sentence, row.origin, row.parent) for row, _ in self.rows(shard)]

    def suffice(self, shards: list[Shard]) -> bool:
        """Return whether they are enough for all of `shards`."""
        return all(self.total >= shard.span.start + shard.size for shard in shards)

    def lack_top_k(self) -> bool:
        """Return whether any of them may have no top-k targets."""
        if not self.earlier:
            return False
        metadata = zip(
            self.earlier.transfer_set.shards, self.earlier.transfer_set.metadata, strict=True
        )
        return any(m.without_top_k != 0 for shard, m in metadata if shard.kind is self.kind)


class UserSource:
    """A user's own sentences."""

    kind = SourceKind.USER

    def __init__(self, sentences: list[str], *, earlier: Selection | None = None):
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
        earlier: Selection | None = None,
        earlier_folder: Path | None = None,
        end_token: int | None = None,
        progress: Progress = no_progress,
    ):
        self.seed, self.settings, self.text, self.folder = seed, settings, text, folder
        self.base_model, self.precision, self.end_token = base_model, precision, end_token
        self.earlier = EarlierSentences(earlier, self.kind)
        self.earlier_folder, self.progress = earlier_folder, progress
        self.known_targets: dict[str, TopKTargets] = {}  # of the shard that is being made
        self.sampler: Sampler | None = None

    def is_incomplete(self, shard: Shard) -> bool:
        # Sets of an earlier version have no targets.
        if not shard.path.is_file():
            return True
        return self.settings.soft_targets and read_metadata(shard.path).without_top_k != 0

    def prepare(self, incomplete: list[Shard], missing: list[Shard]) -> None:
        """Load the sampler, or tune one, unless the earlier set has all that it would make."""
        self.needs_new = not self.earlier.suffice(missing)
        lack_top_k = incomplete != missing or self.earlier.lack_top_k()
        if self.needs_new or (self.settings.soft_targets and lack_top_k):
            self.sampler = load_sampler(
                self.folder,
                find_base_model(self.base_model),
                self.text,
                epochs=self.settings.sampler_epochs,
                seed=self.seed,
                precision=self.precision,
                earlier=self.earlier_folder,
                end_token=self.end_token,
                save_minutes=self.settings.save_minutes,
                progress=self.progress,
            )

    def candidates(self, shard: Shard) -> Iterator[Candidate]:
        for row, targets in self.earlier.rows(shard):
            if targets is not None:
                self.known_targets[row.sentence] = targets
            yield Candidate(row.sentence, row.origin, row.parent)
        if not (self.needs_new and self.sampler):
            return
        # The first round is about enough; the others make up for duplicates. For a few sentences a
        # GPU takes hardly less time.
        more = shard.capacity // 8 if process().device.type == "cuda" else 0
        rounds = itertools.chain(
            [shard.capacity + more], itertools.repeat(max(more, SAMPLED_AGAIN))
        )
        for attempt, sentences in enumerate(rounds):
            seed = int(np.random.default_rng([self.seed, shard.number, attempt]).integers(2**62))
            for text, targets in self.sampler.sample(
                sentences,
                seed,
                self.settings.temperature,
                soft_targets=self.settings.soft_targets,
            ):
                if targets:
                    self.known_targets[text] = targets
                yield Candidate(text, Origin(self.kind))

    def observe(self, rows: list[LabelledSentence]) -> None:
        pass

    def top_k_targets(self, sentences: list[str]) -> list[TopKTargets] | None:
        """Return the targets that sampling or the earlier set gives, else those of another pass."""
        if not self.settings.soft_targets:
            self.known_targets = {}
            return None
        known, self.known_targets = self.known_targets, {}
        unknown = [sentence for sentence in sentences if sentence not in known]
        if unknown and self.sampler:
            known |= zip(unknown, self.sampler.top_k_targets(unknown), strict=True)
        return [known[sentence] for sentence in sentences]
