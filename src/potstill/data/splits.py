"""A split: labelled sentences, checked against the names of the classes, some held out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from potstill.data.readers import Table
from potstill.errors import UserError

# What tables call a split.
SPLIT_TITLES = {
    "train": "train",
    "holdout": "held out",
    "dev": "dev",
    "ood": "out of domain",
    "test": "test",
}
HOLDOUT_BLOCK = 10  # consecutive sentences of CoLA's format that are held out together


@dataclass(frozen=True, repr=False)
class Split:
    """Labelled sentences.

    Args:
        sentences: The N sentences.
        labels: The class of each, an index into the corpus's `labels`.
        sources: What CoLA calls the source of each: its publication, in MiniCoLA the phenomenon.
            Empty if the file names none.
        groups: What sentences that belong together have in common. Empty if no column says it.
        lines: The line of each in its file, or its row. Empty if it is from no file.
        file: What messages call the file.
    """

    sentences: list[str]
    labels: list[int]
    sources: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    file: str = ""

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
            [self.groups[i] for i in indices] if self.groups else [],
            [self.lines[i] for i in indices] if self.lines else [],
            self.file,
        )


def read_split(table: Table, labels: Sequence[str], spelling: dict[str, str]) -> Split:
    """Return the rows of a table as a split whose classes are named `labels`.

    Args:
        spelling: The class that each label in the table means.

    Raises:
        UserError: A row has another label; it is named as file:line.
    """
    index = {name: i for i, name in enumerate(labels)}
    for row in table.rows:
        if spelling.get(row.label, row.label) not in index:
            raise UserError(
                f"{table.name}:{row.line}: label {row.label!r} is none of {', '.join(labels)}."
            )
    sources = [row.source for row in table.rows]
    groups = [row.group for row in table.rows]
    return Split(
        [row.text for row in table.rows],
        [index[spelling.get(row.label, row.label)] for row in table.rows],
        sources if any(sources) else [],
        groups if any(groups) else [],
        [row.line for row in table.rows],
        table.name,
    )


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split off a random `fraction` of the sentences, at least one.

    Sentences of a group stay together, and so do copies of a text. Of every class about the same
    fraction is held out, and at least one sentence stays.

    In CoLA's format, blocks of consecutive sentences are held out together instead: there they are
    often variants of one sentence with different labels, and a held-out sentence whose variants are
    in train is not unseen.

    Returns:
        The remaining sentences, and the held-out ones.

    Raises:
        UserError: Nothing would remain, or none can be held out.
    """
    count = max(1, round(fraction * len(split)))
    if count >= len(split):
        raise UserError(
            f"{len(split)} training sentences are too few to hold out {count} of them; "
            "bring more, or lower `holdout`."
        )
    rng = np.random.default_rng([seed, 1])
    held: list[int] = []
    if split.sources and not split.groups:
        starts = rng.permutation(range(0, len(split), HOLDOUT_BLOCK)).tolist()
        order = [i for s in starts for i in range(s, min(s + HOLDOUT_BLOCK, len(split)))]
        held = order[:count]
    # Where sentences stand in the order of their classes, blocks would hold out whole classes.
    if not held or _lacks_a_class(split, held):
        held = _stratified(split, count, rng, split.groups or split.sentences)
    if not held and not split.groups:  # all are copies: a class has one text only
        held = _stratified(split, count, rng, range(len(split)))
    if not held:
        raise UserError(
            f"of {len(split)} training sentences none can be held out without leaving a class "
            "without any; bring more, or dev sentences of your own, or set `holdout` to 0."
        )
    chosen = set(held)
    return split.take([i for i in range(len(split)) if i not in chosen]), split.take(sorted(held))


def _lacks_a_class(split: Split, held: list[int]) -> bool:
    """Return whether a class has no sentence outside `held`, or none in it though it has many."""
    counts, taken = Counter(split.labels), Counter(split.labels[i] for i in held)
    expected = len(held) / len(split)
    return any(
        n == taken[label] or (not taken[label] and n * expected >= 5) for label, n in counts.items()
    )


def _stratified(
    split: Split, count: int, rng: np.random.Generator, groups: Sequence[Any]
) -> list[int]:
    """Return about `count` indices, the same fraction of every class as far as `groups` allow."""
    together: dict[Any, list[int]] = {}
    for i, group in enumerate(groups):
        together.setdefault(group, []).append(i)
    units = list(together.values())
    quota = _quotas(Counter(split.labels), count, rng)
    remaining = Counter(split.labels)
    held: list[int] = []
    for index in rng.permutation(len(units)):
        classes = Counter(split.labels[i] for i in units[index])
        if all(n <= quota[label] for label, n in classes.items()):
            held += units[index]
            quota.subtract(classes)
            remaining.subtract(classes)
    if held:
        return held
    # Every group is larger than its classes' quotas: the smallest that leaves some of each class.
    for unit in sorted(units, key=len):
        if all(n < remaining[label] for label, n in Counter(split.labels[i] for i in unit).items()):
            return unit
    return []


def _quotas(counts: Counter[int], count: int, rng: np.random.Generator) -> Counter[int]:
    """Return how many sentences of each class to hold out, `count` in all, by largest remainders;
    of each class at least one stays."""
    total = counts.total()
    shares = {label: n * count / total for label, n in counts.items()}
    quota = Counter({label: min(int(shares[label]), counts[label] - 1) for label in sorted(counts)})
    order = rng.permutation(sorted(counts)).tolist()
    order.sort(key=lambda label: shares[label] - quota[label], reverse=True)
    left = count - quota.total()
    for label in order:
        if left > 0 and quota[label] < counts[label] - 1:
            quota[label] += 1
            left -= 1
    return quota
