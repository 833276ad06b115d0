"""Texts in chunks: what comes is there at once, and a table's rows stay whole."""

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from potstill.data.lines import BLOCK, Lines
from potstill.data.stream import LARGEST_CHUNK, Source, open_source, texts_of
from potstill.errors import UserError
from tests.data.conftest import COMPRESS


class Slow(io.RawIOBase):
    """A stream that gives one part at a time, and says how many were taken."""

    def __init__(self, parts: list[bytes]):
        self.parts, self.taken = parts, 0

    def read1(self, size: int) -> bytes:
        self.taken += 1
        return self.parts[self.taken - 1] if self.taken <= len(self.parts) else b""


def read(file: Path, column: Any = None) -> tuple[list[str], list[dict[str, Any]]]:
    with open_source(str(file), column) as source:
        chunks = list(source.chunks)
    return [t for c in chunks for t in c.texts], [r for c in chunks for r in c.rows]


def test_lines_come_before_the_next_are_read() -> None:
    stream = Slow([b"one\ntw", b"o", b"\r\nthree\n", b"four"])
    lines = Lines(stream, "a pipe")  # type: ignore[arg-type]
    assert next(lines) == (1, "one")
    assert stream.taken == 1
    assert next(lines) == (2, "two")
    assert stream.taken == 3
    assert list(lines) == [(3, "three"), (4, "four")]


def test_a_line_longer_than_a_block_is_one(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("x" * (3 * BLOCK + 5) + "\nshort")
    texts, _ = read(file)
    assert [len(text) for text in texts] == [3 * BLOCK + 5, 5]


def test_there_is_a_text_for_each_line_blank_ones_too(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeff\n One. \r\n\r\n\nZwei ß.\n\n".encode())
    assert read(file)[0] == ["", "One.", "", "", "Zwei ß.", ""]


def test_chunks_are_small_at_first_and_never_large(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"Text {i}.\n" for i in range(5000)))
    with open_source(str(file), None) as source:
        sizes = []
        for chunk in source.chunks:
            sizes.append(len(chunk.texts))
            assert source.position() <= source.size == file.stat().st_size
        assert source.position() == source.size
    assert sum(sizes) == 5000
    assert sizes[0] <= 16 and max(sizes) <= LARGEST_CHUNK


@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed_files_are_read(suffix: str, compress: Any, tmp_path: Path) -> None:
    file = tmp_path / f"table.csv{suffix}"
    file.write_bytes(compress(b"id,text\n1,One.\n2,Two.\n"))
    assert read(file)[0] == ["One.", "Two."]
    file.write_bytes(compress(b"id,text\n1,One.\n2,Two.\n")[:-9])
    with pytest.raises(UserError, match=r"table\.csv\.\w+ can't be read"):
        read(file)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_in_its_dialects(delimiter: str, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    rows = [
        "id|Text|note",
        '1|"One, two; three."|x',
        '2|"A ""quoted""\nline | break."|',
        "",
        "3||z",
    ]
    file.write_text("\n".join(row.replace("|", delimiter) for row in rows) + "\n")
    texts, table = read(file)
    broken = f'A "quoted"\nline {delimiter} break.'
    assert texts == ["One, two; three.", broken, "", ""]
    assert table[0] == {"id": "1", "Text": "One, two; three.", "note": "x"}
    assert table[1]["Text"] == broken
    assert list(table[2].values()) == ["", "", ""]
    assert read(file, "note")[0] == ["x", "", "", "z"]


def test_a_line_that_names_the_separator_is_none_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("sep=;\nid;text\n1;One, two.\n")
    assert read(file)[0] == ["One, two."]


def test_quotes_in_a_tsv_are_characters(tmp_path: Path) -> None:
    file = tmp_path / "table.tsv"
    file.write_text('id\ttext\n1\t"One" she said.\n2\t"Two.\n')
    assert read(file)[0] == ['"One" she said.', '"Two.']


def test_json_lines_keep_their_values(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"n": 1, "text": "One."}\n\n{"text": null, "deep": {"a": [1]}}\n')
    texts, rows = read(file)
    assert texts == ["One.", "", ""]
    assert rows == [{"n": 1, "text": "One."}, {}, {"text": None, "deep": {"a": [1]}}]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "rows.parquet"
    table = pa.table({"n": [1, None, 3], "text": ["One.", None, " Three. "]})
    parquet.write_table(table, file)
    texts, rows = read(file)
    assert texts == ["One.", "", "Three."]
    assert rows == table.to_pylist()
    with open_source(str(file), None) as source:
        assert (source.size, source.schema) == (3, table.schema)
    with pytest.raises(UserError, match="row 1: the text is not a string"):
        read(file, "n")
    file.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"rows\.parquet can't be read"):
        read(file)


def test_two_columns_are_a_pair(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("a,b\nOne.,Two.\n,\n")
    assert read(file, ("a", "b"))[0] == ["One. ||| Two.", ""]


def test_standard_input_is_lines_or_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for column, expected in ((None, ["text", "One."]), ("text", ["One."])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"text\nOne.\n")))
        with open_source("-", column) as source:
            assert [t for c in source.chunks for t in c.texts] == expected
            assert source.size is None


def test_an_array_of_json_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    rows = [{"text": "One.", "id": 1}, {"text": " ", "id": 2}, {"text": "Two.", "id": 3}]
    for indent in (None, 1):
        file.write_text(json.dumps(rows, indent=indent))
        assert read(file) == (["One.", "", "Two."], rows)


WORDS = "Où est le garçon ? Là-bas, déjà à l'école, bien sûr. Ça va très bien."


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_file_is_read_in_the_encoding_of_its_beginning(
    encoding: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"a{suffix}"
    rows = [{"text": f"{WORDS} {i}", "n": str(i)} for i in range(30_000)]
    text = "text,n\n" + "".join(f'"{row["text"]}",{row["n"]}\n' for row in rows)
    body = text.encode(encoding)
    file.write_bytes(gzip.compress(body, 1) if suffix == ".csv.gz" else body)
    assert read(file) == ([row["text"] for row in rows], rows)
    note = f"{file} is not UTF-8; it is read as cp1252, a guess: check its letters"
    with open_source(str(file), None) as source:
        assert source.note == (note if encoding == "cp1252" else "")


def test_another_encoding_after_the_beginning_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"One.\n" * 300_000 + b"\xe9\n")
    with pytest.raises(UserError, match=r"a\.txt:300001: not UTF-8 text; save it as UTF-8"):
        read(file)
    file.write_bytes("Ein Satz.\n".encode("utf-16") + b"\0")
    with pytest.raises(UserError, match=r"a\.txt can't be read: .*utf-16"):
        read(file)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_lines_of_json(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.ndjson{suffix}"
    rows = [{"text": f"Text {i}."} for i in range(3000)]
    body = COMPRESS[suffix]("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    file.write_bytes(body)
    assert read(file) == ([row["text"] for row in rows], rows)
    file.write_bytes(body[:-20])
    with pytest.raises(UserError, match="can't be read: "):
        read(file)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b" \n\n", "a.txt is empty"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"text,id\n", "a.csv is empty"),
        ("a.csv", b"text,id\nOne.\n", "a.csv:2: 1 column where the header has 2"),
        ("a.csv", b'text,id\n"One"x,1\n', "a.csv:2: "),
        (
            "a.csv",
            b"review,id\nOne.,1\n",
            "needs `text_column`: one of its columns review, id",
        ),
        ("a.csv", b"text,id,id\nOne.,1,2\n", "a.csv has two columns 'id'; rename one"),
        ("a.jsonl", b'{"text": 1}\n', "a.jsonl:1: the text is not a string"),
        ("a.jsonl", b'{"text": "x"\n', "a.jsonl:1: not a line of JSON"),
        ("a.jsonl", b'["x"]\n', "a.jsonl:1: not a JSON object; write one for each text"),
        ("a.jsonl", b'{"text": "x"}\nnull\n', "a.jsonl:2: not a JSON object"),
        ("a.json", b'[{"text": "x"},\n{]', "a.json:2: not JSON"),
        ("a.xlsx", b"PK\x03\x04\x14\0", "a.xlsx is a workbook or another ZIP archive"),
        ("a.txt", b"PAR1\n", "a.txt is a Parquet file; name it .parquet"),
        ("a.jsonl", b'{"text": "\\ud83d"}\n', "a.jsonl:1: "),
        ("no/such.txt", None, r"no/such.txt can't be read: No such file"),
    ],
)
def test_what_does_not_fit_is_named(
    name: str, body: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if body is not None:
        Path(name).write_bytes(body)
    with pytest.raises(UserError) as error:
        read(Path(name))
    assert words in str(error.value)


def test_texts_in_memory_are_a_source() -> None:
    source: Source = texts_of([" One. ", "Two."])
    (chunk,) = source.chunks
    assert (chunk.texts, chunk.rows) == (["One.", "Two."], [])
