"""Two processes under torchrun give the same results as one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill.transfer.dataset import read_transfer_set

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


def launch(words: list[str], folder: Path, processes: int) -> str:
    """Run potstill in `folder`; return its standard output."""
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone"]
    launcher += [] if processes == 1 else [f"--nproc-per-node={processes}"]
    # A cache each, so that the second run computes its teacher's logits itself.
    surroundings = os.environ | {"OMP_NUM_THREADS": "1", "POTSTILL_CACHE": str(folder / "cache")}
    command = [sys.executable, *launcher, str(REPOSITORY / "run.py"), *words]
    process = subprocess.run(
        command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


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


@pytest.mark.parametrize(
    "weights", ["runs/LoRA-5/adapter_model.safetensors", "runs/distil-5/model.safetensors"]
)
def test_two_processes_train_the_same_weights_as_one(folders: list[Path], weights: str) -> None:
    single, double = (load_file(folder / weights) for folder in folders)
    assert single.keys() == double.keys()
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, rtol=1e-3, atol=1e-4)


def test_two_processes_share_a_transfer_set(folders: list[Path]) -> None:
    for folder in folders:
        transfer_set = read_transfer_set(folder / "runs/transfer-5")
        shards = {file.name for file in (folder / "runs/transfer-5").glob("*.parquet")}
        assert shards == {f"{s}.parquet" for s in ("sampled-00000", "edited-00000", "edited-00001")}
        # Each process sees its own duplicates; those across them are dropped on reading.
        assert 4208 - 20 <= len(transfer_set.select(without=[])) <= 4208


def test_two_processes_learn_from_a_set_as_one(folders: list[Path]) -> None:
    """Each writes some of the set's files in the student's tokens."""
    words = ["distil", "5", "--transfer_set", "runs/transfer-5", "--epochs", "1"]
    words += ["--pretrain_epochs", "1", *COMMANDS["distil"]]
    students = []
    for processes in (1, 2):
        output = f"students/{processes}"
        out = launch([*words, "--output", output], folders[0], processes)
        assert "transfer set: 42" in out and "; soft targets for" in out
        students.append(load_file(folders[0] / output / "model.safetensors"))
    for name, value in students[0].items():
        torch.testing.assert_close(students[1][name], value, rtol=1e-3, atol=1e-4)
    assert {f.name for f in (folders[0] / "students").iterdir()} == {"1", "2"}
    shutil.rmtree(folders[0] / "students")


def test_nothing_is_left_besides_the_runs(folders: list[Path]) -> None:
    for folder in folders:
        assert {f.name for f in folder.iterdir()} == {"runs", "plots", "cache"}
        assert {f.name for f in (folder / "runs").iterdir()} == {"LoRA-5", "distil-5", "transfer-5"}
        assert not list((folder / "cache").glob("process-*"))
