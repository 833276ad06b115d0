"""A folder of its own for each test, and CoLA's files made small."""

import bz2
import gzip
import lzma
from pathlib import Path

import pyarrow
import pytest

from potstill.data import download
from potstill.data.cola import COLA_FILES

# Sentences and acceptable ones of each file in `small_cola`.
COUNTS = {"train": (4, 3), "dev": (3, 2), "ood": (2, 1)}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "reachable", lambda url: False)


def cola_lines(sentences: int, acceptable: int) -> bytes:
    lines = (f"gj04\t{int(i < acceptable)}\t\tSentence {i}." for i in range(sentences))
    return "\n".join(lines).encode()


def small_cola(folder: Path) -> Path:
    """CoLA's three files, with `COUNTS`."""
    folder.mkdir(parents=True)
    for split, counts in COUNTS.items():
        (folder / COLA_FILES[split]).write_bytes(cola_lines(*counts))
    return folder


def write(name: str, text: str | bytes) -> Path:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return Path(name)


def zst(body: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(body)
    return bytes(sink.getvalue())


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}
