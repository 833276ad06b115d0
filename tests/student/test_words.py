"""The words of a sentence among a student's tokens."""

from potstill.student.tokenizer import encode, train_tokenizer, word_end_positions

SENTENCES = [
    "The books on the table are old.",
    "  Naïve\u00a0«birds»  sing,\tdon't they?  ",
    "👩‍👩‍👧 said so",
    "It",
]
WORDS = [7, 5, 3, 1]  # a no-break space is a space


def test_the_students_tokens_too():
    tokenizer = train_tokenizer(SENTENCES, 270)
    tokens = encode(tokenizer, SENTENCES, 128)
    places = word_end_positions(tokenizer, SENTENCES, 128)
    assert [len(each) for each in places] == WORDS
    for sentence, ids, ends in zip(SENTENCES, tokens, places, strict=True):
        for number, place in enumerate(ends, 1):
            assert tokenizer.decode(ids[: place + 1]).split() == sentence.split()[:number]
    # Not of the emoji: a letter of several tokens counts with its first.
    short = word_end_positions(tokenizer, SENTENCES, 4)
    del short[2], places[2]
    assert short == [[place for place in each if place < 4] for each in places]
