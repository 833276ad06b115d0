"""What is wrong with labelled data, or may be: findings, each with lines to look at."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from potstill.data.columns import Columns
from potstill.data.corpus import Corpus, corpus_of
from potstill.data.splits import Split
from potstill.data.tables import read_tables
from potstill.errors import UserError

FEW = 10  # training sentences of a class, below which it is called rare
MAX_LINES = 20  # of a finding
# Labels that may be those of rows without one; "nan" and the like are refused.
DOUBTFUL_LABELS = {"none", "na", "n/a", "null", "nil", "-", "?", "unlabelled", "unlabeled"}
NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Args:
        kind: What it is, in one or two words, such as "contradictions".
        severity: "refuse": no model is trained on such data; "warn": the rest.
        message: One sentence.
        lines: Where, as file:line, the first 20.
    """

    kind: str
    severity: Literal["refuse", "warn"]
    message: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = [line.rpartition("/")[2] for line in self.lines[:3]]
        where = f" ({', '.join(names)}{', …' * (len(self.lines) > 3)})"
        return self.message + where * bool(self.lines)


@dataclass(frozen=True)
class DataReport:
    """What `check` finds out about data.

    Args:
        name: The corpus's name.
        sentences: The number of sentences of each split.
        classes: For each class its number of sentences in each split.
        examples: A training sentence of each class.
        characters: Median, 95th percentile and maximum of the length of training sentences.
        truncated: Sentences of each split that a student of `max_length` does not read to the end.
        max_length: That number of tokens.
        findings: What is wrong, or may be; the worst first.
        notes: How it was read.
    """

    name: str
    sentences: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    characters: dict[str, int] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    max_length: int = 0
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the data can't be trained on as it is."""
        return any(finding.severity == "refuse" for finding in self.findings)


def check_data(data: Any, columns: Columns) -> tuple[DataReport, Corpus | None]:
    """Look at all of `data`, which `load_corpus` would give up at the first error.

    Returns:
        The report, and the corpus of the rows that are not refused, if they make one.
    """
    refused: list[Finding] = []
    try:
        read = read_tables(data, columns)
        tables = {}
        for name, table in read.tables.items():
            good = []
            faults: dict[str, list[str]] = {}
            for row in table.rows:
                if row.fault:
                    faults.setdefault(row.fault, []).append(f"{table.name}:{row.line}")
                else:
                    good.append(row)
            refused += [_finding("unusable rows", "refuse", f, at) for f, at in faults.items()]
            tables[name] = replace(table, rows=good)
        corpus = corpus_of(replace(read, tables=tables), data)
    except UserError as error:
        refused.append(Finding("unreadable", "refuse", str(error).rstrip(".")))
        return DataReport(str(data)[:80], findings=tuple(refused)), None
    report = check_corpus(corpus)
    return replace(report, findings=(*refused, *report.findings)), corpus


def check_corpus(corpus: Corpus) -> DataReport:
    """Return counts, lengths and findings of a corpus that could be read."""
    counts = {name: Counter(split.labels) for name, split in corpus.splits.items()}
    train = corpus.splits["train"]
    classes = {
        label: {name: counts[name][i] for name in counts} for i, label in enumerate(corpus.labels)
    }
    examples: dict[str, str] = {}
    for sentence, i in zip(train.sentences, train.labels, strict=True):
        examples.setdefault(corpus.labels[i], sentence)
    lengths = np.array([len(sentence) for sentence in train.sentences])
    characters = {"median": np.median(lengths), "95 %": np.percentile(lengths, 95)}
    characters |= {"maximum": lengths.max()}
    checks = (_label_names, _in_train, _contradictions, _rare_classes, _damaged_text, _copies)
    return DataReport(
        corpus.name,
        {name: len(split) for name, split in corpus.splits.items()},
        classes,
        {label: examples[label] for label in corpus.labels if label in examples},
        {name: int(value) for name, value in characters.items()},
        findings=tuple(finding for find in checks for finding in find(corpus)),
        notes=corpus.notes,
    )


def _contradictions(corpus: Corpus) -> Iterator[Finding]:
    """The same text with two labels, in whichever splits."""
    labels: dict[str, set[int]] = {}
    for split in corpus.splits.values():
        for sentence, label in zip(split.sentences, split.labels, strict=True):
            labels.setdefault(sentence, set()).add(label)
    several = {sentence for sentence, own in labels.items() if len(own) > 1}
    if several:
        at = [
            _at(split, i)
            for split in corpus.splits.values()
            for i, sentence in enumerate(split.sentences)
            if sentence in several
        ]
        message = f"{_count(several, 'text')} with two labels or more"
        yield _finding("contradictions", "warn", message, at)


def _in_train(corpus: Corpus) -> Iterator[Finding]:
    """Sentences that are scored, but could be learnt by heart."""
    train = {normal_form(sentence) for sentence in corpus.splits["train"].sentences}
    for name, split in corpus.splits.items():
        if name != "train":
            at = [
                _at(split, i)
                for i, sentence in enumerate(split.sentences)
                if normal_form(sentence) in train
            ]
            message = f"{len(at)} of {name}'s {len(split)} sentences are in train, too, "
            if at:
                yield _finding("leaks", "warn", message + "but for case or punctuation", at)


def _copies(corpus: Corpus) -> Iterator[Finding]:
    for name, split in corpus.splits.items():
        seen: set[str] = set()
        forms: set[str] = set()
        exact, near = [], []
        for i, sentence in enumerate(split.sentences):
            form = normal_form(sentence)
            if sentence in seen:
                exact.append(_at(split, i))
            elif form in forms:
                near.append(_at(split, i))
            seen.add(sentence)
            forms.add(form)
        if exact:
            message = f"{_count(exact, 'sentence')} of {name} that stood there before"
            yield _finding("copies", "warn", message, exact)
        if near:
            message = f"{_count(near, 'sentence')} of {name} that stood there before but for case, "
            yield _finding("near copies", "warn", message + "blanks or punctuation", near)


def _label_names(corpus: Corpus) -> Iterator[Finding]:
    """Names of classes that may be mistakes."""
    train = corpus.splits["train"]
    alike: dict[str, list[str]] = {}
    for label in corpus.labels:
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            names = " and ".join(map(repr, labels))
            at = _lines_of(train, [corpus.labels.index(label) for label in labels[:-1]])
            message = f"the labels {names} differ only in case or blanks, and are different classes"
            yield _finding("labels alike", "warn", message, at)
    for label in corpus.labels:
        if label.lower() in DOUBTFUL_LABELS:
            at = _lines_of(train, [corpus.labels.index(label)])
            message = f"the label {label!r} is a class; if it means no label, remove its rows"
            yield _finding("doubtful labels", "warn", message, at)
    if len(corpus.labels) > max(20, len(train) / 2):
        message = f"{len(corpus.labels)} classes for {len(train)} training sentences: is "
        yield Finding("many classes", "warn", message + "that the column of the label?")


def _rare_classes(corpus: Corpus) -> Iterator[Finding]:
    train = corpus.splits["train"]
    counts = Counter(train.labels)
    rare = sorted((counts[i], i) for i in range(len(corpus.labels)) if counts[i] < FEW)
    if rare:
        names = [f"{corpus.labels[i]} {n}" for n, i in rare]
        message = f"{_count(rare, 'class')} with fewer than {FEW} training sentences: "
        at = _lines_of(train, [i for _, i in rare])
        yield _finding("rare classes", "warn", message + _some(names), at)
    for name, split in corpus.splits.items():
        if absent := set(range(len(corpus.labels))) - set(split.labels):
            names = [corpus.labels[i] for i in sorted(absent)]
            message = f"{name} has no sentence of {_some(names)}"
            yield Finding("absent classes", "warn", message)


def _damaged_text(corpus: Corpus) -> Iterator[Finding]:
    garbled, replaced = [], []
    for split in corpus.splits.values():
        for i, sentence in enumerate(split.sentences):
            if sentence.isascii():
                continue
            if "\ufffd" in sentence:
                replaced.append(_at(split, i))
            elif any(is_mojibake(run) for run in NOT_ASCII.findall(sentence)):
                garbled.append(_at(split, i))
    if garbled:
        message = f"{_count(garbled, 'sentence')} of UTF-8 that was read as another encoding, such "
        yield _finding("mojibake", "warn", message + "as Ã© for é", garbled)
    if replaced:
        message = f"{_count(replaced, 'sentence')} with U+FFFD, a character that got lost"
        yield _finding("lost characters", "warn", message, replaced)


def is_mojibake(text: str) -> bool:
    """Return whether characters beyond ASCII are UTF-8 that was decoded as cp1252."""
    try:
        decoded = text.encode("cp1252").decode()
    except UnicodeError:
        return False
    return len(decoded) < len(text)


def normal_form(sentence: str) -> str:
    """Return a sentence's letters and digits without regard to case; near copies have the same."""
    return re.sub(r"[\W_]+", "", sentence.casefold()) or sentence


def _lines_of(split: Split, labels: Sequence[int]) -> list[str]:
    wanted = set(labels)
    return [_at(split, i) for i, label in enumerate(split.labels) if label in wanted]


def _at(split: Split, index: int) -> str:
    return f"{split.file}:{split.lines[index]}" if split.lines else f"sentence {index + 1}"


def _finding(kind: str, severity: Any, message: str, at: Iterable[str]) -> Finding:
    return Finding(kind, severity, message, tuple(at)[:MAX_LINES])


def _count(things: Sequence[Any] | set[Any], noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{len(things)} {noun}{plural * (len(things) != 1)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
