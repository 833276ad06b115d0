"""MiniCoLA: what ships is what the grammar makes, balanced, and its files share nothing."""

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from potstill.data.cola import COLA_FILES
from potstill.data.corpus import load_corpus
from potstill.data.minicola import grammar, lexicon
from potstill.data.minicola.grammar import IN_DOMAIN, OUT_OF_DOMAIN, tokens
from potstill.data.minicola.lexicon import FUNCTION_WORDS

FOLDER = Path(grammar.__file__).parent
SIZES = {"train": 3000, "dev": 500, "ood": 500}


class Line(NamedTuple):
    source: str
    label: str
    mark: str
    sentence: str


def lines(split: str) -> list[Line]:
    text = (FOLDER / COLA_FILES[split]).read_text(encoding="utf-8")
    return [Line(*line.split("\t")) for line in text.splitlines()]


def forms(value: object) -> set[str]:
    """Every word in a table of the lexicon, whatever it is made of."""
    if isinstance(value, str):
        return set(tokens(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return set().union(*map(forms, value))
    return set()


def content_words(out_of_domain: bool) -> set[str]:
    tables = {name: value for name, value in vars(lexicon).items() if name.isupper()}
    chosen = [
        forms(value)
        for name, value in tables.items()
        if name[0] != "_" and name.startswith("OUT") == out_of_domain
    ]
    return set().union(*chosen) - FUNCTION_WORDS - {"m", "f"}


def words(split: str) -> set[str]:
    return {word for line in lines(split) for word in tokens(line.sentence)}


@pytest.mark.parametrize("split", SIZES)
def test_size_and_balance(split: str) -> None:
    rows = lines(split)
    assert len(rows) == SIZES[split]
    assert 0.68 <= sum(row.label == "1" for row in rows) / len(rows) <= 0.72
    labels = defaultdict(set)
    for row in rows:
        labels[row.source].add(row.label)
    assert all(found == {"0", "1"} for found in labels.values())


@pytest.mark.parametrize("split", SIZES)
def test_lines_are_in_colas_format(split: str) -> None:
    for row in lines(split):
        assert (row.label, row.mark) in (("1", ""), ("0", "*"))
        assert row.sentence[0].isupper()
        assert row.sentence[-1] in ".?"
        assert 3 <= len(row.sentence.split()) <= 16
        assert row.sentence == " ".join(row.sentence.split())


def test_no_sentence_stands_twice() -> None:
    sentences = [row.sentence for split in SIZES for row in lines(split)]
    assert len(set(sentences)) == len(sentences)


def test_phenomena() -> None:
    train, dev, ood = ({row.source for row in lines(split)} for split in SIZES)
    assert train == dev == set(IN_DOMAIN)
    assert ood == set(OUT_OF_DOMAIN)
    assert len(train) >= 12
    assert not train & ood


def test_out_of_domain_words_are_not_in_train() -> None:
    assert len(content_words(out_of_domain=True)) > 150
    assert not content_words(out_of_domain=True) & content_words(out_of_domain=False)
    assert not content_words(out_of_domain=True) & (words("train") | words("dev"))
    # And whatever else the two share, the grammar's own words too, is a function word.
    assert (words("train") | words("dev")) & words("ood") <= FUNCTION_WORDS


def test_the_grammar_writes_the_shipped_files(tmp_path: Path) -> None:
    grammar.write(tmp_path)
    for file in COLA_FILES.values():
        assert (tmp_path / file).read_bytes() == (FOLDER / file).read_bytes(), (
            f"{file} is not what the grammar makes: run python -m potstill.data.minicola"
        )


@pytest.mark.parametrize("name", [*IN_DOMAIN, *OUT_OF_DOMAIN])
def test_no_word_tells_the_label(name: str) -> None:
    """Within a phenomenon nearly every frequent word is in both labels."""
    rows = [row for split in SIZES for row in lines(split) if row.source == name]
    bad = [set(tokens(row.sentence)) for row in rows if row.label == "0"]
    good = [set(tokens(row.sentence)) for row in rows if row.label == "1"]
    for word in set().union(*bad, *good):
        in_bad = sum(word in sentence for sentence in bad) / len(bad)
        in_good = sum(word in sentence for sentence in good) / len(good)
        assert abs(in_bad - in_good) < 0.4, word


def test_corpus_reads_it() -> None:
    corpus = load_corpus("minicola")
    assert corpus.name == "MiniCoLA"
    assert {name: len(split) for name, split in corpus.splits.items()} == SIZES
    assert corpus.labels == ("unacceptable", "acceptable")
    assert set(corpus.splits["dev"].sources) == set(IN_DOMAIN)
