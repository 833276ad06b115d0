"""The text of a file: decompressed and decoded."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from potstill.errors import UserError, missing_extra
from potstill.parsing import reason

CLEARLY_BETTER = 0.03  # charset-normalizer's coherence, 0 to 1
# What is decompressed: so many times the size of the file, which text never reaches, or this.
MOST_TIMES, SURELY_READ = 100, 1 << 26
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# How files begin that are no text, and what they are.
NOT_TEXT = {
    b"PK\x03\x04": "is a workbook or another ZIP archive; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is a workbook; save the sheet as CSV",
    b"%PDF-": "is a PDF; save its text, with a label for each, as CSV",
    b"SQLite format 3\0": "is a database; export the table as CSV",
    b"PAR1": "is a Parquet file; name it .parquet",
    b"ARROW1": "is an Arrow file; save it as Parquet",
    b"\x1f\x8b": "is compressed by gzip; add .gz to its name",
    b"BZh91AY&SY": "is compressed by bzip2; add .bz2 to its name",
    b"\xfd7zXZ\0": "is compressed by xz; add .xz to its name",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; add .zst to its name",
}


def format_suffix(file: Path) -> str:
    """Return the suffix that tells a file's format: ".csv" for x.csv, X.CSV and x.csv.gz."""
    suffix = file.suffix.lower()
    return Path(file.stem).suffix.lower() if suffix in COMPRESSIONS else suffix


def format_stem(file: Path) -> str:
    """Return a file's name without the suffix that tells its format, nor that of compression."""
    return Path(file.stem).stem if file.suffix.lower() in COMPRESSIONS else file.stem


def read_bytes(file: Path) -> bytes:
    """Return the bytes of a file, decompressed as its suffix says.

    Raises:
        UserError: It can't be read or decompressed.
    """
    try:
        body = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}.") from error
    suffix = file.suffix.lower()
    try:
        stream = decompressed(io.BytesIO(body), suffix)
        # A few bytes can stand for gigabytes.
        most = max(SURELY_READ, MOST_TIMES * len(body))
        with stream:
            text = stream.read(most + 1)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{file} can't be decompressed: {reason(error)}; fetch or compress it again."
        ) from error
    if len(text) > most:
        raise UserError(
            f"{file} has more than {most} bytes when it is decompressed; where that is right, "
            "decompress it yourself."
        )
    return text


def decompressed(stream: BinaryIO, suffix: str) -> BinaryIO:
    """Return a stream of what a file with this suffix stands for; `stream` itself where the suffix
    is that of no compression.

    Raises:
        OSError, ValueError: It is damaged; reading raises EOFError, lzma.LZMAError and zlib.error,
            too.
        ModuleNotFoundError: .zst without pyarrow.
    """
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(stream))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.open(stream))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(stream))
    if suffix == ".zst":
        try:
            import pyarrow
        except ModuleNotFoundError as error:
            raise missing_extra(error) from None
        return cast(
            BinaryIO, pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd")
        )
    return stream


def check_is_text(start: bytes, name: str) -> None:
    """Raise a `UserError` if a file that begins with `start` is of a known kind that is no text."""
    for magic, fault in NOT_TEXT.items():
        if start.startswith(magic):
            raise UserError(f"{name} {fault}.")


def decode(body: bytes, name: str) -> tuple[str, str]:
    """Return the text of a file, and its encoding if that was guessed, else "".

    UTF-8 and UTF-16 are recognised for sure; anything else is charset-normalizer's guess.

    Args:
        body: The file's bytes.
        name: What errors call the file.

    Raises:
        UserError: It is text in no encoding; the message names its first line that is not UTF-8,
            or what else the file is.
    """
    check_is_text(body, name)
    if body.startswith(UTF16_MARKS):
        return _decode_utf16(body, name), ""
    try:
        return body.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        encoding = _guess(body)
        if not encoding:
            raise UserError(f"{name}:{line}: not UTF-8 text; save it as UTF-8.") from error
        return body.decode(encoding), encoding


def encoding_of(start: bytes) -> tuple[str, bool]:
    """Return the encoding of a text that begins with `start`, and whether that is a guess; it is
    UTF-8 where nothing speaks for another."""
    if start.startswith(UTF16_MARKS):
        return "utf-16", False
    lines = start[: start.rfind(b"\n") + 1] or start
    try:
        lines.decode()
    except UnicodeDecodeError:
        if encoding := _guess(lines):
            return encoding, True
    return "utf-8", False


def guess_note(name: str, encoding: str) -> str:
    """Return what to say of a file whose encoding is a guess."""
    return f"{name} is not UTF-8; it is read as {encoding}, a guess: check its letters"


def _guess(body: bytes) -> str:
    """Return charset-normalizer's guess at the encoding of a text that is not UTF-8, or ""."""
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError:
        return ""
    matches = [] if b"\0" in body else list(from_bytes(body))
    if not matches:
        return ""
    best = matches[0]
    # The letters of Western Europe pass for those of its neighbours: it is that of spreadsheets
    # there unless the words speak for another.
    for match in matches:
        western = "cp1252" in (match.encoding, *match.could_be_from_charset)
        if western and best.coherence - match.coherence < CLEARLY_BETTER:
            return "cp1252"
    return str(best.encoding)


def lines_of(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text with their numbers, without line ends; empty ones at its end are
    left out, and so is the mark (U+FEFF) that joined files have at the start of a line.

    Raises:
        UserError: There are none but empty lines.
    """
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{name} is empty.")
    for number, line in enumerate(lines, 1):
        yield number, line.removesuffix("\r").removeprefix("\ufeff")


def _decode_utf16(body: bytes, name: str) -> str:
    try:
        return body.decode("utf-16")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-16 text, as its first bytes say.") from error
