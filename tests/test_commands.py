"""The commands as their users meet them: what they print, write and refuse."""

import contextlib
import errno
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, matthews_corrcoef

from potstill import (
    classifier,
    collecting,
    lora,
    models,
    optimisation,
    runs,
    sampling,
    sources,
    state,
    student,
    training,
    transfer,
)
from potstill.batching import predict_logits
from potstill.cli import COMMANDS, main
from potstill.commands import SERENITY
from potstill.corpus import load_corpus
from potstill.decoder import find_decoder
from potstill.next_tokens import read_next_tokens
from potstill.settings import (
    DataSettings,
    DistilSettings,
    LoRASettings,
    PretrainSettings,
    StudentSettings,
    TrainSettings,
)

RUN = Path(__file__).parents[1] / "run.py"
SMALL = ("--hidden_size", 8, "--embedding_size", 8, "--vocab_size", 300)
TRAINERS = ("LoRA", "distil", "rnn")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*args: object) -> Result:
    """Runs a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(args=list(map(str, args)))
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            code = stop.code
    return Result(code, out.getvalue(), err.getvalue())


def done(*args: object) -> str:
    """Runs a command that must succeed; returns what it printed."""
    result = run(*args)
    assert result.code == 0, result.err
    assert not result.err or re.fullmatch(r"(model|base): [^\n]+\n", result.err)
    return result.out


def started(*args: object, **options: Any) -> subprocess.Popen[str]:
    """Starts `python run.py` as a process of its own, with no network."""
    nowhere = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")}
    return subprocess.Popen(
        [sys.executable, RUN, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | nowhere | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        **options,
    )


def finished(*args: object) -> Result:
    process = started(*args)
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def weights(folder: Path | str) -> bytes:
    (file,) = Path(folder).glob("*.safetensors")
    return file.read_bytes()


def read_json(file: Path | str) -> Any:
    return json.loads(Path(file).read_text())


def scores_by_epoch(folder: Path | str) -> list[dict[str, Any]]:
    """metrics.jsonl without what differs from one time to the next."""
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    clocks = ("seconds", "sentences_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]


def files(folder: Path | str = ".") -> set[str]:
    return {str(file) for file in Path(folder).rglob("*") if not file.is_dir()}


def write_toy(folder: Path, train: int = 60) -> Path:
    """A corpus in CoLA's format on agreement in number."""
    folder.mkdir()
    for name, size in (
        ("in_domain_train", train),
        ("in_domain_dev", 20),
        ("out_of_domain_dev", 20),
    ):
        lines = []
        for i in range(size):
            noun = ("cat", "cats", "dog", "dogs", "book", "books")[i % 6]
            verb = ("is", "are")[i % 7 % 2]
            good = noun.endswith("s") == (verb == "are")
            mark = "" if good else "*"
            lines.append(f"s{i % 3}\t{int(good)}\t{mark}\tThe {noun} number {i} {verb} old.\n")
        (folder / f"{name}.tsv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@dataclass(frozen=True)
class Shop:
    """A folder where everything was run once on MiniCoLA, and what was printed meanwhile."""

    folder: Path
    said: dict[str, str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    shape = ("--hidden_size", 16, "--embedding_size", 16, "--epochs", 1)
    with contextlib.chdir(folder):
        said = {
            "LoRA": done("LoRA", 7, "--gpt_variant", tiny_gpt2),
            "distil": done("distil", 7, *shape),
            "rnn": done("rnn", 7, "--data", "minicola", *shape),
            "distil again": done("distil", 7, *shape),
        }
    return Shop(folder, said)


@pytest.fixture
def shop(built: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """`built`, gone into; for tests that only read there."""
    monkeypatch.chdir(built.folder)
    return built


@dataclass(frozen=True)
class Bench:
    """What it takes to train on the toy corpus: a base and a teacher tuned from it."""

    base: Path
    toy: Path
    teacher: Path

    def order(self, command: str, SR: int, folder: str, *more: object) -> list[object]:
        """Arguments that train into `folder`, briefly."""
        flags = {
            "LoRA": ["--gpt_variant", self.base, "--model_path", folder],
            "distil": ["--model_path", self.teacher, "--student_path", folder, *SMALL],
            "rnn": ["--student_path", folder, *SMALL],
        }[command]
        return [command, SR, *flags, "--data", self.toy, "--epochs", 3, *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    bench = Bench(tiny_gpt2, write_toy(folder / "toy"), folder / "teacher")
    with contextlib.chdir(folder):
        done(*bench.order("LoRA", 1, "teacher"))
    return bench


@pytest.fixture
def bench(made: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """`made`, used from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return made


class TestFirstRun:
    """LoRA, distil, rnn, evaluate, predict, from an empty folder and without a network."""

    def test_choices_are_said_with_their_reason(self, shop: Shop) -> None:
        assert "base: tiny-gpt2\n" in shop.said["LoRA"]
        assert "data: MiniCoLA" in shop.said["LoRA"]
        assert "(auto: no CoLA in data/, and its site can't be reached)" in shop.said["LoRA"]
        assert "(auto: what the teacher was tuned on)" in shop.said["distil"]
        assert "auto" not in shop.said["rnn"]
        # The little base has 64 positions, fewer than --max_length would allow.
        assert "sentences of train are cut at --max_length 64 tokens" in shop.said["LoRA"]

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
    def test_a_run_is_a_whole_folder(
        self, name: str, groups: tuple[type, ...], own: set[str], shop: Shop
    ) -> None:
        folder = Path(f"runs/{name}-7")
        common = {"config.json", "metrics.jsonl", "results.json"}
        assert {file.name for file in folder.iterdir()} == common | own
        config = read_json(folder / "config.json")
        wanted = {f.name for g in (*groups, DataSettings, TrainSettings) for f in fields(g)}
        assert set(config["settings"]) == wanted
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

    def test_the_base_is_recorded_with_its_hash(self, shop: Shop, tiny_gpt2: Path) -> None:
        assert read_json("runs/LoRA-7/config.json")["decoder"] == {
            "variant": str(tiny_gpt2),
            "title": "tiny-gpt2",
            "folder": str(tiny_gpt2),
            "sha256": find_decoder(str(tiny_gpt2)).sha256(),
        }

    def test_sentences_begin_with_the_start_token(self, shop: Shop, tiny_gpt2: Path) -> None:
        """As the run records it; without the record another model reads them."""
        config = read_json("runs/LoRA-7/config.json")
        tokenizer = find_decoder(str(tiny_gpt2)).tokenizer()
        assert config["start_token"] == tokenizer.bos_token_id == 0
        folder = Path("without")
        shutil.copytree("runs/LoRA-7", folder)
        try:
            (folder / "config.json").write_text(json.dumps(config | {"start_token": None}))
            models_there = [models.load_model(f) for f in (Path("runs/LoRA-7"), folder)]
        finally:
            shutil.rmtree(folder)
        assert models_there[0].sha256 != models_there[1].sha256
        one, other = (model.logits(["The cat is old."]) for model in models_there)
        assert not torch.allclose(one, other)

    @pytest.mark.parametrize("name", ["lora", "distilrnn", "rnn"])
    def test_plots_are_pictures(self, name: str, shop: Shop) -> None:
        with Image.open(f"plots/{name}_training_plot.png") as picture:
            picture.load()
            assert picture.format == "PNG"

    def test_nothing_else_is_left(self, shop: Shop) -> None:
        assert {path.name for path in Path().iterdir()} == {"runs", "plots"}
        assert {path.name for path in Path("runs").iterdir()} == {"LoRA-7", "distil-7", "rnn-7"}
        assert len(list(Path("plots").iterdir())) == 3

    def test_the_table_has_teacher_student_control_and_majority(self, shop: Shop) -> None:
        names = ["tiny-gpt2 + LoRA", "DistilRNN, distilled", "DistilRNN, no teacher"]

        def named(said: str) -> list[str]:
            table = said[said.index("MiniCoLA, SR 7") :]
            kinds = [*names, "majority class", "dev", "out of domain"]
            return [k for line in table.splitlines() for k in kinds if line.strip().startswith(k)]

        whole = [*names, "majority class"]
        for command in ("rnn", "distil again"):
            assert named(shop.said[command]) == ["dev", *whole, "out of domain", *whole]
        first = [names[0], names[1], "majority class"]
        assert named(shop.said["distil"]) == ["dev", *first, "out of domain", *first]
        assert "the control, which `potstill rnn 7` would train" in shop.said["distil"]
        assert max(map(len, shop.said["distil again"].split("MiniCoLA, SR 7")[1].split("\n"))) < 80

    def test_every_accuracy_stands_beside_majority_and_mcc(self, shop: Shop) -> None:
        lines = shop.said["rnn"].splitlines()
        header = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
        assert lines[header].split() == ["epoch", "on", "loss", "accuracy", "majority", "MCC"]
        for line in lines[header + 1 : header + 5]:
            assert line.count("%") == 2

    @pytest.mark.parametrize("name", ["distil", "rnn"])
    def test_students_call_each_class_as_often_as_it_is(self, name: str, shop: Shop) -> None:
        """In train; without the shift, a student that is otherwise the same does not."""
        folder = Path(f"runs/{name}-7")
        task = runs.read_task(DataSettings(data="minicola"), 7)
        labels = torch.tensor(task.train.labels)
        logits = models.load_model(folder).logits(task.train.sentences)
        bias = torch.tensor(read_json(folder / "results.json")["bias"])
        called = (logits.argmax(1).bincount(), (logits - bias).argmax(1).bincount())
        assert called[0].tolist() == labels.bincount().tolist()
        assert bias[0] == 0 and float(bias[1])
        shares = [f"{100 * float(counts[1]) / len(labels):.1f} %" for counts in called]
        told = f"acceptable {shares[0]} ({shares[1]} without a shift of {float(bias[1]):+.2f})"
        assert told in shop.said[name]

    @pytest.mark.parametrize("name", TRAINERS)
    def test_evaluate_gives_the_scores_of_the_run(self, name: str, shop: Shop) -> None:
        scored = json.loads(done("evaluate", "--model_path", f"runs/{name}-7", "--json"))
        chosen = read_json(f"runs/{name}-7/results.json")["chosen"]
        assert set(scored["scores"]) == {"dev", "ood"}
        for split, scores in scored["scores"].items():
            assert scores["accuracy"] == pytest.approx(chosen[split]["accuracy"], abs=0.01)
            low, high = scores["mcc_95"]
            assert low <= scores["mcc"] <= high
            assert sum(map(sum, scores["confusion"])) == scores["sentences"] == 500
            assert sum(g["sentences"] for g in scores["groups"].values()) == 500
        assert scored["data"]["name"] == "MiniCoLA"

    @pytest.mark.parametrize("name", TRAINERS)
    def test_models_answer_on_the_accelerator(
        self, name: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PyTorch's "meta" stands in for one: it has a device's rules and no numbers."""
        monkeypatch.setattr(models, "process", lambda: SimpleNamespace(device=torch.device("meta")))
        model = models.load_model(Path(f"runs/{name}-7"))

        asked = []
        monkeypatch.setattr(models, "predict_logits", lambda model, *_, **__: asked.append(model))
        model.logits(["She slept."])
        (module,) = asked
        assert {x.device.type for x in (*module.parameters(), *module.buffers())} == {"meta"}

    def test_evaluate_agrees_with_predict_and_scikit_learn(self, shop: Shop) -> None:
        dev = load_corpus("minicola").splits["dev"]
        Path("dev.txt").write_text("\n".join(dev.sentences))
        try:
            lines = done("predict", "--file", "dev.txt", "--json").splitlines()
        finally:
            Path("dev.txt").unlink()
        called = [int(json.loads(line)["label"] == "acceptable") for line in lines]
        scores = json.loads(done("evaluate", "--json"))["scores"]["dev"]
        assert scores["accuracy"] == pytest.approx(accuracy_score(dev.labels, called))
        assert scores["mcc"] == pytest.approx(matthews_corrcoef(dev.labels, called))

    def test_evaluate_prints_tables(self, shop: Shop) -> None:
        out = done("evaluate")
        assert "model: DistilRNN in runs/distil-7 (auto: trained last)" in out
        assert "data: MiniCoLA (auto: what the model was trained on)" in out
        for words in ("dev: 500 sentences", "ood: 500 sentences", "majority", "95 % interval"):
            assert words in out
        phenomena = set(load_corpus("minicola").splits["dev"].sources)
        assert phenomena <= {line.split("  ")[0].strip() for line in out.splitlines()}


class TestTransfer:
    """A set from the toy teacher: made, gone on with, shown, learned from."""

    OWN = "The birds is old.\nThe dogs number 3 are old.\nNaïve birds are old.\n"

    @pytest.fixture
    def order(self, bench: Bench) -> list[object]:
        Path("own.txt").write_text(self.OWN)
        flags = ["--model_path", bench.teacher, "--transfer_path", "set", "--unlabelled", "own.txt"]
        return ["transfer", 1, *flags, "--sampled", 30, "--edited", 60]

    @pytest.fixture
    def ending(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tiny decoder hardly ever ends a sentence: its own full stop shall do."""
        plain = sampling.LanguageModel.__init__

        def init(model: Any, whole: Any, tokenizer: Any, lora: Any) -> None:
            plain(model, whole, tokenizer, lora)
            model.end = tokenizer(".")["input_ids"][0]

        monkeypatch.setattr(sampling.LanguageModel, "__init__", init)
        monkeypatch.setattr(transfer, "SHARD", 25)
        monkeypatch.setattr(collecting, "SHARD", 25)
        monkeypatch.setattr(sources, "SHARD", 25)

    @pytest.mark.usefixtures("ending")
    def test_made_whole_and_gone_on_with(
        self, order: list[object], bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = done(*order)
        names = ["own-00000", "sampled-00000", "sampled-00001"]
        names += [f"edited-0000{i}" for i in range(3)]
        shards = {f"set/{name}.jsonl.gz" for name in names}
        beside = {"transfer.json", "sampler.safetensors", "vocabulary.json"}
        beside |= {"sampled-00000.next.npz", "sampled-00001.next.npz"}
        assert files("set") == shards | {f"set/{name}" for name in beside}
        found = transfer.read_transfer_set(Path("set"))
        kinds = [source.partition(":")[0] for source in found.sources]
        # One of the user's own three is a training sentence.
        assert (kinds.count("own"), kinds.count("sampled"), kinds.count("edited")) == (2, 30, 60)
        assert f"sampled: {kinds.count('sampled')} sentences; by the teacher" in said
        for split in load_corpus(str(bench.toy)).splits.values():
            known = {transfer.normal(s) for s in split.sentences}
            assert not known & {transfer.normal(s) for s in found.sentences}
        teacher = models.load_model(bench.teacher)
        expected = teacher.logits(found.sentences)
        torch.testing.assert_close(torch.from_numpy(found.logits), expected, rtol=0, atol=2e-3)
        # After a word: what it says of the sentence up to there.
        sentence, words = max(
            zip(found.sentences, found.word_logits, strict=True), key=lambda pair: len(pair[1])
        )
        ends = [match.end() for match in re.finditer(r"\S+", sentence)]
        expected = teacher.logits([sentence[:end] for end in ends])
        torch.testing.assert_close(torch.from_numpy(words), expected, rtol=0, atol=2e-3)
        assert len(words) > 3
        train = set(load_corpus(str(bench.toy)).splits["train"].sentences)
        others = {s for s, kind in zip(found.sentences, kinds, strict=True) if kind != "edited"}
        assert {p for p in found.parents if p} <= train | others
        assert all(bool(p) == (k == "edited") for p, k in zip(found.parents, kinds, strict=True))

        # Twice in a row: nothing is made anew.
        before = {file: Path(file).read_bytes() for file in files("set")}
        monkeypatch.setattr(collecting, "tuned_sampler", None)
        done(*order)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        monkeypatch.undo()

    @pytest.mark.usefixtures("ending")
    def test_interrupted_it_goes_on(
        self, order: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done(*order)
        before = {file: Path(file).read_bytes() for file in files("set")}
        write = collecting.write_shard

        def interrupted(file: Path, rows: Any) -> None:
            if file.name.startswith("edited-00001"):
                raise KeyboardInterrupt
            write(file, rows)

        shutil.rmtree("set")
        with monkeypatch.context() as patch:
            patch.setattr(collecting, "write_shard", interrupted)
            assert run(*order).code == 130
        assert not Path("set/edited-00001.jsonl.gz").exists()
        flags = ("--model_path", order[3], "--transfer_set", "set", *SMALL)
        refused = run("distil", 1, *flags)
        assert refused.code == 1
        assert "unfinished: 2 of 6 shards are missing" in refused.err
        done(*order)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        # More may be asked for; what is there stays.
        done(*order[:-1], 80)
        assert files("set") == {*before, "set/edited-00003.jsonl.gz"}
        assert all(
            Path(file).read_bytes() == body
            for file, body in before.items()
            if file != "set/transfer.json"
        )

    @pytest.mark.usefixtures("ending")
    def test_chances_of_tokens_are_added_to_a_set_without(
        self, order: list[object], bench: Bench
    ) -> None:
        """As sets were before they were kept; and learnt from, unless the tokens alone are."""
        done(*order)
        before = {file: Path(file).read_bytes() for file in files("set")}
        drawn = read_next_tokens(Path("set/sampled-00001.next.npz"), 5)
        Path("set/sampled-00001.next.npz").unlink()
        learn = bench.order("distil", 2, "student", "--transfer_set", "set", "--pretrain_epochs", 1)
        refused = run(*learn)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "5 sampled sentences of the transfer set in set lack what the decod" in refused.err
        plain = [*learn[:2], *("plain" if w == "student" else w for w in learn[2:])]
        said = done(*plain, "--pretrain_targets", "tokens")
        assert "1 epochs over" in said and "by the decoder's chances" not in said
        done(*order)
        # Another look, not what was sampled: alike but for rounding.
        again = read_next_tokens(Path("set/sampled-00001.next.npz"), 5)
        for one, other in zip(again, drawn, strict=True):
            np.testing.assert_array_equal(one.ends, other.ends)
            np.testing.assert_allclose(one.chances, other.chances, rtol=2e-3, atol=1e-5)
        Path("set/sampled-00001.next.npz").write_bytes(before["set/sampled-00001.next.npz"])
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        said = done(*learn)
        share = int(re.search(r"; (\d+)% of the next tokens by the decoder's chances", said)[1])  # type: ignore[index]
        assert 10 < share < 100  # the tokens of the labelled sentences are not
        Path("set/vocabulary.json").write_text('{"a": 1}')
        assert "set/vocabulary.json is damaged; remove it and run" in run(*learn).err
        Path("set/vocabulary.json").unlink()
        assert "set holds no vocabulary.json" in run(*learn).err
        done(*order)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        damaged = Path("set/sampled-00000.next.npz")
        damaged.write_bytes(damaged.read_bytes()[:-50])
        refused = run(*learn)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "set/sampled-00000.next.npz is damaged" in refused.err

    @pytest.mark.usefixtures("ending")
    def test_damaged_files_are_named(self, order: list[object]) -> None:
        done(*order)
        shard = Path("set/sampled-00001.jsonl.gz")
        body = shard.read_bytes()
        shard.write_bytes(body[:-9])
        result = run(*order)
        assert result.code == 1
        assert "sampled-00001.jsonl.gz is damaged" in result.err
        shard.unlink()
        Path("set/sampler.safetensors").write_bytes(b"damaged")
        result = run(*order)
        assert result.code == 1
        assert "sampler.safetensors is damaged or of another base" in result.err
        Path("set/sampler.safetensors").unlink()
        done(*order)
        assert shard.is_file()

    @pytest.mark.usefixtures("ending")
    def test_shown_and_learned_from(self, order: list[object], bench: Bench) -> None:
        done(*order)
        shown = done("transfer", 1, "--transfer_path", "set", "--show", 8)
        assert shown.count(" %, ") == 8
        assert "sampled: 30 sentences; by the teacher" in shown
        distil = bench.order("distil", 2, "student", "--transfer_set", "set", "--dropout", 0)
        said = done(*distil)
        # Its language model takes fewer passes over so much more text, unless told.
        assert "language model first: 3 epochs over" in said
        assert read_json("student/config.json")["settings"]["pretrain_epochs"] == 3
        assert "language model first: 6 epochs over" in done(*bench.order("rnn", 2, "control"))
        assert read_json("control/config.json")["settings"]["pretrain_epochs"] == 6
        learned = int(re.search(r"transfer set: (\d+) sentences of set", said)[1])  # type: ignore[index]
        config = read_json("student/config.json")
        assert sum(config["transfer_set"]["sentences"].values()) == learned <= 92
        found = transfer.read_transfer_set(Path("set"))
        assert learned < len(found.sentences)  # some were made of sentences held out
        assert f"; {92 - learned} others came of" in said
        done("evaluate", "--model_path", "student")
        # A run without the set is another run.
        other = ["student" if word == "student" else word for word in distil]
        Path("student.unfinished").mkdir()
        assert "no interrupted run" in run(*other, "--resume").err

    @pytest.mark.usefixtures("ending")
    def test_words_are_learned_from(self, order: list[object], bench: Bench) -> None:
        """What the teacher makes of each word, unless it is to weigh nothing."""
        done(*order)
        distil = bench.order("distil", 2, "student", "--transfer_set", "set", "--dropout", 0)
        done(*distil)
        plain = [*distil[:2], *("plain" if w == "student" else w for w in distil[2:])]
        done(*plain, "--word_weight", 0)
        one, other = (read_json(f"{name}/results.json")["last"] for name in ("student", "plain"))
        assert one["train"]["loss"] != other["train"]["loss"]
        assert load_file("student/model.safetensors").keys() == (
            load_file("plain/model.safetensors").keys()
        )
        rows = transfer.read_shard(Path("set/own-00000.jsonl.gz"), 2)
        del rows[0]["word_logits"]
        transfer.write_shard(Path("set/own-00000.jsonl.gz"), rows)
        refused = run(*distil)
        assert refused.code == 1
        assert (
            "1 sentences of the transfer set in set have no logits after each word" in refused.err
        )
        done(*plain, "--word_weight", 0)

    @pytest.mark.usefixtures("ending")
    def test_the_same_sentences_for_another_teacher(
        self, order: list[object], bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done(*order)
        done(*bench.order("LoRA", 3, "teacher", "--lr", 0.02))
        changes = {bench.teacher: "teacher", "set": "again"}
        other = [changes.get(word, word) for word in order]  # type: ignore[call-overload]
        with monkeypatch.context() as patch:
            patch.setattr(collecting, "tuned_sampler", None)  # nothing is sampled for it
            done(*other, "--sentences_of", "set")
        one, two = (transfer.read_transfer_set(Path(name)) for name in ("set", "again"))
        assert (one.sentences, one.sources, one.parents) == (
            two.sentences,
            two.sources,
            two.parents,
        )
        expected = models.load_model(Path("teacher")).logits(two.sentences)
        torch.testing.assert_close(torch.from_numpy(two.logits), expected, rtol=0, atol=2e-3)
        assert abs(one.logits - two.logits).max() > 0.1
        assert one.next_tokens[2] is not None
        for mine, theirs in zip(one.next_tokens, two.next_tokens, strict=True):
            assert (mine is None) == (theirs is None)
            if mine and theirs:
                np.testing.assert_array_equal(mine.chances, theirs.chances)
        # And more of them than there were: their last shard is filled up.
        more = ["more" if word == "again" else word for word in other[:-1]]
        done(*more, 80, "--sentences_of", "again")
        grown = transfer.read_transfer_set(Path("more"))
        assert len(grown.sentences) == len(two.sentences) + 20
        assert set(two.sentences) < set(grown.sentences)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                ("--temperature", 0.5),
                r"set holds a transfer set of another temperature \(1\.0, not",
            ),
            (("--unlabelled", "other.txt"), "set holds a transfer set of another own"),
            (("--model_path", "teacher"), "set holds a transfer set of another teacher"),
        ],
    )
    def test_other_settings_are_not_mixed_in(
        self, change: tuple[object, ...], words: str, order: list[object], bench: Bench
    ) -> None:
        small = [*order[:-4], "--sampled", 0, "--edited", 5]
        done(*small)
        Path("other.txt").write_text("Other birds are old.\n")
        done(*bench.order("LoRA", 3, "teacher"))
        before = {file: Path(file).read_bytes() for file in files("set")}
        result = run(*small, *change)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert re.search(words, result.err)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        if change[0] == "--model_path":
            learn = ("distil", 1, "--model_path", "teacher", "--transfer_set", "set", *SMALL)
            result = run(*learn)
            assert result.code == 1
            assert "was labelled by another teacher" in result.err

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", r"own\.txt is empty"),
            (b"One.\n\nTwo.\n", r"own\.txt:2: the line is empty; give a sentence a line"),
            (b"One.\n" + b"word " * 300, r"own\.txt:2: 1500 characters are no sentence"),
            (b"One.\nCaf\xe9.\n", r"own\.txt:2: not UTF-8 text"),
        ],
    )
    def test_text_that_is_none_of_sentences(
        self, body: bytes, words: str, order: list[object]
    ) -> None:
        Path("own.txt").write_bytes(body)
        result = run(*order)
        assert (result.code, result.out) == (1, "")
        assert re.search(words, result.err)
        assert files() == {"own.txt"}


class TestAverage:
    """Two adapters of unlike rank and scaling."""

    @pytest.fixture(scope="class")
    def there(self, made: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("adapters")
        with contextlib.chdir(folder):
            done(*made.order("LoRA", 3, "three", "--LoRA_rank", 2, "--LoRA_alpha", 6))
            done(*made.order("LoRA", 4, "four", "--LoRA_rank", 3, "--lr", 0.01))
            done(*made.order("LoRA", 4, "short", "--max_length", 9))
            done(*made.order("LoRA", 4, "other", "--data", write_toy(Path("larger"), 80)))
            done(*made.order("LoRA", 4, "wide", "--LoRA_rank", 32))
            Path("student").mkdir()
            Path("student/config.json").write_text('{"SR": 1, "labels": ["a", "b"]}')
        return folder

    @pytest.fixture
    def two(self, made: Bench, there: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        monkeypatch.chdir(there)
        return made

    def test_it_is_the_mean_of_the_merged_weights(self, two: Bench) -> None:
        said = done("average", "three", "four", "--model_path", "mean")
        assert "adapter: mean" in said
        assert "their average, rank 5" in said
        decoder = find_decoder(str(two.base))
        loaded = [classifier.load_adapter(decoder.base(), Path(f)) for f in ("three", "four")]
        for model in loaded:
            lora.merge(model.base)
        one, other = (model.state_dict() for model in loaded)
        assert not all(torch.equal(one[name], other[name]) for name in one)
        loaded[0].load_state_dict({name: (one[name] + other[name]) / 2 for name in one})
        mean = classifier.load_adapter(decoder.base(), Path("mean"))
        tokens, _ = classifier.encode(decoder.tokenizer(), ["The cats are old.", "It"], 64, 0)
        expected, found = (predict_logits(model, tokens) for model in (loaded[0], mean))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        scores = json.loads(done("evaluate", "--model_path", "mean", "--json"))["scores"]
        assert scores.keys() == {"dev", "ood"}
        written = read_json("mean/results.json")["chosen"]
        assert written["dev"]["confusion"] == scores["dev"]["confusion"]
        assert [m["SR"] for m in read_json("mean/config.json")["adapters"]] == [3, 4]

    def test_it_may_replace_an_average(self, two: Bench) -> None:
        for adapters in (("three", "four"), ("four", "three")):
            done("average", *adapters, "--model_path", "again", "--data", "larger")
        assert [m["SR"] for m in read_json("again/config.json")["adapters"]] == [4, 3]

    def test_it_teaches(self, two: Bench) -> None:
        done("average", "three", "four", "--model_path", "teacher")
        flags = ("--student_path", "out", *SMALL, "--epochs", 1, "--pretrain_epochs", 0)
        done("distil", 5, "--model_path", "teacher", *flags)
        assert read_json("out/config.json")["teacher"]["path"] == "teacher"

    def test_peft_loads_it(self, two: Bench) -> None:
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification

        done("average", "four", "three", "--model_path", "for_peft")
        decoder = find_decoder(str(two.base))
        base = AutoModelForSequenceClassification.from_pretrained(two.base, num_labels=2)
        base.config.pad_token_id = 0
        theirs = PeftModel.from_pretrained(base, "for_peft").eval()
        ours = classifier.load_adapter(decoder.base(), Path("for_peft"))
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
            ("three four --model_path larger", 1, "larger holds something else than a run"),
            ("three four --model_path larger/in_domain_dev.tsv", 1, "is a file; name a folder"),
            ("three four --data nowhere", 1, "--data nowhere: there is no such file"),
            ("three wide", 1, "ranks add up to 34, more than the 32 that .* can have"),
        ],
    )
    def test_refused(self, two: Bench, words: str, code: int, error: str) -> None:
        before = files()
        result = run("average", *words.split())
        assert result.code == code
        assert re.search(error, result.err)
        assert files() == before


class TestPredict:
    SENTENCES = ("The cat is old.", "The cat are old.", "Naïve “café”.")

    def test_arguments_file_and_standard_input_agree(
        self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "\r\n".join(self.SENTENCES)
        file = tmp_path / "sentences.txt"
        file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\n")
        expected = done("predict", *self.SENTENCES)
        assert done("predict", "--file", file) == expected
        for flags in ([], ["--file", "-"]):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            assert done("predict", *flags) == expected

    def test_the_table_has_a_line_a_sentence(self, shop: Shop) -> None:
        result = run("predict", *self.SENTENCES)
        assert result.err == "model: DistilRNN in runs/distil-7 (auto: trained last)\n"
        lines = result.out.splitlines()
        for sentence, line in zip(self.SENTENCES, lines, strict=True):
            label, share, percent, rest = line.split(maxsplit=3)
            assert label in ("acceptable", "unacceptable")
            assert 50 <= float(share) <= 100
            assert (percent, rest) == ("%", sentence)

    @pytest.mark.parametrize("name", TRAINERS)
    def test_json_lines_parse(self, name: str, shop: Shop) -> None:
        out = done("predict", *self.SENTENCES, "--json", "--model_path", f"runs/{name}-7")
        for sentence, line in zip(self.SENTENCES, out.splitlines(), strict=True):
            record = json.loads(line)
            assert set(record) == {"sentence", "label", "probabilities"}
            assert record["sentence"] == sentence
            shares = record["probabilities"]
            assert record["label"] == max(shares, key=shares.get)
            assert sum(shares.values()) == pytest.approx(1, abs=2e-4)

    def test_the_company_a_sentence_keeps_does_not_matter(self, shop: Shop) -> None:
        longer = "The cat that the dogs saw is very, very old, I believe."
        shares = [
            json.loads(done("predict", "--json", *sentences).splitlines()[-1])["probabilities"]
            for sentences in ([self.SENTENCES[0]], [longer, self.SENTENCES[0]])
        ]
        assert shares[0] == pytest.approx(shares[1], abs=2e-4)

    @pytest.mark.parametrize(
        ("body", "words"), [(b" \n\n", "is empty"), (b"A.\n\xe9", ":2: not UTF-8")]
    )
    def test_standard_input_that_is_no_text(
        self, body: bytes, words: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body)))
        result = run("predict")
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("potstill: standard input")
        assert words in result.err


class TestTraining:
    @pytest.mark.parametrize("command", TRAINERS)
    def test_the_seed_settles_the_weights(self, command: str, bench: Bench) -> None:
        for SR, folder in ((5, "one"), (5, "same"), (6, "other")):
            done(*bench.order(command, SR, folder))
        assert weights("one") == weights("same")
        assert scores_by_epoch("one") == scores_by_epoch("same")
        assert weights("one") != weights("other")

    @pytest.mark.parametrize("command", TRAINERS)
    def test_a_second_run_replaces_the_first(self, command: str, bench: Bench) -> None:
        done(*bench.order(command, 5, "out"))
        before = files()
        done(*bench.order(command, 6, "out"))
        assert read_json("out/config.json")["SR"] == 6
        assert files() == before

    @pytest.mark.parametrize("command", TRAINERS)
    @pytest.mark.parametrize("epoch", [1, 3])
    def test_an_interrupted_run_goes_on_to_the_same_weights(
        self, command: str, epoch: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done(*bench.order(command, 5, "whole"))
        before = files()
        report = runs.epoch_lines

        def interrupt(record: dict[str, Any], majority: dict[str, float]) -> str:
            if record["epoch"] == epoch:
                raise KeyboardInterrupt
            return report(record, majority)

        with monkeypatch.context() as patch:
            patch.setattr(runs, "epoch_lines", interrupt)
            stopped = run(*bench.order(command, 5, "cut"))
        assert stopped.code == 130
        assert "the same command with --resume goes on" in stopped.out
        assert stopped.err.strip() == "potstill: interrupted."
        kept = files() - before
        assert kept
        assert {Path(file).parts[0] for file in kept} == {"cut.unfinished"}

        out = done(*bench.order(command, 5, "cut", "--resume"))
        assert [e for e in (1, 2, 3) if f"\n    {e}  train" in out] == list(range(epoch + 1, 4))
        assert weights("cut") == weights("whole")
        assert scores_by_epoch("cut") == scores_by_epoch("whole")
        assert not Path("cut.unfinished").exists()

    def test_interrupted_in_the_first_epoch_nothing_is_left(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(training, "length_batches", interrupt)
            assert run(*bench.order("LoRA", 5, "out")).code == 130
        assert files() == set()
        result = run(*bench.order("LoRA", 5, "out", "--resume"))
        assert (result.code, files()) == (1, set())
        assert "no interrupted run in out.unfinished; run without it" in result.err

    def test_without_matching_the_prevalence_a_student_is_what_was_learnt(
        self, bench: Bench
    ) -> None:
        done(*bench.order("rnn", 5, "matched"))
        said = done(*bench.order("rnn", 5, "learnt", "--no_match_prevalence"))
        assert "called as often" not in said
        results = [read_json(f"{name}/results.json") for name in ("matched", "learnt")]
        assert results[1]["bias"] == [0, 0]
        sentences = load_corpus(str(bench.toy)).splits["dev"].sentences
        one, other = (models.load_model(Path(n)).logits(sentences) for n in ("matched", "learnt"))
        shift = torch.tensor(results[0]["bias"])
        assert float(shift.abs().max()) > 0
        torch.testing.assert_close(one - shift, other)
        assert results[0]["last"]["dev"] == results[1]["last"]["dev"]

    @pytest.mark.parametrize("batches", [1, 3, 5, 6, 7])
    def test_a_language_model_interrupted_goes_on_to_the_same_student(
        self, batches: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 3 epochs, 2 batches each; after them, in the student's own first epoch."""

        def order(folder: str, *more: object) -> list[object]:
            flags = ["--pretrain_epochs", 3, "--batch_size", 30, *more]
            return bench.order("rnn", 5, folder, *flags)

        done(*order("whole"))
        update, left = optimisation.update, [batches]

        def interrupt(*arguments: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            update(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(optimisation, "update", interrupt)
            patch.setattr(training, "update", interrupt)
            stopped = run(*order("cut"))
        assert stopped.code == 130
        assert Path("cut.unfinished").exists() == (batches >= 2)
        assert ("with --resume goes on" in stopped.out) == (batches >= 2)
        if batches < 2:
            result = run(*order("cut", "--resume"))
            assert result.code == 1
            assert "no interrupted run in cut.unfinished; run without it" in result.err
            return
        refused = run(*order("cut", "--resume", "--pretrain_lr", 0.1))
        assert "had pretrain_lr 0.008, not 0.1" in refused.err
        done(*order("cut", "--resume"))
        assert weights("cut") == weights("whole")
        assert scores_by_epoch("cut") == scores_by_epoch("whole")
        assert not Path("cut.unfinished").exists()

    def test_resume_of_a_folder_without_a_state_is_refused(self, bench: Bench) -> None:
        Path("cut.unfinished").mkdir()
        result = run(*bench.order("rnn", 5, "cut", "--resume"))
        assert result.code == 1
        assert "no interrupted run in cut.unfinished; run without it" in result.err

    def test_resume_takes_the_same_settings_only(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*args: object) -> str:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(runs, "epoch_lines", interrupt)
            run(*bench.order("rnn", 5, "out"))
        for flags, words in ((["--lr", 0.1], "had lr 0.001, not 0.1"), ([], "had SR 5, not 6")):
            result = run(*bench.order("rnn", 6 - len(flags) // 2, "out", "--resume", *flags))
            assert result.code == 1
            assert words in result.err

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            RuntimeError("I/O: No space left on device"),
        ],
        ids=["Python's", "a library's"],
    )
    @pytest.mark.parametrize(
        ("command", "room", "writer"),
        [
            ("LoRA", classifier, "write_tensors"),
            ("rnn", student, "write_tensors"),
            ("rnn", runs, "write_json"),
            ("rnn", state, "write_tensors"),
        ],
    )
    def test_a_full_disk_leaves_the_earlier_run_whole(
        self,
        command: str,
        room: Any,
        writer: str,
        error: Exception,
        bench: Bench,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        done(*bench.order(command, 5, "out"))
        before = {file: Path(file).read_bytes() for file in files()}

        def fill(*args: object, **kwargs: object) -> None:
            raise error

        monkeypatch.setattr(room, writer, fill)
        result = run(*bench.order(command, 6, "out"))
        assert result.code == 1
        assert result.err.startswith("potstill: the disk is full (")
        kept = {f: Path(f).read_bytes() for f in files() if not f.startswith("out.unfinished")}
        assert kept == before

    def test_a_folder_that_is_no_run_is_never_replaced(self, bench: Bench) -> None:
        Path("thesis").mkdir()
        Path("thesis/config.json").write_text('{"mine": true}')
        result = run(*bench.order("rnn", 5, "thesis"))
        assert (result.code, result.out) == (1, "")
        assert "thesis holds something else than a run; name another" in result.err
        assert files() == {"thesis/config.json"}

    @pytest.mark.parametrize("place", ["file/deeper/out", "/proc/nowhere/out"])
    @pytest.mark.parametrize("flag", ["--student_path", "--plots_path"])
    def test_an_unwritable_folder_is_found_before_training(
        self, flag: str, place: str, bench: Bench
    ) -> None:
        Path("file").touch()
        result = run("rnn", 5, *SMALL, "--data", bench.toy, flag, place)
        assert (result.code, result.out) == (1, "")
        assert f"{flag}: " in result.err
        assert "can't be written" in result.err
        assert files() == {"file"}

    def test_three_classes_from_a_file_with_names_of_its_own(
        self, bench: Bench, tiny_llama: Path
    ) -> None:
        kinds = ("cats", "dogs", "books")
        rows = (f"The {kinds[i % 3]} are {i} years old.,{kinds[i % 3]}\n" for i in range(60))
        Path("kinds.csv").write_text("body,kind\n" + "".join(rows))
        flags = ("--data", "kinds.csv", "--text_column", "body", "--label_column", "kind")
        done("LoRA", 3, *flags, "--gpt_variant", tiny_llama, "--epochs", 2)
        out = done("distil", 3, *SMALL, "--epochs", 2)  # data and columns are the teacher's
        assert "kinds, SR 3" in out
        assert set(json.loads(done("predict", "--json", "Cats."))["probabilities"]) == set(kinds)
        # The six sentences of dev, not the others, which were learned.
        for name in ("LoRA-3", "distil-3"):
            scored = json.loads(done("evaluate", "--json", "--model_path", f"runs/{name}"))
            assert scored["scores"]["dev"]["sentences"] == 6
            expected = read_json(f"runs/{name}/results.json")["chosen"]["dev"]
            assert scored["scores"]["dev"]["confusion"] == expected["confusion"]

    def test_without_holdout_the_last_epoch_is_taken(self, bench: Bench) -> None:
        out = done(*bench.order("rnn", 5, "out", "--holdout", 0))
        assert "no slice held out of train: the last epoch, 3" in out
        assert set(read_json("out/results.json")["chosen"]) == {"dev", "ood"}

    def test_a_control_on_other_terms_is_not_compared(self, bench: Bench) -> None:
        done(*bench.order("rnn", 5, "runs/rnn-5", "--lr", 0.01))
        out = done(*bench.order("distil", 5, "runs/distil-5"))
        assert "not in the table: runs/rnn-5, which differs in lr" in out


class TestGen:
    PROMPT = ("--prompt", "The books on the table")

    @pytest.mark.parametrize("new", [1, 25])
    @pytest.mark.parametrize("tiny", ["tiny_gpt2", "tiny_llama"])
    def test_greedy_is_transformers_greedy_without_cache(
        self, tiny: str, new: int, request: pytest.FixtureRequest
    ) -> None:
        folder = request.getfixturevalue(tiny)
        decoder = find_decoder(str(folder))
        tokenizer = decoder.tokenizer()
        inputs = tokenizer(self.PROMPT[1], return_tensors="pt")
        tokens = decoder.language_model().generate(
            **inputs, do_sample=False, use_cache=False, max_new_tokens=new, pad_token_id=0
        )[0, inputs["input_ids"].shape[1] :]
        assert len(tokens) <= new
        expected = self.PROMPT[1] + tokenizer.decode(tokens, skip_special_tokens=True) + "\n"
        flags = ("--gpt_variant", folder, *self.PROMPT, "--max_new_tokens", new)
        for SR, more in ((1, ["--greedy"]), (2, ["--greedy"]), (3, ["--top_k", 1])):
            result = run("gen", SR, *flags, *more)
            assert result == (0, expected, f"base: {folder.name}\n")

    def test_the_seed_settles_the_text(self, tiny_gpt2: Path) -> None:
        one, same, other = (
            run("gen", SR, "--gpt_variant", tiny_gpt2, *self.PROMPT, "--max_new_tokens", 30).out
            for SR in (1, 1, 2)
        )
        assert one == same != other

    def test_text_appears_as_it_is_made(
        self, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[str] = []

        class Screen(io.StringIO):
            def write(self, text: str) -> int:
                written.append(text)
                return len(text)

        monkeypatch.setattr("sys.stdout", Screen())
        main(args=["gen", "1", "--gpt_variant", str(tiny_gpt2), *self.PROMPT])
        pieces = [text for text in written if text.strip()]
        assert pieces[0] == self.PROMPT[1]
        assert len(pieces) > 3

    def test_the_default_is_the_serenity_prayer(self, tiny_llama: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(tiny_llama, tmp_path / "longer"))
        config = read_json(folder / "config.json") | {"max_position_embeddings": 512}
        (folder / "config.json").write_text(json.dumps(config))
        result = run("gen", 1, "--gpt_variant", folder, "--max_new_tokens", 2)
        assert result.code == 0
        assert result.out.startswith(SERENITY)

    def test_prompt_and_new_tokens_fill_the_positions_but_no_more(self, tiny_gpt2: Path) -> None:
        flags = ("--gpt_variant", tiny_gpt2, *self.PROMPT, "--max_new_tokens")
        tokens = len(find_decoder(str(tiny_gpt2)).tokenizer()(self.PROMPT[1])["input_ids"])
        assert run("gen", 1, *flags, 64 - tokens).code == 0
        result = run("gen", 1, *flags, 65 - tokens)
        assert (result.code, result.out) == (1, "")
        assert "exceed the 64 that this decoder can read; shorten either" in result.err


USAGE = {
    "gen": "Missing from potstill gen",
    "gen x": "Error parsing SR: .*'x'",
    "gen 1.5": "Error parsing SR: .*'1.5'",
    "gen -1": "SR -1 is out of range: it takes a whole number from 0 to 4294967295",
    "LoRA 4294967296": "SR 4294967296 is out of range",
    "distil 99999999999999999999": "SR 99999999999999999999 is out of range",
    "rnn 1 2": "Unrecognized options: 2",
    "": "name a command: gen, LoRA, .*export; --help",
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
    "gen 1 --gpt_variant 'no such'": "--gpt_variant no such: neither a folder here nor a name",
    "gen 1 --gpt_variant foreign": r"foreign has no config\.json with \*\.safetensors",
    "LoRA 1 --gpt_variant {base} --data {toy} --LoRA_rank 33": (
        "--LoRA_rank 33 is out of range: .* takes 1 to 32"
    ),
    "LoRA 1 --model_path file": "--model_path: file is a file; name a folder",
    "LoRA 1 --model_path foreign": "foreign holds something else than a run; name another",
    "rnn 1 --data nowhere": "--data nowhere: there is no such file or folder",
    "rnn 1 --data foreign": r"foreign has no in_domain_train\.tsv and no train\.tsv",
    "rnn 1 --data cola": "CoLA is not in data/ .* put its three files into data/",
    "rnn 1 --data columns.tsv": r"columns\.tsv:2: 2 tab-separated columns where CoLA's",
    "rnn 1 --data label.tsv": r"label\.tsv:2: label 'yes' is neither 0 nor 1",
    "rnn 1 --data empty.tsv": r"empty\.tsv is empty",
    "rnn 1 --data single.tsv": r"single\.tsv has one label only, '1'; a classifier needs two",
    "rnn 1 --data latin.tsv": r"latin\.tsv:2: not UTF-8 text; save it as UTF-8",
    "rnn 1 --data toy.csv --text_column body": r"toy\.csv has no column 'body' \(--text_column\)",
    "rnn 1 --data two.tsv": "training sentences are too few to hold out",
    "transfer 1": "--model_path runs/LoRA-1: there is no such folder; train a model",
    "transfer 1 --unlabelled nowhere": "nowhere can't be read: No such file",
    "transfer 1 --transfer_path file": "--transfer_path: file can't be written",
    "transfer 1 --model_path {teacher} --transfer_path foreign": "holds something else than a tran",
    "transfer 1 --transfer_path foreign --show 3": "foreign holds no transfer set",
    "distil 1 --model_path {teacher} --transfer_set foreign": "foreign holds no transfer set",
    "distil 1": "--model_path runs/LoRA-1: there is no such folder; train a model",
    "distil 1 --model_path file": "--model_path file: there is no such folder",
    "distil 1 --model_path foreign": r"foreign holds neither an adapter \(adapter_config\.json\)",
    "distil 1 --model_path {teacher} --data toy.csv": (
        r"knows unacceptable, acceptable, but toy\.csv is labelled bad, good"
    ),
    "distil 1 --model_path {teacher} --gpt_variant {other}": (
        "was tuned on tiny-gpt2 with weights [0-9a-f]{12}, but .* name the right base"
    ),
    "export": "there is no student in runs/; train one, or name it by --model_path",
    "export --model_path {teacher}": "there is no student in .*teacher; train one",
    "evaluate --model_path {teacher} --data toy.csv": r"toy\.csv:2: label 'good' is none of",
    "evaluate --model_path {teacher} --data nowhere": "--data nowhere: there is no such file",
    "predict One. --model_path nowhere": "--model_path nowhere: there is no such folder",
    "predict --file nowhere": "nowhere can't be read: No such file or directory",
    "predict --file empty.tsv": r"empty\.tsv is empty",
    "predict --file latin.tsv": r"latin\.tsv:2: not UTF-8 text",
}


class TestBadInput:
    """One clear sentence, no traceback, nothing written."""

    @pytest.fixture
    def desk(self, bench: Bench) -> Bench:
        """A folder with everything in it that the lines above refer to."""
        bodies = {
            "columns.tsv": b"a\t1\t\tOne.\nb\tTwo.\n",
            "label.tsv": b"a\t1\t\tOne.\nb\tyes\t\tTwo.\n",
            "empty.tsv": b"",
            "single.tsv": b"a\t1\t\tOne.\nb\t1\t\tTwo.\n",
            "latin.tsv": b"a\t1\t\tOne.\nb\t0\t\tCaf\xe9.\n",
            "two.tsv": b"a\t1\t\tOne.\nb\t0\t\tTwo.\n",
            "toy.csv": b"text,label\n" + b"One.,good\nTwo.,bad\n" * 20,
            "file": b"",
            "foreign/thesis.doc": b"",
        }
        Path("foreign").mkdir()
        for name, body in bodies.items():
            Path(name).write_bytes(body)
        return bench

    @staticmethod
    def arguments(line: str, desk: Bench, other: Path) -> list[str]:
        places = {"base": desk.base, "toy": desk.toy, "teacher": desk.teacher, "other": other}
        return shlex.split(line.format(**places))

    @pytest.mark.parametrize(("line", "words"), USAGE.items(), ids=USAGE)
    def test_usage_errors_end_with_2(
        self, line: str, words: str, desk: Bench, tiny_llama: Path
    ) -> None:
        before = files()
        result = run(*self.arguments(line, desk, tiny_llama))
        assert (result.code, result.out) == (2, "")
        assert re.search(words, " ".join(result.err.split()))
        assert files() == before

    @pytest.mark.parametrize(("line", "words"), REFUSED.items(), ids=REFUSED)
    def test_other_errors_end_with_1(
        self, line: str, words: str, desk: Bench, tiny_llama: Path
    ) -> None:
        before = files()
        result = run(*self.arguments(line, desk, tiny_llama))
        assert result.code == 1
        assert re.fullmatch(f"potstill: .*{words}.*\n", result.err)
        # No other base, no other data was taken in its place, and no training began.
        assert "epoch" not in result.out
        assert "auto" not in result.out.replace("(auto: no CoLA", "")
        assert files() == before

    @pytest.mark.parametrize("gone", [True, False], ids=["missing", "other weights"])
    @pytest.mark.parametrize("command", [("distil", 1), ("predict", "One.", "--model_path", "out")])
    def test_the_base_of_an_adapter_is_asked_for(
        self, command: tuple[object, ...], gone: bool, bench: Bench, tiny_llama: Path
    ) -> None:
        base = Path(shutil.copytree(bench.base, "base"))
        done("LoRA", 1, "--gpt_variant", base, "--data", bench.toy, "--epochs", 1)
        Path("out").symlink_to("runs/LoRA-1")
        shutil.rmtree(base)
        if not gone:
            shutil.copytree(tiny_llama, base)
        before = files()
        result = run(*command)
        assert (result.code, result.out) == (1, "")
        words = "the base of .* is not at hand" if gone else "was tuned on base with weights"
        assert re.fullmatch(f"potstill: .*{words}.* with --gpt_variant.*\n", result.err)
        assert files() == before

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
    @pytest.mark.parametrize("body", [b"", b"[]", b'{"student": {"cell": "cnn"}}', None])
    def test_a_damaged_student_is_named(self, file: str, body: bytes | None, bench: Bench) -> None:
        done(*bench.order("rnn", 5, "out", "--epochs", 1))
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
    def test_a_config_that_does_not_fit_the_weights_is_named(
        self, changes: dict[str, object], bench: Bench
    ) -> None:
        done(*bench.order("rnn", 5, "out", "--epochs", 1))
        config = read_json("out/config.json") | changes
        Path("out/config.json").write_text(json.dumps(config))
        result = run("predict", "One.", "--model_path", "out")
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch("potstill: .*out.*\n", result.err)

    def test_the_tokenizer_of_another_student_is_refused(self, bench: Bench) -> None:
        for folder, size in (("out", 300), ("other", 280)):
            done(*bench.order("rnn", 5, folder, "--epochs", 1, "--vocab_size", size))
        shutil.copy("other/tokenizer.json", "out/tokenizer.json")
        result = run("predict", "One.", "--model_path", "out")
        assert result.code == 1
        assert "the files in out do not belong together" in result.err

    @pytest.mark.parametrize(
        "file", ["adapter_config.json", "adapter_model.safetensors", "config.json"]
    )
    def test_a_damaged_adapter_is_named(self, file: str, bench: Bench) -> None:
        shutil.copytree(bench.teacher, "out")
        body = Path("out", file).read_bytes()
        Path("out", file).write_bytes(body[: len(body) // 2])
        result = run("predict", "One.", "--model_path", "out")
        assert (result.code, result.out) == (1, "")
        assert re.fullmatch("potstill: .*out.*\n", result.err)

    def test_data_that_changed_since_training_is_not_taken_for_it(self, bench: Bench) -> None:
        toy = Path(shutil.copytree(bench.toy, "toy"))
        done("rnn", 5, *SMALL, "--data", toy, "--epochs", 1)
        dev = toy / "in_domain_dev.tsv"
        dev.write_bytes(dev.read_bytes() * 2)
        result = run("evaluate")
        assert (result.code, result.out) == (1, "")
        assert "toy has changed since runs/rnn-5 was trained" in result.err
        assert run("evaluate", "--data", "toy").code == 0
        shutil.rmtree(toy)
        assert "toy, which runs/rnn-5 was trained on, is not here" in run("evaluate").err


def flags_of(command: str) -> set[str]:
    """Every flag of a command, from its signature and that of its groups of settings."""
    names: set[str] = set()
    for name, parameter in inspect.signature(COMMANDS[command]).parameters.items():
        if is_dataclass(parameter.annotation):
            names |= {f.name for f in fields(parameter.annotation)}
        elif name not in ("SR", "sentences", "adapters"):
            names.add(name)
    return names


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_names_every_flag(self, command: str) -> None:
        result = run(command, "--help")
        assert (result.code, result.err) == (0, "")
        for name in flags_of(command):
            assert f"--{name}" in result.out
        assert "{None}" not in result.out

    def test_help_names_every_command(self) -> None:
        result = run("--help")
        assert result.code == 0
        assert all(f"• {command} " in result.out for command in COMMANDS)

    @pytest.mark.parametrize("mark", ["-", "_"])
    def test_both_spellings_of_a_flag_are_taken(self, mark: str, tiny_gpt2: Path) -> None:
        flags = ("--gpt_variant", tiny_gpt2, "--max_new_tokens", 3, "--top_k", 1, "--prompt", "A")
        spelt = [str(f).replace("_", mark) if str(f).startswith("--") else f for f in flags]
        assert run("gen", 1, *spelt) == run("gen", 1, *flags)

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_help_imports_nothing_heavy(self, command: str) -> None:
        code = (
            "import sys; from potstill.cli import main\n"
            f"try: main(args={[*command.split(), '--help']})\n"
            "except SystemExit: pass\n"
            "print(sorted({'torch', 'transformers', 'matplotlib', 'numpy'} & set(sys.modules)))"
        )
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert process.stdout.splitlines()[-1] == "[]", process.stderr


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.utils", None)
    result = run("gen", 1)
    assert result.code == 1
    assert "is not installed; pip install 'potstill[train]' brings it" in result.err


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
