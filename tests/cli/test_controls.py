"""Control characters of texts, labels and names: written out on a terminal, kept in a pipe."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.inference.student import StudentClassifier
from tests.cli.conftest import RUN, run
from tests.inference.conftest import write_student

EVIL = "A \x1b[31mred\x1b]0;title\x07 book\x9b2J."


def on_a_terminal(*args: object) -> bytes:
    """Return what a command writes to a terminal, on both of its streams."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, RUN, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    process.wait(timeout=60)
    os.close(ours)
    return written


def has_controls(written: bytes) -> bool:
    text = written.decode()
    return any(c in text for c in ("\x1b]", "\x1b[31m", "\x07", "\x9b"))


@pytest.fixture
def evil_file(tmp_path: Path) -> Path:
    file = tmp_path / "x.csv"
    file.write_text(f"text,la\x1b[31mbel\n{EVIL},x\n")
    return file


@pytest.mark.parametrize("flags", [(), ("--json",), ("--tsv",), ("--explain",)], ids=str)
def test_a_text_does_not_drive_the_terminal(flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(EVIL + "\n")
    model = write_student(tmp_path / "student", max_length=99)
    StudentClassifier(model).export_onnx(model)
    args = ("--file", tmp_path / "texts.txt", "--model_path", model)
    written = on_a_terminal("predict", *args, *flags)
    assert b"red" in written
    assert not has_controls(written), written


def test_a_table_and_its_column_names_do_not(evil_file: Path) -> None:
    written = on_a_terminal("predict", "--file", evil_file)
    assert b"red" in written and not has_controls(written), written
    assert b"31m" in (written := on_a_terminal("check", evil_file)) and not has_controls(written)


def test_a_pipe_gets_the_text_as_it_is(evil_file: Path) -> None:
    assert EVIL in run("predict", "--file", evil_file).out


def test_labels_of_a_model_do_not(tmp_path: Path) -> None:
    model = write_student(tmp_path / "student")
    StudentClassifier(model).export_onnx(model)
    (model / "manifest.json").unlink(missing_ok=True)
    config = model / "config.json"
    config.write_text(config.read_text().replace('"bad"', r'"b\u001b[31mad\u0007"'))
    texts = [f"Number {i} is here." for i in range(8)]
    for flags in ((), ("--json",), ("--explain",)):
        written = on_a_terminal("predict", *texts, "--model_path", model, *flags)
        assert not has_controls(written), written


def test_an_error_does_not(tmp_path: Path) -> None:
    written = on_a_terminal("predict", "--model_path", "no\x1b[31m\x07thing", "A text.")
    assert b"no" in written and not has_controls(written), written
