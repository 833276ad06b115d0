"""The libraries' messages, as the command line prints them."""

import logging
import os
import subprocess
import sys

import pytest

from potstill.cli.main import COMMANDS, name_flags
from potstill.errors import UserError
from tests.cli.conftest import run


class TestFlags:
    @pytest.mark.parametrize(
        ("message", "printed"),
        [
            ("`data` x: there is no such file.", "--data x: there is no such file."),
            ("`LoRA_rank` 0 is out of range.", "--LoRA_rank 0 is out of range."),
            ("name a `transfer_set` or `model_path`.", "name a --transfer_set or --model_path."),
            ("`student_path`: x is a file.", "--student_path: x is a file."),
            ("`output`: x is a file.", "--output: x is a file."),
            ("no baseline; run `potstill rnn 1`", "no baseline; run `potstill rnn 1`"),
            ("`no_such_field` and `sentences`", "`no_such_field` and `sentences`"),
            ("data and model_path", "data and model_path"),
        ],
    )
    def test_a_field_in_backticks_is_printed_as_its_flag(self, message: str, printed: str) -> None:
        assert name_flags(message) == printed

    @pytest.mark.parametrize(
        ("line", "message", "printed"),
        [
            ("LoRA 1 --output x", "`model_path` x", "--output x"),
            ("LoRA 1 --output=x", "`model_path` x", "--output x"),
            ("LoRA 1 --model_path x", "`model_path` x", "--model_path x"),
            ("average a b --output x", "`model_path` x", "--output x"),
            (
                "distil 1 --teacher x --output y",
                "`model_path` `student_path`",
                "--teacher --output",
            ),
            ("distil 1 --teacher x", "`model_path` `student_path`", "--teacher --student_path"),
            ("rnn 1 --output y", "`model_path` `student_path`", "--model_path --output"),
            ("rnn 1 --output y", "`output` y", "--output y"),
            ("rnn 1 --student_path y", "`output` y", "--student_path y"),
            ("evaluate", "`output`", "--output"),
            ("brew --output y", "`model_path`", "--model_path"),
        ],
    )
    def test_an_alias_is_printed_where_the_user_typed_it(
        self, line: str, message: str, printed: str
    ) -> None:
        assert name_flags(message, line.split()) == printed

    def test_errors_name_flags(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise UserError("name `data`.")

        monkeypatch.setitem(COMMANDS, "export", fail)
        assert run("export") == (1, "", "potstill: name --data.\n")


class TestLog:
    @pytest.fixture(autouse=True)
    def logging_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def log() -> None:
            logger = logging.getLogger("potstill.some.module")
            logger.debug("for programmers")
            logger.info("cut at `max_length` %d [bold]tokens[/bold] %s", 128, "x" * 100)
            logger.warning("slower than it could be")

        monkeypatch.setitem(COMMANDS, "export", log)

    def test_lines_are_printed_once_as_they_are(self) -> None:
        printed = f"cut at --max_length 128 [bold]tokens[/bold] {'x' * 100}\n"
        printed += "slower than it could be\n"
        for _ in range(2):
            assert run("export") == (0, printed, "")


@pytest.mark.parametrize(("rank", "printed"), [("0", "hello\n"), ("1", "")])
def test_only_the_first_process_prints_the_log(rank: str, printed: str) -> None:
    code = (
        "import logging\n"
        "from potstill.cli.main import COMMANDS, main\n"
        "COMMANDS['export'] = lambda: logging.getLogger('potstill.x').info('hello')\n"
        "main(args=['export'])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"RANK": rank},
        capture_output=True,
        text=True,
    )
    assert (process.stdout, process.stderr) == (printed, "")
