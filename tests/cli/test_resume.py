"""Interrupted training."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from potstill.training import epoch as training_epoch
from potstill.training import lm_loop, optim, steps
from tests.cli.conftest import (
    TRAINING_COMMANDS,
    ToyTask,
    files,
    run,
    run_ok,
    scores_by_epoch,
    weights,
)


@contextmanager
def interrupt_at(text: str) -> Iterator[None]:
    """Interrupt the command when it logs a line with `text`."""

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                raise KeyboardInterrupt

    logger, handler = logging.getLogger("potstill"), Interrupt()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class TestResume:
    @pytest.mark.parametrize("command", TRAINING_COMMANDS)
    @pytest.mark.parametrize("epoch", [1, 3])
    def test_an_interrupted_run_resumes_to_the_same_weights(
        self, command: str, epoch: int, toy_task: ToyTask
    ) -> None:
        run_ok(*toy_task.args(command, 5, "whole"))
        before = files()
        with interrupt_at(f"{epoch:5d}  train"):
            stopped = run(*toy_task.args(command, 5, "cut"))
        assert stopped.code == 130
        assert "the same command with --resume continues" in stopped.out
        assert stopped.err.strip() == "potstill: interrupted."
        remaining = files() - before
        assert remaining
        assert {Path(file).parts[0] for file in remaining} == {"cut.unfinished"}

        out = run_ok(*toy_task.args(command, 5, "cut", "--resume"))
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
        assert ("with --resume continues" in stopped.out) == (batches >= 2)
        if batches < 2:
            result = run(*args("cut", "--resume"))
            assert result.code == 1
            assert "no interrupted run in cut.unfinished; run without it" in result.err
            return
        refused = run(*args("cut", "--resume", "--pretrain_lr", 0.1))
        assert "had pretrain_lr 0.008, not 0.1" in refused.err
        run_ok(*args("cut", "--resume"))
        assert weights("cut") == weights("whole")
        assert scores_by_epoch("cut") == scores_by_epoch("whole")
        assert not Path("cut.unfinished").exists()

    def test_resume_without_a_checkpoint_is_refused(self, toy_task: ToyTask) -> None:
        Path("cut.unfinished").mkdir()
        result = run(*toy_task.args("rnn", 5, "cut", "--resume"))
        assert result.code == 1
        assert "no interrupted run in cut.unfinished; run without it" in result.err

    def test_resume_with_other_settings_is_refused(self, toy_task: ToyTask) -> None:
        with interrupt_at("    1  train"):
            run(*toy_task.args("rnn", 5, "out"))
        for flags, words in ((["--lr", 0.1], "had lr 0.001, not 0.1"), ([], "had SR 5, not 6")):
            result = run(*toy_task.args("rnn", 6 - len(flags) // 2, "out", "--resume", *flags))
            assert result.code == 1
            assert words in result.err
