"""Tables with a header whose columns a character separates: CSV in its dialects, TSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from potstill.data.columns import Columns, Row, table_rows
from potstill.data.encoding import lines_of
from potstill.errors import UserError

DELIMITERS = (",", ";", "\t", "|")
LONGEST_FIELD = 2**31 - 1  # characters; csv's own limit is 131,072

# The rows of a file, and what is worth saying about how it was read.
Rows = tuple[list[Row], tuple[str, ...]]


def read_csv(name: str, text: str, columns: Columns) -> Rows:
    """Read a table whose fields are quoted as usual, after a line such as `sep=;` if there is one.

    Args:
        name: What errors call the file.
        text: Its text.
        columns: Those to read.

    Raises:
        UserError: A line does not fit the header; it is named as file:line.
    """
    lines = list(lines_of(text, name))
    delimiter, skipped = "", 0
    if lines[0][1].lower().startswith("sep=") and len(lines[0][1]) == 5 and len(lines) > 1:
        delimiter, skipped = lines[0][1][4], 1
    if not delimiter:
        delimiter, _ = split_header(lines[0][1], columns)
    reader = csv.reader((line + "\n" for _, line in lines[skipped:]), Quoted, delimiter=delimiter)
    return _read(name, reader, columns, skipped)


def read_tsv(name: str, text: str, columns: Columns) -> Rows:
    """Read a table separated by tabs: without quoting, or with the quoting that pandas writes.

    The arguments are those of `read_csv`.

    Raises:
        UserError: A line does not fit the header; it is named as file:line.
    """
    lines = [line + "\n" for _, line in lines_of(text, name)]
    dialect = Quoted if _is_quoted(lines) else Unquoted
    return _read(name, csv.reader(lines, dialect, delimiter="\t"), columns, 0)


def split_header(line: str, columns: Columns) -> tuple[str, list[str]]:
    """Return the delimiter of a header and its columns: the delimiter that gives most of the
    columns to read, then most columns."""
    headers = [(d, _split(line, d)) for d in DELIMITERS]
    return max(headers, key=lambda header: (columns.matches(header[1]), len(header[1])))


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # as of a carriage return in it; whoever reads the file says so
        return [line]


class Quoted(csv.excel):
    """Fields with quotation marks as spreadsheets write them."""

    strict = True
    lineterminator = "\n"


class Unquoted(Quoted):
    """Fields in which a quotation mark is a character like others."""

    quoting = csv.QUOTE_NONE


def misfit(columns: int, expected: int, dialect: Any) -> str:
    """Return what is wrong with a row that has not the columns of the header.

    Args:
        columns: Number of columns that it has.
        expected: Number of columns of the header.
        dialect: That of `csv` by which it was split.
    """
    separator = {"\t": "a tab", " ": "a blank"}.get(dialect.delimiter, repr(dialect.delimiter))
    what = separator if columns > expected else "a line break"
    hint = f"a text with {what} in it needs quotation marks around it"
    if dialect.quoting == csv.QUOTE_NONE:
        hint = f"no text may have {what} in it, unless it is a CSV file with quotation marks"
    return f"{columns} column{'s' * (columns != 1)} where the header has {expected}; {hint}"


def _is_quoted(lines: Sequence[str]) -> bool:
    """Return whether a TSV file is quoted: whether its rows, written with quotes, are the file.

    Without quoting, a quotation mark is a character, and what it stands in need not be a field.
    """
    text = "".join(lines)
    if '"' not in text:
        return False
    try:
        with _long_fields():
            rows = list(csv.reader(lines, Quoted, delimiter="\t"))
    except csv.Error:
        return False
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        written = io.StringIO()
        csv.writer(written, Quoted, delimiter="\t", quoting=quoting).writerows(rows)
        if written.getvalue() == text:
            return True
    return False


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the limit that csv has for the length of a field."""
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _read(name: str, reader: Any, columns: Columns, skipped: int) -> Rows:
    """Return the rows of a table with a header, split into columns by a reader of `csv`."""
    try:
        with _long_fields():
            header = [column.strip() for column in next(reader)]
            located = columns.locate(name, header)
            rows = list(table_rows(located, _records(name, reader, header, skipped)))
    except csv.Error as error:
        raise UserError(f"{name}:{reader.line_num + skipped}: {error}.") from error
    return rows, tuple(filter(None, [located.note()]))


def _records(
    name: str, reader: Any, header: list[str], skipped: int
) -> Iterator[tuple[int, list[str]]]:
    for values in reader:
        line = reader.line_num + skipped
        if not any(map(str.strip, values)):  # as spreadsheets leave them
            continue
        if len(values) != len(header):
            raise UserError(f"{name}:{line}: {misfit(len(values), len(header), reader.dialect)}.")
        if [value.strip() for value in values] == header:
            raise UserError(
                f"{name}:{line}: the header again, as where files were joined; remove the line."
            )
        yield line, values
