"""The program as a process of its own."""

import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Bench, Shop, done, finished, scores_by_epoch, started


class TestProcess:
    """`python run.py` as a process of its own, from a folder that is not the checkout."""

    def test_it_runs_from_anywhere(self, bench: Bench) -> None:
        result = finished("LoRA", 7, "--gpt_variant", bench.base, "--data", bench.toy)
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
        self, flags: list[str], code: int, words: str, bench: Bench
    ) -> None:
        result = finished("rnn", 7, *flags)
        assert (result.code, result.out) == (code, "")
        assert result.err.startswith(words)
        assert result.err.count("\n") == 1

    def test_an_unknown_variant_fails_in_seconds(self, bench: Bench) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_HUB_OFFLINE", "0")
            patch.setenv("HF_HOME", str(Path("hub").resolve()))
            started_at = time.monotonic()
            result = finished("gen", 1, "--gpt_variant", "nobody/nothing")
        assert (result.code, result.out) == (1, "")
        assert "nobody/nothing is not in the local cache" in result.err
        assert result.err.count("\n") == 1
        assert time.monotonic() - started_at < 30

    def test_an_interrupt_from_the_keyboard_can_be_resumed(self, bench: Bench) -> None:
        order = bench.order("rnn", 5, "out", "--epochs", 40)
        # A shell may have started this process with interrupts ignored, which is inherited.
        process = started(*order, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        assert process.stdout
        for line in process.stdout:
            if line.split()[:2] == ["2", "train"]:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert err.strip() == "python run.py: interrupted."
        assert "--resume" in out
        assert {path.name for path in Path().iterdir()} == {"out.unfinished", "plots"}
        done(*order, "--resume")
        assert [record["epoch"] for record in scores_by_epoch("out")] == list(range(1, 41))

    def test_a_reader_who_has_had_enough_gets_no_traceback(
        self, shop: Shop, tmp_path: Path
    ) -> None:
        file = tmp_path / "many.txt"
        file.write_text("".join(f"The cat number {i} is old.\n" for i in range(3000)))
        process = started("predict", "--file", file)
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read().startswith("model: ")
        process.stderr.close()
