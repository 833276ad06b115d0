"""The ends of words, by hand."""

from potstill.data.text import word_ends


def test_ends_by_hand():
    assert word_ends("ab cde f", [2, 4, 6, 8]) == [0, 2, 3]
    assert word_ends("ab cde f", [2, 4]) == [0]  # cut off
    assert word_ends("ab cde f", [2, 2, 6, 6, 8]) == [1, 3, 4]  # tokens that are parts of a letter
    assert word_ends("ab cde f", [6, 8]) == [0, 0, 1]  # a token across words
    assert word_ends("ab", []) == word_ends("   ", [3]) == []
