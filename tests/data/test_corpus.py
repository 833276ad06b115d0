"""Labelled sentences as users bring them, in every format."""

from pathlib import Path

import pytest

from potstill.data import corpus
from potstill.data.cola import COLA_LABELS
from potstill.data.corpus import load_corpus, load_evaluation
from potstill.data.splits import Split
from potstill.errors import UserError
from tests.data.conftest import cola_lines, small_cola, write


def sentences_of(file: Path, **columns: str) -> list[tuple[str, str]]:
    """(sentence, label) pairs of a file, through `load_evaluation`, which takes it whole."""
    labels = ("0", "1", "good", "bad", "so-so")
    split = load_evaluation(str(file), labels, **columns).splits[file.stem]
    return [(s, labels[i]) for s, i in zip(split.sentences, split.labels, strict=True)]


FOUR = 'a\t1\t\t"Go, he said.\nb\t0\t*\tGo "he" said".\n'
EXPECTED = [('"Go, he said.', "1"), ('Go "he" said".', "0")]


@pytest.mark.parametrize(
    "body",
    [
        FOUR,
        'a\t1\t"Go, he said.\nb\t0\tGo "he" said".\n',
        FOUR.rstrip("\n"),
        FOUR + "\n\n",
        FOUR.replace("\n", "\r\n"),
        "\ufeff" + FOUR,
    ],
    ids=["4 columns", "3 columns", "no last newline", "empty end", "CRLF", "BOM"],
)
def test_cola_format_keeps_sentences_as_they_stand(body: str) -> None:
    file = write("x.tsv", body)
    assert sentences_of(file) == EXPECTED
    assert load_evaluation(str(file), ("0", "1")).splits["x"].sources == ["a", "b"]


def test_cola_format_keeps_sources_and_names_its_labels() -> None:
    task = load_corpus(str(write("x.tsv", FOUR * 10)))
    train = task.splits["train"]
    assert task.labels == COLA_LABELS
    assert set(zip(train.sources, train.labels, strict=True)) == {("a", 1), ("b", 0)}


@pytest.mark.parametrize(
    ("name", "body", "columns"),
    [
        ("x.tsv", 'sentence\tlabel\n"Go, he said.\t1\nGo "he" said".\t0\n', {}),
        ("x.csv", 'label,text\n1,"""Go, he said."\n0,"Go ""he"" said""."\n', {}),
        (
            "x.jsonl",
            '{"text": "\\"Go, he said.", "label": 1}\n'
            '{"label": "0", "text": "Go \\"he\\" said\\"."}\n',
            {},
        ),
        (
            "x.tsv",
            'id\tutterance\tgrade\n7\t"Go, he said.\t1\n8\tGo "he" said".\t0\n',
            {"text_column": "utterance", "label_column": "grade"},
        ),
        (
            "x.jsonl",
            '{"u": "\\"Go, he said.", "g": 1, "label": 5}\n{"u": "Go \\"he\\" said\\".", "g": 0}',
            {"text_column": "u", "label_column": "g"},
        ),
    ],
    ids=["TSV", "CSV", "JSON lines", "named columns", "named keys"],
)
def test_files_with_names_for_columns(name: str, body: str, columns: dict[str, str]) -> None:
    assert sentences_of(write(name, body), **columns) == EXPECTED


def test_csv_fields_may_span_lines_and_hold_commas() -> None:
    file = write("x.csv", 'text,label\n"One,\ntwo.",good\nThree.,bad\n')
    assert sentences_of(file) == [("One,\ntwo.", "good"), ("Three.", "bad")]


def test_three_classes_named_by_words() -> None:
    rows = "".join(f"Number {i}.,{('so-so', 'good', 'bad')[i % 3]}\n" for i in range(30))
    task = load_corpus(str(write("x.csv", "text,label\n" + rows)))
    assert task.labels == ("bad", "good", "so-so")
    assert sum(map(len, task.splits.values())) == 30


def test_numbers_as_labels_keep_their_order() -> None:
    rows = "".join(f"Number {i}.\t{i}\n" for i in (10, 9, 2) * 5)
    assert load_corpus(str(write("x.tsv", "text\tlabel\n" + rows))).labels == ("2", "9", "10")


def test_a_lone_file_always_gets_the_same_dev_split() -> None:
    file = write("x.tsv", cola_lines(40, 25))
    task, again = (load_corpus(str(file)) for _ in range(2))
    train, dev = task.splits["train"], task.splits["dev"]
    assert len(dev) == 4
    assert {*train.sentences, *dev.sentences} == {f"Sentence {i}." for i in range(40)}
    assert again.splits == task.splits


def test_neighbours_are_held_out_together() -> None:
    numbers = [f"{i}" for i in range(205)]
    whole = Split(numbers, [i % 2 for i in range(205)], ["a"] * 205)
    rest, held = corpus.hold_out(whole, 0.2, seed=3)
    assert sorted([*rest.sentences, *held.sentences], key=int) == whole.sentences
    runs = {int(sentence) // 10 for sentence in held.sentences}
    assert len(held) == 41
    assert len(runs & {int(sentence) // 10 for sentence in rest.sentences}) <= 1
    assert corpus.hold_out(whole, 0.2, seed=3) == (rest, held)
    assert corpus.hold_out(whole, 0.2, seed=4)[1] != held


def test_a_folder_with_files_by_split() -> None:
    Path("task").mkdir()
    for name in ("train.csv", "valid.csv", "ood.jsonl"):
        rows = "text,label\nYes.,good\nNo.,bad\n"
        if name.endswith("jsonl"):
            rows = '{"text": "Yes.", "label": "good"}\n'
        write(f"task/{name}", rows)
    sizes = {name: len(split) for name, split in load_corpus("task").splits.items()}
    assert sizes == {"train": 2, "dev": 2, "ood": 1}


def test_a_folder_of_dev_files_alone_is_enough_to_evaluate() -> None:
    Path("task").mkdir()
    write("task/dev.csv", "text,label\nYes.,good\nNo.,bad\n")
    assert load_evaluation("task", ("bad", "good")).splits["dev"].labels == [1, 0]
    with pytest.raises(UserError, match=r"task has no in_domain_train\.tsv and no train\.tsv"):
        load_corpus("task")


def test_two_files_for_one_split_are_refused() -> None:
    Path("task").mkdir()
    for name in ("train.csv", "train.tsv"):
        write(f"task/{name}", "text,label\nYes.,good\n")
    with pytest.raises(UserError, match=r"two train files, train\.tsv and train\.csv; remove one"):
        load_corpus("task")


def test_the_hash_covers_every_file() -> None:
    folder = small_cola(Path("task"))
    before = load_corpus("task").sha256
    assert load_corpus("task").sha256 == before
    write(str(folder / "out_of_domain_dev.tsv"), cola_lines(2, 2))
    assert load_corpus("task").sha256 != before


BAD = {
    "columns": ("x.tsv", "a\t1\t\tOne.\nb\t0\n", r"x\.tsv:2: 2 tab-separated columns where"),
    "label": ("x.tsv", "a\t1\t\tOne.\nb\t2\t\tTwo.\n", r"x\.tsv:2: label '2' is neither 0 nor 1"),
    "header": ("x.tsv", "id\tlabel\tutterance\n", r"x\.tsv:1: label 'label' .* `text_column`"),
    "no sentence": ("x.tsv", "a\t1\t\tOne.\nb\t0\t\t \n", r"x\.tsv:2: the sentence is empty"),
    "gap": ("x.tsv", "a\t1\t\tOne.\n\nb\t0\t\tTwo.\n", r"x\.tsv:2: 1 tab-separated column where"),
    "empty": ("x.tsv", "", r"x\.tsv is empty"),
    "blank": ("x.tsv", "\r\n \n", r"x\.tsv is empty"),
    "header only": ("x.csv", "text,label\n", r"x\.csv has a header but no sentences"),
    "one label": ("x.tsv", "a\t1\t\tOne.\nb\t1\t\tTwo.\n", r"x\.tsv has one label only, '1'"),
    "encoding": ("x.tsv", b"a\t1\t\tOne.\nb\t0\t\t\xe9\0\xff\n", r"x\.tsv:2: not UTF-8"),
    "CSV columns": ("x.csv", "text,label\nOne.,1\nTwo.\n", r"x\.csv:3: 1 column where the header"),
    "CSV quotes": ("x.csv", 'text,label\n"One.,1\n', r"x\.csv:2: unexpected end of data"),
    "CSV header": ("x.csv", "a,b\nOne.,1\n", r"x\.csv needs `text_column`: one of .* a, b"),
    "CSV label": ("x.csv", "text,label\nOne.,\n", r"x\.csv:2: the label is empty"),
    "JSON": (
        "x.jsonl",
        '{"text": "One.", "label": 1}\n{"text"\n',
        r"x\.jsonl:2: not a line of JSON",
    ),
    "JSON strings": ("x.json", '["One."]\n', r"x\.json:1: not a JSON object"),
    "JSON array": ("x.json", '[{"text": "One."}]\n', r"x\.json:1 needs `label_column`"),
    "JSON text": ("x.jsonl", '{"text": 1, "label": 1}\n', r"x\.jsonl:1: the text is not a string"),
    "JSON label": ("x.jsonl", '{"text": "One.", "label": [1]}\n', r"x\.jsonl:1: label \[1\] is"),
    "JSON key": ("x.jsonl", '{"text": "One."}\n', r"x\.jsonl:1 needs `label_column`"),
}


@pytest.mark.parametrize(("name", "body", "words"), BAD.values(), ids=BAD)
def test_a_line_that_does_not_fit_is_named(name: str, body: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_corpus(str(write(name, body)))


def test_a_column_that_is_not_there_is_named() -> None:
    file = write("x.csv", "text,label\nOne.,1\n")
    with pytest.raises(UserError, match=r"no column 'body' \(`text_column`\); it has text, label"):
        load_corpus(str(file), text_column="body")


def test_a_label_that_the_model_does_not_know_is_named() -> None:
    file = write("x.csv", "text,label\nOne.,good\nTwo.,ugly\n")
    with pytest.raises(UserError, match=r"x\.csv:3: label 'ugly' is none of bad, good"):
        load_evaluation(str(file), ("bad", "good"))


def test_too_few_sentences_to_hold_any_out() -> None:
    with pytest.raises(UserError, match="1 training sentences are too few"):
        corpus.hold_out(Split(["One."], [0]), 0.1, seed=0)


def test_printed_a_corpus_says_its_sizes_and_no_sentence() -> None:
    file = write("x.tsv", cola_lines(40, 25))
    corpus = load_corpus(str(file))
    labels = "('unacceptable', 'acceptable')"
    assert repr(corpus) == f"Corpus('x', labels={labels}, train=36, dev=4, path='x.tsv')"
    split = Split(["One.", "Two.", "Three."], [1, 0, 1])
    assert repr(split) == "Split(3 sentences, labels {0: 1, 1: 2})"


@pytest.mark.usefixtures("offline")
def test_auto_falls_back_on_minicola_and_says_so() -> None:
    task = load_corpus("auto")
    assert task.name == "MiniCoLA"
    assert "can't be reached" in task.reason


def test_minicola_is_whole() -> None:
    task = load_corpus("minicola")
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 3000,
        "dev": 500,
        "ood": 500,
    }
    assert task.labels == COLA_LABELS
    assert all(split.sources for split in task.splits.values())


def test_a_name_that_is_not_utf8_is_refused() -> None:
    name = "caf\udce9.csv"
    write(name, "text,label\nOne.,good\nTwo.,bad\n" * 9)
    with pytest.raises(UserError, match=r"`data` 'caf\\udce9\.csv': the name is not UTF-8; rename"):
        load_corpus(name)
