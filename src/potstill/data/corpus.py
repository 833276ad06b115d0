"""Labelled sentences of a task: its classes, its splits, and the check that it is complete."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data import cola
from potstill.data.cola import COLA_FILES, COLA_LABELS, check_cola
from potstill.data.columns import Columns
from potstill.data.encoding import format_stem
from potstill.data.labels import canonical_labels, class_names
from potstill.data.readers import Table
from potstill.data.splits import Split, hold_out, read_split
from potstill.data.tables import MINICOLA, Tables, read_tables
from potstill.errors import UserError
from potstill.html import html_table

DEV_FRACTION = 0.1  # of the training sentences, where the data brings no dev


@dataclass(frozen=True, repr=False)
class Corpus:
    """Labelled sentences of a classification task, by split.

    Args:
        name: Name for tables and titles.
        labels: Names of the classes.
        splits: "train" and "dev", and "ood" (out of domain) and "test" if there are any.
        path: The file or folder that it was read from.
        sha256: Hash over the files in the order of the splits.
        reason: Why `auto` chose it; else empty.
        notes: What is worth saying about how it was read.
    """

    name: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    path: str
    sha256: str
    reason: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(split)}" for name, split in self.splits.items())
        return f"Corpus({self.name!r}, labels={self.labels}, {sizes}, path={self.path!r})"

    def _repr_html_(self) -> str:
        """Return a table of the sentences of each class, by split, as notebooks show it."""
        rows = []
        for name, split in self.splits.items():
            counts = Counter(split.labels)
            numbers = [f"{counts[i]:,}" for i in range(len(self.labels))]
            rows.append((name, f"{len(split):,}", *numbers))
        return html_table(("", "sentences", *self.labels), rows, caption=self.name)

    def describe(self) -> dict[str, object]:
        """Return what a run records of its data."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        return {
            "name": self.name,
            "path": self.path,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "sentences": sizes,
        }


def load_corpus(
    data: Any = "auto",
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> Corpus:
    """Read a corpus to train on; without dev sentences a tenth of train becomes dev.

    >>> corpus = load_corpus("minicola")
    >>> corpus
    Corpus('MiniCoLA', labels=('unacceptable', 'acceptable'), train=3000, dev=500, ood=500, ...)
    >>> corpus.splits["train"]  # has .sentences, .labels and .sources
    Split(3000 sentences, labels {0: 903, 1: 2097})

    Args:
        data: A file, a folder, "minicola", "cola" (in data/, else downloaded), or "auto": CoLA if
            it is there or can be downloaded, else MiniCoLA. A folder saved by `datasets`, or the
            name of a data set of the Hugging Face Hub. Or data in memory: a DataFrame, a
            `datasets.Dataset`, a pair (texts, labels), or a dict of these by split.
        text_column: Column of a table, or key of JSON; several are joined with " ||| ". Default:
            "sentence" or "text".
        label_column: Column of the label. Default: "label" or "labels".
        group_column: Column of what rows that belong together have in common: they are never on
            both sides of a split.

    Raises:
        UserError: There is no such data, or a line does not fit; it is named as file:line.
    """
    columns = Columns.of(text_column, label_column, group_column)
    return corpus_of(read_tables(data, columns), data)


def corpus_of(read: Tables, data: Any) -> Corpus:
    """Return the corpus that the tables of `data` make.

    Raises:
        UserError: They make none, or a row can't be used; it is named as file:line.
    """
    if "train" not in read.tables:
        raise UserError(
            f"{read.path} has no {COLA_FILES['train']} and no train.tsv, train.csv or train.jsonl; "
            "name a file or another folder with `data`."
        )
    tables = {name: table.check() for name, table in read.tables.items()}
    spelling = canonical_labels(row.label for table in tables.values() for row in table.rows)
    train = tables["train"]
    labels = class_names(train.name, (spelling[row.label] for row in train.rows))
    _refuse_combined(train, labels)
    splits = {name: read_split(table, labels, spelling) for name, table in tables.items()}
    if "dev" not in splits:
        # The same for every seed, so that runs can be compared and no teacher was trained on it.
        rest, dev = hold_out(splits["train"], DEV_FRACTION, seed=0)
        splits = {"train": rest, "dev": dev} | {k: v for k, v in splits.items() if k != "train"}
    if labels == ("0", "1") and train.cola:
        labels = COLA_LABELS
    if read.is_cola(data):
        check_cola(splits, read.path)
    name = read.name or _corpus_name(Path(read.path), splits)
    return Corpus(name, labels, splits, read.path, read.sha256, read.reason, read.notes())


def load_evaluation(
    data: Any,
    labels: tuple[str, ...],
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
) -> Corpus:
    """Read what a model is to be scored on: all of a file, or the splits of a folder but train.

    Args:
        data: Like that of `load_corpus`.
        labels: The model's classes. CoLA's 0 and 1 are the classes called so, or else
            "unacceptable" and "acceptable".
        text_column: Like that of `load_corpus`.
        label_column: Like that of `load_corpus`.

    Raises:
        UserError: There is no such data, or a line does not fit or has another label.
    """
    read = read_tables(data, Columns.of(text_column, label_column))
    tables = read.tables
    if len(tables) == 1 and "train" in tables and not Path(read.path).is_dir():
        name = format_stem(Path(read.path)) if Path(read.path).is_file() else "data"
        tables = {name: tables["train"]}
    elif not (tables := {name: table for name, table in tables.items() if name != "train"}):
        raise UserError(f"{read.path} has no dev file to score on; name a file with `data`.")
    splits, notes = {}, read.notes()
    for name, table in tables.items():
        table.check()
        spelling = _spelling_of(table, labels)
        if table.cola and labels == COLA_LABELS[::-1]:
            notes += (f"0 in {table.name} is {spelling['0']}, 1 is {spelling['1']}",)
        splits[name] = read_split(table, labels, spelling)
    if read.is_cola(data):
        check_cola(
            {k: Split(s.sentences, _cola_numbers(s, labels)) for k, s in splits.items()},
            read.path,
            ("dev", "ood"),
        )
    name = read.name or _corpus_name(Path(read.path), splits)
    return Corpus(name, labels, splits, read.path, read.sha256, read.reason, notes)


def _refuse_combined(table: Table, labels: tuple[str, ...]) -> None:
    """Raise UserError if a label, such as "a|b", names several that stand alone elsewhere."""
    for row in table.rows:
        for separator in "|;,":
            parts = [part.strip() for part in row.label.split(separator)]
            if len(parts) > 1 and set(parts) <= set(labels):
                raise UserError(
                    f"{table.name}:{row.line}: label {row.label!r} is {len(parts)} labels, but a "
                    "row has one; with several, train one classifier for each, with a column of "
                    "yes and no."
                )


def _spelling_of(table: Table, labels: tuple[str, ...]) -> dict[str, str]:
    """Return which of a model's classes each label of a table means.

    Raises:
        UserError: The table is in CoLA's format, and no class is called like its labels.
    """
    canonical = canonical_labels([*labels, *(row.label for row in table.rows)])
    by_canonical = {canonical[label]: label for label in labels}
    spelling = {label: by_canonical.get(form, label) for label, form in canonical.items()}
    if table.cola and not {"0", "1"} <= set(labels):
        if set(labels) != set(COLA_LABELS):
            raise UserError(
                f"{table.name} is in CoLA's format, where 0 is unacceptable and 1 acceptable, but "
                f"the model's classes are {', '.join(labels)}; score it on a file with their names."
            )
        spelling |= dict(zip(("0", "1"), COLA_LABELS, strict=True))
    return spelling | {label: label for label in labels}


def _cola_numbers(split: Split, labels: tuple[str, ...]) -> list[int]:
    """Return the labels of a split as CoLA's numbers, whatever the order of the classes."""
    return [int(labels[label] in ("1", COLA_LABELS[1])) for label in split.labels]


def _corpus_name(path: Path, splits: dict[str, Split]) -> str:
    if path == MINICOLA:
        return "MiniCoLA"
    counts = {name: (len(split), sum(split.labels)) for name, split in splits.items()}
    if "dev" in counts and all(counts[name] == cola.COLA_COUNTS.get(name) for name in counts):
        return "CoLA"
    name = path.resolve().name if path.is_dir() else path.stem
    # These two names are reserved for the corpora themselves.
    return f"{path.resolve().parent.name}/{name}" if name.lower() in ("cola", "minicola") else name
