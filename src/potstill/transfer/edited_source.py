"""Edits as a source of a transfer set: sentences one or two steps from others of the set."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from potstill.transfer.dataset import Selection
from potstill.transfer.edits import EditStats, edit_sentence
from potstill.transfer.lexicon import Lexicon, read_lexicon
from potstill.transfer.sentences import Candidate, LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import Shard, read_table
from potstill.transfer.sources import EarlierSentences

MAX_FAILURES = 1000  # edits in a row that change nothing, after which there are no others
TWO_EDITS = 0.3  # fraction of the edited sentences that are edited twice
LEXICON_SENTENCES = 300_000  # of the set's others, at most: a lexicon is large


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
        earlier: Selection | None = None,
    ):
        self.seed, self.text = seed, text
        self.classes, self.other_shards = classes, other_shards
        self.earlier = EarlierSentences(earlier, self.kind)
        self.stats = EditStats.zero(classes)
        self.others: pa.Array = pa.array([], pa.large_string())  # 40 bytes each, not 100
        self.lexicon: Lexicon | None = None

    def is_incomplete(self, shard: Shard) -> bool:
        return not shard.path.is_file()

    def prepare(self, incomplete: list[Shard], missing: list[Shard]) -> None:
        """Read the parents and the words that edits put in, unless the earlier set is enough."""
        if not self.earlier.suffice(missing):
            shards = (read_table(shard.path, ["sentence"]) for shard in self.other_shards)
            columns = [table["sentence"].cast(pa.large_string()) for table in shards]
            if columns:
                self.others = pa.concat_arrays([c for column in columns for c in column.chunks])
            step = 1 + len(self.others) // LEXICON_SENTENCES
            self.lexicon = read_lexicon([*self.text, *self.others[::step].to_pylist()])

    def candidates(self, shard: Shard) -> Iterator[Candidate]:
        yield from self.earlier.candidates(shard)
        if self.lexicon is None:
            return
        rng = np.random.default_rng([self.seed, shard.number, 1])
        self.stats = EditStats.zero(self.classes)
        failures = 0
        while failures < MAX_FAILURES:
            if len(self.others) and rng.random() < 0.5:
                parent = self.others[int(rng.integers(len(self.others)))].as_py()
            else:
                parent = self.text[int(rng.integers(len(self.text)))]
            edits = self.stats.draw(1 + (rng.random() < TWO_EDITS), rng)
            sentence: str | None = parent
            for name in edits:
                sentence = sentence and edit_sentence(sentence, name, self.lexicon, rng)
            failures = 0 if sentence else failures + 1
            if sentence:
                yield Candidate(sentence, Origin(self.kind, tuple(edits)), parent)

    def observe(self, rows: list[LabelledSentence]) -> None:
        self.stats = self.stats.add(rows)

    def top_k_targets(self, sentences: list[str]) -> None:
        return None
