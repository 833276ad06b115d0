"""The text of a file: decompressed and decoded."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill.errors import UserError

CLEARLY_BETTER = 0.03  # charset-normalizer's coherence, 0 to 1
# What is decompressed: so many times the size of the file, which text never reaches, or this.
MOST_TIMES, SURELY_READ = 100, 1 << 26
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


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
        stream = _decompressor(suffix, body)
        if stream is None:
            return body
        # A few bytes can stand for gigabytes.
        most = max(SURELY_READ, MOST_TIMES * len(body))
        with stream:
            text: bytes = stream.read(most + 1)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{file} can't be decompressed: {error}.") from error
    if len(text) > most:
        raise UserError(
            f"{file} has more than {most} bytes when it is decompressed; where that is right, "
            "decompress it yourself."
        )
    return text


def _decompressor(suffix: str, body: bytes) -> Any:
    """Return a stream of what `body` stands for; None where the suffix is that of no compression.

    Raises:
        OSError, ValueError: It is damaged.
    """
    if suffix == ".gz":
        return gzip.open(io.BytesIO(body))
    if suffix == ".bz2":
        return bz2.open(io.BytesIO(body))
    if suffix == ".xz":
        return lzma.open(io.BytesIO(body))
    if suffix == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.BufferReader(body), "zstd")
    return None


def decode(body: bytes, name: str) -> tuple[str, str]:
    """Return the text of a file, and its encoding if that was guessed, else "".

    UTF-8 and UTF-16 are recognised for sure; anything else is charset-normalizer's guess.

    Args:
        body: The file's bytes.
        name: What errors call the file.

    Raises:
        UserError: It is text in no encoding; the message names its first line that is not UTF-8.
    """
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decode_utf16(body, name), ""
    try:
        return body.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        try:
            from charset_normalizer import from_bytes
        except ModuleNotFoundError:
            raise UserError(f"{name}:{line}: not UTF-8 text; save it as UTF-8.") from error
        matches = [] if b"\0" in body else list(from_bytes(body))
        if not matches:
            raise UserError(f"{name}:{line}: not UTF-8 text; save it as UTF-8.") from error
        best = matches[0]
        # The letters of Western Europe pass for those of its neighbours: it is that of spreadsheets
        # there unless the words speak for another.
        for match in matches:
            western = "cp1252" in (match.encoding, *match.could_be_from_charset)
            if western and best.coherence - match.coherence < CLEARLY_BETTER:
                return body.decode("cp1252"), "cp1252"
        return str(best), str(best.encoding)


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
