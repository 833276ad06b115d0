"""The ends of words, by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.data.text import WORD, ragged_word_ends, word_ends
from potstill.data.token_array import TokenArray

CHARACTERS = st.sampled_from("ab.,\n\t \u3000\u2028\x1c本のー々éй책\U0002f800\U00031350\U0001f600")


def test_ends_by_hand():
    assert word_ends("ab cde f", [2, 4, 6, 8]) == [0, 2, 3]
    assert word_ends("ab cde f", [2, 4]) == [0]  # cut off
    assert word_ends("abcdefgh i", [2, 4, 5]) == [2]  # cut off in the first word
    assert word_ends("ab cde f", [2, 2, 6, 6, 8]) == [1, 3, 4]  # tokens that are parts of a letter
    assert word_ends("ab cde f", [6, 8]) == [0, 0, 1]  # a token across words
    assert word_ends("ab", []) == word_ends("   ", [3]) == []


def test_characters_without_spaces_between_are_words():
    assert [match[0] for match in WORD.finditer("本は old。 テスト！")] == [
        "本", "は", "old。", "テ", "ス", "ト", "！",
    ]  # fmt: skip
    assert [match[0] for match in WORD.finditer("Книга 책은 café don't")] == [
        "Книга", "책은", "café", "don't",
    ]  # fmt: skip
    assert word_ends("本はここ", [1, 1, 1, 2, 4]) == [2, 3, 3, 4]  # three tokens for the first


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.text(CHARACTERS, max_size=12), st.lists(st.integers(0, 12), max_size=8)),
        max_size=5,
    )
)
def test_many_sentences_at_once(drawn):
    """Whatever the tokens: cut off, none at all, several of one letter, one of several words."""
    sentences = [sentence for sentence, _ in drawn]
    ends = [sorted(min(end, len(sentence)) for end in each) for sentence, each in drawn]
    found = ragged_word_ends(sentences, TokenArray.of(ends))
    expected = [word_ends(s, e) for s, e in zip(sentences, ends, strict=True)]
    assert [each.tolist() for each in found] == expected
