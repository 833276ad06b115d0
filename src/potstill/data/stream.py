"""Texts of any number, in chunks as they come: the lines of a stream, or a column of a table."""

import csv
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from potstill.data.columns import Columns, joined_text
from potstill.data.delimited import LONGEST_FIELD, Quoted, Unquoted, misfit, split_header
from potstill.data.encoding import decompressed, encoding_of, format_suffix, guess_note
from potstill.data.lines import Lines, Recoded
from potstill.data.readers import json_array
from potstill.errors import UserError, missing_extra
from potstill.parsing import parse_json, reason

FIRST_CHUNK, LARGEST_CHUNK = 16, 1024  # texts: few at first, so that there is an answer at once
Record = tuple[str, dict[str, Any] | None]  # a text, and of a table its row
START = 1 << 20  # bytes by which the encoding of a file is told
KINDS = {  # of a table, by its suffix
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Chunk:
    """Some texts that follow each other; blank ones are "".

    Args:
        texts: The texts.
        rows: Of a table, the whole row of each, by column.
    """

    texts: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, text: str, row: dict[str, Any] | None) -> None:
        self.texts.append(text)
        if row is not None:
            self.rows.append(row)


@dataclass(frozen=True)
class Source:
    """Texts to be read.

    Args:
        name: What errors call it.
        kind: "lines", "csv", "tsv", "json" or "parquet".
        chunks: Its texts; may be read once.
        columns: Names of a table's columns, if it has a header.
        delimiter: What separates them.
        schema: A Parquet file's own.
        size: Bytes in all, or rows of a Parquet file; None if that is not known.
        position: Returns how many of these have been read.
        note: What is worth saying about how it is read, or "".
    """

    name: str
    kind: str
    chunks: Iterator[Chunk]
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    schema: Any = None
    size: int | None = None
    position: Callable[[], int] = lambda: 0
    note: str = ""


def texts_of(sentences: list[str]) -> Source:
    """Return a source of these texts."""
    chunk = Chunk([sentence.strip() for sentence in sentences])
    return Source("the sentences", "lines", iter([chunk]))


@contextmanager
def open_source(file: str, text_column: str | Sequence[str] | None) -> Iterator[Source]:
    """Open a file, or with "-" standard input.

    It is a table if its suffix is that of one or `text_column` is given, else lines of text. The
    beginning of a file tells its encoding; standard input is UTF-8.

    Raises:
        UserError: It can't be read, or has not the column. Reading its chunks raises it for a line
            that is not UTF-8, or does not fit, and where there is no text at all.
    """
    columns = Columns.of(text_column, None)
    if file == "-":
        kind = "csv" if text_column else "lines"
        yield _open(sys.stdin.buffer, "standard input", kind, columns)
        return
    path = Path(file)
    kind = _kind(path, bool(text_column))
    if kind == "parquet":
        yield _open_parquet(path, columns)
        return
    try:
        raw = path.open("rb")
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}.") from error
    with raw:
        stream: Any = decompressed(raw, path.suffix.lower())
        size, note = None, ""
        if path.is_file():
            size = path.stat().st_size
            encoding, guessed = encoding_of(_start(path))
            if encoding != "utf-8":
                stream = Recoded(stream, encoding)
            if guessed:
                note = guess_note(file, encoding)
        source = _open(stream, str(path), kind, columns, size=size, position=raw.tell)
        yield replace(source, note=note)


def _start(file: Path) -> bytes:
    """Return what a file begins with, decompressed; of a damaged one nothing, as whoever reads it
    says so."""
    try:
        with file.open("rb") as raw:
            return decompressed(raw, file.suffix.lower()).read(START)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
        return b""


def _kind(file: Path, named: bool) -> str:
    return KINDS.get(format_suffix(file), "csv" if named else "lines")


def _open(
    stream: Any,
    name: str,
    kind: str,
    columns: Columns,
    *,
    size: int | None = None,
    position: Callable[[], int] = lambda: 0,
) -> Source:
    lines = Lines(stream, name)
    if kind in ("csv", "tsv"):
        delimiter, header, rows = _delimited(lines, kind, columns)
        chunks = _gather(lines, rows)
        return Source(
            name, kind, chunks, tuple(header), delimiter=delimiter, size=size, position=position
        )
    rows = _json_rows(lines, columns) if kind == "json" else _line_rows(lines)
    return Source(name, kind, _gather(lines, rows), size=size, position=position)


def _line_rows(lines: Lines) -> Iterator[Record]:
    for _, line in lines:
        yield line.strip(), None


def _gather(lines: Lines, rows: Iterator[Record]) -> Iterator[Chunk]:
    """Yield rows in chunks: what has come, at most as many as a chunk may have."""
    chunk, most, any_text = Chunk(), FIRST_CHUNK, False
    for text, row in rows:
        chunk.add(text, row)
        any_text = any_text or bool(text)
        # Blank lines wait for a text, as without any it is an error.
        if any_text and (len(chunk.texts) >= most or not lines.waiting):
            yield chunk
            chunk, most = Chunk(), min(4 * most, LARGEST_CHUNK)
    if not any_text:
        raise UserError(f"{lines.name} is empty.")
    if chunk.texts:
        yield chunk


def _delimited(
    lines: Lines, kind: str, columns: Columns
) -> tuple[str, list[str], Iterator[Record]]:
    """Return the delimiter of a table, its header, and its other rows, with the numbers of their
    lines. What tabs separate is read without quoting."""
    _, first = next(lines, (0, ""))
    delimiter = "\t" if kind == "tsv" else ""
    if kind == "csv" and first.lower().startswith("sep=") and len(first) == 5:
        delimiter = first[4]
        _, first = next(lines, (0, ""))
    if not first.strip():
        raise UserError(f"{lines.name} is empty.")
    delimiter = delimiter or split_header(first, columns)[0]
    dialect = Unquoted if kind == "tsv" else Quoted
    start = lines.number
    csv.field_size_limit(LONGEST_FIELD)
    try:
        (header,) = csv.reader([first], dialect, delimiter=delimiter)
    except csv.Error as error:
        raise UserError(f"{lines.name}:{start}: {error}.") from error
    names = [name.strip() for name in header]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{lines.name} has two columns {min(twice)!r}; rename one.")
    at = columns.locate_text(lines.name, names)

    def rows() -> Iterator[Record]:
        reader = csv.reader((f"{line}\n" for _, line in lines), dialect, delimiter=delimiter)
        try:
            for values in reader:
                where = f"{lines.name}:{start + reader.line_num}"
                if len(values) != len(names):
                    if any(map(str.strip, values)):
                        fault = misfit(len(values), len(names), reader.dialect)
                        raise UserError(f"{where}: {fault}.")
                    values = [""] * len(names)
                yield joined_text(where, values, at), dict(zip(names, values, strict=True))
        except csv.Error as error:
            raise UserError(f"{lines.name}:{start + reader.line_num}: {error}.") from error

    return delimiter, names, rows()


def _json_rows(lines: Lines, columns: Columns) -> Iterator[Record]:
    """Yield the object of each line; or those of an array, which is read to its end before."""
    begun = False
    for number, line in lines:
        where = f"{lines.name}:{number}"
        if not line.strip():
            yield "", {}
            continue
        if not begun and line.lstrip().startswith("["):
            text = "\n" * (number - 1) + "\n".join([line, *(line for _, line in lines)])
            for row, value in json_array(lines.name, text):
                yield _json_row(f"{lines.name}:{row}", value, columns)
            return
        begun = True
        try:
            value = parse_json(line)
        except ValueError as error:
            raise UserError(f"{where}: not a line of JSON ({reason(error)}).") from error
        yield _json_row(where, value, columns)


def _json_row(where: str, row: Any, columns: Columns) -> Record:
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; write one for each text.")
    at = columns.locate_text(where, list(row))
    return joined_text(where, list(row.values()), at), row


def _open_parquet(file: Path, columns: Columns) -> Source:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise missing_extra(error) from None

    def unreadable(error: Exception) -> NoReturn:
        raise UserError(f"{file} can't be read: {reason(error)}.") from error

    try:
        table = parquet.ParquetFile(file)
    except (OSError, ValueError, ArrowException) as error:
        unreadable(error)
    names = table.schema_arrow.names
    at = columns.locate_text(str(file), names)
    done = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal done
        try:
            for batch in table.iter_batches(LARGEST_CHUNK):
                chunk = Chunk()
                for row in batch.to_pylist():
                    done += 1
                    chunk.add(joined_text(f"{file}, row {done}", list(row.values()), at), row)
                yield chunk
        except (OSError, ValueError, ArrowException) as error:
            unreadable(error)

    size = table.metadata.num_rows
    if not size:
        raise UserError(f"{file} is empty.")
    return Source(
        str(file),
        "parquet",
        chunks(),
        tuple(names),
        schema=table.schema_arrow,
        size=size,
        position=lambda: done,
    )
