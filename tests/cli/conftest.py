"""Shared by the tests of the commands: a command run in this process or in its own, and folders
where commands have been run.
"""

import contextlib
import errno
import io
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from potstill.cli import main
from potstill.decoder.hub import find_base_model
from potstill.recipes import transfer

RUN = Path(__file__).parents[2] / "run.py"
SMALL = ("--hidden_size", 8, "--embedding_size", 8, "--vocab_size", 300)
OWN = "The birds is old.\nThe dogs number 3 are old.\nNaïve birds are old.\n"
TRAINING_COMMANDS = ("LoRA", "distil", "rnn")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*args: object) -> Result:
    """Run a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(args=list(map(str, args)))
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            code = stop.code
    return Result(code, out.getvalue(), err.getvalue())


def run_ok(*args: object) -> str:
    """Run a command that must succeed; return its standard output."""
    result = run(*args)
    assert result.code == 0, result.err
    assert not result.err or re.fullmatch(r"(model|base): [^\n]+\n", result.err)
    return result.out


def start_process(*args: object, **options: Any) -> subprocess.Popen[str]:
    """Start `python run.py` as a process of its own, with no network."""
    nowhere = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")}
    return subprocess.Popen(
        [sys.executable, RUN, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | nowhere | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        **options,
    )


def run_process(*args: object) -> Result:
    process = start_process(*args)
    out, err = process.communicate(timeout=120)
    return Result(process.returncode, out, err)


def weights(folder: Path | str) -> bytes:
    (file,) = Path(folder).glob("*.safetensors")
    return file.read_bytes()


def read_json(file: Path | str) -> Any:
    return json.loads(Path(file).read_text())


def scores_by_epoch(folder: Path | str) -> list[dict[str, Any]]:
    """Return metrics.jsonl without the measured times."""
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    clocks = ("seconds", "sentences_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in clocks} for line in lines]


def bodies(folder: Path | str = ".") -> dict[str, bytes]:
    """Return the bytes of every file of a folder."""
    return {file: Path(file).read_bytes() for file in files(folder)}


def files(folder: Path | str = ".") -> set[str]:
    return {str(file) for file in Path(folder).rglob("*") if not file.is_dir()}


def write_toy(folder: Path, train: int = 60) -> Path:
    """Write a corpus on agreement in number, in CoLA's format."""
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


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="package", autouse=True)
def no_network() -> Iterator[None]:
    with without_network():
        yield


@dataclass(frozen=True)
class TrainedRuns:
    """A folder where each training command was run once on MiniCoLA, and what they printed."""

    folder: Path
    stdout: dict[str, str]


# Of the session: files of other packages run between those of this one.
@pytest.fixture(scope="session")
def shared_runs(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> TrainedRuns:
    folder = tmp_path_factory.mktemp("runs")
    shape = ("--hidden_size", 16, "--embedding_size", 16, "--epochs", 1)
    with contextlib.chdir(folder), without_network():
        stdout = {
            "LoRA": run_ok("LoRA", 7, "--gpt_variant", tiny_gpt2),
            "distil": run_ok("distil", 7, *shape),
            "rnn": run_ok("rnn", 7, "--data", "minicola", *shape),
            "distil again": run_ok("distil", 7, *shape),
        }
    return TrainedRuns(folder, stdout)


@pytest.fixture
def runs(shared_runs: TrainedRuns, monkeypatch: pytest.MonkeyPatch) -> TrainedRuns:
    """Return `shared_runs` after changing to its folder; for tests that only read there."""
    monkeypatch.chdir(shared_runs.folder)
    return shared_runs


@dataclass(frozen=True)
class ToyTask:
    """A toy corpus, a base decoder, and a teacher tuned from it."""

    base: Path
    toy: Path
    teacher: Path

    def args(self, command: str, SR: int, folder: str, *more: object) -> list[object]:
        """Return the arguments of a short training run that writes to `folder`."""
        flags = {
            "LoRA": ["--gpt_variant", self.base, "--model_path", folder],
            "distil": ["--model_path", self.teacher, "--student_path", folder, *SMALL],
            "rnn": ["--student_path", folder, *SMALL],
        }[command]
        return [command, SR, *flags, "--data", self.toy, "--epochs", 3, *more]


@pytest.fixture(scope="session")
def shared_toy_task(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> ToyTask:
    folder = tmp_path_factory.mktemp("toy-task")
    toy_task = ToyTask(tiny_gpt2, write_toy(folder / "toy"), folder / "teacher")
    with contextlib.chdir(folder):
        run_ok(*toy_task.args("LoRA", 1, "teacher"))
    return toy_task


@pytest.fixture
def toy_task(shared_toy_task: ToyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyTask:
    """Return `shared_toy_task` after changing to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return shared_toy_task


def transfer_arguments(toy_task: ToyTask) -> list[object]:
    """Write a file of sentences; return the arguments of a small transfer set in `set`."""
    Path("own.txt").write_text(OWN)
    flags = ["--model_path", toy_task.teacher, "--transfer_path", "set", "--unlabelled", "own.txt"]
    return ["transfer", 1, *flags, "--sampled", 30, "--edited", 60]


def use_small_shards(patch: pytest.MonkeyPatch, base: Path) -> None:
    """Make transfer sets of small shards, and end their sentences at a full stop: the tiny decoder
    hardly ever samples its end token."""
    full_stop = find_base_model(str(base)).tokenizer()(".")["input_ids"][0]
    make = partial(transfer.make_transfer_set, shard_size=25, end_token=full_stop)
    patch.setattr(transfer, "make_transfer_set", make)


@pytest.fixture(scope="session")
def shared_transfer_set(shared_toy_task: ToyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        use_small_shards(patch, shared_toy_task.base)
        run_ok(*transfer_arguments(shared_toy_task))
    return folder / "set"


@pytest.fixture
def transfer_args(toy_task: ToyTask) -> list[object]:
    return transfer_arguments(toy_task)


@pytest.fixture
def small_shards(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_shards(monkeypatch, toy_task.base)


@pytest.fixture
def transfer_set(
    transfer_args: list[object], small_shards: None, shared_transfer_set: Path
) -> Path:
    """Return a folder with what the command of `transfer_args` makes, in small shards."""
    shutil.copytree(shared_transfer_set, "set")
    return Path("set")


@contextlib.contextmanager
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
