"""What a teacher makes of each word, and how a student learns it, against each word by itself."""

import numpy as np
import pytest
import torch

from potstill import classifier, student
from potstill.batching import collate
from potstill.classifier import Classifier, word_places
from potstill.student import DistilRNN, StudentConfig, train_tokenizer
from potstill.words import WordByWord, with_words, word_ends, word_targets

SENTENCES = [
    "The books on the table are old.",
    "  Naïve\u00a0«birds»  sing,\tdon't they?  ",
    "👩‍👩‍👧 said so",
    "It",
]
WORDS = [7, 5, 3, 1]  # a no-break space is a space


def test_ends_by_hand():
    assert word_ends("ab cde f", [2, 4, 6, 8]) == [0, 2, 3]
    assert word_ends("ab cde f", [2, 4]) == [0]  # cut off
    assert word_ends("ab cde f", [2, 2, 6, 6, 8]) == [1, 3, 4]  # tokens that are parts of a letter
    assert word_ends("ab cde f", [6, 8]) == [0, 0, 1]  # a token across words
    assert word_ends("ab", []) == word_ends("   ", [3]) == []


@pytest.mark.parametrize("start", [None, 7])
def test_tokens_up_to_a_place_are_the_words_so_far(tiny_decoder, start):
    tokenizer = tiny_decoder.tokenizer()
    tokens, _ = classifier.encode(tokenizer, SENTENCES, 128, start)
    places = word_places(tokenizer, SENTENCES, 128, start)
    assert [len(each) for each in places] == WORDS
    for sentence, ids, ends in zip(SENTENCES, tokens, places, strict=True):
        for number, place in enumerate(ends, 1):
            read = ids[int(start is not None) : place + 1]
            assert tokenizer.decode(read).split() == sentence.split()[:number]
    short = word_places(tokenizer, SENTENCES, 6, start)
    assert short == [[place for place in each if place < 6] for each in places]


def test_the_students_tokens_too():
    tokenizer = train_tokenizer(SENTENCES, 270)
    tokens = student.encode(tokenizer, SENTENCES, 128)
    places = student.word_places(tokenizer, SENTENCES, 128)
    assert [len(each) for each in places] == WORDS
    for sentence, ids, ends in zip(SENTENCES, tokens, places, strict=True):
        for number, place in enumerate(ends, 1):
            assert tokenizer.decode(ids[: place + 1]).split() == sentence.split()[:number]
    # Not of the emoji: a letter of several tokens counts with its first.
    short = student.word_places(tokenizer, SENTENCES, 4)
    del short[2], places[2]
    assert short == [[place for place in each if place < 4] for each in places]


@torch.no_grad()
def test_after_each_token_is_the_sentence_cut_there(tiny_decoder, random_tokens, monkeypatch):
    model = Classifier(tiny_decoder.base(), 3).eval()
    torch.nn.init.normal_(model.score.weight)
    (ids,) = random_tokens([9])
    found = model.after_each_token(torch.tensor([ids, ids[::-1]]))[0]
    one_by_one = [
        model(torch.tensor([ids[:n]]), torch.tensor([n]))[0] for n in range(1, len(ids) + 1)
    ]
    torch.testing.assert_close(found, torch.stack(one_by_one), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(Classifier, "_parts", lambda self: None)
    plain = model.after_each_token(torch.tensor([ids]))[0]
    torch.testing.assert_close(plain, found, rtol=1e-4, atol=1e-5)


def some_targets() -> tuple[list[list[int]], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    places = [[0, 2, 3], [], [1], [0, 1, 2, 4]]
    # The first sentence has a word more here, the last one less.
    return places, [rng.normal(size=(n, 2)).astype(np.float32) for n in (4, 0, 1, 3)]


def test_targets_of_a_batch():
    places, logits = some_targets()
    targets = word_targets(places, logits)
    for index in ([0, 1, 2, 3], [3, 0], [1], [2, 2]):
        rows, found, wanted, counts = targets.of(torch.tensor(index))
        expected = [
            (row, place, *values.tolist())
            for row, i in enumerate(index)
            for place, values in zip(places[i], logits[i], strict=False)
        ]
        assert list(zip(rows.tolist(), found.tolist(), strict=True)) == [e[:2] for e in expected]
        assert wanted.tolist() == [list(e[2:]) for e in expected]
        assert counts.tolist() == [rows.tolist().count(row) for row in rows.tolist()]


def test_the_loss_of_both(random_tokens):
    """That of the sentences plus that of their words, one at a time; the student learns of both.

    A sentence without words, as where its first is cut off, counts among the sentences.
    """
    torch.manual_seed(0)
    learner = WordByWord(DistilRNN(StudentConfig(30, 2, "gru", 6, 5, 2, True, dropout=0.0)))
    tokens = [[t % 30 for t in s] for s in random_tokens([4, 1, 2, 5])]
    places, logits = some_targets()
    index = torch.tensor([3, 0, 1, 2])
    batch = collate(tokens, index.tolist())
    loss = with_words(
        lambda found, index: found.square().mean() * index.sum(),
        word_targets(places, logits),
        lambda found, wanted: (found - wanted).abs().sum(1),
    )
    output = learner(batch.input_ids, batch.lengths)
    whole = learner.student(batch.input_ids, batch.lengths)
    torch.testing.assert_close(output[0], whole)
    expected = whole.square().mean() * 6
    for i in index.tolist():
        states = learner.student.states(torch.tensor([tokens[i]]), torch.tensor([len(tokens[i])]))
        pairs = list(zip(places[i], logits[i], strict=False))
        for place, wanted in pairs:
            found = learner.word_score(states[0, place])
            away = (found - torch.from_numpy(wanted)).abs().sum()
            expected = expected + away / len(pairs) / len(index)
    found = loss(output, index)
    torch.testing.assert_close(found, expected)
    mine, theirs = (torch.autograd.grad(x, list(learner.parameters())) for x in (found, expected))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert torch.equal(learner.eval()(batch.input_ids, batch.lengths), whole)
