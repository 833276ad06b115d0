"""A split: labelled sentences, checked against the names of the classes."""

from dataclasses import dataclass, field
from pathlib import Path

from potstill.data.readers import Row
from potstill.errors import UserError

# What tables call a split.
SPLIT_TITLES = {"train": "train", "holdout": "held out", "dev": "dev", "ood": "out of domain"}


@dataclass(frozen=True)
class Split:
    """Sentences, the class of each (an index into the corpus's labels) and what CoLA calls its
    source: the publication, or in MiniCoLA the phenomenon; empty where the file names none."""

    sentences: list[str]
    labels: list[int]
    sources: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sentences)

    def take(self, index: list[int]) -> "Split":
        """The sentences at `index`, in that order."""
        return Split(
            [self.sentences[i] for i in index],
            [self.labels[i] for i in index],
            [self.sources[i] for i in index] if self.sources else [],
        )


def read_split(file: Path, rows: list[Row], labels: tuple[str, ...]) -> Split:
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
