"""What is wrong with data is found, with its lines, and nothing else is."""

from pathlib import Path

import pandas
import pytest

from potstill import DataReport, UserError, check, load_corpus
from potstill.data.check import is_mojibake
from potstill.data.cola import COLA_LABELS
from tests.data.conftest import write

ROWS = [(f"Text number {i} is {'fine' if i % 2 else 'dull'}.", "ab"[i % 2]) for i in range(40)]


def table(*more: tuple[str, str], rows: list[tuple[str, str]] = ROWS) -> str:
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in [*rows, *more])


def kinds(report: DataReport) -> dict[str, tuple[str, ...]]:
    assert all(finding.message and str(finding) for finding in report.findings)
    return {finding.kind: finding.lines for finding in report.findings}


FIRST, SECOND = ROWS[0][0], ROWS[1][0]
FINDINGS = {
    "contradictions": (table((FIRST, "b")), ["x.csv:2", "x.csv:42"], "1 text with two labels"),
    "copies": (table((FIRST, "a"), (FIRST, "a")), ["x.csv:42", "x.csv:43"], "2 sentences of train"),
    "near copies": (table((SECOND.upper(), "b")), ["x.csv:42"], "but for case, blanks or punct"),
    "labels alike": (table(("One.", "A"), ("Two.", "A")), ["x.csv:42", "x.csv:43"], "'A' and 'a'"),
    "doubtful labels": (table(("One.", "None")), ["x.csv:42"], "'None' is a class; if it means no"),
    "rare classes": (table(("One.", "c")), ["x.csv:42"], "1 class with fewer than 10 .*: c 1"),
    "mojibake": (table(("Le cafÃ© est fermÃ©.", "a")), ["x.csv:42"], "1 sentence of UTF-8"),
    "lost characters": (table(("Le caf\ufffd.", "a")), ["x.csv:42"], r"1 sentence with U\+FFFD"),
}


@pytest.mark.parametrize("kind", FINDINGS)
def test_a_finding_has_its_lines(kind: str) -> None:
    body, lines, words = FINDINGS[kind]
    write("x.csv", body)
    write("dev.csv", table(rows=[("Another one.", "a"), ("Another two.", "b")]))
    report = check({"train": "x.csv", "dev": "dev.csv"})
    assert not report.refused
    found = [f for f in report.findings if f.kind == kind]
    assert len(found) == 1 and found[0].severity == "warn"
    assert sorted(found[0].lines) == sorted(lines)
    assert pytest.importorskip("re").search(words, found[0].message)
    # The rest are those of small or new classes.
    assert set(kinds(report)) - {kind} <= {"rare classes", "absent classes", "contradictions"} | (
        {"copies"} if kind == "contradictions" else set()
    )


def test_clean_data_has_none() -> None:
    report = check(str(write("x.csv", table())))
    assert not report.findings and not report.refused
    assert report.sentences == {"train": 36, "dev": 4}
    assert report.classes == {"a": {"train": 18, "dev": 2}, "b": {"train": 18, "dev": 2}}
    assert set(report.examples) == {"a", "b"}
    lengths = sorted(len(text) for text in load_corpus("x.csv").splits["train"].sentences)
    assert report.characters["maximum"] == lengths[-1]
    assert report.truncated == {"train": 0, "dev": 0}
    assert check("minicola").findings == ()
    assert list(check("minicola").classes) == list(COLA_LABELS)


def test_sentences_that_stand_on_both_sides() -> None:
    texts = [text for text, _ in ROWS]
    labels = [label for _, label in ROWS]
    dev = ([*texts[:7], "New.", texts[8].upper()], [*labels[:7], "a", labels[8]])
    report = check({"train": (texts, labels), "dev": dev})
    assert set(kinds(report)) == {"leaks"}
    assert "8 of dev's 9 sentences are in train" in report.findings[0].message
    assert report.findings[0].lines[0] == "data in memory, dev:1"


def test_classes_that_dev_lacks_and_classes_without_end() -> None:
    rows = [(f"Text {i}.", f"id {i}") for i in range(60)]
    report = check({"train": tuple(map(list, zip(*rows, strict=True))), "dev": (["A."], ["id 1"])})
    assert set(kinds(report)) == {"rare classes", "absent classes", "many classes"}


def test_what_is_cut_is_counted_in_tokens_of_the_student() -> None:
    long = " ".join(f"word{i}" for i in range(300))
    write("x.csv", table((long, "a"), (long + " again", "b")))
    report = check("x.csv")
    assert sum(report.truncated.values()) == 2
    assert sum(check("x.csv", max_length=5000).truncated.values()) == 0


def test_everything_that_is_refused_is_listed() -> None:
    write("x.csv", table(("One.", "nan"), ("", "a"), ("Two.", ""), ("Three.", "NaN"), ("", "b")))
    report = check("x.csv")
    assert report.refused
    refused = {f.message: f.lines for f in report.findings if f.severity == "refuse"}
    assert refused == {
        "label 'nan' is that of a row without a label; remove the row": ("x.csv:42",),
        "label 'NaN' is that of a row without a label; remove the row": ("x.csv:45",),
        "the sentence is empty; write it, or remove the row": ("x.csv:43", "x.csv:46"),
        "the label is empty; write it, or remove the row": ("x.csv:44",),
    }
    # The others are counted all the same.
    assert sum(report.sentences.values()) == 40
    with pytest.raises(UserError, match=r"x\.csv:42: label 'nan'"):
        load_corpus("x.csv")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (table() + table(), "x.csv:42: the header again"),
        (table(("One.", "a|b")), "x.csv:42: label 'a|b' is 2 labels, but a row has one"),
        ("text,label\n", "has a header but no sentences"),
        ("text,label\nOne.,a\n", "x.csv has one label only"),
        ("text,label\nOne.\n", "x.csv:2: 1 column where the header has 2"),
        ("", "x.csv is empty"),
    ],
)
def test_what_can_not_be_read_is_a_finding_too(body: str, words: str) -> None:
    report = check(str(write("x.csv", body)))
    assert report.refused and [f.kind for f in report.findings] == ["unreadable"]
    assert words in report.findings[0].message
    with pytest.raises(UserError, match=words.split("|")[0]):
        load_corpus("x.csv")


def test_a_label_with_a_comma_may_be_one() -> None:
    rows = [(text, {"a": "Paris, France", "b": "Lyon, France"}[label]) for text, label in ROWS]
    assert check(pandas.DataFrame(rows, columns=["text", "label"])).findings == ()


@pytest.mark.parametrize(
    "text", ["é", "😀", "Überraschung", "日本語", "Ça", "naïve", "Ã", "„So“", "книга"]
)
def test_text_as_it_should_be_is_not_mojibake(text: str) -> None:
    assert not is_mojibake(text)
    encoded = text.encode()
    try:
        garbled = encoded.decode("cp1252")
    except UnicodeDecodeError:
        return
    assert is_mojibake(garbled)


def test_no_file_is_a_finding(tmp_path: Path) -> None:
    report = check(str(tmp_path / "none.csv"))
    assert report.refused and "there is no such file or folder" in report.findings[0].message
