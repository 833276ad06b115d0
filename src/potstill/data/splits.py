"""A split: labelled sentences, checked against the names of the classes."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from potstill.data.readers import Row
from potstill.errors import UserError

# What tables call a split.
SPLIT_TITLES = {"train": "train", "holdout": "held out", "dev": "dev", "ood": "out of domain"}


@dataclass(frozen=True, repr=False)
class Split:
    """Labelled sentences.

    Args:
        sentences: the N sentences.
        labels: the class of each, an index into the corpus's `labels`.
        sources: what CoLA calls the source of each: its publication, in MiniCoLA the phenomenon.
            Empty if the file names none.
    """

    sentences: list[str]
    labels: list[int]
    sources: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sentences)

    def __repr__(self) -> str:
        counts = ", ".join(f"{label}: {n}" for label, n in sorted(Counter(self.labels).items()))
        return f"Split({len(self)} sentences, labels {{{counts}}})"

    def take(self, indices: list[int]) -> "Split":
        """Return the sentences at `indices`, in that order."""
        return Split(
            [self.sentences[i] for i in indices],
            [self.labels[i] for i in indices],
            [self.sources[i] for i in indices] if self.sources else [],
        )


def read_split(file: Path, rows: list[Row], labels: tuple[str, ...]) -> Split:
    """Return the rows of a file as a split whose classes are named `labels`.

    Raises:
        UserError: a row has another label; it is named as file:line.
    """
    index = {name: i for i, name in enumerate(labels)}
    for row in rows:
        if row.label not in index:
            raise UserError(
                f"{file}:{row.line}: label {row.label!r} is none of {', '.join(labels)}."
            )
    sources = [row.source for row in rows]
    return Split(
        [row.text for row in rows],
        [index[row.label] for row in rows],
        sources if any(sources) else [],
    )
