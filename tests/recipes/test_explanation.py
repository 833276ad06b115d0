"""How an explanation is printed."""

import io

import numpy as np
import pytest
from rich.console import Console

from potstill.inference.explain import Explanation, by_label, word_spans
from potstill.recipes.explanation import CLASS_COLOURS, explanation_text

TEXT = "The books  is [red]old[/red]"
SCORES = [0.3, 0.45, 0.95, 0.9]  # of "bad"


def some_explanation() -> Explanation:
    rows = np.array([[p, 1 - p] for p in SCORES])
    probabilities = np.array([0.9, 0.1])
    return Explanation(TEXT, ("bad", "good"), "bad", probabilities, word_spans(TEXT), rows)


def rendered(**options: bool) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, **options)
    console.print(explanation_text("bad  90.0 %  ", some_explanation()))
    return console.file.getvalue()


def test_words_have_the_colour_of_their_class_and_the_decisive_one_is_underlined() -> None:
    text = explanation_text("", some_explanation())
    styles = {text.plain[span.start : span.end]: [] for span in text.spans}
    for span in text.spans:
        styles[text.plain[span.start : span.end]].append(str(span.style))
    bad, good = CLASS_COLOURS[:2]
    assert styles["The"] == [good] == styles["books"]
    assert styles["is"] == [f"bold {bad}", "underline"]
    assert styles["[red]old[/red]"] == [f"bold {bad}"]  # no markup of the sentence's own


def test_a_terminal_gets_colours_and_a_pipe_none() -> None:
    plain = (
        "bad  90.0 %  The books  is [red]old[/red]\n"
        "             The 30  books 45  is 95*  [red]old[/red] 90\n"
    )
    assert rendered() == plain
    coloured = rendered(force_terminal=True)
    assert "\x1b[4" in coloured or ";4" in coloured
    assert "\x1b" not in plain


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = rendered(force_terminal=True)
    assert "38;5" not in out and ";4m" in out  # underlined all the same


def test_a_text_without_words_has_no_decisive_one() -> None:
    empty = Explanation("x", ("a", "b"), "b", np.array([0.4, 0.6]), [], np.empty((0, 2)))
    assert explanation_text("b  ", empty).plain == "b  x\n   "


def test_probabilities_are_rounded_by_name() -> None:
    assert by_label(("a", "b"), [0.123456, 0.876544]) == {"a": 0.1235, "b": 0.8765}
