"""The functions for Python: finetune, distil and train_baseline."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import potstill
from potstill import (
    Corpus,
    DataSettings,
    LoRASettings,
    StudentSettings,
    TrainSettings,
    UserError,
    distil,
    finetune,
    load,
    load_corpus,
    train_baseline,
)
from potstill.cli import main
from potstill.decoder.hub import find_base_model
from tests.cli.conftest import SMALL, weights, write_toy

STUDENT = StudentSettings(hidden_size=8, embedding_size=8, vocab_size=300)
TRAIN = TrainSettings(epochs=2)
SENTENCES = ["The cats is old.", "The dogs are old."]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Commands that were run in this process have left the handler that prints.
    monkeypatch.setattr(logging.getLogger("potstill"), "handlers", [])
    return tmp_path


@pytest.fixture
def corpus(empty_folder: Path) -> Corpus:
    return load_corpus(str(write_toy(empty_folder / "toy")))


def tuned(base: Any, data: Any, **settings: Any) -> Any:
    return finetune(base, data, seed=4, train=TrainSettings(epochs=1, lr=6e-4), **settings)


def test_from_a_base_model_to_a_student(
    tiny_gpt2: Path, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a corpus and a teacher that are loaded; nothing of potstill's is printed."""
    lora = LoRASettings(LoRA_rank=2)
    teacher = tuned(find_base_model(str(tiny_gpt2)), corpus, lora=lora)
    assert teacher.rank == 2
    assert load("runs/LoRA-4").config["SR"] == 4
    student = distil(teacher, corpus, seed=1, student=STUDENT, train=TRAIN)
    assert student.predict(SENTENCES).shape == (2,)
    assert set(student.classes_) == set(corpus.labels)
    assert {"dev", "ood"} <= set(student.evaluate(corpus))
    saved = load("runs/distil-1")
    np.testing.assert_array_equal(saved.logits(SENTENCES), student.logits(SENTENCES))
    assert saved.config["teacher"]["path"] == "runs/LoRA-4"
    assert {path.name for path in Path().iterdir()} == {"toy", "runs"}  # no plot
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "accuracy" not in printed.err


def test_a_baseline_into_a_named_folder(corpus: Corpus) -> None:
    student = train_baseline(
        corpus, seed=1, student=STUDENT, train=TRAIN, output="out/tiny", plots_path="out"
    )
    assert student.config["command"] == "rnn"
    assert sorted(f.name for f in Path("out").iterdir()) == ["rnn_training_plot.png", "tiny"]


@pytest.mark.parametrize("teacher", ["loaded", "its folder"])
def test_the_commands_do_the_same(teacher: str, tiny_gpt2: Path, corpus: Corpus) -> None:
    by_function = tuned(str(tiny_gpt2), "toy", output="tuned")
    flags = ["--data", "toy", "--epochs", "1", "--output", "by-command"]
    main(args=["LoRA", "4", "--gpt_variant", str(tiny_gpt2), *flags])
    assert weights("tuned") == weights("by-command")

    given = by_function if teacher == "loaded" else "tuned"
    distil(given, seed=1, student=STUDENT, train=TRAIN, output="distilled")
    small = list(map(str, SMALL))
    main(args=["distil", "1", "--teacher", "tuned", "--epochs", "2", *small])
    assert weights("distilled") == weights("runs/distil-1")
    configs = [
        json.loads(Path(f, "config.json").read_text()) for f in ("distilled", "runs/distil-1")
    ]
    assert configs[0] == configs[1]


def test_data_settings_are_the_columns_and_the_slice(tiny_gpt2: Path) -> None:
    rows = (f"The {'cats' if i % 2 else 'dogs'} are {i}.,{'ab'[i % 2]}\n" for i in range(60))
    Path("kinds.csv").write_text("body,kind\n" + "".join(rows))
    settings = DataSettings(text_column="body", label_column="kind", holdout=0)
    teacher = tuned(str(tiny_gpt2), Path("kinds.csv"), data_settings=settings)
    assert teacher.classes_.tolist() == ["a", "b"]
    assert teacher.config["settings"]["data"] == "kinds.csv"
    student = distil(teacher, seed=1, student=STUDENT, train=TRAIN)  # data and columns its own
    recorded = student.config["settings"]
    assert (recorded["data"], recorded["text_column"]) == ("kinds.csv", "body")
    assert recorded["holdout"] == DataSettings().holdout


def test_progress_is_shown_to_whoever_asks(corpus: Corpus) -> None:
    totals: list[int] = []
    shown: list[int] = []

    @contextmanager
    def progress(total: int) -> Iterator[Callable[[int, str], None]]:
        totals.append(total)
        yield lambda done, description: shown.append(done)

    train_baseline(corpus, seed=1, student=STUDENT, train=TRAIN, progress=progress)
    assert len(totals) == 2  # the language model, then the student
    assert totals[-1] == shown[-1] == 2 * 57  # of 60 sentences 3 are held out


def test_what_is_done_is_logged(corpus: Corpus, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "potstill")
    train_baseline(corpus, seed=1, student=STUDENT, train=TRAIN)
    assert "data: toy" in caplog.text
    assert "MCC" in caplog.text


def test_a_student_is_no_teacher(corpus: Corpus) -> None:
    train_baseline(corpus, seed=1, student=STUDENT, train=TRAIN)
    with pytest.raises(UserError, match="is a student; a teacher is a LoRA adapter"):
        distil("runs/rnn-1", seed=1)


def test_a_folder_that_is_no_run_is_not_replaced(corpus: Corpus) -> None:
    Path("thesis").mkdir()
    Path("thesis/chapter").touch()
    with pytest.raises(UserError, match="`output`: thesis"):
        train_baseline(corpus, seed=1, output="thesis")
    assert [f.name for f in Path("thesis").iterdir()] == ["chapter"]


def test_the_functions_are_public() -> None:
    assert {"distil", "finetune", "train_baseline"} <= set(potstill.__all__)
