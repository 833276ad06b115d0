"""The answers of predict, and what writes them: lines of text, TSV, JSON lines, CSV, Parquet."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from potstill.data.stream import KINDS, Chunk, Source
from potstill.errors import UsageError, UserError, missing_extra
from potstill.files import atomic_file
from potstill.inference.explain import Explanation, by_label, explanation_json
from potstill.recipes.console import Shown, console, to_json
from potstill.recipes.explanation import explanation_text

ANSWER_COLUMNS = ("prediction", "probability")
DIGITS = 4
SEPARATORS = str.maketrans("\t\r\n", "   ")


@dataclass(frozen=True)
class Answer:
    """What a model says of a text; of a blank one nothing.

    Args:
        label: The class, or "unsure".
        probability: The probability of the class.
        probabilities: (classes,) those of all.
        cut: True if the text has more tokens than the model reads.
        explanation: Why, if that was asked for.
    """

    label: str | None = None
    probability: float | None = None
    probabilities: list[float] = field(default_factory=list)
    cut: bool = False
    explanation: Explanation | None = None

    def columns(self) -> dict[str, Any]:
        """Return what is added to the row of a table."""
        probability = None if self.probability is None else round(self.probability, DIGITS)
        return dict(zip(ANSWER_COLUMNS, (self.label, probability), strict=True))


Write = Callable[[Chunk, list[Answer]], None]


def answer_format(source: Source, output: Path | None, *, as_json: bool, as_tsv: bool) -> str:
    """Return the format of the answers: what was asked for, that of the suffix of `output`, else
    text for lines and the source's own for a table.

    Raises:
        UsageError: Two are asked for, or the output is none that can be written.
        UserError: The table has columns that are named like the answers'.
    """
    if as_json and as_tsv:
        raise UsageError("give `json` or `tsv`, not both.")
    kind = "text" if source.kind == "lines" else source.kind
    if output:
        kind = KINDS.get(output.suffix.lower(), kind)
    kind = "json" if as_json else "tsv" if as_tsv else kind
    if kind == "parquet" and not output:
        raise UsageError("a Parquet file is not written to standard output: name it with `output`.")
    if taken := set(ANSWER_COLUMNS) & set(source.columns):
        raise UserError(f"{source.name} has a column {min(taken)!r} already; rename it.")
    return kind


@contextmanager
def open_writer(
    kind: str, source: Source, labels: tuple[str, ...], output: Path | None, width: int
) -> Iterator[Write]:
    """Yield what writes answers to standard output, or to a file: whole or not at all.

    Args:
        kind: From `answer_format`.
        labels: Names of the classes.
        width: Of the column of labels in text.
    """
    if output is None:
        yield _writer(kind, source, labels, Shown(sys.stdout), width)
        return
    with atomic_file(output) as staging:
        if kind == "parquet":
            with _parquet_writer(source, staging) as write:
                yield write
        else:
            with staging.open("w", encoding="utf-8", newline="") as stream:
                yield _writer(kind, source, labels, stream, width)


def _writer(
    kind: str, source: Source, labels: tuple[str, ...], stream: TextIO | Shown, width: int
) -> Write:
    if kind == "text":
        return lambda chunk, answers: _write_text(chunk, answers, stream, width)
    if kind == "json":
        return lambda chunk, answers: _write_json(chunk, answers, stream, labels)
    names = source.columns or (("sentence",) if source.kind == "lines" else ())
    write_row: Callable[[list[Any]], Any]
    if kind == "tsv":
        write_row = partial(_write_tsv, stream)
    else:
        rows = csv.writer(stream, delimiter=source.delimiter, lineterminator="\n")
        write_row = rows.writerow
    # Answers to lines come line by line, with nothing before them.
    header_due = not (kind == "tsv" and source.kind == "lines")

    def write(chunk: Chunk, answers: list[Answer]) -> None:
        nonlocal header_due, names
        if header_due:
            names = names or tuple(dict.fromkeys(key for row in chunk.rows for key in row))
            write_row([*names, *ANSWER_COLUMNS])
            header_due = False
        for i, answer in enumerate(answers):
            row = chunk.rows[i] if chunk.rows else {"sentence": chunk.texts[i]}
            values = [row.get(name) for name in names]
            if source.kind == "lines" and kind == "tsv":
                write_row([*answer.columns().values(), *values])
            else:
                write_row([*values, *answer.columns().values()])

    return write


def _write_tsv(stream: TextIO | Shown, values: Iterable[Any]) -> None:
    """Write a line without quoting, as many programs read it: a tab in a text becomes a space."""
    fields = ("" if value is None else str(value) for value in values)
    stream.write("\t".join(field.translate(SEPARATORS) for field in fields) + "\n")


def _write_text(chunk: Chunk, answers: list[Answer], stream: TextIO | Shown, width: int) -> None:
    for text, answer in zip(chunk.texts, answers, strict=True):
        if answer.label is None or answer.probability is None:
            stream.write("\n")
            continue
        verdict = f"{answer.label:<{width}}  {100 * answer.probability:5.1f} %  "
        if answer.explanation:
            console.print(explanation_text(verdict, answer.explanation))
        else:
            stream.write(f"{verdict}{text}\n")


def _write_json(
    chunk: Chunk, answers: list[Answer], stream: TextIO | Shown, labels: tuple[str, ...]
) -> None:
    for i, answer in enumerate(answers):
        line: dict[str, Any]
        if chunk.rows:
            line = chunk.rows[i] | answer.columns()
        else:
            line = {"sentence": chunk.texts[i], "label": answer.label, "probabilities": None}
            if answer.label is not None:
                line["probabilities"] = by_label(labels, answer.probabilities)
        if answer.explanation:
            line |= explanation_json(answer.explanation)
        stream.write(to_json(line | ({"cut": True} if answer.cut else {})) + "\n")


@contextmanager
def _parquet_writer(source: Source, file: Path) -> Iterator[Write]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None
    schema = source.schema
    if schema is None:
        if source.kind == "json":
            raise UsageError("JSON lines have no columns of one type; write `output` as .jsonl.")
        names = source.columns or ("sentence",)
        schema = pa.schema([(name, pa.string()) for name in names])
    for name, kind in zip(ANSWER_COLUMNS, (pa.string(), pa.float64()), strict=True):
        schema = schema.append(pa.field(name, kind))
    with parquet.ParquetWriter(file, schema) as writer:

        def write(chunk: Chunk, answers: list[Answer]) -> None:
            rows = chunk.rows or [{"sentence": text} for text in chunk.texts]
            joined = [row | answer.columns() for row, answer in zip(rows, answers, strict=True)]
            writer.write_batch(pa.RecordBatch.from_pylist(joined, schema=schema))

        yield write
