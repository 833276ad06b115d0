"""The formats that people have: each gives the same rows as a plain CSV file of them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from potstill.data.columnar import read_columns
from potstill.data.columns import Columns, Row
from potstill.data.corpus import load_corpus, load_evaluation
from potstill.data.readers import Table, read_table
from potstill.errors import UserError
from tests.data.conftest import COMPRESS, write

ROWS = [
    ("One, two; three.", "good"),
    ('She said "no".', "bad"),
    ("Ça va\nbien ?", "good"),
    ("Quoted twice.", "bad"),
]
PLAIN = [(text, label) for text, label in ROWS if "\n" not in text]


def pairs(table: Table) -> list[tuple[str, str]]:
    assert not any(row.fault for row in table.rows)
    return [(row.text, row.label) for row in table.rows]


def csv_text(rows: list[tuple[str, str]] = ROWS, **dialect: object) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n", **dialect).writerows([("text", "label"), *rows])  # type: ignore[arg-type]
    return stream.getvalue()


CSV = csv_text()
DIALECTS = {
    "as it is": CSV,
    "semicolons": csv_text(delimiter=";"),
    "tabs": csv_text(delimiter="\t"),
    "bars": csv_text(delimiter="|"),
    "sep=": "sep=;\n" + csv_text(delimiter=";"),
    "sep=,": "sep=,\n" + CSV,
    "all quoted": csv_text(quoting=csv.QUOTE_ALL),
    "upper-case header": CSV.replace("text,label", "Text,Label"),
    "blanks in the header": CSV.replace("text,label", " text , label"),
    "BOM": "\ufeff" + CSV,
    "blank lines": CSV.replace("bad\n", "bad\n\n"),
    "rows of commas": CSV + ",\n,\n",
    "two BOMs": "\ufeff" + CSV.replace("One", "\ufeffOne"),
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("name", ["x.csv", "X.CSV"])
def test_dialects_of_csv(text: str, name: str) -> None:
    if text == DIALECTS["two BOMs"]:
        text = text.replace('"\ufeffOne', '\ufeff"One')
    assert pairs(read_table(write(name, text))) == ROWS


def test_line_ends_of_windows_and_old_lines_in_a_field() -> None:
    file = write("x.csv", CSV.replace("\n", "\r\n"))
    assert pairs(read_table(file)) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_unicode_with_a_mark(encoding: str) -> None:
    bom = "\ufeff" if encoding == "utf-16-be" else ""
    table = read_table(write("x.csv", (bom + CSV).encode(encoding)))
    assert pairs(table) == ROWS
    assert not table.notes


GUESSED = {
    "cp1252": "Ça va ? Où est le garçon ? Là-bas, déjà à l'école, bien sûr.",
    "cp1252 ": "Die Tür ist zu, aber das Fenster öffnet sich häufig über Nacht.",
    "cp1252  ": "El niño comió más de lo que podía, ¿verdad? La mañana está fría.",
    "cp1250": "Zażółć gęślą jaźń, proszę państwa. Książka leży na stole.",
    "cp1251": "Книга лежит на столе, а мальчик спит. Это очень хорошая погода.",
    "cp932": "本は机の上にあります。子供は寝ています。今日はいい天気ですね。",
}


@pytest.mark.parametrize(("encoding", "text"), GUESSED.items(), ids=GUESSED)
def test_other_encodings_are_guessed_and_said(encoding: str, text: str) -> None:
    encoding, rows = encoding.strip(), [(text, "good"), (f"{text} {text}", "bad")]
    table = read_table(write("x.csv", csv_text(rows).encode(encoding)))
    assert pairs(table) == rows
    note = f"x.csv is not UTF-8; it is read as {encoding}, a guess: check its letters"
    assert table.notes == (note,)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tsv_as_pandas_writes_it(quoting: int) -> None:
    frame = pandas.DataFrame(ROWS, columns=["text", "label"])
    frame.to_csv("x.tsv", sep="\t", index=False, quoting=quoting)  # type: ignore[arg-type]
    assert pairs(read_table(Path("x.tsv"))) == ROWS


def test_tsv_without_quoting_keeps_its_quotation_marks() -> None:
    rows = [('"Go."', "bad"), ('"Go, he said.', "good"), ('Go ""he"" said".', "good")]
    for part in (rows, rows[:1], rows[1:2], rows[2:]):
        body = "".join(f"{text}\t{label}\n" for text, label in part)
        assert pairs(read_table(write("x.tsv", f"text\tlabel\n{body}"))) == part


def jsonl(rows: list[tuple[str, str]] = ROWS) -> str:
    return "".join(json.dumps({"id": 1, "text": t, "label": label}) + "\n" for t, label in rows)


FILES: dict[str, tuple[str, str]] = {
    "JSON lines": ("x.jsonl", jsonl()),
    "JSON lines, blank lines": ("x.ndjson", jsonl().replace("}\n", "}\n\n")),
    "upper case": ("X.JSONL", jsonl()),
    "an array": ("x.json", json.dumps([json.loads(line) for line in jsonl().splitlines()])),
    "indented": ("x.json", json.dumps([json.loads(x) for x in jsonl().splitlines()], indent=1)),
}


@pytest.mark.parametrize(("name", "text"), FILES.values(), ids=FILES)
def test_json(name: str, text: str) -> None:
    table = read_table(write(name, text))
    assert pairs(table) == ROWS
    assert table.notes == ("text from 'text', label from 'label'; not read: id",)


@pytest.mark.parametrize("name", ["x.txt", "x.train", "x.csv", "x"])
def test_fasttext(name: str) -> None:
    body = "".join(f"__label__{label} {text}\n" for text, label in PLAIN)
    assert pairs(read_table(write(name, body))) == PLAIN


def test_parquet() -> None:
    frame = pandas.DataFrame([(1, *row) for row in ROWS], columns=["id", "text", "label"])
    frame.to_parquet("X.PARQUET")
    assert pairs(read_table(Path("X.PARQUET"))) == ROWS


@pytest.mark.parametrize(("suffix", "compress"), COMPRESS.items(), ids=COMPRESS)
def test_a_small_file_of_gigabytes_is_not_decompressed(
    suffix: str, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.data.encoding.SURELY_READ", 10**5)
    write(f"x.csv{suffix}", compress(b"text,label\n" + b"a" * 10**6))
    with pytest.raises(UserError, match=r"has more than \d+ bytes when it is decompressed"):
        read_table(Path(f"x.csv{suffix}"))


@pytest.mark.parametrize(("suffix", "compress"), COMPRESS.items(), ids=COMPRESS)
def test_compressed(suffix: str, compress: Callable[[bytes], bytes]) -> None:
    assert pairs(read_table(write(f"x.csv{suffix}", compress(CSV.encode())))) == ROWS
    whole = compress(jsonl().encode())
    assert pairs(read_table(write(f"X.JSONL{suffix.upper()}", whole))) == ROWS
    with pytest.raises(UserError, match="can't be decompressed"):
        read_table(write(f"x.csv{suffix}", whole[: len(whole) // 2]))
    with pytest.raises(UserError, match="can't be decompressed"):
        read_table(write(f"x.csv{suffix}", b"text,label"))


class TestMemory:
    def test_a_frame_two_lists_and_a_dataset(self) -> None:
        frame = pandas.DataFrame(ROWS, columns=["text", "label"])
        texts, labels = map(list, zip(*ROWS, strict=True))
        for data in (frame, (texts, labels), [texts, labels], Dataset.from_pandas(frame)):
            assert pairs(read_columns(data, Columns())) == ROWS

    def test_a_dataset_has_the_names_of_its_classes(self) -> None:
        classes = ClassLabel(names=["bad", "good"])
        features = Features({"text": Value("string"), "label": classes})
        rows = [{"text": t, "label": classes.str2int(label)} for t, label in ROWS]
        dataset = Dataset.from_list(rows, features)
        assert pairs(read_columns(dataset, Columns())) == ROWS
        DatasetDict({"train": dataset, "test": dataset}).save_to_disk("saved")
        for data in ("saved", "saved/train", DatasetDict({"train": dataset})):
            corpus = load_corpus(data)
            assert corpus.labels == ("bad", "good")
            assert len(corpus.splits["train"]) + len(corpus.splits["dev"]) == len(ROWS)
        assert load_corpus("saved").sha256 == load_corpus("saved").sha256
        assert list(load_evaluation("saved", ("bad", "good")).splits) == ["test"]

    def test_a_dict_of_splits(self) -> None:
        frame = pandas.DataFrame(ROWS, columns=["text", "label"])
        corpus = load_corpus({"train": frame, "validation": (["One."], ["bad"])})
        assert {name: len(split) for name, split in corpus.splits.items()} == {"train": 4, "dev": 1}
        with pytest.raises(UserError, match="'evaluation' is no split; the splits are train, dev"):
            load_corpus({"train": frame, "evaluation": frame})

    def test_what_is_no_data_is_refused(self) -> None:
        for data in (7, ["One.", "Two.", "Three."], object()):
            with pytest.raises(UserError, match="is not labelled data; give a file"):
                load_corpus(data)
        with pytest.raises(UserError, match="data in memory: 2 texts, but 1 labels"):
            load_corpus((["One.", "Two."], ["bad"]))
        frame = pandas.DataFrame({"text": ["One.", None], "label": ["bad", "good"]})
        with pytest.raises(UserError, match="data in memory:2: the sentence is empty"):
            load_corpus(frame)


@pytest.mark.usefixtures("offline")
def test_a_name_of_the_hub_needs_the_network() -> None:
    with pytest.raises(UserError, match="no such file or folder, and the Hugging Face Hub can't"):
        load_corpus("stanfordnlp/imdb")
    with pytest.raises(UserError, match=r"there is no such file or folder\.$"):
        load_corpus("nowhere/x.csv")


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"Text {i}.", "ab"[i % 2]) for i in range(20)]
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("potstill.data.download.reachable", lambda url: True)
    part = Dataset.from_pandas(frame)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": part, "test": part})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.dataset_info", lambda name, timeout: None)
    corpus = load_corpus("owner/reviews")
    assert (corpus.name, corpus.path) == ("reviews", "owner/reviews")
    assert {k: len(v) for k, v in corpus.splits.items()} == {"train": 18, "dev": 2, "test": 20}


LABELS = {
    "whole floats": ["0.0", "1.0", "1.0"],
    "whole numbers": ["0", "1", "1"],
    "a point at the end": ["0.", "1.", "1."],
    "numbers": [0, 1, 1],
    "floats": [0.0, 1.0, 1.0],
}
BOOLEANS = {
    "words": ["true", "false", "true"],
    "capitals": ["True", "False", "True"],
    "of JSON": [True, False, True],
}


@pytest.mark.parametrize("labels", [*LABELS.values(), *BOOLEANS.values()])
def test_labels_of_any_kind_are_the_same_in_every_format(labels: list[object]) -> None:
    texts = ["One.", "Two.", "Three."]
    rows = list(zip(texts, labels, strict=True))
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    frame.to_parquet("x.parquet")
    write("x.csv", "text,label\n" + "".join(f"{t},{label}\n" for t, label in rows))
    write("x.jsonl", frame.to_json(orient="records", lines=True))
    write("x.txt", "".join(f"__label__{label} {t}\n" for t, label in rows))
    expected = ("false", "true") if labels in BOOLEANS.values() else ("0", "1")
    truth = [expected[int(str(label).lower() in ("1", "1.0", "1.", "true"))] for label in labels]
    for data in ("x.csv", "x.jsonl", "x.parquet", "x.txt", frame, (texts, labels)):
        for model in (expected, ("False", "True") if "true" in expected else ("0.0", "1.0")):
            corpus = load_evaluation(data, model)
            (split,) = corpus.splits.values()
            assert [expected[label] for label in split.labels] == truth
        assert load_corpus({"train": (texts * 9, labels * 9), "dev": "x.csv"}).labels == expected


def test_versions_as_labels_stay_as_they_are() -> None:
    assert load_corpus((["a", "b", "c", "d"] * 9, ["1.0", "1.5", "2.0", "2"] * 9)).labels == (
        "1.0", "1.5", "2", "2.0",
    )  # fmt: skip


def test_a_pair_of_texts_is_joined() -> None:
    file = write("x.csv", "Sentence1,sentence2,label\nOne.,Two.,yes\nThree.,Four.,no\n")
    table = read_table(file, Columns.of(("sentence1", "sentence2"), None))
    assert pairs(table) == [("One. ||| Two.", "yes"), ("Three. ||| Four.", "no")]
    with pytest.raises(UserError, match=r"needs `text_column`.*Of a pair of texts name both"):
        load_corpus("x.csv")
    one = read_table(file, Columns.of("sentence1", None))
    assert one.notes == ("text from 'Sentence1', label from 'label'; not read: sentence2",)


def test_two_columns_that_could_be_the_text_are_told() -> None:
    table = read_table(write("x.csv", "text,sentence,label\nOne.,Two.,yes\n"))
    assert table.rows == [Row(2, "Two.", "yes")]
    assert table.notes == ("text from 'sentence', label from 'label'; not read: text",)


BAD = {
    "joined": ("x.csv", CSV + CSV, r"x\.csv:7: the header again, as where files were joined"),
    "joined, BOM": ("x.csv", CSV + "\ufeff" + CSV, r"x\.csv:7: the header again"),
    "nan": ("x.csv", "text,label\nOne.,bad\nTwo.,nan\n", r"x\.csv:3: label 'nan' is that of a row"),
    "blank label": ("x.jsonl", '{"text": "a", "label": " "}', r"x\.jsonl:1: the label is empty"),
    "null": ("x.jsonl", '{"text": "a", "label": null}', r"x\.jsonl:1: the label is empty"),
    "NaN": ("x.jsonl", '{"text": "a", "label": NaN}', r"x\.jsonl:1: the label is empty"),
    "Infinity": ("x.jsonl", '{"text": "a", "label": Infinity}', r"label inf is neither a string"),
    "several": ("x.jsonl", '{"text": "a", "label": ["b", "c"]}', r"x\.jsonl:1: .*one label: with"),
    "fastText": ("x.txt", "__label__a __label__b One.\n", r"x\.txt:1: .* a row has one label"),
    "fastText, no label": ("x.txt", "__label__a One.\nTwo.\n", r"x\.txt:2: the line does not"),
    "fastText, no text": ("x.txt", "__label__a\n__label__b B.\n", r"x\.txt:1: the sentence is em"),
    "half a text": ("x.jsonl", '{"text": "a \\ud83d", "label": "b"}', r":1: the text is not valid"),
    "half a label": ("x.jsonl", '{"text": "a", "label": "\\ud83d"}', r":1: the label is not valid"),
    "columns of labels": ("x.csv", "text,good,bad\na,1,0\n", r"`label_column`.*A row has one"),
    "UTF-16": ("x.csv", b"\xff\xfea", r"x\.csv is not UTF-16 text"),
    "Parquet": ("x.parquet", b"PAR1", r"x\.parquet can't be read"),
    "JSON array": ("x.json", '[\n{"text": \n', r"x\.json:3: not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "body", "words"), BAD.values(), ids=BAD)
def test_what_is_surely_wrong_is_refused_by_line(name: str, body: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_corpus(str(write(name, body)))


def test_a_label_is_stripped_in_every_format() -> None:
    rows = '{"text": "a", "label": "good "}\n{"text": "b", "label": "good"}\n'
    assert {row.label for row in read_table(write("x.jsonl", rows)).rows} == {"good"}


def test_a_field_may_be_long() -> None:
    text = "a" * 300_000
    assert pairs(read_table(write("x.csv", f"text,label\n{text},good\n"))) == [(text, "good")]


class TestCoLANumbers:
    FILE = "a\t1\t\tOne.\nb\t0\t\tTwo.\n"

    @pytest.mark.parametrize(
        "labels", [("acceptable", "unacceptable"), ("unacceptable", "acceptable")]
    )
    def test_they_mean_the_classes_called_so(self, labels: tuple[str, str]) -> None:
        corpus = load_evaluation(str(write("x.tsv", self.FILE)), labels)
        assert [labels[i] for i in corpus.splits["x"].labels] == ["acceptable", "unacceptable"]
        said = ("0 in x.tsv is unacceptable, 1 is acceptable",)
        assert corpus.notes == (said if labels[0] == "acceptable" else ())

    def test_for_other_classes_they_are_refused(self) -> None:
        with pytest.raises(UserError, match=r"x\.tsv is in CoLA's format.* classes are ham, spam"):
            load_evaluation(str(write("x.tsv", self.FILE)), ("ham", "spam"))


def test_a_column_whose_name_has_a_line_break_is_named_on_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"te\nt": ["One."], "label": ["good"]}), file)
    with pytest.raises(UserError) as caught:
        load_corpus(str(file))
    assert "one of its columns te t, label." in str(caught.value)
