"""The parts of tasks.py: its samples, its rivals, and the commands that it runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tasks

TRAIN = (
    [f"the film number {i} is {'lovely' if i % 3 else 'dull'}" for i in range(60)],
    ["good" if i % 3 else "bad" for i in range(60)],
)
TEST = (["a lovely film", "a dull film", "dull and dull", "lovely"], ["good", "bad", "bad", "good"])


def test_a_sample_has_the_classes_in_proportion_and_is_always_the_same() -> None:
    sentences, labels = tasks.subset(TRAIN, 30)
    assert (len(sentences), labels.count("bad")) == (30, 10)
    assert tasks.subset(TRAIN, 30) == (sentences, labels)
    assert tasks.subset(TRAIN, 0) == tasks.subset(TRAIN, 1000) == TRAIN
    by_sentence = dict(zip(*TRAIN, strict=True))
    assert all(by_sentence[s] == label for s, label in zip(sentences, labels, strict=True))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    tasks.write_task(tmp_path, TRAIN, TEST)
    assert tasks.read(tmp_path / "train.tsv") == TRAIN
    assert tasks.read(tmp_path / "dev.tsv") == TEST


def test_rivals() -> None:
    assert tasks.majority(TRAIN, TEST) == 0.5
    assert tasks.tf_idf(TRAIN, TEST) == 1.0


def test_each_row_is_one_command_a_seed_and_none_is_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], **_: object) -> None:
        ran.append(words[3:])
        target = Path(words[words.index("--output") + 1])
        target.mkdir(parents=True)
        name = "transfer.json" if words[3] == "transfer" else "results.json"
        (target / name).write_text(json.dumps({"chosen": {"dev": {"accuracy": 0.5}}}))

    monkeypatch.setattr(tasks.subprocess, "run", run)
    scores = dict(tasks.run_task(tmp_path, seeds=[1, 2], sampled=5, edited=6))
    assert scores == {"teacher": [0.5], **{row: [0.5, 0.5] for row in tasks.STUDENTS}}
    commands = [words[0] for words in ran]
    assert commands == ["LoRA", "transfer", *["distil"] * 4, "rnn", "rnn"]
    with_set = [words for words in ran if "--transfer_set" in words]
    assert [words[1] for words in with_set] == ["1", "2"]
    assert all(str(tmp_path / "teacher") in words for words in ran[1:6])
    assert dict(tasks.run_task(tmp_path, seeds=[1, 2], sampled=5, edited=6)) == scores
    assert len(ran) == 8


def test_scores_that_are_there_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, texts in (("train", TRAIN), ("test", TEST)):
        lines = [f"{text}\t{label}" for text, label in zip(*texts, strict=True)]
        (tmp_path / "films").mkdir(exist_ok=True)
        (tmp_path / "films" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]))
    output, ran = tmp_path / "tasks.json", []

    def run_task(folder: Path, **_: object) -> Iterator[tuple[str, list[float]]]:
        ran.append(folder.name)
        yield "teacher", [0.9]
        for row in tasks.STUDENTS:
            assert json.loads(output.read_text())["films, 60"]["teacher"] == [0.9]
            yield row, [0.7, 0.8]

    monkeypatch.setattr(tasks, "run_task", run_task)
    words = ["tasks.py", str(tmp_path), "--folder", str(tmp_path / "runs"), "--sizes", "0"]
    words += ["--seeds", "1", "2", "--output", str(output), "--autotune", "1"]
    monkeypatch.setattr("sys.argv", words)
    tasks.main()
    assert "| films, 60 | 0.500 | 0.900 | 0.750 ± 0.071 |" in capsys.readouterr().out
    tasks.main()
    assert ran == ["films-60"]
