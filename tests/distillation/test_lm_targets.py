"""The decoder's probabilities as targets of the student's language model."""

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
from potstill.distillation.lm_targets import map_vocabulary, soft_targets
from potstill.settings import LoRASettings
from potstill.student.heads import NextTokenHead
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import encode, train_tokenizer
from potstill.transfer.teacher_lm import top_k_targets, vocabulary
from potstill.transfer.top_k import TOP_K, TopKTargets

SENTENCES = ["The birds sing.", "Ann", "Naïve dogs sleep all the time, the cats say.", "It rains."]


def top_k_of(decoder: BaseModel, sentences: list[str]) -> list[TopKTargets]:
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    model.fuse()
    return top_k_targets(model.eval(), decoder.tokenizer(), sentences)


def one_sentence(probs: Any, tokens: Any, ends: Any, following: Any) -> TopKTargets:
    """Padded to TOP_K with the first token and probability 0."""
    wide = np.zeros((len(ends), TOP_K), np.float16)
    ids = np.full((len(ends), TOP_K), tokens[0][0], np.int32)
    for i, (row, which) in enumerate(zip(probs, tokens, strict=True)):
        wide[i, : len(row)], ids[i, : len(row)] = row, which
    return TopKTargets(np.array(ends, np.uint16), ids, wide, np.array(following))


@pytest.fixture
def student_tokenizer() -> Tokenizer:
    """Knows " it", " rains", " rain" and letters."""
    return train_tokenizer(["it rains"] * 9 + ["it rain"] * 9, 270)


def test_decoder_tokens_are_mapped_to_student_tokens(student_tokenizer: Tokenizer) -> None:
    """Those of the decoder: "it", "Ġrains", "Ġrain", "s", "Ġcat", of which the student makes " c"
    or " " first; and "it r", where the student's tokens do not end."""
    own = student_tokenizer.get_vocab()
    tokens = encode(student_tokenizer, ["it rains", "it rains", "it rain"], 9)
    assert tokens[0] == [own["Ġit"], own["Ġrains"]]
    vocab = ["it", "Ġrains", "Ġrain", "Ġcat", "Ġr"]
    probs = [[0.5, 0.25, 0.125]]
    top_k = [
        one_sentence(probs, [[1, 2, 3]], [2], [1]),  # what follows is in the top k
        one_sentence([[0.5, 0.125]], [[2, 3]], [2], [1]),  # it is not
        one_sentence(probs, [[1, 2, 3]], [3], [1]),  # no token of the decoder's ends there
    ]
    soft = soft_targets(
        student_tokenizer.encode_batch(["it rains", "it rains", "it rain"]),
        tokens,
        top_k=top_k,
        student_ids=map_vocabulary(student_tokenizer, vocab),
    )
    assert soft.soft_fraction() == pytest.approx(2 / 3)
    cat = student_tokenizer.model.tokenize("Ġcat")[0].id
    following = torch.tensor([own["Ġrains"], own["Ġrain"], own["Ġrains"]])
    token_ids, weights = soft.batch([1, 2, 0], following)
    assert token_ids.shape == weights.shape == (3, TOP_K + 1)
    expected_rows = [
        {own["Ġrain"]: 0.5, cat: 0.125, own["Ġrains"]: 1.0},
        {own["Ġrain"]: 1.0},
        {own["Ġrains"]: 0.5, own["Ġrain"]: 0.25, cat: 0.125},
    ]
    for row, row_weights, expected in zip(
        token_ids.tolist(), weights.tolist(), expected_rows, strict=True
    ):
        totals: dict[int, float] = {}
        for token_id, part in zip(row, row_weights, strict=True):
            totals[token_id] = totals.get(token_id, 0) + part
        assert {token_id: part for token_id, part in totals.items() if part} == expected


def test_positions_that_disagree_have_hard_targets(student_tokenizer: Tokenizer) -> None:
    """The decoder went on with "Ġr", the student with " rains"."""
    tokens = encode(student_tokenizer, ["it rains"], 9)
    top_k = [one_sentence([[0.5]], [[1]], [2], [4])]
    vocab = ["it", "Ġrains", "Ġrain", "Ġcat", "Ġr"]
    soft = soft_targets(
        student_tokenizer.encode_batch(["it rains"]),
        tokens,
        top_k=top_k,
        student_ids=map_vocabulary(student_tokenizer, vocab),
    )
    assert soft.soft_fraction() == 0
    token_ids, weights = soft.batch([0], torch.tensor([tokens[0][1]]))
    assert weights.sum() == 1 and token_ids[0][weights[0] > 0].tolist() == [tokens[0][1]]


def test_targets_are_unbiased_over_many_samples() -> None:
    """A token outside the top k is sampled as often as its probability says: nothing is lost."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(60, 0.5)).astype(np.float32)
    most_probable = np.argsort(-probs)[:TOP_K]
    tokenizer = Tokenizer(BPE({chr(97 + i): i for i in range(60)}, []))
    letters = [chr(97 + i) for i in range(60)]
    samples = rng.choice(60, 20000, p=probs / probs.sum())
    sentences = [f"a{letters[i]}" for i in samples]
    encodings = tokenizer.encode_batch(sentences)
    tokens = [e.ids for e in encodings]
    top_k: list[TopKTargets | None] = [
        TopKTargets(
            np.array([1], np.uint16),
            most_probable[None].astype(np.int32),
            probs[most_probable][None].astype(np.float16),
            np.array([i]),
        )
        for i in samples
    ]
    soft = soft_targets(
        encodings, tokens, top_k=top_k, student_ids=map_vocabulary(tokenizer, letters)
    )
    assert soft.soft_fraction() == 1
    token_ids, weights = soft.batch(range(len(samples)), torch.from_numpy(samples))
    mean = torch.zeros(60).scatter_add_(0, token_ids.flatten(), weights.flatten()) / len(samples)
    np.testing.assert_allclose(mean.numpy(), probs, atol=5e-3)
    # By the tokens alone the mean would scatter several times as far.
    alone = np.bincount(samples, minlength=60) / len(samples)
    assert np.abs(mean.numpy() - probs).sum() < 0.5 * np.abs(alone - probs).sum()


@torch.no_grad()
def test_next_token_loss_with_soft_targets_by_hand(tiny_decoder: BaseModel) -> None:
    """The loss by hand; backwards the tokens before are what is learnt."""
    tokenizer = train_tokenizer(SENTENCES, 300)
    tokens = encode(tokenizer, SENTENCES, 99)
    top_k: list[TopKTargets | None] = [*top_k_of(tiny_decoder, SENTENCES)]
    top_k[3] = None
    words = vocabulary(tiny_decoder.tokenizer())
    soft = soft_targets(
        tokenizer.encode_batch(SENTENCES),
        tokens,
        top_k=top_k,
        student_ids=map_vocabulary(tokenizer, words),
    )
    assert 0 < soft.soft_fraction() < 1
    torch.manual_seed(0)
    config = StudentConfig("gru", 5, 6, 1, dropout=0.0, vocab_size=300, classes=2)
    model = NextTokenHead(DistilRNN(config)).eval()
    index = torch.tensor([0, 2, 3])
    batch = collate(tokens, index.tolist())
    targets = soft.batch(
        index.tolist(), torch.tensor([t for i in index.tolist() for t in tokens[i][1:]])
    )
    loss = model(batch.input_ids, batch.lengths, targets)
    states = model.student.states(batch.input_ids, batch.lengths)
    forwards, backwards, count = 0.0, 0.0, 0
    for row, i in enumerate(index.tolist()):
        following = torch.tensor(tokens[i][1:])
        token_ids, weights = soft.batch([i], following)
        for at in range(len(tokens[i]) - 1):
            ahead = model.student.embedding.weight @ model.heads[0](states[row, at, :5])
            behind = model.student.embedding.weight @ model.heads[1](states[row, at + 1, 5:])
            probs = F.log_softmax(ahead + model.bias, dim=0)
            forwards -= float((weights[at] * probs[token_ids[at]]).sum())
            target = torch.tensor(tokens[i][at])
            backwards += float(F.cross_entropy(behind + model.bias, target))
            count += 1
    assert float(loss) == pytest.approx((forwards + backwards) / 2 / count, rel=1e-5)
