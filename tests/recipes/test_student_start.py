"""What a student starts from before it is trained."""

import json
from pathlib import Path

import pytest
import torch

from potstill.data.corpus import load_corpus
from potstill.recipes._run import Task
from potstill.recipes._student import build_student, make_tokenizer, resolve_epochs
from potstill.settings import PretrainSettings, StudentSettings, TrainSettings
from potstill.student.base import PRETRAINED, load_base
from potstill.student.model import DistilRNN

SETTINGS = StudentSettings(init="base")


@pytest.fixture(scope="module")
def task() -> Task:
    corpus = load_corpus("minicola")
    return Task(corpus, corpus.splits["train"], {})


def start(task: Task, seed: int, folder: Path | None = PRETRAINED) -> DistilRNN:
    base = load_base(folder) if folder else None
    tokenizer = make_tokenizer(base, task.train.sentences, SETTINGS.vocab_size)
    return build_student(SETTINGS, tokenizer, task, seed=seed, precision="fp32", base=base)


def test_it_has_the_weights_of_its_base_and_fresh_classes(task: Task) -> None:
    models = [start(task, seed) for seed in (1, 1, 2)]
    base = load_base(PRETRAINED)
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
    recorded = json.loads((PRETRAINED / "config.json").read_text())["student"]
    network = vars(start(task, 1).config)
    assert {k: network[k] for k in recorded if k != "dropout"} == {
        k: v for k, v in recorded.items() if k != "dropout"
    }
    assert network["dropout"] == SETTINGS.dropout


@pytest.mark.parametrize(("transfer_set", "init", "epochs"), [(0, 0, 6), (1, 0, 3), (1, 1, 0)])
def test_no_language_model_after_a_base_unless_asked(
    transfer_set: int, init: int, epochs: int
) -> None:
    ways = {"transfer_set": bool(transfer_set), "init": bool(init)}
    assert resolve_epochs(TrainSettings(), PretrainSettings(), **ways)[1].pretrain_epochs == epochs
    asked = PretrainSettings(pretrain_epochs=2)
    assert resolve_epochs(TrainSettings(), asked, **ways)[1].pretrain_epochs == 2
