"""Edits: what each makes of a sentence, and that words, stops and capitals stay whole."""

import numpy as np
import pytest

from potstill.data.corpus import load_corpus
from potstill.transfer.edits import EDITS, core, edit_sentence, read_lexicon, stems_of

SENTENCES = [
    "The dog walks to the old house.",
    "The dog walked to the new house.",
    "A child was stopping at the house, and he slept.",
    "He stops here.",
    "Mary saw him.",
]
LEXICON = read_lexicon(SENTENCES)


def all_of(name: str, sentence: str, tries: int = 300) -> set[str]:
    """What an edit makes of a sentence, over many draws."""
    rng = np.random.default_rng(0)
    made = {edit_sentence(sentence, name, LEXICON, rng) for _ in range(tries)}
    return {text for text in made if text is not None}


def test_change_form():
    assert all_of("change_form", "The dog walks.") == {"The dog walked."}
    assert "He stopping here." in all_of("change_form", "He stops here.")
    assert "Mary see him." in all_of("change_form", "Mary saw him.")
    assert all_of("change_form", "Mary him.") == set()


def test_change_function_word():
    made = all_of("change_function_word", "Mary saw him.")
    assert {"Mary saw he.", "Mary saw himself."} & made
    assert all(text.startswith("Mary saw ") and text.endswith(".") for text in made)


def test_substitute_takes_what_stood_between_the_same_neighbours():
    made = all_of("substitute", "The dog walks to the new house.")
    assert "The dog walked to the new house." in made
    assert "The dog walks to the old house." in made
    assert not any("Mary" in text for text in made)


def test_delete_keeps_the_final_stop():
    assert all_of("delete", "Mary saw him.") == {"Saw him.", "Mary him.", "Mary saw."}
    assert all_of("delete", "He stops.") == set()


def test_insert():
    assert all_of("insert", "The dog walks.") == {
        *("The old dog walks.", "The new dog walks.", "The house dog walks."),
        *("The dog walks walks.", "The dog walked walks."),
    }


def test_swap():
    assert all_of("swap", "Mary saw him.") == {"Saw Mary him.", "Mary him saw."}


def test_move_loses_no_word():
    for text in all_of("move", "A child was stopping at the house."):
        assert sorted(text.lower().rstrip(".").split()) == sorted(
            ["a", "child", "was", "stopping", "at", "the", "house"]
        )
        assert text.endswith(".")


def test_splice():
    made = all_of("splice", "Mary saw him.")
    assert all(text.startswith("Mary") for text in made)
    assert any(text.endswith("house.") for text in made)


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_changes_many_sentences_and_damages_none(name):
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
def test_odd_sentences(name, sentence):
    for seed in range(20):
        text = edit_sentence(sentence, name, LEXICON, np.random.default_rng(seed))
        assert text is None or (text.strip() and text != sentence)


def test_a_seed_settles_the_edit():
    for name in EDITS:
        one, other = (
            [edit_sentence(SENTENCES[0], name, LEXICON, rng) for _ in range(20)]
            for rng in (np.random.default_rng(5), np.random.default_rng(5))
        )
        assert one == other


def test_core_and_stems():
    assert core("house,") == "house"
    assert core("“don't”") == "don't"
    assert core("—") == ""
    assert "stop" in stems_of("stopping") & stems_of("stops")
    assert "tr" not in stems_of("tries")
    assert "try" in stems_of("tried")
