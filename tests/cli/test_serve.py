"""The command serve, as a process of its own."""

import json
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from potstill.pretrained import COLA
from tests.cli.conftest import run, start_process

pytest.importorskip("fastapi", reason="the extra serve is not installed")


def start(*flags: object) -> tuple[subprocess.Popen[str], str, list[str]]:
    """Start a service of the bundled student; return it, its address and what it printed."""
    process = start_process("serve", "--model_path", COLA, "--port", 0, *flags)
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"serving at (http://\S+);", line):
            return process, found[1], lines
    raise AssertionError(process.stderr and process.stderr.read())


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """Connections of this process to this machine, which the other tests of commands forbid."""
    with pytest.MonkeyPatch.context() as patch:
        import _socket

        patch.setattr(socket.socket, "connect", _socket.socket.connect)
        patch.setattr(
            socket,
            "getaddrinfo",
            lambda host, port, *_, **others: [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, int(port)))
            ],
        )
        yield


def post(url: str, value: object, **headers: str) -> object:
    body = json.dumps(value).encode()
    headers |= {"content-type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.load(opener.open(request, timeout=20))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_ends_it(number: int) -> None:
    process, url, lines = start("--access_log", "--token", "sesame")
    try:
        assert lines[0].startswith("model: DistilRNN in ")
        authorization = {"authorization": "Bearer sesame"}
        answer = post(f"{url}/predict", {"text": "The books is old."}, **authorization)
        assert isinstance(answer, dict) and answer["label"] in ("acceptable", "unacceptable")
        started = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert time.monotonic() - started < 5
    finally:
        process.kill()
    assert process.returncode == (0 if number == signal.SIGTERM else 130)
    assert re.search(r'127\.0\.0\.1 "POST /predict" 200 \d+\.\d ms', err)
    assert "Traceback" not in err


def test_the_token_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_TOKEN", "sesame")
    process, url, _ = start()
    try:
        with pytest.raises(urllib.request.HTTPError, match="401"):
            post(f"{url}/predict", {"text": "The books is old."})
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", port)
    assert result.code == 1
    assert result.err.startswith(f"potstill: --port {port} of 127.0.0.1 is not to be had")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--port", 70000), 2, "--port 70000 is out of range: it takes 0 to 65535"),
        (("--max_batch", 0), 2, "--max_batch 0 is out of range"),
        (("--timeout", 0), 2, "--timeout 0.0 is out of range"),
        (("--port", 0, "--model_path", "nowhere"), 1, "nowhere"),
    ],
)
def test_wrong_settings_are_one_sentence(
    flags: tuple[object, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("serve", *flags)
    assert result.code == code
    assert words in result.err


def test_a_model_cut_short_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in COLA.iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:1000])
    result = run("serve", "--port", 0, "--model_path", folder)
    assert result.code == 1
    assert "can't be read" in result.err
