"""The command pretrain, with a tiny decoder."""

import json
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill.pretrained import BASE
from potstill.pretraining import sampling
from potstill.recipes import pretrain
from potstill.student.base import load_base
from tests.cli.conftest import ToyTask, bodies, files, interrupt_at, read_json, run, run_ok, weights

NETWORK = ("--hidden_size", 8, "--embedding_size", 8, "--vocab_size", 300)


@pytest.fixture(autouse=True)
def small_shards(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(pretrain.pretrain, shard_texts=15, basis_texts=15)
    monkeypatch.setattr(pretrain, "pretrain", small)


def args(toy_task: ToyTask, folder: str, *more: object, SR: int = 4) -> list[object]:
    flags = ["--gpt_variant", toy_task.base, "--output", folder, "--tokens", 1200]
    flags += ["--text_path", "text", "--epochs", 3, "--batch_size", 16, *NETWORK, *more]
    return ["pretrain", SR, *flags]


def losses(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("epoch ")]


def test_what_it_writes_is_a_base(toy_task: ToyTask) -> None:
    out = run_ok(*args(toy_task, "base"))
    assert {Path(file).name for file in files("base")} == {
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
    }
    base = load_base(Path("base"))
    assert base.tokenizer.get_vocab_size() == base.config["vocab_size"] == 300
    config, bundled = read_json("base/config.json"), read_json(BASE / "config.json")
    assert config["text"].keys() == bundled["text"].keys()
    assert config["losses"].keys() == bundled["losses"].keys()
    assert config["text"]["decoder_tokens"] >= 1200
    assert config["text"]["texts"] >= config["text"]["pieces"]
    assert str(toy_task.base.parent) not in json.dumps(config["text"])
    first, *_, last = losses(out)
    assert first > "epoch 1: next token" and last.startswith("epoch 3: next token")
    loaded = load_file("base/model.safetensors")
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float16}
    assert not any(name.startswith("score") for name in loaded)
    run_ok("rnn", 1, "--data", toy_task.toy, "--init", "base/", "--epochs", 1, *NETWORK[:4])


def test_the_seed_determines_the_weights(toy_task: ToyTask) -> None:
    run_ok(*args(toy_task, "one", "--epochs", 1))
    run_ok(*args(toy_task, "same", "--epochs", 1))
    run_ok(*args(toy_task, "other", "--epochs", 1, "--text_path", "text2", SR=5))
    assert weights("one") == weights("same") != weights("other")


@pytest.mark.parametrize("moment", ["epoch 1:", pytest.param("epoch 3:", marks=pytest.mark.slow)])
def test_an_interrupted_training_resumes_to_the_same_weights(
    moment: str, toy_task: ToyTask
) -> None:
    run_ok(*args(toy_task, "whole"))
    with interrupt_at(moment):
        stopped = run(*args(toy_task, "cut"))
    assert stopped.code == 130
    assert "the state is saved in cut.unfinished; the same command goes on" in stopped.out
    refused = run(*args(toy_task, "cut", "--lr", 0.1))
    assert "had lr 0.014, not 0.1" in refused.err
    run_ok(*args(toy_task, "cut"))
    assert weights("cut") == weights("whole")
    assert not Path("cut.unfinished").exists()


def test_interrupted_sampling_goes_on_where_it_stopped(
    toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ok(*args(toy_task, "whole", "--text_path", "text1"))
    write, left = sampling.write_shard, [1]

    def interrupt(*arguments: object) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "write_shard", interrupt)
        assert run(*args(toy_task, "cut")).code == 130
    before = bodies("text")
    assert [Path(f).name for f in sorted(before)][:2] == [
        "basis.safetensors",
        "text-00000.safetensors",
    ]
    run_ok(*args(toy_task, "cut"))
    assert bodies("text").items() > before.items()
    assert {Path(f).name: b for f, b in bodies("text").items()} == {
        Path(f).name: b for f, b in bodies("text1").items()
    }
    assert weights("cut") == weights("whole")


def test_more_tokens_add_to_the_text(toy_task: ToyTask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "potstill")
    run_ok(*args(toy_task, "base", "--epochs", 1))
    before = bodies("text")
    run_ok(*args(toy_task, "base", "--epochs", 1, "--tokens", 2500))
    assert bodies("text").items() > before.items()
    caplog.clear()
    run_ok(*args(toy_task, "base", "--epochs", 1))
    assert ", 0 of them sampled in " in caplog.text


def test_what_is_refused(toy_task: ToyTask) -> None:
    run_ok(*args(toy_task, "base", "--epochs", 1))
    assert "sampled with another SR; name another folder" in run(*args(toy_task, "b", SR=5)).err
    other = run(*args(toy_task, "b", "--vocab_size", 310))
    assert "--text_path text holds text sampled with another vocab_size" in other.err
    Path("thesis").mkdir()
    Path("thesis/chapter").touch()
    refused = run(*args(toy_task, "b", "--text_path", "thesis"))
    assert "--text_path thesis is not empty and holds no general text" in refused.err
    assert "thesis is not empty and not a run" in run(*args(toy_task, "thesis")).err
    for flags in (["--cell", "lstm"], ["--no_bidirectional"]):
        refused = run(*args(toy_task, "b", *flags))
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "leave out --cell and --bidirectional" in refused.err
    refused = run(*args(toy_task, "b", "--minutes", 5))
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--minutes is for classifiers; give --epochs" in refused.err
    assert (
        "--vocab_size 5000 is not the beginning"
        in run(*args(toy_task, "b", "--vocab_size", 5000)).err
    )
    shard = Path("text/text-00000.safetensors")
    shard.write_bytes(shard.read_bytes()[:-9])
    damaged = run(*args(toy_task, "b"))
    assert "text/text-00000.safetensors is damaged (" in damaged.err
    assert damaged.err.count("\n") == 1
