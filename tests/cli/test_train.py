"""Training by LoRA, distil and rnn."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.data.corpus import load_corpus
from potstill.decoder import adapter
from potstill.inference.load import load
from potstill.locks import exclusive
from potstill.recipes import _run
from potstill.student import io as student_io
from potstill.training import checkpoint
from tests.cli.conftest import (
    SMALL,
    TRAINING_COMMANDS,
    ToyTask,
    files,
    read_json,
    run,
    run_ok,
    scores_by_epoch,
    weights,
)


class TestTraining:
    @pytest.mark.parametrize("command", TRAINING_COMMANDS)
    def test_the_seed_determines_the_weights(self, command: str, toy_task: ToyTask) -> None:
        for SR, folder in ((5, "one"), (5, "same"), (6, "other")):
            run_ok(*toy_task.args(command, SR, folder))
        assert weights("one") == weights("same")
        assert scores_by_epoch("one") == scores_by_epoch("same")
        assert weights("one") != weights("other")

    @pytest.mark.parametrize("command", TRAINING_COMMANDS)
    def test_a_second_run_replaces_the_first(self, command: str, toy_task: ToyTask) -> None:
        run_ok(*toy_task.args(command, 5, "out"))
        before = files()
        run_ok(*toy_task.args(command, 6, "out"))
        assert read_json("out/config.json")["SR"] == 6
        assert files() == before

    @pytest.mark.parametrize("command", TRAINING_COMMANDS)
    def test_epochs_that_there_is_no_time_for_are_left_out(
        self, command: str, toy_task: ToyTask
    ) -> None:
        out = run_ok(*toy_task.args(command, 5, "one"), "--minutes", 0.0001)
        assert "there is time for 1 of 3 epochs" in out and "chosen epoch: 1 of 1" in out
        (line,) = Path("one/metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["epochs"] == 1
        assert read_json("one/config.json")["settings"]["minutes"] == 0.0001
        refused = run(*toy_task.args(command, 5, "two"), "--minutes", 0)
        assert refused.code == 2 and "--minutes 0.0 is out of range" in refused.err

    def test_no_match_prevalence_leaves_the_trained_biases(self, toy_task: ToyTask) -> None:
        # Without held-out sentences nothing speaks against matching.
        run_ok(*toy_task.args("rnn", 5, "matched", "--holdout", 0))
        flags = ("--holdout", 0, "--no_match_prevalence")
        out = run_ok(*toy_task.args("rnn", 5, "unmatched", *flags))
        assert "predicted = true frequency" not in out
        results = [read_json(f"{name}/results.json") for name in ("matched", "unmatched")]
        assert results[1]["bias"] == [0, 0]
        sentences = load_corpus(str(toy_task.toy)).splits["dev"].sentences
        matched, unmatched = (load(Path(n)).logits(sentences) for n in ("matched", "unmatched"))
        shift = np.array(results[0]["bias"], np.float32)
        assert abs(shift).max() > 0
        np.testing.assert_allclose(matched - shift, unmatched, rtol=1.3e-6, atol=1e-5)
        assert results[0]["last"]["dev"] == results[1]["last"]["dev"]

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            RuntimeError("I/O: No space left on device"),
        ],
        ids=["Python's", "a library's"],
    )
    @pytest.mark.parametrize(
        ("command", "module", "writer"),
        [
            ("LoRA", adapter, "write_tensors"),
            ("rnn", student_io, "write_tensors"),
            ("rnn", _run, "write_json"),
            ("rnn", checkpoint, "write_tensors"),
        ],
    )
    def test_a_full_disk_leaves_the_earlier_run_intact(
        self,
        command: str,
        module: Any,
        writer: str,
        error: Exception,
        toy_task: ToyTask,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run_ok(*toy_task.args(command, 5, "out"))
        before = {file: Path(file).read_bytes() for file in files()}

        def fill(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(module, writer, fill)
        result = run(*toy_task.args(command, 6, "out"))
        assert result.code == 1
        assert result.err.startswith("potstill: the disk is full (")
        present = {f: Path(f).read_bytes() for f in files() if not f.startswith("out.unfinished")}
        assert present == before

    def test_a_folder_that_is_not_a_run_is_never_replaced(self, toy_task: ToyTask) -> None:
        Path("thesis").mkdir()
        Path("thesis/config.json").write_text('{"mine": true}')
        result = run(*toy_task.args("rnn", 5, "thesis"))
        assert (result.code, result.out) == (1, "")
        assert "thesis is not empty and not a run; name another folder" in result.err
        assert files() == {"thesis/config.json"}

    @pytest.mark.parametrize("place", ["file/deeper/out", "/proc/nowhere/out"])
    @pytest.mark.parametrize("flag", ["--student_path", "--plots_path"])
    def test_an_unwritable_folder_is_found_before_training(
        self, flag: str, place: str, toy_task: ToyTask
    ) -> None:
        Path("file").touch()
        result = run("rnn", 5, *SMALL, "--data", toy_task.toy, flag, place)
        assert (result.code, result.out) == (1, "")
        assert f"{flag}: " in result.err
        assert "can't be written" in result.err
        assert files() == {"file"}

    def test_three_classes_from_a_file_with_its_own_column_names(
        self, toy_task: ToyTask, tiny_llama: Path
    ) -> None:
        kinds = ("cats", "dogs", "books")
        rows = (f"The {kinds[i % 3]} are {i} years old.,{kinds[i % 3]}\n" for i in range(60))
        Path("kinds.csv").write_text("body,kind\n" + "".join(rows))
        flags = ("--data", "kinds.csv", "--text_column", "body", "--label_column", "kind")
        run_ok("LoRA", 3, *flags, "--gpt_variant", tiny_llama, "--epochs", 2)
        out = run_ok("distil", 3, *SMALL, "--epochs", 2)  # data and columns are the teacher's
        assert "kinds, SR 3" in out
        assert set(json.loads(run_ok("predict", "--json", "Cats."))["probabilities"]) == set(kinds)
        # On the six sentences of dev, not on those of train.
        for name in ("LoRA-3", "distil-3"):
            scored = json.loads(run_ok("evaluate", "--json", "--model_path", f"runs/{name}"))
            assert scored["scores"]["dev"]["sentences"] == 6
            expected = read_json(f"runs/{name}/results.json")["chosen"]["dev"]
            assert scored["scores"]["dev"]["confusion"] == expected["confusion"]

    def test_without_holdout_the_last_epoch_is_taken(self, toy_task: ToyTask) -> None:
        out = run_ok(*toy_task.args("rnn", 5, "out", "--holdout", 0))
        assert "chosen epoch: 3 of 3 (the last, as nothing is held out)" in out
        assert set(read_json("out/results.json")["chosen"]) == {"dev", "ood"}

    def test_a_baseline_with_other_settings_is_not_compared(self, toy_task: ToyTask) -> None:
        run_ok(*toy_task.args("rnn", 5, "runs/rnn-5", "--lr", 0.01))
        out = run_ok(*toy_task.args("distil", 5, "runs/distil-5"))
        assert "not compared with runs/rnn-5, which differs in lr" in out

    def test_logits_of_another_arithmetic_are_not_reused(self, toy_task: ToyTask) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POTSTILL_CACHE", str(Path("cache").resolve()))
            flags = ("--epochs", 1, "--pretrain_epochs", 0, "--precision")
            computed = [
                run_ok(*toy_task.args("distil", 5, "out", *flags, precision)).count(
                    "teacher logits: 0 sentences computed"
                )
                for precision in ("bf16", "fp32", "fp32")
            ]
        assert computed == [0, 0, 1]

    def test_two_runs_do_not_write_one_folder(self, toy_task: ToyTask) -> None:
        with exclusive(Path("out"), "`output`"):
            result = run(*toy_task.args("rnn", 5, "out"))
        assert (result.code, files()) == (1, set())
        assert re.fullmatch(
            r"potstill: --student_path: process \d+ is writing out now; wait until it has ended, "
            r"or name another folder\.\n",
            result.err,
        )
