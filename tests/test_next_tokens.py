"""What a decoder holds likely after each token: against transformers, and as targets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from potstill import UserError
from potstill.batching import collate
from potstill.decoder import Decoder
from potstill.next_tokens import (
    NextTokens,
    SoftTargets,
    likeliest,
    of_sampled,
    read_next_tokens,
    vocabulary,
    write_next_tokens,
)
from potstill.pretraining import NextToken
from potstill.sampling import LIKELIEST, LanguageModel, Sampled, sample
from potstill.settings import LoRASettings
from potstill.student import DistilRNN, StudentConfig, encode, train_tokenizer

SENTENCES = ["The birds sing.", "Ann", "Naïve dogs sleep all the time, the cats say.", "It rains."]


def found_in(decoder: Decoder, sentences: list[str]) -> list[NextTokens]:
    model = LanguageModel(decoder.language_model(), decoder.tokenizer(), LoRASettings())
    model.freeze()
    return likeliest(model.eval(), decoder.tokenizer(), sentences)


@torch.no_grad()
def test_chances_are_transformers(tiny_decoder: Decoder) -> None:
    tokenizer = tiny_decoder.tokenizer()
    whole = AutoModelForCausalLM.from_pretrained(tiny_decoder.folder)
    found = found_in(tiny_decoder, SENTENCES)
    assert len(found) == len(SENTENCES)
    for sentence, one in zip(SENTENCES, found, strict=True):
        tokens = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        assert one.following.tolist() == tokens[1:]
        texts = [tokenizer.decode(tokens[: i + 1]) for i in range(len(tokens) - 1)]
        whole_letters = [i for i, text in enumerate(texts) if "\ufffd" not in text]
        assert [one.ends[i] for i in whole_letters] == [len(texts[i]) for i in whole_letters]
        start = tokenizer.bos_token_id
        logits = whole(torch.tensor([[start, *tokens]])).logits[0, 1:-1]
        logits[:, tokenizer.eos_token_id] = -torch.inf
        chances, places = logits.softmax(1).topk(LIKELIEST)
        torch.testing.assert_close(
            torch.from_numpy(one.chances).float(), chances, rtol=2e-3, atol=1e-5
        )
        assert (one.tokens == places.numpy()).mean() > 0.95 or not len(places)  # but for ties


def test_sentences_of_one_token_have_nothing_to_tell(tiny_decoder: Decoder) -> None:
    """Alone among themselves, too: no place is asked for."""
    tokenizer = tiny_decoder.tokenizer()
    assert all(len(tokenizer(letter)["input_ids"]) == 1 for letter in "ab")
    for one in found_in(tiny_decoder, ["a", "b"]):
        assert one.tokens.shape == one.chances.shape == (0, LIKELIEST)
        assert not len(one.ends) and not len(one.following)


@torch.no_grad()
def test_of_sampled_is_what_another_look_finds(tiny_decoder: Decoder) -> None:
    tokenizer = tiny_decoder.tokenizer()
    model = LanguageModel(tiny_decoder.language_model(), tokenizer, LoRASettings())
    model.freeze()
    model.end = int(model.head(model(torch.tensor([[model.start]]))).argmax())
    drawn = {tokenizer.decode(one.tokens): one for one in sample(model.eval(), 200, 1, 1.0, 6)}
    found = {text: of_sampled(tokenizer, text, one) for text, one in drawn.items()}
    texts = [text for text, one in found.items() if one and len(one.ends)]
    assert len(texts) > 3
    for text, expected in zip(texts, likeliest(model, tokenizer, texts), strict=True):
        one = found[text]
        assert one and one.ends.dtype == expected.ends.dtype
        np.testing.assert_array_equal(one.ends, expected.ends)
        np.testing.assert_array_equal(one.following, expected.following)
        np.testing.assert_allclose(one.chances, expected.chances, rtol=2e-3, atol=1e-5)
        assert (one.tokens == expected.tokens).mean() > 0.9  # but for ties
    # Drawn as other tokens than the tokenizer makes of the text, or by transformers.
    chances = torch.zeros(1, LIKELIEST)
    pair = next(t for t in sorted(tokenizer.get_vocab()) if len(t) == 2 and t.isascii())
    letters = tokenizer.convert_tokens_to_ids(list(pair))
    assert tokenizer.decode(letters) == pair and tokenizer(pair)["input_ids"] != letters
    assert of_sampled(tokenizer, pair, Sampled(letters, (chances, chances))) is None
    assert of_sampled(tokenizer, texts[0], Sampled(drawn[texts[0]].tokens)) is None


def test_written_and_read_back(tiny_decoder: Decoder, tmp_path: Path) -> None:
    found = found_in(tiny_decoder, SENTENCES)
    file = tmp_path / "sampled-00000.next.npz"
    write_next_tokens(file, found)
    body = file.read_bytes()
    for one, other in zip(found, read_next_tokens(file, len(SENTENCES)), strict=True):
        for name in ("ends", "tokens", "chances", "following"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    write_next_tokens(file, found)
    assert file.read_bytes() == body and [f.name for f in tmp_path.iterdir()] == [file.name]
    with pytest.raises(UserError, match=r"next\.npz is damaged .* run `potstill transfer` again"):
        read_next_tokens(file, len(SENTENCES) + 1)
    for damaged in (b"", body[:-40], body[: len(body) // 2], b"no archive at all"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"next\.npz is damaged"):
            read_next_tokens(file, len(SENTENCES))
    write_next_tokens(file, [])
    assert read_next_tokens(file, 0) == []


def one_sentence(chances: Any, tokens: Any, ends: Any, following: Any) -> NextTokens:
    """Padded to LIKELIEST with the first token and no chance."""
    wide = np.zeros((len(ends), LIKELIEST), np.float16)
    ids = np.full((len(ends), LIKELIEST), tokens[0][0], np.int32)
    for i, (row, which) in enumerate(zip(chances, tokens, strict=True)):
        wide[i, : len(row)], ids[i, : len(row)] = row, which
    return NextTokens(np.array(ends, np.uint16), ids, wide, np.array(following))


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
    soft = SoftTargets(student_tokenizer, theirs, ["it rains", "it rains", "it rain"], found, mine)
    assert soft.share() == pytest.approx(2 / 3)
    cat = student_tokenizer.model.tokenize("Ġcat")[0].id
    following = torch.tensor([own["Ġrains"], own["Ġrain"], own["Ġrains"]])
    places, shares = soft.of(torch.tensor([1, 2, 0]), following)
    assert places.shape == shares.shape == (3, LIKELIEST + 1)
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
    soft = SoftTargets(student_tokenizer, theirs, ["it rains"], found, mine)
    assert soft.share() == 0
    places, shares = soft.of(torch.tensor([0]), torch.tensor([mine[0][1]]))
    assert shares.sum() == 1 and places[0][shares[0] > 0].tolist() == [mine[0][1]]


def test_over_many_draws_the_targets_are_the_chances() -> None:
    """What is not among the likeliest is drawn as often as it is likely: nothing is lost."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(60, 0.5)).astype(np.float32)
    likely = np.argsort(-chances)[:LIKELIEST]
    tokenizer = Tokenizer(BPE({chr(97 + i): i for i in range(60)}, []))
    letters = [chr(97 + i) for i in range(60)]
    draws = rng.choice(60, 20000, p=chances / chances.sum())
    sentences = [f"a{letters[i]}" for i in draws]
    mine = [e.ids for e in tokenizer.encode_batch(sentences)]
    found: list[NextTokens | None] = [
        NextTokens(
            np.array([1], np.uint16),
            likely[None].astype(np.int32),
            chances[likely][None].astype(np.float16),
            np.array([i]),
        )
        for i in draws
    ]
    soft = SoftTargets(tokenizer, letters, sentences, found, mine)
    assert soft.share() == 1
    places, shares = soft.of(torch.arange(len(draws)), torch.from_numpy(draws))
    mean = torch.zeros(60).scatter_add_(0, places.flatten(), shares.flatten()) / len(draws)
    np.testing.assert_allclose(mean.numpy(), chances, atol=5e-3)
    # By the tokens alone the mean would scatter several times as far.
    alone = np.bincount(draws, minlength=60) / len(draws)
    assert np.abs(mean.numpy() - chances).sum() < 0.5 * np.abs(alone - chances).sum()


@torch.no_grad()
def test_a_language_model_learns_from_them_forwards(tiny_decoder: Decoder) -> None:
    """The loss by hand; backwards the tokens before are what is learnt."""
    tokenizer = train_tokenizer(SENTENCES, 300)
    mine = encode(tokenizer, SENTENCES, 99)
    found: list[NextTokens | None] = [*found_in(tiny_decoder, SENTENCES)]
    found[3] = None
    words = vocabulary(tiny_decoder.tokenizer())
    soft = SoftTargets(tokenizer, words, SENTENCES, found, mine)
    assert 0 < soft.share() < 1
    torch.manual_seed(0)
    model = NextToken(DistilRNN(StudentConfig(300, 2, "gru", 6, 5, 1, True, dropout=0.0))).eval()
    index = torch.tensor([0, 2, 3])
    batch = collate(mine, index.tolist())
    loss = model(batch.input_ids, batch.lengths, soft, index)
    states = model.student.states(batch.input_ids, batch.lengths)
    forwards, backwards, count = 0.0, 0.0, 0
    for row, i in enumerate(index.tolist()):
        following = torch.tensor(mine[i][1:])
        places, shares = soft.of(torch.tensor([i]), following)
        for at in range(len(mine[i]) - 1):
            ahead = model.student.embedding.weight @ model.heads[0](states[row, at, :5])
            behind = model.student.embedding.weight @ model.heads[1](states[row, at + 1, 5:])
            chances = F.log_softmax(ahead + model.bias, dim=0)
            forwards -= float((shares[at] * chances[places[at]]).sum())
            target = torch.tensor(mine[i][at])
            backwards += float(F.cross_entropy(behind + model.bias, target))
            count += 1
    assert float(loss) == pytest.approx((forwards + backwards) / 2 / count, rel=1e-5)


def test_tokens_of_other_tokenizers_are_spelt_in_bytes(tiny_decoder: Decoder) -> None:
    tokenizer = tiny_decoder.tokenizer()
    assert vocabulary(tokenizer) == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace()
    before = tokenizer.convert_ids_to_tokens

    def pieces(ids: Any) -> list[str]:
        return ["▁the", "naïve", "▁", *before(ids)[3:]]

    tokenizer.convert_ids_to_tokens = pieces
    assert vocabulary(tokenizer)[:3] == ["Ġthe", "naÃ¯ve", "Ġ"]
