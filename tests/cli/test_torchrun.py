"""Several processes under torchrun or Accelerate give the same results as one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from potstill.transfer.dataset import read_transfer_set
from tests.cli.conftest import scores_by_epoch, write_toy

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    "LoRA": ["--precision", "fp32", "--LoRA_rank", "2"],
    "distil": ["--precision", "fp32", "--dropout", "0", "--hidden_size", "16"],
}
# Two shards of edited sentences: one for each of two processes.
TRANSFER = ["transfer", "5", "--precision", "fp32", "--sampled", "8", "--edited", "4200"]


def run(command: str, decoder: Path, folder: Path, processes: int) -> None:
    words = [command, "5", "--epochs", "1", "--data", "minicola", "--batch_size", "50"]
    words += COMMANDS[command] + (["--gpt_variant", str(decoder)] if command == "LoRA" else [])
    out = launch(words, folder, processes)
    assert out.count("chosen epoch: ") == 1  # the first process alone speaks


def launch(words: list[str], folder: Path, processes: int, *, accelerate: bool = False) -> str:
    """Run potstill in `folder`; return its standard output."""
    process = start(words, folder, processes, accelerate=accelerate)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def start(
    words: list[str], folder: Path, processes: int, *, accelerate: bool = False
) -> subprocess.Popen[str]:
    launcher = []
    if accelerate:
        launcher = ["-m", "accelerate.commands.launch", "--cpu", f"--num_processes={processes}"]
        launcher += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
        launcher += ["--main_process_port=0"]
    elif processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        launcher += [f"--nproc-per-node={processes}"]
    # A cache each, so that the second run computes its teacher's logits itself.
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "POTSTILL_CACHE": str(folder / "cache")}
    command = [sys.executable, *launcher, str(REPOSITORY / "run.py"), *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def folders(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two folders: the commands were run in one process, and in two."""
    filled = []
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes-{processes}")
        for command in COMMANDS:
            run(command, tiny_gpt2, folder, processes)
        out = launch(TRANSFER, folder, processes)
        assert out.count("transfer set: ") == 1
        assert len(re.findall(r"^edited: 4200 sentences, \d+ s,", out, re.MULTILINE)) == 1
        filled.append(folder)
    return filled


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights", ["runs/LoRA-5/adapter_model.safetensors", "runs/distil-5/model.safetensors"]
)
def test_two_processes_train_the_same_weights_as_one(folders: list[Path], weights: str) -> None:
    single, double = (load_file(folder / weights) for folder in folders)
    assert single.keys() == double.keys()
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_share_a_transfer_set(folders: list[Path]) -> None:
    for folder in folders:
        transfer_set = read_transfer_set(folder / "runs/transfer-5")
        shards = {file.name for file in (folder / "runs/transfer-5").glob("*.parquet")}
        assert shards == {f"{s}.parquet" for s in ("sampled-00000", "edited-00000", "edited-00001")}
        # Each process sees its own duplicates; those across them are dropped on reading.
        assert 4208 - 20 <= len(transfer_set.select(without=[])) <= 4208


@pytest.mark.slow
def test_two_processes_learn_from_a_set_as_one(folders: list[Path]) -> None:
    """Each writes some of the set's files in the student's tokens."""
    words = ["distil", "5", "--transfer_set", "runs/transfer-5", "--epochs", "1"]
    words += ["--pretrain_epochs", "1", *COMMANDS["distil"]]
    students = []
    for processes in (1, 2):
        output = f"students/{processes}"
        out = launch([*words, "--output", output], folders[0], processes)
        assert "; soft targets for" in out
        students.append(load_file(folders[0] / output / "model.safetensors"))
    for name, value in students[0].items():
        torch.testing.assert_close(students[1][name], value, rtol=1e-3, atol=1e-4)
    assert {f.name for f in (folders[0] / "students").iterdir()} == {"1", "2"}
    shutil.rmtree(folders[0] / "students")


@pytest.mark.slow
def test_nothing_is_left_besides_the_runs(folders: list[Path]) -> None:
    for folder in folders:
        assert {f.name for f in folder.iterdir()} == {"runs", "plots", "cache"}
        assert {f.name for f in (folder / "runs").iterdir()} == {"LoRA-5", "distil-5", "transfer-5"}
        assert not list((folder / "cache").glob("process-*"))


@pytest.fixture(scope="module")
def toy(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a toy corpus."""
    folder = tmp_path_factory.mktemp("processes-toy")
    write_toy(folder / "toy")
    return folder


def lora(decoder: Path, output: str, *more: str) -> list[str]:
    """Return the words of a run of 3 epochs whose last batch is smaller than any number of
    processes: of 57 sentences, one."""
    words = ["LoRA", "5", "--gpt_variant", str(decoder), "--data", "toy", "--precision", "fp32"]
    return [*words, "--epochs", "3", "--batch_size", "8", "--output", output, *more]


def curve(folder: Path) -> list[float]:
    """Return the losses of every epoch, of all splits."""
    return [
        scores["loss"]
        for metrics in scores_by_epoch(folder)
        for scores in metrics.values()
        if isinstance(scores, dict)
    ]


@pytest.mark.parametrize(
    ("processes", "accelerate"),
    [
        (2, False),
        pytest.param(3, False, marks=pytest.mark.slow),
        pytest.param(2, True, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_processes_have_the_loss_curve_of_one(
    toy: Path, tiny_gpt2: Path, processes: int, accelerate: bool
) -> None:
    """So every sentence counts once, and as much as another."""
    if not (toy / "one").exists():
        launch(lora(tiny_gpt2, "one"), toy, 1)
    name = f"{processes}-{accelerate}"
    out = launch(lora(tiny_gpt2, name), toy, processes, accelerate=accelerate)
    assert out.count("chosen epoch: ") == 1
    np.testing.assert_allclose(curve(toy / name), curve(toy / "one"), rtol=0, atol=1e-4)
    train = scores_by_epoch(toy / name)[0]["train"]["accuracy"]
    assert round(train * 57, 6) % 1 == 0  # no sentence twice


@pytest.mark.parametrize(
    "sentences",
    [
        ["One sentence is."],
        pytest.param(["One is.", "Two are.", "Three am."], marks=pytest.mark.slow),
    ],
)
def test_processes_answer_once(toy: Path, tiny_gpt2: Path, sentences: list[str]) -> None:
    if not (toy / "one").exists():
        launch(lora(tiny_gpt2, "one"), toy, 1)
    words = ["predict", "--json", *sentences, "--model_path", "one"]
    assert launch(words, toy, 2) == launch(words, toy, 1)


def test_processes_score_once(toy: Path, tiny_gpt2: Path) -> None:
    if not (toy / "one").exists():
        launch(lora(tiny_gpt2, "one"), toy, 1)
    words = ["evaluate", "--json", "--model_path", "one", "--data", "toy"]
    # The last line: torch 2.8's gloo writes lines of its own to standard output.
    outputs = (launch(words, toy, processes).splitlines()[-1] for processes in (1, 2))
    single, double = map(json.loads, outputs)
    for name, scores in single["scores"].items():
        assert double["scores"][name]["confusion"] == scores["confusion"]
        assert double["scores"][name]["loss"] == pytest.approx(scores["loss"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "then"), [(1, 1), (0, 2), (1, 3)])
def test_where_one_is_killed_the_others_end_and_the_run_goes_on(
    toy: Path, tiny_gpt2: Path, victim: int, then: int
) -> None:
    """Also with another number of processes."""
    name = f"killed-{victim}-{then}"
    often = ["--save_minutes", "0.001", "--epochs", "12"]
    process = start(lora(tiny_gpt2, name, *often), toy, 2)
    assert process.stdout
    for line in process.stdout:
        if line.split()[:2] == ["3", "train"]:
            break
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # torchrun starts them in the order of their ranks.
    os.kill(int(workers[victim]), signal.SIGKILL)
    killed_at = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed_at < 30
    assert process.returncode == 1
    said = "another process has ended, and so does this one; the same command goes on from the last"
    assert said in err or "python run.py: terminated" in err
    assert "RuntimeError" not in err
    out = launch(lora(tiny_gpt2, name, *often), toy, then)
    assert f"continues the unfinished run in {name}.unfinished: " in out
    epochs = [metrics["epoch"] for metrics in scores_by_epoch(toy / name)]
    assert epochs == list(range(1, 13))
    assert not list(toy.glob(f".{name}*")) and not list(toy.glob(f"{name}.unfinished"))
