"""The command check: labelled data in, what is wrong with it out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from potstill.data.check import DataReport, check_data
from potstill.data.columns import Columns
from potstill.data.corpus import Corpus
from potstill.recipes._language import base_tokenizer
from potstill.recipes.console import echo, to_json
from potstill.settings import DataSettings, StudentSettings
from potstill.student.tokenizer import train_tokenizer, truncated

TOKENIZER_SENTENCES = 50_000  # that the tokens are counted with
SHOWN_CLASSES = 6
LOGGED_FINDINGS = 3
EXAMPLE_CHARACTERS = 60

logger = logging.getLogger(__name__)


def check(
    data: Any,
    *,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    max_length: int = DataSettings.max_length,
) -> DataReport:
    """Look at labelled data before training: counts, lengths, and what is wrong with it.

    Args:
        data: What `load_corpus` takes.
        text_column: Like that of `load_corpus`.
        label_column: Like that of `load_corpus`.
        group_column: Like that of `load_corpus`.
        max_length: Maximum number of tokens of a sentence; how many have more is counted in the
            tokens of the student that `rnn` would train.

    Returns:
        A `DataReport`. Its `findings` are data too: nothing is raised for what is wrong.
    """
    report, corpus = check_data(data, Columns.of(text_column, label_column, group_column))
    if corpus is None:
        return report
    return replace(report, truncated=_cut(corpus, max_length), max_length=max_length)


def show(report: DataReport, as_json: bool) -> None:
    """Print a report."""
    if as_json:
        echo(to_json(asdict(report)))
        return
    for line in report_lines(report):
        echo(line)
    for finding in report.findings:
        severity = "refused" if finding.severity == "refuse" else "warning"
        logger.info("%s: %s", severity, finding)
    if not report.findings:
        echo("nothing to complain about")


def report_lines(report: DataReport) -> Iterator[str]:
    """Yield the lines about the data itself."""
    if not report.sentences:
        return
    sizes = ", ".join(f"{name} {n}" for name, n in report.sentences.items())
    yield f"data: {report.name}, sentences: {sizes}"
    yield from report.notes
    yield from class_lines(report)
    lengths = ", ".join(f"{name} {n}" for name, n in report.characters.items())
    yield f"characters of a training sentence: {lengths}"
    for name, cut in report.truncated.items():
        if cut:
            total, tokens = report.sentences[name], report.max_length
            yield f"{cut} of {name}'s {total} sentences are longer than {tokens} tokens, and cut"


def class_lines(report: DataReport) -> Iterator[str]:
    """Yield a line with count and example for each class, of many only for the most frequent."""
    train = {label: splits["train"] for label, splits in report.classes.items()}
    total = sum(train.values())
    shown = list(train)
    if len(shown) > SHOWN_CLASSES:
        shown = sorted(shown, key=lambda label: train[label], reverse=True)[: SHOWN_CLASSES - 1]
    width = min(30, max(map(len, shown)))
    for label in shown:
        example = " ".join(report.examples.get(label, "").split())
        if len(example) > EXAMPLE_CHARACTERS:
            example = example[: EXAMPLE_CHARACTERS - 1] + "…"
        name = label if len(label) <= width else label[: width - 1] + "…"
        share = 100 * train[label] / total
        yield f"  {name:<{width}}  {train[label]:>6}  {share:4.1f} %  {example}"
    if left := len(train) - len(shown):
        rarest = min(train, key=lambda label: train[label])
        yield f"  and {left} more classes, down to {train[rarest]} of {rarest}"


def log_report(report: DataReport) -> None:
    """Log at the start of a training run the classes and the warnings."""
    for line in (*report.notes, *class_lines(report)):
        logger.info("%s", line)
    for finding in report.findings[:LOGGED_FINDINGS]:
        logger.warning("warning: %s", finding)
    if (left := len(report.findings) - LOGGED_FINDINGS) > 0:
        logger.warning("and %d more; `potstill check` lists all", left)


def _cut(corpus: Corpus, max_length: int) -> dict[str, int]:
    sentences = corpus.splits["train"].sentences[:TOKENIZER_SENTENCES]
    tokenizer = base_tokenizer(sentences) or train_tokenizer(sentences, StudentSettings.vocab_size)
    return {
        name: sum(truncated(tokenizer, split.sentences, max_length))
        for name, split in corpus.splits.items()
    }
