"""The command predict on files and pipes of any length, and on tables."""

import csv
import io
import json
import subprocess
import threading
from pathlib import Path

import pytest

from potstill.inference.load import load
from tests.cli.conftest import TrainedRuns, run, run_ok, start_process

TEXTS = ["The cat is old.", "The cat are old.", "Old."]


def of_model(texts: list[str]) -> tuple[list[str], list[float]]:
    """Return the labels and their probabilities, by the Python API."""
    model = load("runs/distil-7")
    return model.predict(texts).tolist(), model.predict_proba(texts).max(1).tolist()


def model_args(*args: object) -> list[object]:
    return ["predict", "--model_path", "runs/distil-7", *args]


class TestLines:
    def test_an_answer_comes_before_the_next_line(self, runs: TrainedRuns) -> None:
        """A program that waits for each answer gets it."""
        process = start_process("predict", stdin=subprocess.PIPE)
        assert process.stdin and process.stdout
        watchdog = threading.Timer(100, process.kill)
        watchdog.start()
        try:
            for text in ("The cat is old.", "", "The cats is old."):
                process.stdin.write(f"{text}\n")
                process.stdin.flush()
                if text:
                    line = process.stdout.readline()
                    while not line.strip():
                        line = process.stdout.readline()
                    assert line.rstrip("\n").endswith(f"%  {text}")
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            watchdog.cancel()
            process.kill()

    @pytest.mark.parametrize("flags", [[], ["--tsv"], ["--json"]], ids=["text", "tsv", "json"])
    def test_there_is_a_line_for_each_line(
        self, flags: list[str], runs: TrainedRuns, tmp_path: Path
    ) -> None:
        lines = ["", TEXTS[0], " ", TEXTS[1], TEXTS[2], ""]
        file = tmp_path / "texts.txt"
        file.write_text("".join(f"{line}\n" for line in lines))
        out = run_ok(*model_args("--file", file, *flags)).split("\n")
        assert out.pop() == ""
        labels, probabilities = of_model(TEXTS)
        expected = dict(zip(TEXTS, zip(labels, probabilities, strict=True), strict=True))
        for line, answer in zip(map(str.strip, lines), out, strict=True):
            label, probability = expected.get(line, (None, 0.0))
            if "--json" in flags:
                record = json.loads(answer)
                assert (record["sentence"], record["label"]) == (line, label)
                assert (record["probabilities"] is None) == (not line)
            elif "--tsv" in flags:
                cells = answer.split("\t")
                assert [cells[0], cells[2]] == [label or "", line]
                assert float(cells[1] or 0) == pytest.approx(probability, abs=1e-4)
            else:
                assert answer.split("  ")[0].strip() == (label or "")
                assert answer.endswith(line)

    def test_many_lines_are_those_of_one_batch(self, runs: TrainedRuns, tmp_path: Path) -> None:
        texts = [f"The {'very ' * (i % 9)}old cat number {i}." for i in range(700)]
        file = tmp_path / "texts.txt"
        file.write_text("\n".join(texts))
        out = [
            json.loads(line) for line in run_ok(*model_args("--json", "--file", file)).splitlines()
        ]
        labels, probabilities = of_model(texts)
        assert [row["sentence"] for row in out] == texts
        found = [max(row["probabilities"].values()) for row in out]
        assert found == pytest.approx(probabilities, abs=2e-4)
        assert [row["label"] for row in out] == labels

    def test_answers_to_a_file_are_whole_or_not_there(
        self, runs: TrainedRuns, tmp_path: Path
    ) -> None:
        file, output = tmp_path / "texts.txt", tmp_path / "answers.txt"
        file.write_text("\n".join(TEXTS))
        result = run(*model_args("--file", file, "--output", output))
        assert (result.code, result.out) == (0, "")
        assert result.err.splitlines()[-1] == f"answers: {output}, 3 texts"
        assert output.read_text() == run_ok(*model_args("--file", file))
        before = output.read_bytes()
        file.write_bytes("\n".join(TEXTS * 500).encode() + b"\n\xe9\0\n")
        result = run(*model_args("--file", file, "--output", output))
        assert result.code == 1 and "texts.txt:1501: not UTF-8" in result.err
        assert output.read_bytes() == before
        assert {f.name for f in tmp_path.iterdir()} == {"texts.txt", "answers.txt"}

    def test_cut_texts_are_counted(self, runs: TrainedRuns, tmp_path: Path) -> None:
        file = tmp_path / "texts.txt"
        file.write_text(f"{TEXTS[0]}\n\n{'old ' * 400}\n")
        result = run(*model_args("--json", "--file", file))
        assert "1 of 3 cut: the model reads the first" in result.err
        assert ["cut" in json.loads(line) for line in result.out.splitlines()] == [
            False,
            False,
            True,
        ]


class TestTables:
    def test_a_csv_gets_its_answers_as_columns(self, runs: TrainedRuns, tmp_path: Path) -> None:
        file, output = tmp_path / "rows.csv", tmp_path / "out" / "rows.csv"
        body = f'id;review;note\n1;"{TEXTS[0]}";"a;b"\n2;;\n3;"{TEXTS[1]}\n";"say ""x"""\n'
        file.write_text(body)
        flags = ["--file", file, "--text_column", "review"]
        run(*model_args(*flags, "--output", output))
        rows = list(csv.DictReader(io.StringIO(output.read_text(), newline=""), delimiter=";"))
        labels, probabilities = of_model(TEXTS[:2])
        assert [row["prediction"] for row in rows] == [labels[0], "", labels[1]]
        assert [row["id"] for row in rows] == ["1", "2", "3"]
        assert rows[0]["note"] == "a;b" and rows[2]["note"] == 'say "x"'
        assert rows[2]["review"] == f"{TEXTS[1]}\n"
        assert float(rows[0]["probability"]) == pytest.approx(probabilities[0], abs=1e-4)
        assert run_ok(*model_args(*flags)) == output.read_text()

    def test_a_parquet_file_gets_its_answers_as_columns(
        self, runs: TrainedRuns, tmp_path: Path
    ) -> None:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        file, output = tmp_path / "rows.parquet", tmp_path / "answers.parquet"
        n = 3000
        texts = [TEXTS[i % 3] if i % 7 else None for i in range(n)]
        table = pa.table({"n": pa.array(range(n), pa.int16()), "text": texts})
        parquet.write_table(table, file)
        run(*model_args("--file", file, "--output", output))
        answers = parquet.read_table(output)
        assert answers.select(["n", "text"]).equals(table)
        labels, _ = of_model(TEXTS)
        expected = [labels[i % 3] if i % 7 else None for i in range(n)]
        assert answers.column("prediction").to_pylist() == expected
        assert answers.column("probability").null_count == expected.count(None)
        result = run(*model_args("--file", file))
        assert result.code == 2
        assert (
            "a Parquet file is not written to standard output: name it with --output" in result.err
        )
        as_json = run_ok(*model_args("--file", file, "--json")).splitlines()
        assert json.loads(as_json[1])["prediction"] == labels[1]

    def test_json_lines_get_their_answers_as_keys(self, runs: TrainedRuns, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        file.write_text(f'{{"n": 1, "text": "{TEXTS[0]}"}}\n{{"text": ""}}\n')
        first, second = map(json.loads, run_ok(*model_args("--file", file)).splitlines())
        labels, probabilities = of_model(TEXTS[:1])
        assert first["n"] == 1 and first["prediction"] == labels[0]
        assert first["probability"] == pytest.approx(probabilities[0], abs=1e-4)
        assert second == {"text": "", "prediction": None, "probability": None}
        header, row, _ = run_ok(*model_args("--file", file, "--tsv")).splitlines()
        assert header == "n\ttext\tprediction\tprobability"
        assert row.startswith(f"1\t{TEXTS[0]}\t{labels[0]}\t")

    @pytest.mark.parametrize(
        ("args", "code", "words"),
        [
            (["--text_column", "txet"], 1, "has no column 'txet' (--text_column); it has id, text"),
            (["--json", "--tsv"], 2, "give --json or --tsv, not both"),
            (["--explain"], 2, "--explain is for text on standard output, and for --json"),
            (["--output", "/dev/null/x.csv"], 1, "--output: /dev/null can't be written"),
            (["--threshold", "2"], 2, "--threshold 2.0 is out of range"),
            (["--threshold", "high"], 2, "--threshold 'high' is neither a probability nor goal"),
            (["--threshold", "goal"], 1, "--threshold goal: the model was trained without"),
        ],
    )
    def test_what_can_not_be_done_is_said(
        self, args: list[str], code: int, words: str, runs: TrainedRuns, tmp_path: Path
    ) -> None:
        file = tmp_path / "rows.csv"
        file.write_text("id,text\n1,One.\n")
        result = run(*model_args("--file", file, *args))
        assert (result.code, result.out) == (code, "")
        assert words in result.err

    def test_columns_of_the_answers_are_not_overwritten(
        self, runs: TrainedRuns, tmp_path: Path
    ) -> None:
        file = tmp_path / "rows.csv"
        file.write_text("text,prediction\nOne.,x\n")
        result = run(*model_args("--file", file))
        assert result.code == 1
        assert "has a column 'prediction' already; rename it" in result.err


class TestThreshold:
    @pytest.mark.parametrize("flags", [[], ["--json"], ["--tsv"]], ids=["text", "json", "tsv"])
    def test_below_it_the_answer_is_unsure(self, flags: list[str], runs: TrainedRuns) -> None:
        labels, probabilities = of_model(TEXTS)
        threshold = sorted(probabilities)[1]
        out = run_ok(*model_args(*TEXTS, *flags, "--threshold", threshold)).splitlines()
        for line, label, probability in zip(out, labels, probabilities, strict=True):
            expected = label if probability >= threshold else "unsure"
            found = json.loads(line)["label"] if "--json" in flags else line.split()[0]
            assert found == expected
        assert "unsure" in "".join(out)
