"""Errors of users: each is one sentence, and nothing is written."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from potstill.cli.main import COMMANDS
from tests.cli.conftest import SMALL, ToyTask, files, read_json, run, run_ok

USAGE = {
    "gen": "Missing from potstill gen",
    "gen x": "Error parsing SR: .*'x'",
    "gen 1.5": "Error parsing SR: .*'1.5'",
    "gen -1": "SR -1 is out of range: it takes a whole number from 0 to 4294967295",
    "LoRA 4294967296": "SR 4294967296 is out of range",
    "distil 99999999999999999999": "SR 99999999999999999999 is out of range",
    "rnn 1 2": "Unrecognized options: 2",
    "": "name a command: make, gen, LoRA, .*serve; --help",
    "brew 1": f"no command 'brew' among {', '.join(COMMANDS)}",
    "lora 1": "did you mean LoRA",
    "distill 1": "did you mean distil",
    "gen 1 --max-newtokens 3": "Perhaps you meant: .*--max_new_tokens",
    "LoRA 1 --LoRA_rnk 4": "Perhaps you meant: .*--LoRA_rank",
    "LoRA 1 --LoRA_rank 0": "--LoRA_rank 0 is out of range: it takes 1 or more",
    "LoRA 1 --LoRA_alpha 0": "--LoRA_alpha 0.0 is out of range: it takes more than 0",
    "LoRA 1 --epochs 0": "--epochs 0 is out of range: it takes 1 or more",
    "rnn 1 --epochs none": "Error parsing --epochs",
    "rnn 1 --lr -1": "--lr -1.0 is out of range: it takes more than 0",
    "rnn 1 --lr nan": "--lr nan is out of range",
    "rnn 1 --lr fast": "Error parsing --lr: .*'fast'",
    "rnn 1 --batch_size 0": "--batch_size 0 is out of range",
    "rnn 1 --holdout 1": "--holdout 1.0 is out of range: it takes 0 to below 1",
    "rnn 1 --vocab_size 100": "--vocab_size 100 is out of range",
    "rnn 1 --cell cnn": "invalid choice 'cnn' for argument '--cell'",
    "rnn 1 --init base --hidden_size 128": (
        "--hidden_size is 128, but the network in .*pretrained/base, from which --init starts, "
        "has 256"
    ),
    "transfer 1 --sampled -1": "--sampled -1 is out of range: it takes 0 or more",
    "transfer 1 --temperature 0": "--temperature 0.0 is out of range",
    "transfer 1 --show 0": "--show 0 is out of range",
    "distil 1 --temperature 0": "--temperature 0.0 is out of range",
    "distil 1 --alpha 2": "--alpha 2.0 is out of range: it takes 0 to 1",
    "gen 1 --max_new_tokens 0": "--max_new_tokens 0 is out of range: it takes 1 or more",
    "gen 1 --temperature 0": "--temperature 0.0 is out of range: .* use --greedy",
    "gen 1 --top_p 2": "--top_p 2.0 is out of range",
    "gen 1 --gpt_variant {base} --prompt ''": "--prompt is empty; give at least one word",
    "predict One. --file x.txt": "give sentences or --file, not both",
    "predict One. ''": "one of the sentences is empty",
}

REFUSED = {
    "gen 1 --gpt_variant gpt2": "gpt2 is not in the local cache .* use --gpt_variant smollm2",
    "gen 1 --gpt_variant no/such": "no/such is not in the local cache",
    "gen 1 --gpt_variant 'no such'": "--gpt_variant no such: neither a local folder nor a valid",
    "gen 1 --gpt_variant foreign": r"foreign has no config\.json with \*\.safetensors",
    "LoRA 1 --gpt_variant {base} --data {toy} --LoRA_rank 33": (
        "--LoRA_rank 33 is out of range: .* takes 1 to 32"
    ),
    "LoRA 1 --model_path file": "--model_path: file is a file; name a folder",
    "LoRA 1 --output file": "--output: file is a file; name a folder",
    "distil 1 --teacher {teacher} --output file": "--output: file is a file; name a folder",
    "distil 1 --teacher nowhere": "--teacher nowhere: there is no such folder",
    "LoRA 1 --model_path foreign": "foreign is not empty and not a run; name another folder",
    "rnn 1 --data nowhere": "--data nowhere: there is no such file or folder",
    "rnn 1 --data foreign": r"foreign has no in_domain_train\.tsv and no train\.tsv",
    "rnn 1 --data cola": "CoLA is not in data/ .* put its three files into data/",
    "rnn 1 --data columns.tsv": r"columns\.tsv:2: 2 tab-separated columns where CoLA's",
    "rnn 1 --data label.tsv": r"label\.tsv:2: label 'yes' is neither 0 nor 1",
    "rnn 1 --data empty.tsv": r"empty\.tsv is empty",
    "rnn 1 --data single.tsv": r"single\.tsv has one label only, '1'; a classifier needs two",
    "rnn 1 --data latin.tsv": r"latin\.tsv:2: not UTF-8 text; save it as UTF-8",
    "rnn 1 --data toy.csv --text_column body": r"toy\.csv has no column 'body' \(--text_column\)",
    "rnn 1 --data two.tsv": "of 2 training sentences none can be held out without leaving a class",
    "rnn 1 --init nowhere": (
        "--init nowhere: there is no such folder; it takes none, base, cola, or the"
    ),
    "rnn 1 --init foreign": "--init foreign holds neither a base nor a student",
    "distil 1 --init {teacher}": "--init .*teacher holds neither a base nor a student",
    "transfer 1": "--model_path runs/LoRA-1: there is no such folder; train a model",
    "transfer 1 --unlabelled nowhere": "nowhere can't be read: No such file",
    "transfer 1 --transfer_path file": "--transfer_path: file can't be written",
    "transfer 1 --model_path {teacher} --transfer_path foreign": "is not empty and not a transfer",
    "transfer 1 --transfer_path foreign --show 3": "foreign holds no transfer set",
    "distil 1 --model_path {teacher} --transfer_set foreign": "foreign holds no transfer set",
    "distil 1": "--model_path runs/LoRA-1: there is no such folder; train a model",
    "distil 1 --model_path file": "--model_path file: there is no such folder",
    "distil 1 --model_path foreign": r"foreign holds neither an adapter \(adapter_config\.json\)",
    "distil 1 --model_path {teacher} --data toy.csv": (
        r"knows unacceptable, acceptable, but toy\.csv is labelled bad, good"
    ),
    "distil 1 --model_path {teacher} --gpt_variant {other_base}": (
        "was tuned on tiny-gpt2 with weights [0-9a-f]{12}, but .* name the right base"
    ),
    "export": "there is no student in runs/; train one, or name it with --model_path",
    "export --model_path {teacher}": "there is no student in .*teacher; train one",
    "evaluate --model_path {teacher} --data toy.csv": r"toy\.csv:2: label 'good' is none of",
    "evaluate --model_path {teacher} --data nowhere": "--data nowhere: there is no such file",
    "predict One. --model_path nowhere": "--model_path nowhere: there is no such folder",
    "predict One. --model_path someone/model": r"someone/model: there is no such folder, it is not "
    "in the local cache, and the Hugging Face Hub can't be reached",
    "predict --file nowhere": "nowhere can't be read: No such file or directory",
    "predict --file empty.tsv": r"empty\.tsv is empty",
    "predict --file latin.tsv": r"latin\.tsv needs --text_column: one of its columns a, 1, ",
    "predict --file latin.tsv --text_column a": r"latin\.tsv:2: .*not UTF-8",
}


class TestBadInput:
    """One clear sentence, no traceback, nothing written."""

    @pytest.fixture
    def bad_inputs(self, toy_task: ToyTask) -> ToyTask:
        """Write the files that the lines above refer to."""
        bodies = {
            "columns.tsv": b"a\t1\t\tOne.\nb\tTwo.\n",
            "label.tsv": b"a\t1\t\tOne.\nb\tyes\t\tTwo.\n",
            "empty.tsv": b"",
            "single.tsv": b"a\t1\t\tOne.\nb\t1\t\tTwo.\n",
            "latin.tsv": b"a\t1\t\tOne.\nb\t0\t\tCaf\xe9\0.\n",
            "two.tsv": b"a\t1\t\tOne.\nb\t0\t\tTwo.\n",
            "toy.csv": b"text,label\n" + b"One.,good\nTwo.,bad\n" * 20,
            "file": b"",
            "foreign/thesis.doc": b"",
        }
        Path("foreign").mkdir()
        for name, body in bodies.items():
            Path(name).write_bytes(body)
        return toy_task

    @staticmethod
    def arguments(line: str, bad_inputs: ToyTask, other_base: Path) -> list[str]:
        paths = {
            "base": bad_inputs.base,
            "toy": bad_inputs.toy,
            "teacher": bad_inputs.teacher,
            "other_base": other_base,
        }
        return shlex.split(line.format(**paths))

    @pytest.mark.parametrize(("line", "words"), USAGE.items(), ids=USAGE)
    def test_usage_errors_end_with_2(
        self, line: str, words: str, bad_inputs: ToyTask, tiny_llama: Path
    ) -> None:
        before = files()
        result = run(*self.arguments(line, bad_inputs, tiny_llama))
        assert (result.code, result.out) == (2, "")
        assert re.search(words, " ".join(result.err.split()))
        assert files() == before

    @pytest.mark.parametrize(("line", "words"), REFUSED.items(), ids=REFUSED)
    def test_other_errors_end_with_1(
        self, line: str, words: str, bad_inputs: ToyTask, tiny_llama: Path
    ) -> None:
        before = files()
        result = run(*self.arguments(line, bad_inputs, tiny_llama))
        assert result.code == 1
        assert re.fullmatch(f"potstill: .*{words}.*\n", result.err)
        # No training began, and no other base or data was used instead.
        assert "epoch" not in result.out
        assert "auto" not in result.out.replace("(auto: no CoLA", "")
        assert files() == before

    @pytest.mark.parametrize("missing", [True, False], ids=["missing", "other weights"])
    @pytest.mark.parametrize("command", [("distil", 1), ("predict", "One.", "--model_path", "out")])
    def test_a_missing_or_changed_base_is_named(
        self, command: tuple[object, ...], missing: bool, toy_task: ToyTask, tiny_llama: Path
    ) -> None:
        base = Path(shutil.copytree(toy_task.base, "base"))
        run_ok("LoRA", 1, "--gpt_variant", base, "--data", toy_task.toy, "--epochs", 1)
        Path("out").symlink_to("runs/LoRA-1")
        shutil.rmtree(base)
        if not missing:
            shutil.copytree(tiny_llama, base)
        before = files()
        result = run(*command)
        assert (result.code, result.out) == (1, "")
        words = "the base of .* is not available" if missing else "was tuned on base with weights"
        assert re.fullmatch(f"potstill: .*{words}.* with --gpt_variant.*\n", result.err)
        assert files() == before

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
    @pytest.mark.parametrize("body", [b"", b"[]", b'{"student": {"cell": "cnn"}}', None])
    def test_a_damaged_student_is_named(
        self, file: str, body: bytes | None, toy_task: ToyTask
    ) -> None:
        run_ok(*toy_task.args("rnn", 5, "out", "--epochs", 1))
        if body is None:
            Path("out", file).unlink()
        else:
            Path("out", file).write_bytes(body)
        result = run("predict", "One.", "--model_path", "out")
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch("potstill: .*out.*\n", result.err)

    @pytest.mark.parametrize(
        "changes", [{"labels": ["one"]}, {"labels": None}, {"max_length": "many"}]
    )
    def test_a_config_that_does_not_match_the_weights_is_named(
        self, changes: dict[str, object], toy_task: ToyTask
    ) -> None:
        run_ok(*toy_task.args("rnn", 5, "out", "--epochs", 1))
        config = read_json("out/config.json") | changes
        Path("out/config.json").write_text(json.dumps(config))
        result = run("predict", "One.", "--model_path", "out")
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch("potstill: .*out.*\n", result.err)

    def test_the_tokenizer_of_another_student_is_refused(self, toy_task: ToyTask) -> None:
        for folder, size in (("out", 300), ("other", 280)):
            run_ok(*toy_task.args("rnn", 5, folder, "--epochs", 1, "--vocab_size", size))
        shutil.copy("other/tokenizer.json", "out/tokenizer.json")
        result = run("predict", "One.", "--model_path", "out")
        assert result.code == 1
        assert "out: tokenizer.json is damaged" in result.err
        Path("out/manifest.json").unlink()
        result = run("predict", "One.", "--model_path", "out")
        assert "the files in out do not belong together" in result.err

    @pytest.mark.parametrize(
        "file", ["adapter_config.json", "adapter_model.safetensors", "config.json"]
    )
    def test_a_damaged_adapter_is_named(self, file: str, toy_task: ToyTask) -> None:
        shutil.copytree(toy_task.teacher, "out")
        body = Path("out", file).read_bytes()
        Path("out", file).write_bytes(body[: len(body) // 2])
        result = run("predict", "One.", "--model_path", "out")
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch("potstill: .*out.*\n", result.err)

    def test_data_changed_since_training_is_refused(self, toy_task: ToyTask) -> None:
        toy = Path(shutil.copytree(toy_task.toy, "toy"))
        run_ok("rnn", 5, *SMALL, "--data", toy, "--epochs", 1)
        dev = toy / "in_domain_dev.tsv"
        dev.write_bytes(dev.read_bytes() * 2)
        result = run("evaluate")
        assert (result.code, result.out) == (1, "")
        assert "toy has changed since runs/rnn-5 was trained" in result.err
        assert run("evaluate", "--data", "toy").code == 0
        shutil.rmtree(toy)
        assert "toy, which runs/rnn-5 was trained on, is not here" in run("evaluate").err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = run("gen", 1, "--gpt_variant", "smollm2")
    assert result.code == 1
    assert "transformers is not installed; pip install 'potstill[train]' brings it" in result.err
