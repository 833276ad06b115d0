"""Nothing phones home: a whole run opens no connection, nor looks a name up.

Every process is watched by an audit hook that Python loads before anything else, and where strace
is there, all that native code does, too.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import RUN, SMALL, write_toy

HOOK = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        if event == "socket.connect" and isinstance(args[1], (str, bytes)):
            return  # a socket of this machine
        if event == "socket.getaddrinfo" and args[0] == "127.0.0.1":
            return  # what serve listens at; nobody is asked
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(f"{event} {args[1:]!r} {sys.argv}\\n")
sys.addaudithook(watch)
"""
# What the user would have to ask for: these variables keep the tests off the network.
SETTINGS = ("HF_HUB_OFFLINE", "ORT_DISABLE_TELEMETRY", "http_proxy", "https_proxy")


def environment(folder: Path) -> dict[str, str]:
    """Return that of a process which is watched."""
    hook = folder / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "CONNECTIONS": str(folder / "connections"), "OMP_NUM_THREADS": "1"}
    return {k: v for k, v in os.environ.items() if k not in SETTINGS} | own


def watched(folder: Path, *args: object) -> None:
    process = subprocess.run(
        [sys.executable, RUN, *map(str, args)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr


@contextmanager
def watched_service(folder: Path) -> Iterator[str]:
    """Run `serve` in this context, which gets its address."""
    process = subprocess.Popen(
        [sys.executable, RUN, "serve", "--port", "0"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    try:
        yield next(line.split()[2].rstrip(";") for line in process.stdout if "serving at" in line)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def connections(folder: Path) -> str:
    file = folder / "connections"
    return file.read_text() if file.is_file() else ""


def test_the_hook_sees_a_connection(tmp_path: Path) -> None:
    """`--data auto` asks CoLA's site, as documented: the test is not blind."""
    short = ("--epochs", 1, "--pretrain_epochs", 0, *SMALL)
    watched(tmp_path, "rnn", 1, "--data", "cola-and-nothing/else", "--help")
    assert not connections(tmp_path)
    with pytest.raises(AssertionError, match="no such file or folder"):
        watched(tmp_path, "rnn", 1, "--data", "owner/nothing", *short)
    assert "getaddrinfo" in connections(tmp_path)


def test_predict_opens_no_connection(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The books is old.\n" * 2000)
    watched(tmp_path, "predict", "--file", "texts.txt")
    assert not connections(tmp_path)


@pytest.mark.slow
def test_a_whole_run_opens_no_connection(tmp_path: Path, tiny_gpt2: Path) -> None:
    data = write_toy(tmp_path / "toy")
    tuned = ("--model_path", "teacher", "--data", data)
    watched(tmp_path, "LoRA", 1, "--gpt_variant", tiny_gpt2, "--epochs", 1, *tuned)
    watched(tmp_path, "distil", 1, *tuned, "--student_path", "student", "--epochs", 1, *SMALL)
    watched(tmp_path, "evaluate", "--model_path", "student", "--data", data)
    watched(tmp_path, "export", "--model_path", "student")
    watched(tmp_path, "predict", "--model_path", "student", "A text.")
    watched(tmp_path, "report", "student")
    watched(tmp_path, "transfer", 1, "--teacher", "teacher", "--sampled", 20, "--edited", 20)
    watched(tmp_path, "rnn", 1, "--data", data, "--epochs", 1, "--pretrain_epochs", 0, *SMALL)
    watched(tmp_path, "pretrain", 1, "--gpt_variant", tiny_gpt2, "--tokens", 600, *SMALL)
    watched(tmp_path, "check", data)
    watched(tmp_path, "make", data, "--gpt_variant", tiny_gpt2, "--minutes", 1)
    assert not connections(tmp_path)


@pytest.mark.slow
def test_a_service_opens_no_connection(tmp_path: Path) -> None:
    """It answers, and is stopped; its clients are this machine's."""
    ask = """
import sys
from urllib.request import ProxyHandler, Request, build_opener
address, body = sys.argv[1], b'{"text": "The books is old."}'
explain = Request(address + "/explain", body, {"content-type": "application/json"})
for request in (address, address + "/docs", explain):
    build_opener(ProxyHandler({})).open(request).read()
"""
    with watched_service(tmp_path) as address:
        subprocess.run([sys.executable, "-c", ask, address], check=True, timeout=60)
    assert not connections(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_no_native_code_opens_a_connection_either(tmp_path: Path) -> None:
    """As onnxruntime did: it looked its maker's host up after some seconds."""
    (tmp_path / "texts.txt").write_text("The books is old.\n" * 20_000)
    trace = ("strace", "-f", "-o", "trace", "-e", "trace=connect,sendto,sendmsg,openat")
    script = "from potstill.cli import main; main(args=['predict', '--file', 'texts.txt'])"
    process = subprocess.run(
        [*trace, sys.executable, "-c", script],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k not in SETTINGS},
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    lines = (tmp_path / "trace").read_text().splitlines()
    assert not [line for line in lines if "AF_INET" in line]
    assert not [line for line in lines if ".onnxruntime" in line]
