"""The command make: all steps in one, interrupted, continued and refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

import potstill
from potstill.data.splits import Split
from potstill.recipes import _budget, _student
from potstill.recipes import make as recipe
from potstill.recipes._scoreboard import teacher_pays
from potstill.recipes._speed import Rates
from potstill.recipes._work import Work
from potstill.report.predictions import Prediction
from tests.cli.conftest import ToyTask, files, interrupt_at, read_json, run, run_ok, weights

NOUNS = ("film", "book", "song", "play", "meal")
GOOD, BAD = ("fine", "great", "lovely"), ("dull", "bad", "awful")
TEXTS = [f"A {word} {NOUNS[i % 5]} number {i}." for i in range(30) for word in (GOOD[i % 3],)]
TEXTS += [f"A {BAD[i % 3]} {NOUNS[i % 5]} number {i}." for i in range(30)]
LABELS = ["good"] * 30 + ["bad"] * 30
MADE = {"teacher", "transfer", "student", "onnx", "plots", "report.html", "make.json"}


@pytest.fixture(autouse=True)
def known_speed(toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for a machine of known speed, in a folder with the data."""
    monkeypatch.setattr(
        recipe, "measure", lambda *args, **limits: Rates(500.0, 1000.0, 500.0, 500.0, 0.1)
    )
    monkeypatch.setattr(recipe, "teacher_pays", lambda *args: True)  # the tiny one knows nothing
    monkeypatch.setattr(_student, "EPOCHS", 2)
    rows = [f"{text},{label}" for text, label in zip(TEXTS, LABELS, strict=True)]
    Path("films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    Path("own.txt").write_text("A fine day number 7.\nAn awful day number 8.\nA day.\n")


def args(base: Path, *more: object) -> list[object]:
    flags = ["--gpt_variant", base, "--minutes", 1, "--output", "out", "--unlabelled", "own.txt"]
    return ["make", "films.csv", *flags, *more]


def test_from_a_file_to_a_student(toy_task: ToyTask) -> None:
    out = run_ok(*args(toy_task.base, "--goal", "macro_f1"))
    assert {path.name for path in Path("out").iterdir()} == MADE | {"unlabelled.txt"}

    estimate = out[out.index("this machine: 500 sentences/s tuned") : out.index("-- teacher")]
    for step in ("teacher", "transfer", "student", "finish", "in all"):
        assert f"\n  {step}" in estimate
    assert "10 epochs over 49" in estimate
    assert "3 sentences of yours, 0 sampled, 490 edited" in estimate
    assert "of 1.0 min" in estimate

    state = read_json("out/make.json")
    assert set(state["steps"]) == {"teacher", "transfer", "student", "finish"}
    assert all(step["done"] and step["seconds"] > 0 for step in state["steps"].values())
    assert state["seconds"] >= sum(step["seconds"] for step in state["steps"].values())
    assert read_json("out/student/config.json")["decision"]["goal"] == "macro_f1"
    kinds = read_json("out/student/config.json")["transfer_set"]["sentences"]
    assert kinds["own"] == 3 and kinds["edited"] > 0

    table = out[out.rindex("accuracy   macro F1") :]
    names = [row["model"] for row in state["rows"]]
    assert names[:2] == ["majority class", "TF-IDF + logistic regression"]
    assert [name.split(",")[0] for name in names[2:]] == ["teacher", "student"]
    assert all(f"\n{name}" in table for name in names)
    predict = next(line for line in table.splitlines() if line.startswith("next: potstill "))
    assert "--model_path out/onnx" in predict
    assert "good" in run_ok("predict", "--model_path", "out/onnx", "A fine film.") or "bad" in (
        run_ok("predict", "--model_path", "out/onnx", "A fine film.")
    )

    before = weights("out/student")
    again = run_ok(*args(toy_task.base, "--goal", "macro_f1"))
    assert "out is finished" in again and "-- teacher" not in again
    assert again[again.rindex("accuracy   macro F1") :].splitlines()[:5] == table.splitlines()[:5]
    assert weights("out/student") == before


def test_the_baseline_is_scikit_learns_on_the_same_split(toy_task: ToyTask) -> None:
    run_ok(*args(toy_task.base))
    corpus = potstill.load_corpus("films.csv")
    train, dev = corpus.splits["train"], corpus.splits["dev"]
    vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(max_iter=1000)
    model.fit(vectors.fit_transform(train.sentences), train.labels)
    predicted = model.predict(vectors.transform(dev.sentences))
    row = read_json("out/make.json")["rows"][1]
    assert row["accuracy"] == pytest.approx(accuracy_score(dev.labels, predicted))
    assert row["macro_f1"] == pytest.approx(f1_score(dev.labels, predicted, average="macro"))
    assert row["mcc"] == pytest.approx(matthews_corrcoef(dev.labels, predicted))
    by_evaluate = potstill.load("out/onnx").evaluate("films.csv")  # the whole file, so more
    assert by_evaluate["films"]["sentences"] == 60
    student = read_json("out/make.json")["rows"][3]
    assert student["megabytes"] < 10 < 1e6 * student["megabytes"]


@pytest.mark.parametrize(
    "where",
    [
        "    1  train",
        pytest.param("own: 3 sentences", marks=pytest.mark.slow),
        pytest.param("-- student", marks=pytest.mark.slow),
        pytest.param("exported: ", marks=pytest.mark.slow),
    ],
)
def test_interrupted_the_same_command_goes_on(where: str, toy_task: ToyTask) -> None:
    run_ok(*args(toy_task.base, "--output", "whole"))
    with interrupt_at(where):
        stopped = run(*args(toy_task.base, "--output", "cut"))
    assert stopped.code == 130
    assert "what is done is in cut; the same command goes on from there" in stopped.out
    before = read_json("cut/make.json")
    assert "rows" not in before
    out = run_ok(*args(toy_task.base, "--output", "cut"))
    assert "cut goes on" in out
    assert ("-- teacher" in out) == (where == "    1  train")
    if where == "    1  train":
        assert "continues the unfinished run in cut/teacher.unfinished: after epoch 1" in out
    for name in ("teacher", "student"):
        assert weights(f"cut/{name}") == weights(f"whole/{name}")
    after = read_json("cut/make.json")
    assert after["seconds"] > before["seconds"]  # of both
    assert not list(Path("cut").glob("*.unfinished"))


def test_what_can_not_be_made_is_refused_before_any_work(toy_task: ToyTask) -> None:
    Path("nan.csv").write_text(Path("films.csv").read_text() + "A film.,nan\n")
    Path("one.csv").write_text("text,label\nA film.,good\nA book.,good\n")
    Path("thesis").mkdir()
    Path("thesis/chapter").touch()
    before = files()
    flags = ("--gpt_variant", toy_task.base, "--output", "out")
    for code, words, given in (
        (1, "nan can't be trained on as it is: label 'nan'", ["nan.csv", *flags]),
        (1, "can't be trained on", ["one.csv", *flags]),
        (1, "no such file", ["none.csv", *flags]),
        (2, "--minutes", ["films.csv", *flags, "--minutes", 0]),
        (2, "--goal", ["films.csv", *flags, "--goal", "best"]),
        (1, "no class 'fair'", ["films.csv", *flags, "--goal", "precision@0.5:fair"]),
        (1, "gpt9", ["films.csv", *flags, "--gpt_variant", "./gpt9"]),
        (1, "none.txt", ["films.csv", *flags, "--unlabelled", "none.txt"]),
        (1, "--output: thesis is not empty", ["films.csv", *flags, "--output", "thesis"]),
    ):
        result = run("make", *given)
        assert result.code == code, result
        assert words in result.err, result.err
        assert len(result.err.strip().splitlines()) == 1
        assert files() == before


def test_other_settings_are_refused_and_fresh_starts_anew(toy_task: ToyTask) -> None:
    with interrupt_at("this machine"):
        run(*args(toy_task.base, "--minutes", 3))  # nothing was done, so nothing binds
    with interrupt_at("-- student"):
        run(*args(toy_task.base))
    Path("out/notes").touch()  # not ours
    result = run(*args(toy_task.base, "--minutes", 2))
    assert result.code == 1 and "was made with minutes 1.0, not 2.0" in result.err
    Path("own.txt").write_text("Another day.\n")
    result = run(*args(toy_task.base))
    assert result.code == 1 and "--output: out was made with other unlabelled; repeat" in result.err
    Path("films.csv").write_text(Path("films.csv").read_text() + "A bad cup.,bad\n")
    result = run(*args(toy_task.base))
    assert result.code == 1 and "was made with other data" in result.err
    out = run_ok(*args(toy_task.base, "--minutes", 2, "--fresh"))
    assert "goes on" not in out and "-- teacher" in out
    assert Path("out/unlabelled.txt").read_text() == "Another day.\n"
    assert Path("out/notes").exists()


def test_data_in_memory_is_written_beside_the_student(toy_task: ToyTask) -> None:
    """So that every step can be repeated by a command of its own."""
    student = potstill.make((TEXTS, LABELS), minutes=1, base=str(toy_task.base), output="out")
    assert student.title == "DistilRNN"
    assert set(student.predict(TEXTS)) <= {"good", "bad"}
    assert {f.name for f in Path("out/data/texts").iterdir()} == {"train.jsonl", "dev.jsonl"}
    rows = [json.loads(line) for line in Path("out/data/texts/dev.jsonl").read_text().splitlines()]
    labels = dict(zip(TEXTS, LABELS, strict=True))
    assert rows and all(labels[row["sentence"]] == row["label"] for row in rows)
    again = run_ok("evaluate", "--model_path", "out/student", "--json")
    (scored,) = json.loads(again)["scores"].values()
    assert scored["sentences"] == len(rows)


def test_too_little_time_takes_fewer_sentences(
    toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recipe, "measure", lambda *args, **limits: Rates(2.0, 20.0, 50.0, 50.0, 0.1)
    )
    monkeypatch.setattr(_budget, "MIN_TEACHER_STEPS", 1)
    rows = [f"A {GOOD[i % 3] if i % 2 else BAD[i % 3]} film number {i}." for i in range(600)]
    data: Any = (rows, ["bad", "good"] * 300)
    potstill.make(data, minutes=0.5, base=str(toy_task.base), output="out")
    train = Path("out/data/texts/train.jsonl").read_text().splitlines()
    plan = read_json("out/make.json")["plan"]
    assert 200 <= plan["train"] < 300 and plan["train"] <= len(train) < 300
    assert plan["teacher_epochs"] == 1


def test_without_time_for_a_teacher_the_labels_teach(
    toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recipe, "measure", lambda *args, **limits: Rates(1.0, 20.0, 500.0, 500.0, 0.1)
    )
    out = run_ok("make", "films.csv", "--gpt_variant", toy_task.base, "--output", "out")
    assert "too short to tune a teacher: the student learns from the labels alone" in out
    assert "-- teacher" not in out and "teacher," not in out
    assert {path.name for path in Path("out").iterdir()} == MADE - {"teacher", "transfer"}
    assert [row["model"] for row in read_json("out/make.json")["rows"]][2:] == ["student, int8"]
    config = read_json("out/student/config.json")
    assert config["command"] == "rnn"
    assert "fine" in run_ok("predict", "--model_path", "out/onnx", "A fine film.")


def test_a_teacher_that_has_learnt_nothing_does_not_teach(
    toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "teacher_pays", lambda *args: False)
    with interrupt_at("-- student"):
        stopped = run(*args(toy_task.base))
    said = (
        "so the teacher is not used: the student learns from the labels alone, not from --unlabel"
    )
    assert stopped.code == 130 and said in stopped.out
    out = run_ok(*args(toy_task.base))
    assert "out goes on" in out and "-- teacher" not in out and "-- transfer set" not in out
    assert {path.name for path in Path("out").iterdir()} == MADE - {"transfer"}
    rows = [row["model"].rpartition(",")[0] for row in read_json("out/make.json")["rows"]]
    assert rows[2:] == ["teacher, not used", "student"]
    assert read_json("out/student/config.json")["command"] == "rnn"


def answers(texts: list[str], right: int) -> list[Prediction]:
    """A teacher's, the first so many of which are right."""
    truth = dict(zip(TEXTS, LABELS, strict=True))
    other = {"good": "bad", "bad": "good"}
    return [
        Prediction(text, truth[text], truth[text] if i < right else other[truth[text]], {})
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize(("right", "pays"), [(20, True), (19, True), (18, False), (0, False)])
def test_a_teacher_pays_unless_tf_idf_is_surely_better(
    right: int, pays: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """TF-IDF is right about all of them, so that one wrong answer is within a standard error."""
    caplog.set_level("INFO")
    labels = ("bad", "good")
    train = Split(TEXTS, [labels.index(label) for label in LABELS])
    held = answers([*TEXTS[:10], *TEXTS[-10:]], right)
    assert teacher_pays(held, train, labels) is pays
    said = f"the teacher is right about {5 * right:.1f} % of the held-out sentences, TF-IDF"
    assert (said in caplog.text) is not pays
    assert teacher_pays([], train, labels)


def test_time_is_counted_over_interruptions(tmp_path: Path) -> None:
    state = {"settings": {"minutes": 2}, "seconds": 70.0, "steps": {}}
    work = Work(tmp_path, state, started=time.monotonic())
    assert 49 < work.left() <= 50
