"""The help of every command."""

import inspect
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from potstill.cli.main import COMMANDS
from tests.cli.conftest import run


def flags_of(command: str) -> set[str]:
    """Return the flags of a command, from its signature and its groups of settings."""
    names: set[str] = set()
    for name, parameter in inspect.signature(COMMANDS[command]).parameters.items():
        if is_dataclass(parameter.annotation):
            names |= {f.name for f in fields(parameter.annotation)}
        elif name not in ("SR", "sentences", "adapters", "runs") and (
            (command, name) not in (("check", "data"), ("make", "data"))
        ):
            names.add(name)
    return names


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_names_every_flag(self, command: str) -> None:
        result = run(command, "--help")
        assert (result.code, result.err) == (0, "")
        for name in flags_of(command):
            assert f"--{name}" in result.out
        assert "{None}" not in result.out

    def test_help_names_every_command(self) -> None:
        result = run("--help")
        assert result.code == 0
        assert all(f"• {command} " in result.out for command in COMMANDS)

    @pytest.mark.parametrize("mark", ["-", "_"])
    def test_both_spellings_of_a_flag_work(self, mark: str, tiny_gpt2: Path) -> None:
        flags = ("--gpt_variant", tiny_gpt2, "--max_new_tokens", 3, "--top_k", 1, "--prompt", "A")
        spelt = [str(f).replace("_", mark) if str(f).startswith("--") else f for f in flags]
        assert run("gen", 1, *spelt) == run("gen", 1, *flags)

    @pytest.mark.parametrize(
        ("command", "alias", "flag"),
        [
            ("LoRA", "output", "model_path"),
            ("average", "output", "model_path"),
            ("transfer", "output", "transfer_path"),
            ("transfer", "teacher", "model_path"),
            ("distil", "output", "student_path"),
            ("distil", "teacher", "model_path"),
            ("rnn", "output", "student_path"),
            ("report", "output", "report_path"),
            ("make", "output", "make_path"),
            ("export", "output", "onnx_path"),
        ],
    )
    def test_help_names_the_aliases_of_a_flag(self, command: str, alias: str, flag: str) -> None:
        assert f"--{alias} PATH, --{flag} PATH" in run(command, "--help").out

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_help_imports_nothing_heavy(self, command: str) -> None:
        code = (
            "import sys; from potstill.cli import main\n"
            f"try: main(args={[*command.split(), '--help']})\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'transformers', 'matplotlib', 'numpy', 'fastapi', 'uvicorn'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert process.stdout.splitlines()[-1] == "[]", process.stderr
