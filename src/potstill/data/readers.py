"""Reading labelled sentences from a file: one reader per format.

CoLA's own format is four tab-separated columns without a header and without quoting: source,
label, the author's mark, sentence; three columns without the mark are read as well.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from potstill.data.columns import DEFAULT_COLUMNS, Columns, Located, Row, table_rows
from potstill.data.delimited import read_csv, read_tsv, split_header
from potstill.data.encoding import decode, format_suffix, guess_note, lines_of, read_bytes
from potstill.data.labels import NO_TEXT, as_label
from potstill.errors import UserError
from potstill.parsing import parse_json, reason

FASTTEXT_LABEL = "__label__"
EACH_ROW = 'write {"text": …, "label": …} for each row'
WEB_PAGE = re.compile(r"\s*<(!doctype html|html)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Args:
        name: What messages call it: the file, or what was in memory.
        rows: Its rows.
        notes: What is worth saying about how it was read.
        cola: Whether it is in CoLA's format, whose labels are 0 and 1.
    """

    name: str
    rows: list[Row]
    notes: tuple[str, ...] = ()
    cola: bool = False

    def check(self) -> "Table":
        """Return the table.

        Raises:
            UserError: A row can't be used; it is named as file:line.
        """
        for row in self.rows:
            if row.fault:
                raise UserError(f"{self.name}:{row.line}: {row.fault}.")
        if not self.rows:
            raise UserError(f"{self.name} has a header but no sentences.")
        return self


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers, without line ends; empty ones at its end are
    left out.

    Raises:
        UserError: The file can't be read, has nothing but empty lines, or is not UTF-8.
    """
    return split_lines(read_bytes(file), str(file))


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


def read_table(file: Path, columns: Columns = Columns()) -> Table:
    """Return every row of a file, in the format that its suffix and its first line tell.

    Args:
        file: The file.
        columns: The columns of a header, or keys of JSON, to read.

    Raises:
        UserError: The file is unreadable, empty or not in its format; the line is named. What is
            wrong with a row alone is its `fault`.
    """
    name, suffix = str(file), format_suffix(file)
    if suffix in COLUMNAR:
        from potstill.data.columnar import read_parquet

        return read_parquet(file, columns)
    text, guessed = decode(read_bytes(file), name)
    first = next(lines_of(text, name))[1]
    if WEB_PAGE.match(first):
        raise UserError(f"{name} is a web page, as a login leaves in place of a download.")
    reader = READERS.get(suffix, _read_plain)
    if FASTTEXT_LINE.match(first + " "):
        reader = _read_fasttext
    table = reader(name, text, columns)
    if guessed:
        table = replace(table, notes=(guess_note(name, guessed), *table.notes))
    return table


def _read_plain(name: str, text: str, columns: Columns) -> Table:
    """Read a file whose suffix does not tell its format, or .tsv."""
    first = next(lines_of(text, name))[1]
    header = {column.strip().casefold() for column in first.split("\t")}
    if columns.text or header & set(DEFAULT_COLUMNS["text_column"]):
        return Table(name, *read_tsv(name, text, columns))
    if columns.matches(split_header(first, columns)[1]) == 2:
        return Table(name, *read_csv(name, text, columns))
    return Table(name, list(_cola_rows(name, text)), cola=True)


def _read_csv(name: str, text: str, columns: Columns) -> Table:
    return Table(name, *read_csv(name, text, columns))


def _cola_rows(name: str, text: str) -> Iterator[Row]:
    for number, line in lines_of(text, name):
        values = line.split("\t")
        if len(values) not in (3, 4):
            raise UserError(
                f"{name}:{number}: {len(values)} tab-separated column"
                f"{'s' * (len(values) != 1)} where CoLA's format has 4 (source, label, mark, "
                "sentence) or 3 (without the mark); a file with a header needs `text_column`."
            )
        if values[1] not in ("0", "1"):
            hint = " A file with a header needs `text_column`." if number == 1 else ""
            raise UserError(f"{name}:{number}: label {values[1]!r} is neither 0 nor 1.{hint}")
        sentence = values[-1].strip()
        fault = "" if sentence else NO_TEXT
        yield Row(number, sentence, values[1], values[0], fault=fault)


FASTTEXT_LINE = re.compile(rf"\s*{FASTTEXT_LABEL}(\S+)\s(.*)")


def _read_fasttext(name: str, text: str, columns: Columns) -> Table:
    """Read `__label__NAME text` lines."""
    rows = []
    for number, line in lines_of(text, name):
        if not line.strip():
            continue
        match = FASTTEXT_LINE.match(line + " ")
        if not match:
            raise UserError(
                f"{name}:{number}: the line does not begin with {FASTTEXT_LABEL}; write "
                f"{FASTTEXT_LABEL}NAME before its text."
            )
        sentence = match[2].strip()
        label, fault = as_label(match[1])
        if sentence.startswith(FASTTEXT_LABEL):
            _, fault = as_label(re.findall(rf"{FASTTEXT_LABEL}(\S+)", line))
        fault = fault or ("" if sentence else NO_TEXT)
        rows.append(Row(number, sentence, label, fault=fault))
    return Table(name, rows)


def _read_json(name: str, text: str, columns: Columns) -> Table:
    """Read JSON lines, or an array of objects."""
    objects = json_array(name, text) if text.lstrip().startswith("[") else _json_lines(name, text)
    rows: list[Row] = []
    notes: tuple[str, ...] = ()
    located: dict[tuple[str, ...], Located] = {}
    for number, value in objects:
        if not isinstance(value, dict):
            raise UserError(f"{name}:{number}: not a JSON object; {EACH_ROW}.")
        keys = tuple(value)
        if keys not in located:
            located[keys] = columns.locate(f"{name}:{number}", keys)
            notes = notes or tuple(filter(None, [located[keys].note()]))
        rows += table_rows(located[keys], [(number, list(value.values()))])
    return Table(name, rows, notes)


def json_array(name: str, text: str) -> Iterator[tuple[int, object]]:
    """Yield the values of a JSON array with their numbers, from 1.

    Raises:
        UserError: It is no JSON; the line is named.
    """
    try:
        yield from enumerate(parse_json(text), 1)
    except ValueError as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        hint = ""
        if reason(error).startswith("Extra data"):  # lists in JSON lines
            hint = f"; {EACH_ROW}"
        raise UserError(f"{name}:{line}: not JSON ({reason(error)}){hint}.") from error


def _json_lines(name: str, text: str) -> Iterator[tuple[int, object]]:
    for number, line in lines_of(text, name):
        if not line.strip():
            continue
        try:
            yield number, parse_json(line)
        except ValueError as error:
            raise UserError(f"{name}:{number}: not a line of JSON ({reason(error)}).") from error


# Takes the name of a file, its text and the columns to read.
Reader = Callable[[str, str, Columns], Table]
# The reader of each suffix; a file with another is read like a .tsv file.
READERS: dict[str, Reader] = {
    ".tsv": _read_plain,
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".txt": _read_plain,
}
COLUMNAR = (".parquet",)
SUFFIXES = (*READERS, *COLUMNAR)
