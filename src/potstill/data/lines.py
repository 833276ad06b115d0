"""The lines of a stream, as soon as they come."""

import codecs
import lzma
import zlib
from collections import deque
from typing import Protocol

from potstill.data.encoding import check_is_text
from potstill.errors import UserError

BLOCK = 1 << 16  # bytes that are read at once, at most


class Readable(Protocol):
    """A stream of bytes, such as a file; `read1` waits for the first of them, and not for more."""

    def read1(self, size: int, /) -> bytes: ...


class Recoded:
    """A stream of text in another encoding, as one of UTF-8."""

    def __init__(self, stream: Readable, encoding: str):
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder(encoding)()

    def read1(self, size: int, /) -> bytes:
        """Return what has come, b"" at the end.

        Raises:
            ValueError: It is not in that encoding.
        """
        while True:
            block = self.stream.read1(size)
            text = self.decoder.decode(block, final=not block)
            if text or not block:
                return text.encode()


class Lines:
    """The lines of a stream with their numbers, as soon as they come; `waiting` holds those that
    have been read and not been taken.

    Raises:
        UserError: One is not UTF-8, or the stream is empty.
    """

    def __init__(self, stream: Readable, name: str):
        self.stream, self.name = stream, name
        self.waiting: deque[bytes] = deque()
        self.number = 0
        self._rest: list[bytes] = []  # of the last line, whose end has not come
        self._ended = False

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> tuple[int, str]:
        while not self.waiting and not self._ended:
            self._read()
        if not self.waiting:
            raise StopIteration
        self.number += 1
        line = self.waiting.popleft()
        if self.number == 1:
            check_is_text(line, self.name)
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return self.number, line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.name}:{self.number}: not UTF-8 text; save it as UTF-8."
            ) from error

    def _read(self) -> None:
        try:
            block = self.stream.read1(BLOCK)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{self.name} can't be read: {reason}.") from error
        first, *others = block.split(b"\n")
        self._rest.append(first)
        if others:
            self.waiting.append(b"".join(self._rest))
            self.waiting.extend(others[:-1])
            self._rest = [others[-1]]
        if not block:
            self._ended = True
            if last := b"".join(self._rest):
                self.waiting.append(last)
