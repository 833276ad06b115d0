"""The words of a sentence among a student's tokens."""

from potstill.student.tokenizer import encode, train_tokenizer, word_end_positions

SENTENCES = [
    "The books on the table are old.",
    "  Naïve\u00a0«birds»  sing,\tdon't they?  ",
    "👩‍👩‍👧 said so",
    "It",
]
WORDS = [7, 5, 3, 1]  # a no-break space is a space


def test_word_end_positions():
    tokenizer = train_tokenizer(SENTENCES, 270)
    tokens = encode(tokenizer, SENTENCES, 128)
    positions = word_end_positions(tokenizer, SENTENCES, 128)
    assert [len(each) for each in positions] == WORDS
    for sentence, ids, ends in zip(SENTENCES, tokens, positions, strict=True):
        for number, position in enumerate(ends, 1):
            assert tokenizer.decode(ids[: position + 1]).split() == sentence.split()[:number]
    # Not of the emoji: a letter of several tokens counts with its first.
    short = word_end_positions(tokenizer, SENTENCES, 4)
    del short[2], positions[2]
    within = [[position for position in each if position < 4] for each in positions]
    # The last token stands for a first word that is cut off.
    assert short == [each or [3] for each in within]
