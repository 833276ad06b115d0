"""The command average."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import torch

from potstill.decoder import classifier, lora
from potstill.decoder.adapter import load_adapter
from potstill.decoder.hub import find_base_model
from potstill.report.predictions import read_predictions
from potstill.training.distributed import predict_logits
from tests.cli.conftest import SMALL, ToyTask, files, read_json, run, run_ok, write_toy


class TestAverage:
    """Adapters of different rank and scaling."""

    @pytest.fixture(scope="class")
    def folder_of_adapters(
        self, shared_toy_task: ToyTask, tmp_path_factory: pytest.TempPathFactory
    ) -> Path:
        folder = tmp_path_factory.mktemp("adapters")
        with contextlib.chdir(folder):
            run_ok(*shared_toy_task.args("LoRA", 3, "three", "--LoRA_rank", 2, "--LoRA_alpha", 6))
            run_ok(*shared_toy_task.args("LoRA", 4, "four", "--LoRA_rank", 3, "--lr", 0.01))
            run_ok(*shared_toy_task.args("LoRA", 4, "short", "--max_length", 9))
            run_ok(
                *shared_toy_task.args("LoRA", 4, "other", "--data", write_toy(Path("larger"), 80))
            )
            run_ok(*shared_toy_task.args("LoRA", 4, "wide", "--LoRA_rank", 32))
            Path("student").mkdir()
            Path("student/config.json").write_text('{"SR": 1, "labels": ["a", "b"]}')
        return folder

    @pytest.fixture
    def adapters(
        self, shared_toy_task: ToyTask, folder_of_adapters: Path, monkeypatch: pytest.MonkeyPatch
    ) -> ToyTask:
        monkeypatch.chdir(folder_of_adapters)
        return shared_toy_task

    def test_average_is_the_mean_of_the_merged_weights(self, adapters: ToyTask) -> None:
        out = run_ok("average", "three", "four", "--model_path", "mean")
        assert "adapter: mean" in out
        assert "their average, rank 5" in out
        decoder = find_base_model(str(adapters.base))
        loaded = [load_adapter(decoder.base(), Path(f)) for f in ("three", "four")]
        for model in loaded:
            lora.merge(model.base)
        three, four = (model.state_dict() for model in loaded)
        assert not all(torch.equal(three[name], four[name]) for name in three)
        loaded[0].load_state_dict({name: (three[name] + four[name]) / 2 for name in three})
        mean = load_adapter(decoder.base(), Path("mean"))
        tokens, _ = classifier.encode(decoder.tokenizer(), ["The cats are old.", "It"], 64, 0)
        expected, actual = (predict_logits(model, tokens) for model in (loaded[0], mean))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        scores = json.loads(run_ok("evaluate", "--model_path", "mean", "--json"))["scores"]
        assert scores.keys() == {"dev", "ood"}
        written = read_json("mean/results.json")["chosen"]
        assert written["dev"]["confusion"] == scores["dev"]["confusion"]
        assert [m["SR"] for m in read_json("mean/config.json")["adapters"]] == [3, 4]

    def test_an_average_has_its_predictions_as_other_runs(self, adapters: ToyTask) -> None:
        run_ok("average", "three", "four", "--model_path", "predicted")
        predictions, scores = (
            read_predictions(Path("predicted")),
            read_json("predicted/results.json"),
        )
        assert predictions.keys() == {"dev", "ood"}
        for name, split in predictions.items():
            right = [p.predicted == p.label for p in split]
            assert scores["chosen"][name]["accuracy"] == pytest.approx(sum(right) / len(right))
        run_ok("report", "predicted", "three")
        assert "predictions.jsonl" in Path("predicted/.gitignore").read_text().splitlines()

    def test_an_average_may_replace_an_average(self, adapters: ToyTask) -> None:
        for folders in (("three", "four"), ("four", "three")):
            run_ok("average", *folders, "--model_path", "again", "--data", "larger")
        assert [m["SR"] for m in read_json("again/config.json")["adapters"]] == [4, 3]

    def test_an_average_can_be_a_teacher(self, adapters: ToyTask) -> None:
        run_ok("average", "three", "four", "--model_path", "teacher")
        flags = ("--student_path", "out", *SMALL, "--epochs", 1, "--pretrain_epochs", 0)
        run_ok("distil", 5, "--model_path", "teacher", *flags)
        assert read_json("out/config.json")["teacher"]["path"] == "teacher"

    def test_peft_loads_an_average(self, adapters: ToyTask) -> None:
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification

        run_ok("average", "four", "three", "--model_path", "for_peft")
        decoder = find_base_model(str(adapters.base))
        base = AutoModelForSequenceClassification.from_pretrained(adapters.base, num_labels=2)
        base.config.pad_token_id = 0
        theirs = PeftModel.from_pretrained(base, "for_peft").eval()
        ours = load_adapter(decoder.base(), Path("for_peft"))
        tokens, _ = classifier.encode(decoder.tokenizer(), ["The cats are old."], 64, 0)
        with torch.no_grad():
            expected = theirs(input_ids=torch.tensor(tokens)).logits
        torch.testing.assert_close(predict_logits(ours, tokens), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("words", "code", "error"),
        [
            ("three", 2, "name two adapters or more"),
            ("three three", 2, "each once"),
            ("three nowhere", 1, "nowhere holds no config.json"),
            ("three student", 1, "student is no adapter tuned by potstill"),
            ("three short", 1, r"three and short can't be averaged: .* max_length \(64, 9\)"),
            ("three other", 1, r"three and other can't be averaged: .* data.sha256"),
            ("three ./three", 2, "each once"),
            ("three four --model_path four", 1, "four holds four"),
            ("three four --model_path .", 1, "--model_path: . holds three"),
            ("three four --model_path larger", 1, "larger is not empty and not a run"),
            ("three four --model_path larger/in_domain_dev.tsv", 1, "is a file; name a folder"),
            ("three four --data nowhere", 1, "--data nowhere: there is no such file"),
            ("three wide", 1, "ranks add up to 34, more than the 32 that .* can have"),
        ],
    )
    def test_bad_arguments_are_refused(
        self, adapters: ToyTask, words: str, code: int, error: str
    ) -> None:
        before = files()
        result = run("average", *words.split())
        assert result.code == code
        assert re.search(error, result.err)
        assert files() == before
