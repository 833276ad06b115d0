"""The decoder's chances as targets of the student's language model."""

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.nn import functional as F

from potstill.data.batching import collate
from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.distillation.lm_targets import soft_targets
from potstill.settings import LoRASettings
from potstill.student.heads import NextTokenHead
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import encode, train_tokenizer
from potstill.transfer.teacher_lm import top_k_targets, vocabulary
from potstill.transfer.top_k import TOP_K, TopKTargets

SENTENCES = ["The birds sing.", "Ann", "Naïve dogs sleep all the time, the cats say.", "It rains."]


def found_in(decoder: BaseModel, sentences: list[str]) -> list[TopKTargets]:
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    model.fuse()
    return top_k_targets(model.eval(), decoder.tokenizer(), sentences)


def one_sentence(chances: Any, tokens: Any, ends: Any, following: Any) -> TopKTargets:
    """Padded to TOP_K with the first token and no chance."""
    wide = np.zeros((len(ends), TOP_K), np.float16)
    ids = np.full((len(ends), TOP_K), tokens[0][0], np.int32)
    for i, (row, which) in enumerate(zip(chances, tokens, strict=True)):
        wide[i, : len(row)], ids[i, : len(row)] = row, which
    return TopKTargets(np.array(ends, np.uint16), ids, wide, np.array(following))


@pytest.fixture
def student_tokenizer() -> Tokenizer:
    """Knows " it", " rains", " rain" and letters."""
    return train_tokenizer(["it rains"] * 9 + ["it rain"] * 9, 270)


def test_the_decoders_tokens_become_the_students(student_tokenizer: Tokenizer) -> None:
    """Those of the decoder: "it", "Ġrains", "Ġrain", "s", "Ġcat", of which the student makes " c"
    or " " first; and "it r", where the student's tokens do not end."""
    own = student_tokenizer.get_vocab()
    mine = encode(student_tokenizer, ["it rains", "it rains", "it rain"], 9)
    assert mine[0] == [own["Ġit"], own["Ġrains"]]
    theirs = ["it", "Ġrains", "Ġrain", "Ġcat", "Ġr"]
    chances = [[0.5, 0.25, 0.125]]
    found = [
        one_sentence(chances, [[1, 2, 3]], [2], [1]),  # what follows is among the likeliest
        one_sentence([[0.5, 0.125]], [[2, 3]], [2], [1]),  # it is not
        one_sentence(chances, [[1, 2, 3]], [3], [1]),  # no token of the decoder's ends there
    ]
    soft = soft_targets(
        student_tokenizer,
        ["it rains", "it rains", "it rain"],
        mine,
        top_k=found,
        vocabulary=theirs,
    )
    assert soft.soft_fraction() == pytest.approx(2 / 3)
    cat = student_tokenizer.model.tokenize("Ġcat")[0].id
    following = torch.tensor([own["Ġrains"], own["Ġrain"], own["Ġrains"]])
    places, shares = soft.batch([1, 2, 0], following)
    assert places.shape == shares.shape == (3, TOP_K + 1)
    wanted = [
        {own["Ġrain"]: 0.5, cat: 0.125, own["Ġrains"]: 1.0},
        {own["Ġrain"]: 1.0},
        {own["Ġrains"]: 0.5, own["Ġrain"]: 0.25, cat: 0.125},
    ]
    for row, share, expected in zip(places.tolist(), shares.tolist(), wanted, strict=True):
        totals: dict[int, float] = {}
        for place, part in zip(row, share, strict=True):
            totals[place] = totals.get(place, 0) + part
        assert {place: part for place, part in totals.items() if part} == expected


def test_where_other_tokens_follow_the_sentence_alone_teaches(student_tokenizer: Tokenizer) -> None:
    """The decoder went on with "Ġr", the student with " rains"."""
    mine = encode(student_tokenizer, ["it rains"], 9)
    found = [one_sentence([[0.5]], [[1]], [2], [4])]
    theirs = ["it", "Ġrains", "Ġrain", "Ġcat", "Ġr"]
    soft = soft_targets(student_tokenizer, ["it rains"], mine, top_k=found, vocabulary=theirs)
    assert soft.soft_fraction() == 0
    places, shares = soft.batch([0], torch.tensor([mine[0][1]]))
    assert shares.sum() == 1 and places[0][shares[0] > 0].tolist() == [mine[0][1]]


def test_over_many_draws_the_targets_are_the_chances() -> None:
    """What is not among the likeliest is drawn as often as it is likely: nothing is lost."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(60, 0.5)).astype(np.float32)
    likely = np.argsort(-chances)[:TOP_K]
    tokenizer = Tokenizer(BPE({chr(97 + i): i for i in range(60)}, []))
    letters = [chr(97 + i) for i in range(60)]
    draws = rng.choice(60, 20000, p=chances / chances.sum())
    sentences = [f"a{letters[i]}" for i in draws]
    mine = [e.ids for e in tokenizer.encode_batch(sentences)]
    found: list[TopKTargets | None] = [
        TopKTargets(
            np.array([1], np.uint16),
            likely[None].astype(np.int32),
            chances[likely][None].astype(np.float16),
            np.array([i]),
        )
        for i in draws
    ]
    soft = soft_targets(tokenizer, sentences, mine, top_k=found, vocabulary=letters)
    assert soft.soft_fraction() == 1
    places, shares = soft.batch(range(len(draws)), torch.from_numpy(draws))
    mean = torch.zeros(60).scatter_add_(0, places.flatten(), shares.flatten()) / len(draws)
    np.testing.assert_allclose(mean.numpy(), chances, atol=5e-3)
    # By the tokens alone the mean would scatter several times as far.
    alone = np.bincount(draws, minlength=60) / len(draws)
    assert np.abs(mean.numpy() - chances).sum() < 0.5 * np.abs(alone - chances).sum()


@torch.no_grad()
def test_a_language_model_learns_from_them_forwards(tiny_decoder: BaseModel) -> None:
    """The loss by hand; backwards the tokens before are what is learnt."""
    tokenizer = train_tokenizer(SENTENCES, 300)
    mine = encode(tokenizer, SENTENCES, 99)
    found: list[TopKTargets | None] = [*found_in(tiny_decoder, SENTENCES)]
    found[3] = None
    words = vocabulary(tiny_decoder.tokenizer())
    soft = soft_targets(tokenizer, SENTENCES, mine, top_k=found, vocabulary=words)
    assert 0 < soft.soft_fraction() < 1
    torch.manual_seed(0)
    config = StudentConfig("gru", 5, 6, 1, dropout=0.0, vocab_size=300, classes=2)
    model = NextTokenHead(DistilRNN(config)).eval()
    index = torch.tensor([0, 2, 3])
    batch = collate(mine, index.tolist())
    likely = soft.batch(
        index.tolist(), torch.tensor([t for i in index.tolist() for t in mine[i][1:]])
    )
    loss = model(batch.input_ids, batch.lengths, likely)
    states = model.student.states(batch.input_ids, batch.lengths)
    forwards, backwards, count = 0.0, 0.0, 0
    for row, i in enumerate(index.tolist()):
        following = torch.tensor(mine[i][1:])
        places, shares = soft.batch([i], following)
        for at in range(len(mine[i]) - 1):
            ahead = model.student.embedding.weight @ model.heads[0](states[row, at, :5])
            behind = model.student.embedding.weight @ model.heads[1](states[row, at + 1, 5:])
            chances = F.log_softmax(ahead + model.bias, dim=0)
            forwards -= float((shares[at] * chances[places[at]]).sum())
            target = torch.tensor(mine[i][at])
            backwards += float(F.cross_entropy(behind + model.bias, target))
            count += 1
    assert float(loss) == pytest.approx((forwards + backwards) / 2 / count, rel=1e-5)
