"""Edits: what each makes of a sentence, and that words, stops and capitals stay whole."""

import numpy as np
import pytest

from potstill.data.corpus import load_corpus
from potstill.transfer.edits import EDITS, edit_sentence
from potstill.transfer.lexicon import core, possible_stems, read_lexicon

SENTENCES = [
    "The dog walks to the old house.",
    "The dog walked to the new house.",
    "A child was stopping at the house, and he slept.",
    "He stops here.",
    "Mary saw him.",
]
LEXICON = read_lexicon(SENTENCES)


def results(name: str, sentence: str, tries: int = 300) -> set[str]:
    """Return what an edit makes of a sentence, over many draws."""
    rng = np.random.default_rng(0)
    made = {edit_sentence(sentence, name, LEXICON, rng) for _ in range(tries)}
    return {text for text in made if text is not None}


def test_change_form() -> None:
    assert results("change_form", "The dog walks.") == {"The dog walked."}
    assert "He stopping here." in results("change_form", "He stops here.")
    assert "Mary see him." in results("change_form", "Mary saw him.")
    assert results("change_form", "Mary him.") == set()


def test_change_function_word() -> None:
    made = results("change_function_word", "Mary saw him.")
    assert {"Mary saw he.", "Mary saw himself."} & made
    assert all(text.startswith("Mary saw ") and text.endswith(".") for text in made)


def test_substitute_fits_between_the_same_neighbours() -> None:
    made = results("substitute", "The dog walks to the new house.")
    assert "The dog walked to the new house." in made
    assert "The dog walks to the old house." in made
    assert not any("Mary" in text for text in made)


def test_delete_keeps_the_final_stop() -> None:
    assert results("delete", "Mary saw him.") == {"Saw him.", "Mary him.", "Mary saw."}
    assert results("delete", "He stops.") == set()


def test_insert() -> None:
    assert results("insert", "The dog walks.") == {
        *("The old dog walks.", "The new dog walks.", "The house dog walks."),
        *("The dog walks walks.", "The dog walked walks."),
    }


def test_swap() -> None:
    assert results("swap", "Mary saw him.") == {"Saw Mary him.", "Mary him saw."}


def test_move_loses_no_word() -> None:
    for text in results("move", "A child was stopping at the house."):
        assert sorted(text.lower().rstrip(".").split()) == sorted(
            ["a", "child", "was", "stopping", "at", "the", "house"]
        )
        assert text.endswith(".")


def test_splice() -> None:
    made = results("splice", "Mary saw him.")
    assert all(text.startswith("Mary") for text in made)
    assert any(text.endswith("house.") for text in made)


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_changes_many_sentences_and_damages_none(name: str) -> None:
    sentences = load_corpus("minicola").splits["train"].sentences
    lexicon = read_lexicon(sentences)
    rng = np.random.default_rng(0)
    made = [(s, edit_sentence(s, name, lexicon, rng)) for s in sentences[:400]]
    changed = [(s, text) for s, text in made if text is not None]
    assert len(changed) > 250
    for sentence, text in changed:
        assert text != sentence
        assert text[0].isupper() or not text[0].isalpha()
        assert text[-1] in ".?!" or name == "splice"
        assert text == " ".join(text.split())


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("sentence", ["", "  ", ".", "No", "¿Qué?", "« Oui »", "a a"])
def test_short_and_odd_sentences_are_edited_or_refused(name: str, sentence: str) -> None:
    for seed in range(20):
        text = edit_sentence(sentence, name, LEXICON, np.random.default_rng(seed))
        assert text is None or (text.strip() and text != sentence)


def test_seed_determines_the_edit() -> None:
    for name in EDITS:
        first, again = (
            [edit_sentence(SENTENCES[0], name, LEXICON, rng) for _ in range(20)]
            for rng in (np.random.default_rng(5), np.random.default_rng(5))
        )
        assert first == again


def test_core_and_stems() -> None:
    assert core("house,") == "house"
    assert core("“don't”") == "don't"
    assert core("—") == ""
    assert "stop" in possible_stems("stopping") & possible_stems("stops")
    assert "tr" not in possible_stems("tries")
    assert "try" in possible_stems("tried")


def test_characters_are_words_where_there_are_no_spaces() -> None:
    """Edited, Chinese and Japanese stay without spaces, and keep their stops at the end."""
    sentences = [
        "猫が古い家で寝る。",
        "犬が古い庭で寝る。",
        "猫は新しい家にいる。",
        "我今天去了学校。",
    ]
    lexicon, rng = read_lexicon(sentences), np.random.default_rng(0)
    for name in ("substitute", "delete", "insert", "swap", "move", "splice"):
        made = {edit_sentence(s, name, lexicon, rng) for s in sentences for _ in range(20)} - {None}
        assert len(made) > 3, name
        assert all(" " not in text and text.index("。") == len(text) - 1 for text in made), name
    assert edit_sentence("Das ist 猫 .", "delete", lexicon, rng) is not None
