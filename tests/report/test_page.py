"""The report of a run, and of several, as a browser would read it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.files import read_json, write_json
from potstill.inference.explain import Explanation, word_spans
from potstill.report.page import report_html
from potstill.report.predictions import PREDICTIONS, read_predictions
from potstill.report.run import read_run
from potstill.report.words import Explain
from tests.report.conftest import SIZE, make_run

VOID = {"meta", "link", "br", "img", "input", "hr"}
SECTIONS = [
    "Scores",
    "Training",
    "Confusion",
    "Classes",
    "Reliability",
    "Accuracy by source",
    "Most confident mistakes",
    "Likely label errors",
    "Data, model, settings",
    "Do it again",
]


class Page(HTMLParser):
    """Collects a page's elements and text, and checks that every element is closed."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(*folders: Path, explain: Explain | None = None) -> tuple[Page, str]:
    html = report_html([read_run(folder) for folder in folders], [explain] * len(folders))
    return Page(html), html


def test_a_report_has_every_section(run_folder: Path) -> None:
    page, _ = page_of(run_folder)
    assert page.headings == SECTIONS
    scores = read_json(run_folder / "results.json")["chosen"]["dev"]
    low, high = scores["mcc_95"]
    assert f"{scores['mcc']:.3f} [{low:.3f}, {high:.3f}]" in page.text
    assert f"{100 * scores['accuracy']:.1f} % {100 * scores['majority']:.1f} %" in page.text
    assert "3 epochs, 6 s" in page.text
    assert "270 sentences/s in training" in page.text
    assert page.text.count("2,800,000") == 1


def test_nothing_is_requested_from_elsewhere(run_folder: Path) -> None:
    page, html = page_of(run_folder)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.elements}
    loading = {"src", "href", "srcset", "action", "data"}
    assert not any(loading & set(attributes) for _, attributes in page.elements)
    assert "url(" not in html
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html


def test_names_labels_and_sentences_are_never_markup(tmp_path: Path) -> None:
    nasty = '<script>alert("1")</script>&amp; {{ 7*7 }} $x$ :heart: [b]'
    texts = tuple(f"{nasty} {i}" for i in range(SIZE))
    run = make_run(
        tmp_path / nasty.replace("/", "-"), labels=(nasty, "<b>good</b>"), name=nasty, texts=texts
    )
    page, _ = page_of(run)
    assert not {"script", "b"} & {tag for tag, _ in page.elements}
    shown = [text for text in page.texts if "alert" in text]
    assert any(text.strip() == nasty for text in shown)
    assert any(text.startswith(f"{nasty} ") for text in shown)


def test_pictures_have_names_for_those_who_do_not_see_them(run_folder: Path) -> None:
    page, html = page_of(run_folder)
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert sum("aria-label" in a for a in pictures) == 4  # three curves, one reliability diagram
    assert all("aria-label" in a or a.get("aria-hidden") == "true" for a in pictures)
    coordinates = re.findall(r'points="([^"]*)"', html)
    assert coordinates and not any("nan" in c or "inf" in c for c in coordinates)


def test_many_classes_are_listed_by_their_confusions(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labels=tuple(f"class {i}" for i in range(30)))
    page, _ = page_of(run)
    assert "true \\ predicted" not in page.text
    assert len(read_predictions(run)["dev"][0].probabilities) <= 6


def test_words_are_coloured_by_what_the_model_makes_of_them(tmp_path: Path) -> None:
    def explain(texts: list[str]) -> list[Explanation]:
        return [
            Explanation(
                text,
                ("bad", "good"),
                "bad",
                np.array([0.9, 0.1]),
                word_spans(text),
                np.array([[0.2, 0.8], [0.25, 0.75], [0.875, 0.125]]),
            )
            for text in texts
        ]

    texts = tuple(f"Some  <i>words</i> <{i}>" for i in range(SIZE))
    page, html = page_of(make_run(tmp_path / "run", texts=texts), explain=explain)
    words = [attributes for tag, attributes in page.elements if tag == "span"]
    assert [w["class"] for w in words[:3]] == ["word", "word", "word decisive"]
    assert [w["style"] for w in words[:3]] == ["--v: 0.200", "--v: 0.250", "--v: 0.875"]
    assert "Some</span>  <span" in html
    assert "&lt;i&gt;words&lt;/i&gt;</span> <span" in html


def test_a_run_without_predictions_says_so(run_folder: Path) -> None:
    (run_folder / PREDICTIONS).unlink()
    page, _ = page_of(run_folder)
    assert "recorded no predictions" in page.text
    assert "Reliability" not in page.headings


def test_runs_side_by_side(run_folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "runs" / "rnn-2", seed=2, lr=0.01)
    page, _ = page_of(run_folder, other)
    assert page.headings == ["Side by side", *SECTIONS, *SECTIONS]
    assert f"rnn-2 against {run_folder.name} dev" in page.text
    assert "lr 0.002 0.01" in page.text
    assert re.search(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\] points", page.text)


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / kind / "student", seed=n) for n, kind in enumerate(("a", "b"))]
    page, _ = page_of(*folders)
    assert "b/student against a/student dev" in page.text


def test_runs_on_other_sentences_are_not_compared(run_folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seed=2, texts=("Another one.",))
    page, _ = page_of(run_folder, other)
    assert "not compared: they were scored on other sentences" in page.text
    (other / PREDICTIONS).unlink()
    page, _ = page_of(run_folder, other)
    assert "not compared: one of the runs recorded no predictions there" in page.text


def test_damaged_runs_are_named(run_folder: Path) -> None:
    def message() -> str:
        with pytest.raises(UserError) as error:
            read_run(run_folder)
        return str(error.value)

    predictions = run_folder / PREDICTIONS
    whole = predictions.read_text()
    predictions.write_text(whole[:-20])
    assert f"{predictions}:{SIZE} is damaged" in message()
    predictions.write_text(whole)
    metrics = run_folder / "metrics.jsonl"
    lines = metrics.read_text()
    metrics.write_text(lines + "[]\n")
    assert f"{metrics}:4 is damaged" in message()
    metrics.write_text(lines)
    results = read_json(run_folder / "results.json")
    write_json(run_folder / "results.json", results | {"chosen": {"dev": {"accuracy": 1}}})
    assert "results.json lacks scores" in message()
    write_json(run_folder / "results.json", results)
    config = read_json(run_folder / "config.json")
    write_json(run_folder / "config.json", {k: v for k, v in config.items() if k != "labels"})
    assert "config.json has no labels" in message()
    (run_folder / "results.json").unlink()
    assert "holds no run" in message()
