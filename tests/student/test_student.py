"""DistilRNN and its tokenizer."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from potstill.data.batching import collate
from potstill.errors import UserError
from potstill.files import STUDENT_TOKENIZER, STUDENT_WEIGHTS
from potstill.student.io import load_student, save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import encode, train_tokenizer

SENTENCES = ["the cat sat on the mat", "the cats sat on the mats", "a dog is in the garden"] * 5
CELLS = {"rnn": 1, "gru": 3, "lstm": 4}  # how many gates each has
CLOSE = {"rtol": 0, "atol": 1e-5}
SHAPES = pytest.mark.parametrize(
    ("layers", "bidirectional"), [(1, True), (1, False), (2, True), (2, False)]
)


def random_student(cell="gru", layers=1, bidirectional=True, classes=2, **others):
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "classes": classes} | others
    config = StudentConfig(cell, 5, 6, layers, bidirectional, **sizes)
    return DistilRNN(config).eval()


def write_config(folder, network):
    config = {"student": network, "labels": ["bad", "good"], "max_length": 128}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(params=[False, True], ids=["", "word_head"])
def saved(tmp_path, request):
    """A saved student: its folder, the model and the tokenizer."""
    tokenizer = train_tokenizer(SENTENCES, 280)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "word_head": request.param}
    model = random_student("lstm", 2, **sizes)
    save_student(model, tokenizer, tmp_path)
    write_config(tmp_path, asdict(model.config))
    return tmp_path, model, tokenizer


def texts() -> list[str]:
    rng = np.random.default_rng(0)
    latin = [bytes(rng.integers(33, 256, 20).tolist()).decode("latin-1") for _ in range(20)]
    # From the whole of Unicode, surrogates left out: they are no characters.
    points = rng.choice([*range(0x21, 0xD800), *range(0xE000, 0x110000)], (40, 12))
    wild = ["".join(map(chr, row)) for row in points]
    return [*latin, *wild, "👩‍👩‍👧 naïve\t\x00 «ok»", "a  b   c ", "\n", "ß"]


def test_every_text_is_encoded_and_decoded():
    tokenizer = train_tokenizer(SENTENCES, 300)
    for text, ids in zip(texts(), encode(tokenizer, texts(), 10_000), strict=True):
        assert ids
        back = tokenizer.decode(ids, skip_special_tokens=False)
        # Words are alike at the start and within: a space is put before the first.
        assert back == " " + text


@pytest.mark.parametrize("vocab_size", [257, 270, 8000])
def test_vocabulary_has_at_most_vocab_size_tokens(vocab_size):
    tokenizer = train_tokenizer(SENTENCES, vocab_size)
    assert 257 <= tokenizer.get_vocab_size() <= vocab_size
    ids = [i for tokens in encode(tokenizer, SENTENCES + texts(), 10_000) for i in tokens]
    assert max(ids) < tokenizer.get_vocab_size()
    assert 0 not in ids


def test_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(UserError, match="`vocab_size` 256"):
        train_tokenizer(SENTENCES, 256)


def test_frequent_words_become_one_token():
    tokenizer = train_tokenizer(SENTENCES, 300)
    assert len(encode(tokenizer, ["the cat sat"], 10)[0]) == 3


def test_same_sentences_make_the_same_tokenizer():
    one, other = (train_tokenizer(SENTENCES, 280).to_str() for _ in range(2))
    assert one == other


def test_encode_truncates_to_max_length():
    tokenizer = train_tokenizer(SENTENCES, 300)
    (whole,) = encode(tokenizer, ["the cat sat on the mat"], 100)
    assert encode(tokenizer, ["the cat sat on the mat"], 2) == [whole[:2]]


@pytest.mark.parametrize("cell", CELLS)
@SHAPES
def test_parameter_count_by_hand(cell, layers, bidirectional):
    vocab, embedding, hidden, classes = 300, 6, 5, 3
    directions = 1 + bidirectional
    recurrent = 0
    for layer in range(layers):
        inputs = hidden * directions if layer else embedding
        gate = hidden * inputs + hidden * hidden + 2 * hidden
        recurrent += directions * CELLS[cell] * gate
    expected = vocab * embedding + recurrent + classes * 2 * hidden * directions + classes
    model = random_student(cell, layers, bidirectional, classes, vocab_size=vocab)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("cell", CELLS)
@SHAPES
def test_padding_changes_nothing(cell, layers, bidirectional, random_tokens):
    model = random_student(cell, layers, bidirectional)
    tokens = random_tokens(range(1, 13))
    batch = collate(tokens, range(12))
    with torch.no_grad():
        together = model(batch.input_ids, batch.lengths)
        alone = torch.cat([model(torch.tensor([t]), torch.tensor([len(t)])) for t in tokens])
        padding = torch.arange(12) >= batch.lengths[:, None]
        batch.input_ids[padding] = torch.randint(0, 300, (int(padding.sum()),))
        refilled = model(batch.input_ids, batch.lengths)
        wider = model(torch.nn.functional.pad(batch.input_ids, (0, 2)), batch.lengths)
    torch.testing.assert_close(together, alone, **CLOSE)
    assert torch.equal(together, refilled)
    torch.testing.assert_close(wider, together, **CLOSE)
    assert together.std(0).min() > 1e-3  # sentences do differ


@pytest.mark.parametrize("cell", CELLS)
@SHAPES
def test_logits_are_computed_from_last_states_and_maxima(
    cell, layers, bidirectional, random_tokens
):
    model = random_student(cell, layers, bidirectional)
    ids = torch.tensor(random_tokens([9]))
    embedded = model.embedding(ids).detach().requires_grad_()
    outputs, _ = model.rnn(embedded)  # of the last layer, for every token
    forward, backward = outputs[:, -1, :5], outputs[:, 0, 5:]
    largest = torch.stack([outputs[0, :, unit].max() for unit in range(outputs.shape[2])])
    read = torch.cat([forward, backward, largest[None]], dim=1)
    torch.testing.assert_close(model(ids, torch.tensor([9])), model.score(read), **CLOSE)
    for end in (forward, backward)[: 1 + bidirectional]:
        (grad,) = torch.autograd.grad(end.sum(), embedded, retain_graph=True)
        assert (grad.abs().sum(-1) > 0).all()


def test_round_trip_is_exact(saved):
    folder, model, tokenizer = saved
    loaded, its_tokenizer, _ = load_student(folder)
    assert not loaded.training
    assert loaded.config == model.config
    assert its_tokenizer.to_str() == tokenizer.to_str()
    tensors = model.state_dict()
    assert loaded.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensors[k], v) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize("file", [STUDENT_WEIGHTS, STUDENT_TOKENIZER, "config.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_damaged_student_is_named(saved, file, damage):
    folder, *_ = saved
    body = (folder / file).read_bytes()
    if damage == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(body[: len(body) // 2 if damage == "cut" else 0])
    with pytest.raises(UserError) as caught:
        load_student(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 7}, {"cell": "transformer"}, {"attention": True}],
    ids=lambda change: next(iter(change)),
)
def test_config_that_does_not_fit_the_weights_is_named(saved, change):
    folder, model, _ = saved
    write_config(folder, asdict(model.config) | change)
    with pytest.raises(UserError) as caught:
        load_student(folder)
    assert str(folder) in str(caught.value)


def test_a_config_from_before_the_word_head_means_none(saved):
    folder, model, _ = saved
    network = asdict(model.config)
    has_one = network.pop("word_head")
    write_config(folder, network)
    if has_one:  # the weights have a layer that nothing says is there
        with pytest.raises(UserError, match="word_score"):
            load_student(folder)
    else:
        assert load_student(folder)[0].word_score is None


@SHAPES
def test_word_logits_are_those_of_each_token_alone(layers, bidirectional, random_tokens):
    """Whatever stands beside a text in its batch; of a student that reads forwards, also whatever
    follows."""
    model = random_student("gru", layers, bidirectional, 3, word_head=True)
    tokens = random_tokens([4, 1, 7])
    batch = collate(tokens, range(3))
    whole, after = model.word_logits(batch.input_ids, batch.lengths)
    torch.testing.assert_close(whole, model(batch.input_ids, batch.lengths), **CLOSE)
    for row, ids in enumerate(tokens):
        states = model.states(torch.tensor([ids]), torch.tensor([len(ids)]))[0]
        assert model.word_score is not None
        torch.testing.assert_close(after[row, : len(ids)], model.word_score(states), **CLOSE)
        if not bidirectional:
            cut = model.word_logits(torch.tensor([ids[:1]]), torch.tensor([1]))[1]
            torch.testing.assert_close(after[row, :1], cut[0], **CLOSE)


def test_folder_of_something_else_is_no_student(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no student"):
        load_student(tmp_path)
