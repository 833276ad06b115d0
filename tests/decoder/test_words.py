"""The words of a sentence among a decoder's tokens."""

import pytest

from potstill.decoder import classifier
from potstill.decoder.classifier import word_end_positions

SENTENCES = [
    "The books on the table are old.",
    "  Naïve\u00a0«birds»  sing,\tdon't they?  ",
    "👩‍👩‍👧 said so",
    "It",
]
WORDS = [7, 5, 3, 1]  # a no-break space is a space


@pytest.mark.parametrize("start", [None, 7])
def test_tokens_up_to_a_position_are_the_words_so_far(tiny_decoder, start):
    tokenizer = tiny_decoder.tokenizer()
    tokens, _ = classifier.encode(tokenizer, SENTENCES, 128, start)
    positions = word_end_positions(tokenizer, SENTENCES, 128, start)
    assert [len(each) for each in positions] == WORDS
    for sentence, ids, ends in zip(SENTENCES, tokens, positions, strict=True):
        for number, position in enumerate(ends, 1):
            tokens_so_far = ids[int(start is not None) : position + 1]
            assert tokenizer.decode(tokens_so_far).split() == sentence.split()[:number]
    short = word_end_positions(tokenizer, SENTENCES, 6, start)
    within = [[position for position in each if position < 6] for each in positions]
    # The last token stands for a first word that is cut off.
    assert short == [each or [5] for each in within]
