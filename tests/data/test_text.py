"""The ends of words, by hand."""

from potstill.data.text import WORD, word_ends


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
