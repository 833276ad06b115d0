"""Arguments and output that are not UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.cli.main import COMMANDS
from tests.cli.conftest import RUN, run

TEXT = "Ça va 😀 日本語."


def run_in(environment: dict[str, str], *args: str | bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, RUN, *args], env=os.environ | environment, capture_output=True, timeout=60
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_of_any_encoding_is_written(encoding: str, tmp_path: Path) -> None:
    process = run_in({"PYTHONIOENCODING": encoding}, "predict", TEXT)
    assert process.returncode == 0, process.stderr
    assert "va" in process.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_of_any_encoding_holds_the_sentence(encoding: str) -> None:
    process = run_in({"PYTHONIOENCODING": encoding}, "predict", "--json", TEXT)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.decode(encoding))["sentence"] == TEXT


def test_arguments_are_utf8_in_a_locale_that_is_not() -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = run_in(locale, "predict", "--json", TEXT)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["sentence"] == TEXT


@pytest.mark.parametrize(
    "args",
    [
        ("predict", "Caf\udce9 is open."),
        ("gen", 1, "--prompt", "Caf\udce9"),
        ("rnn", 1, "--data", "caf\udce9.csv"),
        ("predict", "half an emoji \ud83d"),
    ],
)
def test_an_argument_that_is_not_text_is_named(args: tuple[object, ...]) -> None:
    result = run(*args)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("potstill: the argument '")
    assert result.err.endswith("' is not UTF-8 text.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_more_than_ascii(command: str) -> None:
    help_text = run(command, "--help").out
    # The boxes are rich's, which draws others where the encoding has none of these.
    beyond = {c for c in help_text if not c.isascii() and not "\u2500" <= c <= "\u257f"}
    assert not beyond
