"""Runs that are killed at random moments and started again end as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli import fork_server
from tests.cli.conftest import ToyTask, bodies, scores_by_epoch, weights

OFTEN = ["--save_minutes", "0.001"]  # 60 ms
NETWORK = ["--hidden_size", "8", "--embedding_size", "8", "--vocab_size", "300"]
KINDS = {
    "LoRA": ["--gpt_variant", "{base}", "--data", "{toy}", "--epochs", "2", "--batch_size", "8"],
    "distil": [
        *("--teacher", "{teacher}", "--data", "{toy}", "--transfer_set", "{set}"),
        *("--epochs", "2", "--pretrain_epochs", "2", "--batch_size", "8", *NETWORK),
    ],
    "rnn": ["--data", "{toy}", "--epochs", "4", "--batch_size", "4", *NETWORK],
    "transfer": ["--teacher", "{teacher}", "--sampled", "60", "--edited", "60"],
    "pretrain": [
        *("--gpt_variant", "{base}", "--tokens", "1200", "--text_path", "text"),
        *("--epochs", "3", "--batch_size", "4", *NETWORK),
    ],
}
# Enough minutes for all that it ever does, so that its plan does not depend on the machine's speed.
MAKE = ["make", "{toy}", "--gpt_variant", "{base}", "--minutes", "100", "--unlabelled", "{texts}"]


@dataclass
class Server:
    """A process that forks commands."""

    process: subprocess.Popen[str]
    folder: Path
    paths: dict[str, str]
    whole: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def run(self, kind: str, name: str, *, kill_after: float | None = None) -> int:
        """Run a command in the folder `name`; return its exit code, or minus the signal."""
        work = self.folder / name
        work.mkdir(exist_ok=True)
        args = MAKE if kind == "make" else [kind, "5", *KINDS[kind], *OFTEN]
        job = {
            "args": [*(arg.format(**self.paths) for arg in args), "--output", "out"],
            "folder": str(work),
            # Of its own where the teacher's logits are computed; else kernels are compiled once.
            "env": {
                "POTSTILL_CACHE": str(
                    (work if kind in ("distil", "make") else self.folder) / "cache"
                )
            },
            "out": str(self.folder / f"{name}.out"),
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        pid = json.loads(self.process.stdout.readline())["pid"]
        # Should the command hang, the test fails instead of hanging.
        after = 300.0 if kill_after is None else kill_after
        timer = threading.Timer(after, os.kill, (pid, signal.SIGKILL))
        timer.start()
        code = json.loads(self.process.stdout.readline())["code"]
        timer.cancel()
        return code

    def result(self, kind: str, name: str) -> Any:
        """Return what a command has made, without the measured times."""
        work = self.folder / name
        assert {path.name for path in work.iterdir()} <= {"out", "plots", "cache", "text"}
        assert not list((work / "plots").glob(".*"))
        if kind == "transfer":
            return {str(Path(k).relative_to(work)): v for k, v in bodies(work / "out").items()}
        if kind == "pretrain":
            text = {Path(k).name: v for k, v in bodies(work / "text").items()}
            return weights(work / "out"), text
        if kind == "make":
            out = work / "out"
            state = json.loads((out / "make.json").read_text())
            assert set(state["steps"]) == {"teacher", "transfer", "student", "finish"}
            rows = state["rows"]
            for row in rows:
                del row["sentences_per_second"]
            models = weights(out / "teacher"), weights(out / "student")
            return models, (out / "onnx/model.onnx").read_bytes(), rows
        results = json.loads((work / "out/results.json").read_text())
        for clock in ("seconds", "sentences_per_second"):
            del results["last"][clock]
        return weights(work / "out"), scores_by_epoch(work / "out"), results

    def uninterrupted(self, kind: str) -> tuple[float, Any]:
        """Return how long a run takes, and what it makes."""
        if kind not in self.whole:
            started = time.monotonic()
            code = self.run(kind, f"{kind}-whole")
            assert code == 0, (self.folder / f"{kind}-whole.out").read_text()
            seconds = time.monotonic() - started
            self.whole[kind] = seconds, self.result(kind, f"{kind}-whole")
        return self.whole[kind]


@pytest.fixture(scope="module")
def server(
    shared_toy_task: ToyTask, shared_transfer_set: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    paths = {
        "base": str(shared_toy_task.base),
        "toy": str(shared_toy_task.toy),
        "teacher": str(shared_toy_task.teacher),
        "set": str(shared_transfer_set),
        "texts": str(tmp_path_factory.mktemp("texts") / "own.txt"),
    }
    Path(paths["texts"]).write_text("".join(f"The cat number {i} sleeps.\n" for i in range(60)))
    process = subprocess.Popen(
        [sys.executable, fork_server.__file__, paths["base"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    yield Server(process, tmp_path_factory.mktemp("kills"), paths)
    assert process.stdin and process.stdout
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=30)


def kill_and_repeat(server: Server, kind: str, kills: int, seed: int) -> None:
    """Kill a command at random moments until `kills` have met it alive; each time the same command
    goes on, and what it makes in the end is what an uninterrupted run makes."""
    seconds, expected = server.uninterrupted(kind)
    rng = random.Random(seed)
    met, attempt = 0, 0
    while met < kills:
        attempt += 1
        assert attempt < 20, "the command hardly ever runs long enough to be killed"
        name = f"{kind}-{seed}-{attempt}"
        while met < kills:
            started = time.monotonic()
            code = server.run(kind, name, kill_after=rng.uniform(0.02, 1) * seconds)
            out = (server.folder / f"{name}.out").read_text()
            assert code in (0, -signal.SIGKILL), out
            if code == 0:
                seconds = min(seconds, time.monotonic() - started)  # the first had caches to fill
                break
            met += 1
        else:
            code = server.run(kind, name)
            assert code == 0, (server.folder / f"{name}.out").read_text()
        assert server.result(kind, name) == expected


@pytest.mark.parametrize(
    ("kind", "kills"), [("LoRA", 2), ("distil", 2), ("rnn", 2), ("transfer", 1), ("pretrain", 1)]
)
def test_killed_runs_end_in_the_same_weights(server: Server, kind: str, kills: int) -> None:
    kill_and_repeat(server, kind, kills, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_runs_killed_more_often_do_too(server: Server, kind: str, seed: int) -> None:
    kill_and_repeat(server, kind, 6, seed)


@pytest.mark.slow
def test_a_killed_make_does_too(server: Server) -> None:
    kill_and_repeat(server, "make", 8, seed=4)
