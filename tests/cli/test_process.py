"""The program as a process of its own."""

import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import (
    ToyTask,
    TrainedRuns,
    run_ok,
    run_process,
    scores_by_epoch,
    start_process,
)


class TestProcess:
    """`python run.py` as a process of its own, from a folder that is not the checkout."""

    def test_runs_from_any_folder(self, toy_task: ToyTask) -> None:
        result = run_process("LoRA", 7, "--gpt_variant", toy_task.base, "--data", toy_task.toy)
        assert (result.code, result.err) == (0, "")
        assert {path.name for path in Path().iterdir()} == {"runs", "plots"}

    @pytest.mark.parametrize(
        ("flags", "code", "words"),
        [
            (["--data", "nowhere"], 1, "python run.py: --data nowhere: there is no such file"),
            (["--epochs", "0"], 2, "python run.py: --epochs 0 is out of range"),
        ],
    )
    def test_errors_go_to_standard_error(
        self, flags: list[str], code: int, words: str, toy_task: ToyTask
    ) -> None:
        result = run_process("rnn", 7, *flags)
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith(words)
        assert result.err.count("\n") == 1

    def test_an_unknown_variant_fails_in_seconds(self, toy_task: ToyTask) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HUB_OFFLINE", "0")
            patch.setenv("HF_HOME", str(Path("hub").resolve()))
            started_at = time.monotonic()
            result = run_process("gen", 1, "--gpt_variant", "nobody/nothing")
        assert (result.code, result.out) == (1, "")
        assert "nobody/nothing is not in the local cache" in result.err
        assert result.err.count("\n") == 1
        assert time.monotonic() - started_at < 30

    @pytest.mark.parametrize(
        ("number", "code", "word"),
        [
            pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
            (signal.SIGTERM, 143, "terminated"),
        ],
    )
    def test_a_signal_saves_first_and_the_command_goes_on(
        self, number: int, code: int, word: str, toy_task: ToyTask
    ) -> None:
        args = toy_task.args("rnn", 5, "out", "--epochs", 6, "--batch_size", 1)
        # A shell may have started this process with interrupts ignored, which is inherited.
        process = start_process(
            *args, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
        )
        assert process.stdout
        for line in process.stdout:
            if line.split()[:2] == ["2", "train"]:
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert err.strip() == f"python run.py: {word}."
        assert "ends after this step; a second signal ends it at once\n" in out
        assert "the state is saved in out.unfinished; the same command goes on from there" in out
        assert {path.name for path in Path().iterdir()} == {"out.unfinished", "plots"}
        assert "continues the unfinished run in out.unfinished: " in run_ok(*args)
        assert [record["epoch"] for record in scores_by_epoch("out")] == list(range(1, 7))

    def test_a_broken_pipe_exits_quietly(self, runs: TrainedRuns, tmp_path: Path) -> None:
        file = tmp_path / "many.txt"
        file.write_text("".join(f"The cat number {i} is old.\n" for i in range(3000)))
        process = start_process("predict", "--file", file)
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read().startswith("model: ")
        process.stderr.close()
