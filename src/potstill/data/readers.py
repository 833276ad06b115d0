"""Reading labelled sentences line by line: CoLA's format, TSV and CSV with a header, JSON lines.

CoLA's own format is four tab-separated columns without a header and without quoting: source,
label, the author's mark, sentence; three columns without the mark are read as well.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from potstill.errors import UserError

# Columns that are read by default, the first of them that a file has.
DEFAULT_COLUMNS = {"text_column": ("sentence", "text"), "label_column": ("label", "labels")}


class Row(NamedTuple):
    """One labelled sentence as it is in a file.

    Args:
        line: number of its line.
        text: the sentence.
        label: the name of its class.
        source: the first column of CoLA's format; empty in other formats.
    """

    line: int
    text: str
    label: str
    source: str


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without line ends; empty ones at its end are
    left out.

    Raises:
        UserError: the file can't be read, has nothing but empty lines, or is not UTF-8.
    """
    try:
        body = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}.") from error
    return split_lines(body, str(file))


def split_lines(body: bytes, name: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file's `body` like `read_lines`; errors call the file `name`."""
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


def read_rows(file: Path, text_column: str | None, label_column: str | None) -> list[Row]:
    """Return every row of a file, in the format that its suffix and its first line tell.

    Args:
        file: the file.
        text_column: column of a header, or key of JSON lines; None for the default.
        label_column: like `text_column`.

    Raises:
        UserError: a line that does not fit, named as file:line; an unreadable or empty file.
    """
    rows = []
    for row in _reader(file)(file, text_column, label_column):
        if not row.text:
            raise UserError(f"{file}:{row.line}: the sentence is empty.")
        if not row.label:
            raise UserError(f"{file}:{row.line}: the label is empty.")
        rows.append(row)
    if not rows:
        raise UserError(f"{file} has a header but no sentences.")
    return rows


def is_cola_format(file: Path, text_column: str | None) -> bool:
    """Return True if a file is in CoLA's format, so that it has no header."""
    if _reader(file) is not _read_tsv or text_column:
        return False
    _, first = next(read_lines(file))
    return not set(first.split("\t")) & set(DEFAULT_COLUMNS["text_column"])


def _reader(file: Path) -> "Reader":
    return READERS.get(file.suffix, _read_tsv)


def _read_tsv(file: Path, text_column: str | None, label_column: str | None) -> Iterator[Row]:
    if is_cola_format(file, text_column):
        return _read_cola(file)
    lines = (line + "\n" for _, line in read_lines(file))
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    return _read_table(file, reader, text_column, label_column)


def _read_cola(file: Path) -> Iterator[Row]:
    for number, line in read_lines(file):
        columns = line.split("\t")
        if len(columns) not in (3, 4):
            raise UserError(
                f"{file}:{number}: {len(columns)} tab-separated column"
                f"{'s' * (len(columns) != 1)} where CoLA's format has 4 (source, label, mark, "
                "sentence) or 3 (without the mark); a file with a header needs `text_column`."
            )
        if columns[1] not in ("0", "1"):
            hint = " A file with a header needs `text_column`." if number == 1 else ""
            raise UserError(f"{file}:{number}: label {columns[1]!r} is neither 0 nor 1.{hint}")
        yield Row(number, columns[-1].strip(), columns[1], columns[0])


def _read_csv(file: Path, text_column: str | None, label_column: str | None) -> Iterator[Row]:
    lines = (line + "\n" for _, line in read_lines(file))
    return _read_table(file, csv.reader(lines, strict=True), text_column, label_column)


def _read_table(
    file: Path, reader: Any, text_column: str | None, label_column: str | None
) -> Iterator[Row]:
    """Yield the rows of a table with a header, split into columns by a reader of `csv`."""
    try:
        header = next(reader)
        text = _column_index(file, header, "text_column", text_column)
        label = _column_index(file, header, "label_column", label_column)
        for columns in reader:
            if len(columns) != len(header):
                raise UserError(
                    f"{file}:{reader.line_num}: {len(columns)} columns where the header "
                    f"has {len(header)}."
                )
            yield Row(reader.line_num, columns[text].strip(), columns[label].strip(), "")
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: {error}.") from error


def _column_index(where: object, header: list[str], setting: str, name: str | None) -> int:
    """Return the index in `header` of the column `name`, or of the default for `setting`."""
    for candidate in (name,) if name else DEFAULT_COLUMNS[setting]:
        if candidate in header:
            return header.index(candidate)
    columns = ", ".join(header)
    if name:
        raise UserError(f"{where} has no column {name!r} (`{setting}`); it has {columns}.")
    raise UserError(f"{where} needs `{setting}`: one of its columns {columns}.")


def _read_json_lines(
    file: Path, text_column: str | None, label_column: str | None
) -> Iterator[Row]:
    for number, line in read_lines(file):
        where = f"{file}:{number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not a line of JSON ({error.msg}).") from error
        if not isinstance(values, dict):
            raise UserError(f"{where}: not a JSON object.")
        keys = list(values)
        text = values[keys[_column_index(where, keys, "text_column", text_column)]]
        label = values[keys[_column_index(where, keys, "label_column", label_column)]]
        if not isinstance(text, str):
            raise UserError(f"{where}: the text is not a string.")
        if isinstance(label, dict | list | float) or label is None:
            raise UserError(f"{where}: label {label!r} is neither a string nor a number.")
        yield Row(number, text.strip(), str(label), "")


# Takes the file, text_column and label_column; yields its rows, unchecked.
Reader = Callable[[Path, str | None, str | None], Iterator[Row]]
# The reader of each suffix; a file with another is read like a .tsv file.
READERS: dict[str, Reader] = {
    ".tsv": _read_tsv,
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
}
