"""What a student starts from before it is trained."""

import json
from pathlib import Path

import pytest
import torch

from potstill.data.batching import LabelledDataset
from potstill.data.corpus import load_corpus
from potstill.errors import UsageError
from potstill.pretrained import BASE
from potstill.recipes._run import Task
from potstill.recipes._student import (
    build_student,
    choose_base,
    make_tokenizer,
    match_prevalence,
    resolve_training,
)
from potstill.settings import PretrainSettings, StudentSettings, TrainSettings
from potstill.student.base import load_base, load_init
from potstill.student.model import DistilRNN

SETTINGS = StudentSettings(init="base")


@pytest.fixture(scope="module")
def task() -> Task:
    corpus = load_corpus("minicola")
    return Task(corpus, corpus.splits["train"], {})


def start(task: Task, seed: int, folder: Path | None = BASE) -> DistilRNN:
    base = load_base(folder) if folder else None
    tokenizer = make_tokenizer(base, task.train.sentences, SETTINGS.vocab_size)
    return build_student(SETTINGS, tokenizer, task, seed=seed, precision="fp32", base=base)


def test_it_has_the_weights_of_its_base_and_fresh_classes(task: Task) -> None:
    models = [start(task, seed) for seed in (1, 1, 2)]
    base = load_base(BASE)
    for model in models:
        state = model.state_dict()
        assert state.keys() - base.weights.keys() == {"score.weight", "score.bias"}
        assert all(torch.equal(state[name], tensor) for name, tensor in base.weights.items())
    first, same, other = (model.score.weight for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_a_base_the_seed_determines_all_weights(task: Task) -> None:
    one, same, other = (start(task, seed, None).embedding.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_shape_of_the_base_is_that_of_its_config(task: Task) -> None:
    recorded = json.loads((BASE / "config.json").read_text())["student"]
    network = vars(start(task, 1).config)
    assert {k: network[k] for k in recorded if k != "dropout"} == {
        k: v for k, v in recorded.items() if k != "dropout"
    }
    assert network["dropout"] == SETTINGS.dropout


@pytest.mark.parametrize(("transfer_set", "init", "epochs"), [(0, 0, 6), (1, 0, 3), (1, 1, 0)])
def test_no_language_model_after_a_base_unless_asked(
    transfer_set: int, init: int, epochs: int
) -> None:
    ways = {"transfer_set": bool(transfer_set), "init": bool(init), "sentences": 100}
    chosen = resolve_training(TrainSettings(), PretrainSettings(), **ways)[1]
    assert chosen.pretrain_epochs == epochs
    asked = PretrainSettings(pretrain_epochs=2)
    assert resolve_training(TrainSettings(), asked, **ways)[1].pretrain_epochs == 2


@pytest.mark.parametrize(
    ("sentences", "init", "expected"),
    [
        (300, True, (20, 32, 2e-3)),
        (19_999, True, (20, 32, 2e-3)),
        (300, False, (20, 32, 2e-3)),
        (40_000, True, (10, 64, 1e-3)),
        (5_000_000, True, (4, 64, 1e-3)),
    ],
)
def test_what_is_left_open_follows_from_the_data(
    sentences: int, init: bool, expected: tuple[int, int, float]
) -> None:
    train, _ = resolve_training(
        TrainSettings(), PretrainSettings(), sentences=sentences, transfer_set=True, init=init
    )
    assert (train.epochs, train.batch_size, train.lr) == expected


def test_the_learning_rate_goes_with_the_root_of_a_batch_size_that_is_given() -> None:
    train, _ = resolve_training(
        TrainSettings(batch_size=1024),
        PretrainSettings(),
        sentences=500_000,
        transfer_set=True,
        init=True,
    )
    assert train.lr == pytest.approx(4e-3)
    given = TrainSettings(epochs=1, batch_size=7, lr=0.5)
    train, _ = resolve_training(
        given, PretrainSettings(), sentences=9, transfer_set=False, init=True
    )
    assert (train.epochs, train.batch_size, train.lr) == (1, 7, 0.5)


ENGLISH = ["The cat sat on the mat, and the dog slept in the old house."]
RUSSIAN = ["Кошка сидела на ковре, а собака спала в старом доме."]


def test_a_network_of_another_shape_starts_from_random_numbers() -> None:
    small = StudentSettings(hidden_size=8)
    assert choose_base(load_init(small), small, ENGLISH) == (
        None,
        "none, as DistilRNN-base has a network of another shape",
    )
    with pytest.raises(UsageError, match="`hidden_size` is 8, but the network in"):
        load_init(StudentSettings(hidden_size=8, init="base"))


@pytest.mark.parametrize("init", [None, "base", "none"])
def test_by_default_the_base_serves_where_it_has_words_for_the_text(init: str | None) -> None:
    settings = StudentSettings(init=init)
    base = load_init(settings)
    assert choose_base(base, settings, ENGLISH)[0] is base
    chosen, about = choose_base(base, settings, RUSSIAN)
    if init is None:
        assert chosen is None and about == "none, as DistilRNN-base has no words for this text"
    else:
        assert chosen is base and ("weights" in about) == (init == "base")


class Fixed(torch.nn.Module):
    """Answers each sentence of one token by that token's row, and has a bias to shift."""

    def __init__(self, rows: list[list[float]]):
        super().__init__()
        self.rows = torch.tensor(rows)
        self.score = torch.nn.Linear(1, 2)
        torch.nn.init.zeros_(self.score.bias)

    def forward(self, input_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.rows[input_ids[:, 0]] + self.score.bias


@pytest.mark.parametrize(("margin", "kept"), [(0.1, False), (-0.1, True)])
def test_prevalence_is_matched_unless_held_out_sentences_suffer(
    margin: float, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """On train class 0 is called too often: half of the time, and right once in four. The shift of
    more than 4 that mends that is right or wrong for a held-out sentence of a small margin."""
    caplog.set_level("INFO")
    model = Fixed([[4.0, 0.0], [0.0, 4.0], [5.0, 0.0], [margin, 0.0]])
    train = LabelledDataset([[0], [2], [1], [1]], [1, 0, 1, 1])
    other = 0 if margin > 0 else 1
    held_out = LabelledDataset([[2], [3], [1], [1]], [0, other, 1, 1])
    bias = match_prevalence(model, train, ["a", "b"], held_out=held_out)  # type: ignore[arg-type]
    assert bool(bias.any()) is kept
    assert torch.equal(model.score.bias.detach(), bias)
    assert ("left out, as the MCC" in caplog.text) is not kept
