"""Students that start from pretrained weights."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.cli.conftest import (
    SMALL,
    ToyTask,
    interrupt_at,
    read_json,
    run,
    run_ok,
    scores_by_epoch,
    weights,
)


@pytest.fixture(scope="module")
def shared_base(shared_toy_task: ToyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trained student with the shape of SMALL."""
    folder = tmp_path_factory.mktemp("base") / "student"
    run_ok("rnn", 9, "--data", shared_toy_task.toy, "--output", folder, "--epochs", 1, *SMALL)
    return folder


@pytest.fixture
def base(toy_task: ToyTask, shared_base: Path) -> Path:
    """Return a copy of it that a test may change."""
    shutil.copytree(shared_base, "earlier")
    return Path("earlier")


class TestInit:
    def test_the_baseline_starts_from_it(self, toy_task: ToyTask, base: Path) -> None:
        out = run_ok(*toy_task.args("rnn", 2, "out", "--init", base))
        run_ok(*toy_task.args("rnn", 2, "again", "--init", base))
        run_ok(*toy_task.args("rnn", 2, "random"))
        assert "init: earlier, weights " in out
        assert "pretrained as a language model" not in out
        assert (
            Path("out/tokenizer.json").read_bytes() == Path("earlier/tokenizer.json").read_bytes()
        )
        assert weights("out") == weights("again") != weights("random")
        assert scores_by_epoch("out") == scores_by_epoch("again")
        config = read_json("out/config.json")
        assert config["init"].keys() == {"path", "sha256"}
        assert config["settings"]["init"] == config["init"]["path"] == "earlier"
        assert config["settings"]["pretrain_epochs"] == 0
        assert "init" not in read_json("random/config.json")

    def test_distil_starts_from_it_with_a_transfer_set(
        self, toy_task: ToyTask, base: Path, transfer_set: Path
    ) -> None:
        """With the loss after each word and, where it is asked for, soft targets too."""
        args = toy_task.args("distil", 2, "out", "--transfer_set", transfer_set, "--init", base)
        assert "pretrained as a language model" not in run_ok(*args)
        out = run_ok(*args, "--pretrain_epochs", 1)
        assert "pretrained as a language model: 1 epoch over" in out
        assert "; soft targets for " in out
        assert (
            Path("out/tokenizer.json").read_bytes() == Path("earlier/tokenizer.json").read_bytes()
        )

    def test_what_is_trained_from_it_is_exported_and_predicts(
        self, toy_task: ToyTask, base: Path
    ) -> None:
        run_ok(*toy_task.args("rnn", 2, "out", "--init", base))
        run_ok("export", "--model_path", "out", "--output", "tiny")
        answers = [
            json.loads(run_ok("predict", "The cats is old 🐈.", "--json", "--model_path", folder))
            for folder in ("out", "tiny")
        ]
        assert answers[0]["label"] == answers[1]["label"]

    def test_the_base_in_the_box(self, toy_task: ToyTask) -> None:
        args = ["rnn", 2, "--data", toy_task.toy, "--epochs", 1, "--init", "base"]
        run_ok(*args, "--output", "out")
        network = read_json("out/config.json")["student"]
        assert (network["vocab_size"], network["classes"]) == (8192, 2)
        assert run_ok("predict", "The cats is old.", "--model_path", "out")

    def test_runs_from_other_weights_are_not_compared(self, toy_task: ToyTask, base: Path) -> None:
        def args(command: str, *more: object) -> list[object]:
            return toy_task.args(command, 2, f"runs/{command}-2", *more)

        run_ok(*args("rnn", "--pretrain_epochs", 0))
        out = run_ok(*args("distil", "--init", base))
        assert "not compared with runs/rnn-2, which differs in init" in out
        run_ok(*args("rnn", "--init", base))
        assert "not compared" not in run_ok(*args("distil", "--init", base))

    def test_resume_takes_up_the_same_weights_only(self, toy_task: ToyTask, base: Path) -> None:
        def args(folder: str, *more: object) -> list[object]:
            return toy_task.args("rnn", 5, folder, "--init", base, *more)

        run_ok(*args("whole"))
        with interrupt_at("    1  train"):
            assert run(*args("cut")).code == 130
        changed = load_file("earlier/model.safetensors")
        changed["embedding.weight"] = changed["embedding.weight"] + 1
        shutil.copytree("earlier", "other")
        save_file(changed, "other/model.safetensors")
        Path("other/manifest.json").unlink()
        assert "had init " in run(*args("cut", "--resume", "--init", "other")).err
        refused = run(*toy_task.args("rnn", 5, "cut", "--resume", "--pretrain_epochs", 0))
        assert "had init " in refused.err
        Path("earlier").rename("moved")
        run_ok(*args("cut", "--resume", "--init", "moved"))
        assert weights("cut") == weights("whole")
