"""The first commands of a user: what they print and write."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, matthews_corrcoef

from potstill.data.corpus import load_corpus
from potstill.decoder.hub import find_base_model
from potstill.inference import decoder, student
from potstill.inference.load import load
from potstill.recipes import _run
from potstill.settings import (
    DataSettings,
    DecisionSettings,
    DistilSettings,
    LoRASettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)
from tests.cli.conftest import TRAINING_COMMANDS, TrainedRuns, read_json, run_ok, scores_by_epoch

COMMON = (DataSettings, DecisionSettings, TrainSettings)
PLOTS = ("lora", "distilrnn", "rnn")


class TestFirstRun:
    """LoRA, distil, rnn, evaluate, predict, from an empty folder and without a network."""

    def test_choices_are_printed_with_their_reason(self, runs: TrainedRuns) -> None:
        assert "base: tiny-gpt2\n" in runs.stdout["LoRA"]
        assert "data: MiniCoLA" in runs.stdout["LoRA"]
        assert "(auto: no CoLA in data/, and its site can't be reached)" in runs.stdout["LoRA"]
        assert "(auto: what the teacher was tuned on)" in runs.stdout["distil"]
        assert "auto" not in runs.stdout["rnn"]
        # The little base has 64 positions, fewer than --max_length would allow.
        assert "sentences of train are truncated to --max_length 64 tokens" in runs.stdout["LoRA"]

    @pytest.mark.parametrize(
        ("name", "groups", "own"),
        [
            ("LoRA", (LoRASettings,), {"adapter_config.json", "adapter_model.safetensors"}),
            (
                "distil",
                (DistilSettings, PretrainSettings, StudentSettings),
                {"model.safetensors", "tokenizer.json"},
            ),
            ("rnn", (PretrainSettings, StudentSettings), {"model.safetensors", "tokenizer.json"}),
        ],
    )
    def test_a_run_writes_a_complete_folder(
        self, name: str, groups: tuple[type, ...], own: set[str], runs: TrainedRuns
    ) -> None:
        folder = Path(f"runs/{name}-7")
        common = {"README.md", "config.json", "metrics.jsonl", "results.json"}
        common |= {".gitignore", "manifest.json", "predictions.jsonl", "report.html"}
        assert {file.name for file in folder.iterdir()} == common | own
        config = read_json(folder / "config.json")
        expected = {f.name for g in (*groups, *COMMON) for f in fields(g)}
        assert set(config["settings"]) == expected
        assert (config["command"], config["SR"]) == (name, 7)
        assert {"potstill", "python", "torch", "transformers"} <= set(config["versions"])
        minicola = load_corpus("minicola")
        assert config["data"] == minicola.describe()
        epochs = [record["epoch"] for record in scores_by_epoch(folder)]
        assert epochs == list(range(1, config["settings"]["epochs"] + 1))
        results = read_json(folder / "results.json")
        assert set(results["chosen"]) == {"holdout", "dev", "ood"}
        assert results["chosen_epoch"] in epochs
        assert results["parameters"] == config["parameters"]["total"] > 0

    def test_the_base_is_recorded_with_its_hash(self, runs: TrainedRuns, tiny_gpt2: Path) -> None:
        assert read_json("runs/LoRA-7/config.json")["decoder"] == {
            "variant": str(tiny_gpt2),
            "title": "tiny-gpt2",
            "folder": str(tiny_gpt2),
            "sha256": find_base_model(str(tiny_gpt2)).sha256(),
        }

    def test_sentences_start_with_the_start_token(self, runs: TrainedRuns, tiny_gpt2: Path) -> None:
        """As recorded in config.json; without the record the logits are others."""
        config = read_json("runs/LoRA-7/config.json")
        tokenizer = find_base_model(str(tiny_gpt2)).tokenizer()
        assert config["start_token"] == tokenizer.bos_token_id == 0
        folder = Path("without")
        # Without the manifest, which tells that a file was changed.
        shutil.copytree("runs/LoRA-7", folder, ignore=shutil.ignore_patterns("manifest.json"))
        try:
            (folder / "config.json").write_text(json.dumps(config | {"start_token": None}))
            with_start, without_start = (load(f) for f in (Path("runs/LoRA-7"), folder))
        finally:
            shutil.rmtree(folder)
        assert with_start.sha256 != without_start.sha256
        logits = [model.logits(["The cat is old."]) for model in (with_start, without_start)]
        assert not np.allclose(*logits)

    @pytest.mark.parametrize("name", PLOTS)
    def test_plots_are_images(self, name: str, runs: TrainedRuns) -> None:
        with Image.open(f"plots/{name}_training_plot.png") as picture:
            picture.load()
            assert picture.format == "PNG"

    def test_nothing_else_is_written(self, runs: TrainedRuns) -> None:
        assert {path.name for path in Path().iterdir()} == {"runs", "plots"}
        assert {path.name for path in Path("runs").iterdir()} == {"LoRA-7", "distil-7", "rnn-7"}
        kinds = [(name, kind) for name in PLOTS for kind in ("training", "reliability")]
        expected = {f"{name}_{kind}_plot.png" for name, kind in kinds}
        assert {path.name for path in Path("plots").iterdir()} == expected

    def test_the_table_has_teacher_students_and_majority(self, runs: TrainedRuns) -> None:
        names = ["tiny-gpt2 + LoRA", "DistilRNN, distilled", "DistilRNN, no teacher"]

        def named(out: str) -> list[str]:
            table = out[out.index("MiniCoLA, SR 7") :]
            kinds = [*names, "majority class", "dev", "out of domain"]
            return [k for line in table.splitlines() for k in kinds if line.strip().startswith(k)]

        whole = [*names, "majority class"]
        for command in ("rnn", "distil again"):
            assert named(runs.stdout[command]) == ["dev", *whole, "out of domain", *whole]
        first = [names[0], names[1], "majority class"]
        assert named(runs.stdout["distil"]) == ["dev", *first, "out of domain", *first]
        assert "no baseline to compare with; run `potstill rnn 7`" in runs.stdout["distil"]
        assert (
            max(map(len, runs.stdout["distil again"].split("MiniCoLA, SR 7")[1].split("\n"))) < 80
        )

    def test_every_accuracy_comes_with_majority_and_mcc(self, runs: TrainedRuns) -> None:
        lines = runs.stdout["rnn"].splitlines()
        header = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
        assert lines[header].split() == ["epoch", "split", "loss", "accuracy", "majority", "MCC"]
        for line in lines[header + 1 : header + 5]:
            assert line.count("%") == 2

    @pytest.mark.parametrize("name", ["distil", "rnn"])
    def test_students_predict_each_class_as_often_as_it_occurs(
        self, name: str, runs: TrainedRuns
    ) -> None:
        """On train; the same student without the bias does not."""
        folder = Path(f"runs/{name}-7")
        task, _ = _run.read_task("minicola", DataSettings(), 7)
        labels = task.train.labels
        logits = load(folder).logits(task.train.sentences)
        results = read_json(folder / "results.json")
        bias = np.array(results["bias"], np.float32)
        logits *= results["calibration"]["temperature"]
        predicted = [np.bincount(x.argmax(1)).tolist() for x in (logits, logits - bias)]
        assert predicted[0] == np.bincount(labels).tolist()
        assert bias[0] == 0 and float(bias[1])
        percentages = [f"{100 * counts[1] / len(labels):.1f} %" for counts in predicted]
        line = f"acceptable {percentages[0]} (was {percentages[1]}, bias {float(bias[1]):+.2f})"
        assert line in runs.stdout[name]

    @pytest.mark.parametrize("name", TRAINING_COMMANDS)
    def test_evaluate_gives_the_scores_of_the_run(self, name: str, runs: TrainedRuns) -> None:
        scored = json.loads(run_ok("evaluate", "--model_path", f"runs/{name}-7", "--json"))
        chosen = read_json(f"runs/{name}-7/results.json")["chosen"]
        assert set(scored["scores"]) == {"dev", "ood"}
        for split, scores in scored["scores"].items():
            assert scores["accuracy"] == pytest.approx(chosen[split]["accuracy"], abs=0.01)
            low, high = scores["mcc_95"]
            assert low <= scores["mcc"] <= high
            assert sum(map(sum, scores["confusion"])) == scores["sentences"] == 500
            assert sum(g["sentences"] for g in scores["groups"].values()) == 500
        assert scored["data"]["name"] == "MiniCoLA"

    @pytest.mark.parametrize("name", TRAINING_COMMANDS)
    def test_models_run_on_the_accelerator(
        self, name: str, runs: TrainedRuns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The "meta" device stands for the accelerator: it has a device's rules and no numbers."""
        for module in (decoder, student):
            monkeypatch.setattr(
                module, "process", lambda: SimpleNamespace(device=torch.device("meta"))
            )
        classifier = load(Path(f"runs/{name}-7"))
        models: list[torch.nn.Module] = []

        def predict_logits(model: torch.nn.Module, tokens: object, together: bool) -> torch.Tensor:
            models.append(model)
            return torch.zeros(1, 2)

        for module in (decoder, student):
            monkeypatch.setattr(module, "predict_logits", predict_logits)
        classifier.logits(["She slept."])
        (module,) = models
        assert {x.device.type for x in (*module.parameters(), *module.buffers())} == {"meta"}

    def test_evaluate_agrees_with_predict_and_scikit_learn(self, runs: TrainedRuns) -> None:
        dev = load_corpus("minicola").splits["dev"]
        Path("dev.txt").write_text("\n".join(dev.sentences))
        try:
            lines = run_ok("predict", "--file", "dev.txt", "--json").splitlines()
        finally:
            Path("dev.txt").unlink()
        predicted = [int(json.loads(line)["label"] == "acceptable") for line in lines]
        scores = json.loads(run_ok("evaluate", "--json"))["scores"]["dev"]
        assert scores["accuracy"] == pytest.approx(accuracy_score(dev.labels, predicted))
        assert scores["mcc"] == pytest.approx(matthews_corrcoef(dev.labels, predicted))

    def test_evaluate_prints_tables(self, runs: TrainedRuns) -> None:
        out = run_ok("evaluate")
        assert "model: DistilRNN in runs/distil-7 (auto: trained last)" in out
        assert "data: MiniCoLA (auto: what the model was trained on)" in out
        for words in (
            "dev: 500 sentences",
            "out of domain: 500 sentences",
            "true \\ predicted",
            "majority",
            "95 % interval",
        ):
            assert words in out
        phenomena = set(load_corpus("minicola").splits["dev"].sources)
        assert phenomena <= {line.split("  ")[0].strip() for line in out.splitlines()}
