"""Bars and colours on a terminal, and what a pipe gets."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import RUN, SMALL, ToyTask

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
COLOURS = re.compile(rb"\x1b\[[0-9;]*m")
BAR = re.compile("━|╸".encode())


def on_terminal(*args: object, **env: str) -> bytes:
    """Run a command on a pseudo-terminal; return all that it writes there."""
    parent, child = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, RUN, *map(str, args)],
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | env,
    )
    os.close(child)
    written = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        written += part
    os.close(parent)
    process.wait(timeout=60)
    return written


def colours(written: bytes) -> set[bytes]:
    """Return the codes of colours, without those of weight: bold, dim, underlined, reset."""
    codes = {code for found in COLOURS.findall(written) for code in found[2:-1].split(b";")}
    return codes - {b"", b"0", b"1", b"2", b"4"}


@pytest.fixture
def rnn(toy_task: ToyTask) -> list[object]:
    return ["rnn", 1, *SMALL, "--data", toy_task.toy, "--epochs", 2, "--pretrain_epochs", 0]


def test_a_terminal_gets_a_bar_with_rate_and_time_left(rnn: list[object]) -> None:
    written = on_terminal(*rnn)
    assert BAR.search(written) and b"epoch 2/2" in written
    assert re.search(rb"\d/s", COLOURS.sub(b"", written))
    assert b"left" in written
    assert colours(written)
    assert written.count(b"\x1b[?25l") == written.count(b"\x1b[?25h")  # the cursor is back


@pytest.mark.slow
def test_no_color_is_honoured(rnn: list[object]) -> None:
    written = on_terminal(*rnn, NO_COLOR="1")
    assert BAR.search(written)
    assert not colours(written)


@pytest.mark.parametrize("args", [("export", "--help"), ("rnn", 1, "--lr", "much")])
def test_no_color_is_honoured_by_help_and_errors(args: tuple[object, ...], tmp_path: Path) -> None:
    assert colours(on_terminal(*args))
    assert not COLOURS.findall(on_terminal(*args, NO_COLOR="1"))


@pytest.mark.slow
def test_a_terminal_that_can_do_nothing_gets_no_codes(rnn: list[object]) -> None:
    assert b"\x1b" not in on_terminal(*rnn, TERM="dumb")


def test_a_pipe_gets_neither_bars_nor_codes(rnn: list[object]) -> None:
    command = [sys.executable, RUN, *map(str, rnn)]
    process = subprocess.run(command, capture_output=True, timeout=120)
    assert process.returncode == 0, process.stderr
    for stream in (process.stdout, process.stderr):
        assert b"\x1b" not in stream and b"\r" not in stream and not BAR.search(stream)


def test_evaluate_shows_how_far_it_is(toy_task: ToyTask) -> None:
    written = on_terminal("evaluate", "--model_path", toy_task.teacher)
    assert BAR.search(written) and b"scoring" in written
