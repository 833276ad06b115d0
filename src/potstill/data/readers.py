"""Reading labelled sentences line by line: CoLA's format, TSV and CSV with a header, JSON lines.

CoLA's own format is four tab-separated columns without a header and without quoting: source,
label, the author's mark, sentence; three columns without the mark are read as well.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from potstill.errors import UserError

TEXT_COLUMNS = ("sentence", "text")
LABEL_COLUMNS = ("label", "labels")


class Row(NamedTuple):
    """One labelled sentence as it stands in a file; source is empty where the file has none."""

    line: int
    text: str
    label: str
    source: str


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, without their ends; only the end of the file may be empty.

    Raises:
        UserError: the file can't be read, has nothing but empty lines, or is not UTF-8.
    """
    try:
        body = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}.") from error
    return split_lines(body, str(file))


def split_lines(body: bytes, name: str) -> Iterator[tuple[int, str]]:
    """`read_lines` of a file's `body`; `name` stands for it in errors."""
    raw = body.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    while raw and not raw[-1].strip():
        raw.pop()
    if not raw:
        raise UserError(f"{name} is empty.")
    for number, line in enumerate(raw, 1):
        try:
            yield number, line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{name}:{number}: not UTF-8 text; save it as UTF-8.") from error


def is_cola_format(file: Path, text_column: str | None) -> bool:
    """Whether a file is in CoLA's format rather than one with a header."""
    if file.suffix in (".csv", ".jsonl", ".json") or text_column:
        return False
    _, first = next(read_lines(file))
    return not set(first.split("\t")) & set(TEXT_COLUMNS)


def read_rows(file: Path, text_column: str | None, label_column: str | None) -> list[Row]:
    """Every row of a file, in the format its name and its first line tell.

    text_column, label_column: columns of a header, or keys of JSON lines; by default the first of
    TEXT_COLUMNS and of LABEL_COLUMNS that is there.

    Raises:
        UserError: a line that does not fit, named as file:line; an unreadable or empty file.
    """
    if is_cola_format(file, text_column):
        rows = _read_cola(file)
    elif file.suffix in (".jsonl", ".json"):
        rows = _read_json_lines(file, text_column, label_column)
    else:
        rows = _read_with_header(file, text_column, label_column)
    checked = []
    for row in rows:
        if not row.text:
            raise UserError(f"{file}:{row.line}: the sentence is empty.")
        if not row.label:
            raise UserError(f"{file}:{row.line}: the label is empty.")
        checked.append(row)
    if not checked:
        raise UserError(f"{file} has a header but no sentences.")
    return checked


def _read_cola(file: Path) -> Iterator[Row]:
    for number, line in read_lines(file):
        columns = line.split("\t")
        if len(columns) not in (3, 4):
            raise UserError(
                f"{file}:{number}: {len(columns)} tab-separated column"
                f"{'s' * (len(columns) != 1)} where CoLA's format has 4 (source, label, mark, "
                "sentence) or 3 (without the mark); a file with a header needs --text_column."
            )
        if columns[1] not in ("0", "1"):
            hint = " A file with a header needs --text_column." if number == 1 else ""
            raise UserError(f"{file}:{number}: label {columns[1]!r} is neither 0 nor 1.{hint}")
        yield Row(number, columns[-1].strip(), columns[1], columns[0])


def _read_with_header(
    file: Path, text_column: str | None, label_column: str | None
) -> Iterator[Row]:
    lines = (line + "\n" for _, line in read_lines(file))
    if file.suffix == ".csv":
        reader = csv.reader(lines, strict=True)
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    try:
        header = next(reader)
        text_at = _column(file, header, text_column, TEXT_COLUMNS, "--text_column")
        label_at = _column(file, header, label_column, LABEL_COLUMNS, "--label_column")
        for columns in reader:
            if len(columns) != len(header):
                raise UserError(
                    f"{file}:{reader.line_num}: {len(columns)} columns where the header "
                    f"has {len(header)}."
                )
            yield Row(reader.line_num, columns[text_at].strip(), columns[label_at].strip(), "")
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: {error}.") from error


def _column(
    file: Path, header: list[str], wanted: str | None, usual: tuple[str, ...], flag: str
) -> int:
    for name in (wanted,) if wanted else usual:
        if name in header:
            return header.index(name)
    columns = ", ".join(header)
    if wanted:
        raise UserError(f"{file} has no column {wanted!r} ({flag}); it has {columns}.")
    raise UserError(f"{file} needs {flag}: one of its columns {columns}.")


def _read_json_lines(
    file: Path, text_column: str | None, label_column: str | None
) -> Iterator[Row]:
    for number, line in read_lines(file):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}:{number}: not a line of JSON ({error.msg}).") from error
        if not isinstance(record, dict):
            raise UserError(f"{file}:{number}: not a JSON object.")
        keys = list(record)
        where = Path(f"{file}:{number}")
        text = record[keys[_column(where, keys, text_column, TEXT_COLUMNS, "--text_column")]]
        label = record[keys[_column(where, keys, label_column, LABEL_COLUMNS, "--label_column")]]
        if not isinstance(text, str):
            raise UserError(f"{file}:{number}: the text is not a string.")
        if isinstance(label, dict | list | float) or label is None:
            raise UserError(f"{file}:{number}: label {label!r} is neither a string nor a number.")
        yield Row(number, text.strip(), str(label), "")
