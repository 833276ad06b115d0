"""What results look like in a notebook."""

import xml.etree.ElementTree as ET

import potstill
from potstill.html import html_table


def cells(html: str) -> list[list[str]]:
    """Return the text of each row of the tables in `html`, which must be well-formed."""
    page = ET.fromstring(f"<page>{html}</page>")
    return [["".join(cell.itertext()) for cell in row] for row in page.iter("tr")]


def test_nothing_in_a_table_is_markup() -> None:
    html = html_table(("<b>", "n"), [("</td>&amp;", 1)], caption="<script>")
    assert cells(html) == [["<b>", "n"], ["</td>&amp;", "1"]]
    assert "<script>" not in html


def test_scores_are_a_dict_and_a_table() -> None:
    scores = potstill.load().evaluate("minicola")
    assert isinstance(scores, dict)
    header, dev, ood = cells(scores._repr_html_())
    assert header == ["", "sentences", "accuracy", "majority class", "MCC [95 %]"]
    assert dev[:2] == ["dev", "500"] and dev[3] == "70.60 %"
    assert dev[2] == f"{100 * scores['dev']['accuracy']:.2f} %"
    assert ood[0] == "ood"


def test_a_corpus_is_a_table_of_its_classes() -> None:
    rows = cells(potstill.load_corpus("minicola")._repr_html_())
    assert rows[0] == ["", "sentences", "unacceptable", "acceptable"]
    assert rows[1] == ["train", "3,000", "903", "2,097"]


def test_a_classifier_says_what_it_is() -> None:
    rows = cells(potstill.load()._repr_html_())
    assert rows[0][0] == "DistilRNN"
    assert ["classes", "unacceptable, acceptable"] in rows
