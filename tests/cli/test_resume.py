"""Interrupted training."""

import re
from pathlib import Path
from typing import Any

import pytest

from potstill.training import epoch as training_epoch
from potstill.training import lm_loop, optim, steps
from tests.cli.conftest import (
    TRAINING_COMMANDS,
    ToyTask,
    bodies,
    files,
    interrupt_at,
    run,
    run_ok,
    scores_by_epoch,
    weights,
)


class TestResume:
    @pytest.mark.parametrize("command", TRAINING_COMMANDS)
    @pytest.mark.parametrize(("epoch", "flags"), [(1, []), (3, ["--resume"])])
    def test_an_interrupted_run_resumes_to_the_same_weights(
        self, command: str, epoch: int, flags: list[str], toy_task: ToyTask
    ) -> None:
        run_ok(*toy_task.args(command, 5, "whole"))
        before = files()
        with interrupt_at(f"{epoch:5d}  train"):
            stopped = run(*toy_task.args(command, 5, "cut"))
        assert stopped.code == 130
        assert "the state is saved in cut.unfinished; the same command goes on" in stopped.out
        assert stopped.err.strip() == "potstill: interrupted."
        remaining = files() - before
        assert remaining
        assert {Path(file).parts[0] for file in remaining} == {"cut.unfinished"}

        out = run_ok(*toy_task.args(command, 5, "cut", *flags))
        assert f"continues the unfinished run in cut.unfinished: after epoch {epoch}" in out
        assert [e for e in (1, 2, 3) if f"\n    {e}  train" in out] == list(range(epoch + 1, 4))
        assert weights("cut") == weights("whole")
        assert scores_by_epoch("cut") == scores_by_epoch("whole")
        assert not Path("cut.unfinished").exists()

    def test_an_interrupt_in_the_first_epoch_leaves_nothing(
        self, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training_epoch, "length_batches", interrupt)
            assert run(*toy_task.args("LoRA", 5, "out")).code == 130
        assert files() == set()
        result = run(*toy_task.args("LoRA", 5, "out", "--resume"))
        assert (result.code, files()) == (1, set())
        assert "no interrupted run in out.unfinished; run without it" in result.err

    @pytest.mark.parametrize("batches", [1, 3, 5, 6, 7])
    def test_interrupted_pretraining_resumes_to_the_same_student(
        self, batches: int, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In one of 3 epochs of 2 batches each, or after them, in the classifier's first epoch."""

        def args(folder: str, *more: object) -> list[object]:
            flags = ["--pretrain_epochs", 3, "--batch_size", 30, *more]
            return toy_task.args("rnn", 5, folder, *flags)

        run_ok(*args("whole"))
        assert not Path("whole.unfinished").exists()
        update, left = optim.update, [batches]

        def interrupt(*args: Any, **kwargs: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            update(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(lm_loop, "update", interrupt)
            patch.setattr(steps, "update", interrupt)
            stopped = run(*args("cut"))
        assert stopped.code == 130
        assert Path("cut.unfinished").exists() == (batches >= 2)
        assert ("the same command goes on" in stopped.out) == (batches >= 2)
        if batches < 2:
            result = run(*args("cut", "--resume"))
            assert result.code == 1
            assert "no interrupted run in cut.unfinished; run without it" in result.err
            return
        refused = run(*args("cut", "--resume", "--pretrain_lr", 0.1))
        assert "had pretrain_lr 0.008, not 0.1" in refused.err
        run_ok(*args("cut"))
        assert weights("cut") == weights("whole")
        assert scores_by_epoch("cut") == scores_by_epoch("whole")
        assert not Path("cut.unfinished").exists()

    def test_resume_without_a_checkpoint_is_refused(self, toy_task: ToyTask) -> None:
        Path("cut.unfinished").mkdir()
        result = run(*toy_task.args("rnn", 5, "cut", "--resume"))
        assert result.code == 1
        assert "no interrupted run in cut.unfinished; run without it" in result.err

    def test_other_settings_are_refused_and_fresh_starts_anew(self, toy_task: ToyTask) -> None:
        run_ok(*toy_task.args("rnn", 5, "whole", "--lr", 0.1))
        with interrupt_at("    1  train"):
            run(*toy_task.args("rnn", 5, "out"))
        before = bodies("out.unfinished")
        for flags, words in ((["--lr", 0.1], "had lr 0.002, not 0.1"), ([], "had SR 5, not 6")):
            result = run(*toy_task.args("rnn", 6 - len(flags) // 2, "out", *flags))
            assert result.code == 1
            assert words in result.err
            assert "start anew with --fresh" in result.err
        assert bodies("out.unfinished") == before
        out = run_ok(*toy_task.args("rnn", 5, "out", "--lr", 0.1, "--fresh"))
        assert "continues" not in out
        assert weights("out") == weights("whole")
        assert not Path("out.unfinished").exists()

    def test_how_a_run_is_saved_changes_nothing(self, toy_task: ToyTask) -> None:
        with interrupt_at("    1  train"):
            run(*toy_task.args("rnn", 5, "out"))
        assert "continues" in run_ok(*toy_task.args("rnn", 5, "out", "--save_minutes", 1))

    def test_fresh_and_resume_exclude_each_other(self, toy_task: ToyTask) -> None:
        result = run(*toy_task.args("rnn", 5, "out", "--fresh", "--resume"))
        assert (result.code, files()) == (2, set())
        assert "--fresh starts anew and --resume continues; give one" in result.err

    def test_a_damaged_state_is_named(self, toy_task: ToyTask) -> None:
        with interrupt_at("    1  train"):
            run(*toy_task.args("rnn", 5, "out"))
        file = Path("out.unfinished/state.safetensors")
        file.write_bytes(file.read_bytes()[:-100])
        result = run(*toy_task.args("rnn", 5, "out"))
        assert result.code == 1
        assert "state.safetensors is damaged: it has" in result.err
        assert result.err.endswith("start anew with --fresh.\n")
        assert result.err.count("\n") == 1
        run_ok(*toy_task.args("rnn", 5, "out", "--fresh"))

    @pytest.mark.parametrize("command", TRAINING_COMMANDS)
    def test_a_loss_that_is_not_finite_ends_the_run(
        self, command: str, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """From the second epoch on, as high rates have it."""
        factor = optim.lr_factor
        with monkeypatch.context() as patch:
            patch.setattr(
                optim, "lr_factor", lambda s, n, w: factor(s, n, w) * (1e300 if 3 * s >= n else 1)
            )
            flags = ["--batch_size", 16, *(["--pretrain_epochs", 0] * (command != "LoRA"))]
            result = run(*toy_task.args(command, 5, "out", *flags))
        assert result.code == 1
        assert result.err.count("\n") == 1
        words = (
            r"the loss or its gradient is not finite in epoch 2, step \d+, at a learning rate of "
        )
        words += r"\S+, with the sentences '.* no model is written, the state before is in "
        words += r"out\.unfinished; lower --lr and add --fresh\.\n"
        assert re.search(words, result.err)
        assert {Path(file).parts[0] for file in files()} == {"out.unfinished"}

    def test_pretraining_that_is_not_finite_names_its_own_rate(
        self, toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(optim, "lr_factor", lambda step, steps, warmup: 1e300)
        result = run(*toy_task.args("rnn", 5, "out"))
        assert (result.code, files()) == (1, set())
        assert result.err.endswith("no model is written, lower --pretrain_lr.\n")
