"""benchmarks/chain.py: the commands from labelled data to an exported student."""

import json
import subprocess
import sys
from pathlib import Path

import chain
import pytest

from tests.cli.conftest import write_toy


@pytest.mark.slow
def test_the_chain_ends_with_a_student_and_its_seconds(tmp_path: Path, tiny_gpt2: Path) -> None:
    data, folder = write_toy(tmp_path / "toy"), tmp_path / "chain"
    command = [sys.executable, chain.__file__, "--data", str(data), "--folder", str(folder)]
    command += ["--sampled", "20", "--edited", "20", "--epochs", "1", "--seeds", "1", "2"]
    command += ["--processes", "2", "--output", str(tmp_path / "chain.json")]
    flags = ["--", "--gpt_variant", str(tiny_gpt2), "--epochs", "1"]

    def run() -> str:
        return subprocess.run([*command, *flags], check=True, capture_output=True, text=True).stdout

    first = run()
    assert (folder / "onnx/model.onnx").is_file()
    figures = json.loads((tmp_path / "chain.json").read_text())
    assert set(figures["mcc"]) >= {"dev", "ood"} and len(figures["seconds"]) == 6
    assert all(f"| {title} |" in first for title in figures["seconds"])
    assert "| in all |" in first and "transfer set, 40 sentences" in first
    second = run()  # nothing is done twice
    assert "potstill" not in second and second.splitlines()[0] == "| stage | seconds |"
