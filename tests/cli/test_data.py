"""Data of users, from the file to the scores of a run."""

from pathlib import Path

import pandas
import pytest

from potstill import DataSettings, StudentSettings, TrainSettings, train_baseline
from potstill.settings import PretrainSettings
from tests.cli.conftest import SMALL, ToyTask, read_json, run, run_ok

SUBJECTS, VERBS = ("cat", "cats"), ("is", "are")
ROWS = [
    (
        f"user {i // 4}",
        f"The {SUBJECTS[i % 2]} number {i}",
        f"{VERBS[i // 2 % 2]} old.",
        ("yes", "no")[(i % 2) ^ (i // 2 % 2)],
    )
    for i in range(80)
]
FRAME = pandas.DataFrame(ROWS, columns=["user", "subject", "rest", "fits"])
COLUMNS = ("--text_column", "subject", "rest", "--label_column", "fits", "--group_column", "user")
QUICK = (*SMALL, "--epochs", 1, "--pretrain_epochs", 0)


def test_a_pair_of_columns_and_groups_from_file_to_scores(toy_task: ToyTask) -> None:
    FRAME.to_csv("x.csv", index=False, sep=";", encoding="cp1252")
    out = run_ok("rnn", 1, "--data", "x.csv", *COLUMNS, *QUICK)
    assert "  yes " in out and " ||| " in out
    settings = read_json("runs/rnn-1/config.json")["settings"]
    assert settings["text_column"] == ["subject", "rest"]
    assert settings["group_column"] == "user"
    # The same sentences are dev again, and a file is scored whole.
    scores = run_ok("evaluate", "--model_path", "runs/rnn-1")
    assert "dev: 8 sentences" in scores
    scores = run_ok("evaluate", "--data", "x.csv", *COLUMNS[:5])
    assert "x: 80 sentences" in scores
    assert run("rnn", 1, "--data", "x.csv", *COLUMNS, *QUICK, "--resume").code == 1


def test_the_teacher_passes_its_columns_on(toy_task: ToyTask) -> None:
    FRAME.to_csv("x.csv", index=False)
    base = ("--gpt_variant", toy_task.base, "--epochs", 1)
    run_ok("LoRA", 1, "--data", "x.csv", *COLUMNS, *base)
    out = run_ok("distil", 1, *QUICK)
    assert "data: x, sentences: train 72, dev 8 (auto: what the teacher was tuned on)" in out


def test_training_on_a_frame(toy_task: ToyTask) -> None:
    student = train_baseline(
        FRAME,
        seed=1,
        data_settings=DataSettings(text_column=("subject", "rest"), label_column="fits"),
        student=StudentSettings(hidden_size=8, embedding_size=8, vocab_size=300),
        pretraining=PretrainSettings(pretrain_epochs=0),
        train=TrainSettings(epochs=1),
    )
    assert student.config["data"]["path"] == "data in memory"
    scores = student.evaluate(FRAME, text_column=["subject", "rest"], label_column="fits")
    assert scores["data"]["sentences"] == 80
    message = run("evaluate", "--model_path", "runs/rnn-1").err
    assert "data in memory, which runs/rnn-1 was trained on, is not here; name the data" in message


def test_test_is_for_evaluate_alone(toy_task: ToyTask) -> None:
    Path("task").mkdir()
    for name, part in (("train", FRAME[:60]), ("dev", FRAME[60:70]), ("test", FRAME[70:])):
        part.to_csv(f"task/{name}.csv", index=False)
    out = run_ok("rnn", 1, "--data", "task", *COLUMNS[:5], *QUICK)
    assert "sentences: train 60, dev 10, test 10" in out
    assert not [line for line in out.splitlines() if line.split()[:1] == ["test"]]
    assert "test: 10 sentences" in run_ok("evaluate")


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        (
            "half.jsonl",
            '{"text": "go \\ud83dod", "label": "a"}\n',
            r"half.jsonl:1: the text is not",
        ),
        ("joined.csv", "text,label\nA.,a\nB.,b\ntext,label\n", "joined.csv:4: the header again"),
        (
            "list.jsonl",
            '{"text": "A.", "label": ["a", "b"]}\n',
            "a row has one label: with several",
        ),
        ("bar.csv", "text,label\nA.,a\nB.,b\nC.,a|b\n", "bar.csv:4: label 'a|b' is 2 labels"),
        ("pair.csv", "sentence1,sentence2,label\nA.,B.,a\n", "needs --text_column"),
    ],
)
@pytest.mark.parametrize("command", ["rnn", "LoRA"])
def test_training_refuses_it_before_it_begins(
    command: str, name: str, body: str, words: str, toy_task: ToyTask
) -> None:
    Path(name).write_text(body)
    base = ("--gpt_variant", toy_task.base) if command == "LoRA" else ()
    result = run(command, 1, "--data", name, *base)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert words in result.err
