"""The command check, and the first lines of training."""

import json
import re
from pathlib import Path

from tests.cli.conftest import SMALL, run, run_ok

ROWS = "".join(f"Text number {i} is {('dull', 'fine')[i % 2]}.,{'ab'[i % 2]}\n" for i in range(40))


def test_it_prints_counts_examples_and_warnings(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label\n" + ROWS + "Text number 0 is dull.,b\n" + "word " * 200 + ",a\n")
    out = run_ok("check", file, "--max_length", 50)
    assert "data: x, sentences: train 38, dev 4" in out
    assert "  a      19  50.0 %  Text number" in out
    assert re.search("1 of (train's 38|dev's 4) sentences are longer than 50 tokens, and cut", out)
    assert "warning: 1 text with two labels or more (x.csv:2, x.csv:42)" in out


def test_json_has_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label\n" + ROWS)
    report = json.loads(run_ok("check", file, "--json"))
    assert report["classes"]["a"] == {"train": 18, "dev": 2}
    assert report["findings"] == []


def test_data_that_is_refused_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,label\n" + ROWS + "One.,nan\n")
    result = run("check", file)
    assert result.code == 1
    assert "refused: label 'nan' is that of a row without a label; remove the row (x.csv:42)" in (
        result.out
    )
    assert result.err == "potstill: x can't be trained on as it is.\n"
    missing = run("check", tmp_path / "none.csv")
    assert missing.code == 1 and "DATA" in missing.out and "--data" not in missing.out


def test_training_says_the_same_first(toy_task: object) -> None:
    rows = ROWS.replace("Text number 3 is fine.", "Text number 1 is fine.")
    copies = "".join(f"Text number {i} is dull.,b\n" for i in range(0, 8, 2))
    Path("x.csv").write_text(
        "id,text,label\n" + "".join(f"7,{r}\n" for r in (rows + copies).split("\n") if r)
    )
    out = run_ok("rnn", 1, "--data", "x.csv", *SMALL, "--epochs", 1, "--pretrain_epochs", 0)
    first = out[: out.index("student: ")]
    assert "text from 'text', label from 'label'; not read: id" in first
    assert "  a  " in first and "Text number" in first
    assert "warning: 4 texts with two labels or more (x.csv:2, " in first
