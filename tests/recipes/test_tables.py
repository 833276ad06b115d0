"""Tables and lines: names as they are, and many classes in what can be read."""

import logging

import numpy as np
import pytest

from potstill.metrics import evaluation
from potstill.recipes import console
from potstill.recipes.tables import comparison_table, evaluation_table, shortened

NAMES = ("[red]", ":heart:", "a[/]b")


def printed(function, *args: object) -> str:
    with console.console.capture() as capture:
        function(*args)
    return capture.get()


def scores(classes: int, n: int = 400) -> dict[str, object]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    return evaluation(logits, labels, [f"[{label % 2}] :smile:" for label in labels])


def test_names_are_printed_as_they_are() -> None:
    out = printed(evaluation_table, "dev", scores(3), NAMES, ":on:")
    for name in (*NAMES, "[0] :smile:", "[1] :smile:", ":on:"):
        assert name in out
    assert "❤" not in out and "😄" not in out
    rows = {"[bold]model[/] :joy:": {"parameters": 5, "scores": {"dev": scores(2)}}}
    out = printed(comparison_table, "toy[clean] smile:smile:, SR 3", rows)
    assert "toy[clean] smile:smile:, SR 3" in out
    assert "[bold]model[/] :joy:" in out


def test_lines_are_printed_as_they_are_but_for_control_characters() -> None:
    out = printed(console.echo, "I :heart: [this]\x1b[31m\x07 and 感情")
    assert out == "I :heart: [this]\\x1b[31m\\x07 and 感情\n"


@pytest.mark.parametrize("classes", [2, 8, 20, 60, 300])
def test_scores_of_any_number_of_classes_can_be_read(
    classes: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "potstill")
    monkeypatch.setattr(console.console, "width", 80)
    names = [f"class number {i}" if classes > 8 else f"c{i}" for i in range(classes)]
    measured = scores(classes, 3 * classes + 100)
    out = printed(evaluation_table, "dev", measured, names, "source")
    lines = out.splitlines()
    assert "…" not in out
    assert all(len(line) <= 110 for line in lines)
    assert len(lines) < 60
    worst = int(np.argmin(np.where(measured["classes"]["support"], measured["classes"]["f1"], 2)))
    assert any(line.split("  ")[0].strip() == names[worst] for line in lines)
    assert ("true \\ predicted" in out) == (classes <= 8)
    assert ("most often confused" in out) == (classes > 8)
    assert ("classes with the lowest F1" in caplog.text) == (classes > 12)


def test_long_labels_are_shortened() -> None:
    out = printed(evaluation_table, "dev", scores(2), ["x" * 300, "y"], "source")
    assert "x" * 23 + "…" in out and "x" * 24 not in out


def test_what_is_shortened_says_so() -> None:
    assert shortened(["a", "b"]) == "a, b"
    assert shortened([str(i) for i in range(10)], most=3) == "0, 1, 2 and 7 more"
    assert shortened([]) == ""
